"""Sliding windows: the plain sum over all windows, handed on slice by slice."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from samaritan.errors import ConfigError
from samaritan.infer.sliding import SlidingWindows, window_starts, window_weights

WEIGHT_SUM, WEIGHT_CORNER = 59.04269096193599, 3.775134371775124e-11
"""Of compute_gaussian((6, 16, 20)) of nnU-Net 2.8.1."""


def network(dims: int, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    conv = torch.nn.Conv3d if dims == 3 else torch.nn.Conv2d
    return torch.nn.Sequential(conv(2, 4, 3, padding=1), torch.nn.ReLU(), conv(4, 3, 3, padding=1))


def image(*shape: int) -> torch.Tensor:
    return torch.randn((2, *shape), generator=torch.Generator().manual_seed(1))


def plainly(model, picture, patch, mirror=()):
    """All windows of an image that is large enough, summed up in one array."""
    shape = picture.shape[1:]
    weights = window_weights(patch)
    total, sums = torch.zeros(3, *shape), torch.zeros(shape)
    starts = [window_starts(n, p, 0.5) for n, p in zip(shape, patch, strict=True)]
    for place in itertools.product(*starts):
        where = (slice(None), *(slice(s, s + p) for s, p in zip(place, patch, strict=True)))
        shown, answers = picture[where][None], []
        for count in range(len(mirror) + 1):
            for axes in itertools.combinations([a + 2 for a in mirror], count):
                answers.append(model(shown.flip(axes)).flip(axes)[0])
        total[where] += torch.stack(answers).mean(0) * weights
        sums[where[1:]] += weights
    return (total / sums).detach()


@pytest.mark.parametrize("batch_size", [1, 3, 5, 7])
@pytest.mark.parametrize("mirror", [(), (0, 1, 2)])
def test_the_sum_is_that_over_all_windows(batch_size, mirror) -> None:
    model, picture = network(3), image(11, 16, 19)
    windows = SlidingWindows((4, 10, 8), mirror=mirror, batch_size=batch_size)
    wanted = plainly(model, picture, (4, 10, 8), mirror)
    assert torch.allclose(windows.logits(model, picture), wanted, atol=1e-5)
    assert torch.allclose(windows.logits(model, picture.numpy()), wanted, atol=1e-5)


def test_models_of_slices_see_each_slice_by_itself() -> None:
    model, picture = network(2), image(3, 16, 19)
    found = SlidingWindows((10, 8), mirror=(0, 1)).logits(model, picture)
    for z in range(3):
        one = plainly(model, picture[:, z], (10, 8), (0, 1))
        assert torch.allclose(found[:, z], one, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 16, 19), (11, 5, 19), (2, 3, 4)])
def test_smaller_images_lie_in_the_middle_of_zeros(shape) -> None:
    model, picture, patch = network(3), image(*shape), (4, 10, 8)
    spare = [max(p - n, 0) for n, p in zip(shape, patch, strict=True)]
    around = [side for s in reversed(spare) for side in (s // 2, s - s // 2)]
    wanted = plainly(model, torch.nn.functional.pad(picture, around), patch)
    inside = tuple(slice(s // 2, s // 2 + n) for s, n in zip(spare, shape, strict=True))
    found = SlidingWindows(patch).logits(model, picture)
    assert found.shape == (3, *shape)
    assert torch.allclose(found, wanted[(slice(None), *inside)], atol=1e-5)


def test_slices_are_handed_on_while_later_ones_are_not_predicted() -> None:
    picture = np.zeros((2, 40, 10, 8), np.float32)
    done = []

    def model(windows):
        done.append(len(windows))
        return torch.zeros(len(windows), 3, *windows.shape[2:])

    seen = [(z, len(done)) for z, slab in SlidingWindows((4, 10, 8)).slabs(model, picture)]
    assert [z for z, _ in seen] == list(range(40))
    assert len(done) == 19
    assert all(windows <= z // 2 + 2 for z, windows in seen)


def test_weights_and_places_are_those_of_nnunet() -> None:
    weights = window_weights((6, 16, 20))
    assert weights.max() == weights[3, 8, 10] == 1
    assert weights.min() > 0
    assert float(weights.double().sum()) == pytest.approx(WEIGHT_SUM, rel=1e-6)
    assert float(weights[0, 0, 0]) == pytest.approx(WEIGHT_CORNER, rel=1e-5)
    assert window_starts(10, 4, 0.5) == [0, 2, 4, 6]
    assert window_starts(110, 64, 0.5) == [0, 23, 46]
    assert window_starts(17, 6, 0.5) == [0, 3, 6, 8, 11]
    assert window_starts(47, 20, 0.5) == [0, 9, 18, 27]
    assert window_starts(14, 14, 0.5) == [0]


@pytest.mark.parametrize("patch", [(4, 256, 256), (9, 512, 512), (128, 128, 128)])
def test_no_voxel_of_a_window_weighs_nothing(patch) -> None:
    weights = window_weights(patch)  # theirs are ten times as large, which divides out
    assert weights.max() == 1
    assert weights.min() > 0


def test_a_model_that_sees_nothing_else_gives_the_image_back() -> None:
    picture = image(9, 11, 13)
    windows = SlidingWindows((4, 5, 6), mirror=(0, 2))
    assert torch.allclose(windows.logits(lambda x: x, picture), picture, atol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"patch_size": (4,)},
        {"patch_size": (4, 0, 4)},
        {"patch_size": (4, 4, 4), "step": 0},
        {"patch_size": (4, 4), "mirror": (2,)},
        {"patch_size": (4, 4), "batch_size": 0},
    ],
)
def test_what_cannot_be_is_told(wrong) -> None:
    with pytest.raises(ConfigError, match="got"):
        SlidingWindows(**wrong)
    with pytest.raises(ConfigError, match=r"must be \(channels, k, j, i\)"):
        SlidingWindows((4, 4, 4)).logits(lambda x: x, torch.zeros(4, 4, 4))
