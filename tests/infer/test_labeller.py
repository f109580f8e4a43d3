"""Volumes labelled in windows: on the scan's own grid, however it lies; streamed, mirrored, averaged."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from infer.planned import ByGrey, Convolved, chain, dice, scene
from torch.utils._python_dispatch import TorchDispatchMode

from samaritan.data.nnunet.rawset import RawCase
from samaritan.data.nnunet.restoring import slabs_of
from samaritan.errors import ConfigError, FileError
from samaritan.geometry import Grid
from samaritan.infer.labeller import Member, VolumeLabeller
from samaritan.infer.sliding import SlidingWindows
from samaritan.models.patch_classes import patch_logits
from samaritan.volume import Volume

CODES = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*order)
]


def labeller(*models, made=None, **options) -> VolumeLabeller:
    found = made or chain()
    return VolumeLabeller(tuple(Member(m, found) for m in models or (ByGrey(),)), **options)


def whole(one: VolumeLabeller, volume: Volume) -> np.ndarray:
    """Probabilities (heads, k, j, i) on the scan, all of them in memory."""
    stream, way = one._probabilities(RawCase.of(one._turned(volume)))
    return way.probabilities_from((f, p.clamp(min=1e-30).log()) for f, p in stream)


# -- where labels lie ----------------------------------------------------------------------------------


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("spacing", [(4.0, 1.0, 1.3), (3.0, 1.2, 1.1), (6.0, 1.5, 0.8)])
def test_labels_come_back_where_the_image_has_them(transpose, spacing) -> None:
    volume, truth = scene()
    made = chain(spacing=tuple(spacing[a] for a in transpose), transpose=transpose, patch=(8, 8, 8))
    found = labeller(made=made).labels(volume)
    assert found.grid == volume.grid
    assert found.names == {1: "near", 2: "far"}
    for value in (1, 2):
        assert dice(found.array == value, truth.array == value) > 0.86


@pytest.mark.parametrize("code", CODES)
def test_axes_that_lie_otherwise_make_no_difference(code: str) -> None:
    """Trained on LPS: a scan stored in any other order gets the same labels, voxel for voxel."""
    made = chain(orientation="LPS")
    volume, _ = scene()
    one = labeller(Convolved(), made=made)
    wanted = one.labels(volume).reorient(code)
    turned = volume.reorient(code)
    found = one.labels(turned)
    assert found.grid.same_as(turned.grid)
    assert len(np.unique(found.array)) == 3
    assert np.array_equal(found.array, wanted.array)


def test_without_an_orientation_axes_are_taken_as_they_lie() -> None:
    volume, _ = scene()
    one = labeller(Convolved())
    flipped = volume.flip((0,))
    same = np.array_equal(one.labels(flipped).array, one.labels(volume).flip((0,)).array)
    assert not same
    assert one.labels(flipped).grid == flipped.grid


def test_oblique_scans_keep_their_geometry() -> None:
    volume, truth = scene()
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    oblique = Volume(volume.array, Grid(volume.shape, turn @ volume.grid.affine))
    found = labeller(made=chain(orientation="LPS")).labels(oblique)
    assert found.grid == oblique.grid
    assert dice(found.array == 1, truth.array == 1) > 0.86


def test_models_of_slices_label_volumes_too() -> None:
    volume, truth = scene()
    made = chain(spacing=(1.2, 1.1), patch=(16, 12), mirror=(0, 1))
    model = ByGrey()
    found = labeller(model, made=made).labels(volume)
    assert all(len(shape) == 4 for shape in model.seen)
    assert dice(found.array == 2, truth.array == 2) > 0.86


def test_pictures_are_volumes_of_one_slice() -> None:
    pixels = np.zeros((40, 50, 1), np.uint8)
    pixels[10:30, 8:20] = 100
    made = chain(spacing=(1.0, 1.0), patch=(16, 12), orientation="LPS")
    found = labeller(made=made).labels(Volume(pixels, Grid.pixels((40, 50))))
    assert np.array_equal(found.array, pixels // 100)


# -- what the same is ----------------------------------------------------------------------------------


def test_streamed_labels_are_those_of_whole_arrays() -> None:
    volume, _ = scene()
    one = labeller(Convolved())
    prepared = one.chain.prepare(RawCase.of(volume))
    windows = SlidingWindows((4, 16, 12))
    every = windows.logits(lambda x: patch_logits(one.model, x).softmax(1), prepared.image)
    way = one.chain.way_back(prepared)
    wanted = way.labels_from(slabs_of(every)).T
    found = one.labels(volume).array
    assert len(np.unique(found)) == 3
    assert np.array_equal(found, wanted)


class Largest(TorchDispatchMode):
    """Sees how many numbers the largest tensor holds that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else (made,):
            if isinstance(one, torch.Tensor):
                self.numbers = max(self.numbers, one.numel())
        return made


def test_no_array_of_all_classes_of_a_volume_is_made() -> None:
    """As large as a window is deep, however many slices there are."""
    labels = {"background": 0, **{f"part{n}": n for n in range(1, 16)}}
    rng = np.random.default_rng(0)
    seen = {}
    for slices in (24, 96):
        grid = Grid.from_spacing((20, 18, slices), (1.1, 1.2, 3.0), orientation="LPS")
        volume = Volume(rng.integers(0, 160, grid.shape).astype(np.int16), grid)
        made = chain(labels=labels, patch=(4, 16, 12))
        model = ByGrey(tuple(10.0 * n for n in range(16)))
        with Largest() as largest:
            found = labeller(model, made=made).labels(volume)
        assert len(np.unique(found.array)) == 16
        seen[slices] = largest.numbers
    assert seen[24] == seen[96] == 16 * 4 * 18 * 20


