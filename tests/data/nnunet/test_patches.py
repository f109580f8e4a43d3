"""Patches: the same for any number of workers, a third with foreground, changed as nnU-Net changes them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from data.nnunet.conftest import TOYS
from torch.utils.data import DataLoader

from samaritan.data.nnunet import patches
from samaritan.data.nnunet.augment import PatchAugment, blurred, coarsened
from samaritan.data.nnunet.moving import move, rotation
from samaritan.data.nnunet.patches import PatchDataset
from samaritan.data.sampling import Draw, DrawSampler
from samaritan.errors import ConfigError

STILL = PatchAugment(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
ALWAYS = PatchAugment(1, 1, 1, 1, 1, 1, 1, 1, 1)


@pytest.fixture
def own(planned):
    return replace(planned.plans.configuration("3d_fullres"), patch_size=(8, 12, 16), batch_size=3)


@pytest.mark.parametrize("workers", [1, 2])
def test_items_are_the_same_for_any_number_of_workers(workers, planned, own) -> None:
    data = PatchDataset(planned, own, TOYS, augment=ALWAYS)
    sampler = DrawSampler(data.cases, length=6)
    alone = [data[draw] for draw in sampler]
    loader = DataLoader(data, batch_size=3, sampler=sampler, num_workers=workers)
    together = [{k: v[n] for k, v in batch.items()} for batch in loader for n in range(3)]
    for one, two in zip(alone, together, strict=True):
        assert one["image"].shape == (1, 8, 12, 16)
        assert one["label"].dtype == torch.int64
        assert all(torch.equal(one[k], two[k]) for k in one)


def test_items_depend_on_epoch_turn_and_seed(planned, own) -> None:
    data = PatchDataset(planned, own, TOYS)
    first = data[Draw(1, 0, 0)]["image"]
    assert torch.equal(data[Draw(1, 0, 0)]["image"], first)
    seeded = PatchDataset(planned, own, TOYS, seed=1)
    others = [data[Draw(1, 1, 0)], data[Draw(1, 0, 1)], seeded[Draw(1, 0, 0)]]
    assert not any(torch.equal(o["image"], first) for o in others)


def test_the_last_of_each_batch_show_foreground(planned, own) -> None:
    small = replace(own, patch_size=(2, 3, 3))
    data = PatchDataset(planned, small, TOYS, foreground=0.33)
    shown = [[bool(data[Draw(0, e, t)]["label"].any()) for e in range(30)] for t in range(3)]
    assert all(shown[2])
    assert not all(shown[0])
    assert not all(shown[1])
    seen = {int(v) for e in range(30) for v in data[Draw(0, e, 2)]["label"][1:2, 1:2, 1:2].unique()}
    assert seen == {1, 2}


@pytest.mark.parametrize("start", [(0, 0, 0), (-2, 3, 7), (8, 20, -5), (100, 0, 0)])
def test_what_is_outside_is_zero_and_outside(start, planned, own) -> None:
    case = planned.case(own, TOYS[2])
    padded = np.pad(case.image, ((0, 0), (200, 200), (200, 200), (200, 200)))
    drawn = np.pad(case.labels[0], 200, constant_values=-1)
    where = tuple(slice(200 + s, 200 + s + n) for s, n in zip(start, (4, 5, 6), strict=True))
    image, labels = patches._read(case, start, (4, 5, 6))
    assert np.array_equal(image, padded[(slice(None), *where)])
    assert np.array_equal(labels, drawn[where])


def test_smaller_images_lie_in_the_middle_of_zeros(planned, own) -> None:
    large = replace(own, patch_size=(40, 60, 60))
    item = PatchDataset(planned, large, TOYS, foreground=0.0)[Draw(0, 0, 0)]
    shape = planned.case(own, TOYS[0]).shape
    inside = item["image"][0] != 0
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        spots = torch.nonzero(inside.any(dim=others[1]).any(dim=others[0]))
        assert spots.max() - spots.min() + 1 <= shape[axis]
        assert spots.min() > 0


def test_flat_configurations_give_slices(planned) -> None:
    flat = replace(planned.plans.configuration("2d"), patch_size=(12, 16), batch_size=2)
    augment = replace(ALWAYS, mirror_axes=(0, 1))
    item = PatchDataset(planned, flat, TOYS, augment=augment)[Draw(0, 0, 1)]
    assert item["image"].shape == (1, 12, 16)
    assert item["label"].shape == (12, 16)


def test_with_an_ignored_label_patches_show_what_is_decided(planned, own) -> None:
    data = PatchDataset(planned, replace(own, patch_size=(2, 3, 3)), TOYS, foreground=0.0)
    data.labels = replace(data.labels, ignore=3)
    case = planned.case(own, TOYS[0])
    spot = np.array([[5, 6, 7]], np.int32)
    decided = replace(case, places={**case.places, data.labels.annotated: spot})
    data._case = lambda _: decided
    item = data[Draw(0, 0, 0)]["image"][0]
    assert np.array_equal(item.numpy(), case.image[0, 4:6, 5:8, 6:9])


def test_unknown_cases_and_patches_of_other_axes_are_told(planned, own) -> None:
    with pytest.raises(ConfigError, match="'nobody'"):
        PatchDataset(planned, own, ["nobody"])
    with pytest.raises(ConfigError, match="no case"):
        PatchDataset(planned, own, [])
    with pytest.raises(ConfigError, match="have 3 axes"):
        PatchDataset(planned, own, TOYS, patch_size=(8, 8))


# -- what is changed -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patch", "wanted"),
    [
        ((40, 56, 40), (73, 80, 64)),
        ((96, 160, 160), (191, 257, 219)),
        ((10, 256, 224), (10, 301, 301)),
        ((256, 224), (301, 301)),
        ((256, 100), (321, 117)),
    ],
)
def test_as_much_is_read_around_a_patch_as_by_nnunet(patch, wanted) -> None:
    assert PatchAugment().read_size(patch) == wanted  # its get_patch_size gives the same


def test_without_turns_and_scales_no_more_is_read() -> None:
    assert STILL.read_size((4, 5, 6)) == (4, 5, 6)


@pytest.mark.parametrize("angles", [[0.4], [0.3, -0.2, 0.5]])
def test_labels_are_those_of_the_largest_share(angles) -> None:
    dice = torch.Generator().manual_seed(0)
    coarse = torch.randint(-1, 4, (1, 1, 4, 5, 6), generator=dice).float()
    labels = torch.nn.functional.interpolate(coarse, size=(8, 20, 24))[0, 0].short()
    matrix, out = rotation(angles) * 1.3, (8, 15, 17)
    _, found = move(torch.zeros(1, 8, 20, 24), labels, out, matrix)
    shares = []
    for value in range(-1, 4):
        beyond = float(value == -1)  # outside there is nothing else
        mask = (labels == value).float() - beyond
        shares.append(move(mask[None], labels, out, matrix)[0][0] + beyond)
    assert torch.stack(shares).sum(0) == pytest.approx(1, abs=1e-5)
    assert torch.equal(found, torch.stack(shares).argmax(0).short() - 1)


def test_a_quarter_turn_is_exact() -> None:
    image = torch.arange(2 * 5 * 5.0).reshape(2, 5, 5)
    moved, labels = move(image[None], image.short(), (2, 5, 5), rotation([np.pi / 2]))
    assert moved[0] == pytest.approx(torch.rot90(image, -1, (1, 2)), abs=1e-4)
    assert torch.equal(labels, torch.rot90(image, -1, (1, 2)).short())


def test_a_larger_scale_shows_more() -> None:
    image = torch.zeros(1, 1, 21, 21)
    image[..., 5:16, 5:16] = 1
    nearer, _ = move(image, image[0].short(), (1, 21, 21), rotation([0.0]) * 0.7)
    further, _ = move(image, image[0].short(), (1, 21, 21), rotation([0.0]) * 1.4)
    assert further.sum() < image.sum() < nearer.sum()


def test_intensities_keep_their_mean_and_deviation_under_gamma() -> None:
    image = torch.randn((2, 6, 7, 8), generator=torch.Generator().manual_seed(0))
    for power in ("gamma", "inverted_gamma"):
        augment = replace(STILL, **{power: 1.0})
        changed, _ = augment(
            image.clone(), torch.zeros(6, 7, 8), (6, 7, 8), np.random.default_rng(1)
        )
        assert not torch.equal(changed, image)
        assert changed.mean(dim=(1, 2, 3)) == pytest.approx(image.mean(dim=(1, 2, 3)), abs=1e-5)
        assert changed.std(dim=(1, 2, 3)) == pytest.approx(image.std(dim=(1, 2, 3)), abs=1e-5)
        assert torch.equal(changed[0].flatten().argsort(), image[0].flatten().argsort())


INTENSITIES = ("noise", "blur", "brightness", "contrast", "coarseness")


@pytest.mark.parametrize("part", [*INTENSITIES, "mirror", "turn", "scale"])
def test_each_change_is_made_from_its_generator_alone(part) -> None:
    augment = replace(STILL, **{part: 1.0})
    size = augment.read_size((6, 7, 8))
    image = torch.randn((4, *size), generator=torch.Generator().manual_seed(0))
    labels = (image[0] > 0).short()
    drawn = [
        augment(image.clone(), labels.clone(), (6, 7, 8), np.random.default_rng(s))
        for s in (3, 3, 4)
    ]
    assert torch.equal(drawn[0][0], drawn[1][0])
    assert torch.equal(drawn[0][1], drawn[1][1])
    assert drawn[0][0].shape == (4, 6, 7, 8)
    if part != "mirror":
        assert not torch.equal(drawn[0][0], drawn[2][0])
    if part in INTENSITIES:
        assert torch.equal(drawn[0][1], labels)


def test_blur_and_lost_resolution_keep_what_is_constant() -> None:
    flat = torch.full((3, 4, 5), 2.5)
    assert blurred(flat, [0.5, 0.8, 1.0]) == pytest.approx(flat)
    assert coarsened(flat, 0.5, keep_first=False) == pytest.approx(flat)
    steps = torch.arange(3.0)[:, None, None].expand(3, 4, 5)
    assert torch.equal(coarsened(steps, 0.5, keep_first=True), steps)


def test_masked_channels_are_zero_outside_the_image() -> None:
    labels = torch.zeros(4, 5, 6)
    labels[:, :2] = -1
    changed, _ = STILL(
        torch.ones(2, 4, 5, 6), labels, (4, 5, 6), np.random.default_rng(0), (False, True)
    )
    assert changed[0].min() == 1
    assert torch.equal(changed[1] == 0, labels == -1)