def test_probabilities_sum_to_one_and_their_largest_is_the_label() -> None:
    volume, _ = scene()
    one = labeller(Convolved(), Convolved(seed=1))
    found = whole(one, volume)
    assert found.shape == (3, *volume.shape[::-1])
    assert found.sum(axis=0) == pytest.approx(1, abs=1e-5)
    assert np.array_equal(found.argmax(axis=0).T, one.labels(volume).array)


def test_mirrored_views_make_the_answer_the_same_for_mirrored_scans() -> None:
    volume, _ = scene(zeros=False)
    made = chain(mirror=(0, 1, 2), spacing=(4.0, 1.0, 1.3), patch=(5, 15, 11))
    for axes in [(0,), (1, 2), (0, 1, 2)]:
        one = labeller(Convolved(), made=made)
        there, back = whole(one, volume), whole(one, volume.flip(axes))
        assert np.abs(np.flip(back, [3 - a for a in axes]) - there).max() < 1e-5
        without = replace(one, mirror=False)
        crooked = np.flip(whole(without, volume.flip(axes)), [3 - a for a in axes])
        assert np.abs(crooked - whole(without, volume)).max() > 0.05


def test_mirroring_costs_two_to_the_axes() -> None:
    volume, _ = scene()
    seen = []
    for mirror in (True, False):
        model = ByGrey()
        _ = labeller(model, made=chain(mirror=(1, 2)), mirror=mirror).labels(volume)
        seen.append(len(model.seen))
    assert seen[0] == 4 * seen[1]


def test_batches_change_nothing() -> None:
    volume, _ = scene()
    one = labeller(Convolved())
    assert np.array_equal(one.labels(volume).array, replace(one, batch_size=5).labels(volume).array)


# -- several models ------------------------------------------------------------------------------------


def test_models_are_averaged_as_probabilities() -> None:
    volume, _ = scene()
    one, two = Convolved(), Convolved(seed=1)
    apart = [whole(labeller(m), volume) for m in (one, two)]
    both = whole(labeller(one, two), volume)
    assert np.abs(apart[0] - apart[1]).max() > 0.1
    assert both == pytest.approx((apart[0] + apart[1]) / 2, abs=1e-5)


def test_a_model_beside_itself_changes_nothing() -> None:
    volume, _ = scene()
    alone, twice = labeller(Convolved()), labeller(Convolved(), Convolved())
    assert np.array_equal(alone.labels(volume).array, twice.labels(volume).array)


def test_models_of_other_plans_are_averaged_on_the_scan() -> None:
    """Slices and volumes, coarse and fine: as nnU-Net ensembles configurations."""
    volume, _ = scene()
    solid, flat = chain(), chain(spacing=(1.5, 1.5), patch=(16, 12))
    members = (
        Member(Convolved(), solid),
        Member(Convolved(dims=2), flat),
        Member(Convolved(seed=2), replace(solid, fold=1)),
    )
    apart = [whole(VolumeLabeller((m,)), volume) for m in members]
    assert whole(VolumeLabeller(members), volume) == pytest.approx(sum(apart) / 3, abs=1e-5)


def test_models_that_label_otherwise_are_refused() -> None:
    other = chain(labels={"background": 0, "liver": 1, "far": 2}, orientation="LPS")
    with pytest.raises(ConfigError, match="differ in labels, orientation: only models of one"):
        VolumeLabeller((Member(ByGrey(), chain()), Member(ByGrey(), other)))
    with pytest.raises(ConfigError, match="no model"):
        VolumeLabeller(())


# -- regions, channels, and what is wrong -----------------------------------------------------------------


def test_regions_are_painted_one_over_the_other() -> None:
    volume, truth = scene()
    made = chain(labels={"background": 0, "both": [1, 2], "far": 2}, regions_class_order=[1, 2])

    class Regions(ByGrey):
        def forward(self, images, *_, **__):
            return torch.cat([images - 50, images - 150], dim=1)

    found = labeller(Regions(), made=made).labels(volume)
    assert found.names == {1: "both", 2: "far"}
    for value in (1, 2):
        assert dice(found.array == value, truth.array == value) > 0.86


def test_channels_are_those_of_training() -> None:
    volume, truth = scene()
    two = Volume(
        np.stack([volume.array[::-1], volume.array], -1), volume.grid, channels=("T1", "T2")
    )
    found = labeller(made=chain(channels=2)).labels(two)
    assert dice(found.array == 1, truth.array == 1) > 0.86
    with pytest.raises(ConfigError, match=r"1 channel and the model takes 2: MRI 0, MRI 1\. Name"):
        labeller(made=chain(channels=2)).labels(volume)
    with pytest.raises(ConfigError, match=r"2 channels \(T1, T2\) and the model takes 1: MRI 0"):
        labeller().labels(two)


def test_an_empty_scan_is_background_and_a_broken_one_is_told() -> None:
    volume, _ = scene()
    assert not labeller().labels(volume.with_array(0 * volume.array)).array.any()
    broken = volume.array.astype(np.float32)
    broken[3, 4, 5] = np.nan
    with pytest.raises(FileError, match="not finite"):
        labeller().labels(volume.with_array(broken))
