"""Overlap metrics: identity, symmetry, what is empty, and agreement with MONAI."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samaritan.errors import GeometryError
from samaritan.metrics import dice, iou, precision, recall, relative_volume_error, volume_error

SHAPE = (5, 6, 7)


def blob(seed, shape=SHAPE, part=0.4):
    return np.random.default_rng(seed).random(shape) < part


def test_a_mask_agrees_with_itself() -> None:
    for measure in (dice, iou, precision, recall):
        assert measure(blob(0), blob(0)) == 1
    assert volume_error(blob(0), blob(0)) == relative_volume_error(blob(0), blob(0)) == 0


def test_dice_and_iou_do_not_care_which_is_the_reference() -> None:
    assert dice(blob(0), blob(1)) == dice(blob(1), blob(0))
    assert iou(blob(0), blob(1)) == iou(blob(1), blob(0))
    assert precision(blob(0), blob(1)) == recall(blob(1), blob(0))
    assert volume_error(blob(0), blob(1)) == -volume_error(blob(1), blob(0))


def test_dice_follows_from_iou() -> None:
    shared = iou(blob(0), blob(1))
    assert dice(blob(0), blob(1)) == pytest.approx(2 * shared / (1 + shared))


def test_empty_masks_agree_and_a_missed_object_scores_nothing() -> None:
    none, some = np.zeros(SHAPE, bool), blob(0)
    for measure in (dice, iou, precision, recall):
        assert measure(none, none) == 1
        assert measure(none, some) == 0
        assert measure(some, none) == 0
    assert relative_volume_error(none, none) == 0
    assert relative_volume_error(some, none) == math.inf
    assert relative_volume_error(none, some) == -1


def test_volume_error_has_the_unit_of_the_voxel() -> None:
    one, two = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    one[0, 0, :5] = True
    two[0, 0, :2] = True
    assert volume_error(one, two, voxel_volume=0.5) == 1.5
    assert relative_volume_error(one, two) == 1.5


def test_masks_of_other_shapes_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"shapes \(3, 4\) and \(4, 3\).*one grid"):
        dice(np.zeros((3, 4)), np.zeros((4, 3)))


@pytest.mark.parametrize("seed", range(3))
def test_dice_and_iou_equal_monai(seed) -> None:
    import torch
    from monai.metrics import compute_dice, compute_iou

    one, two = blob(seed), blob(seed + 10)
    pair = [torch.from_numpy(mask[None, None].astype("float32")) for mask in (one, two)]
    assert dice(one, two) == pytest.approx(float(compute_dice(*pair)), abs=1e-6)
    assert iou(one, two) == pytest.approx(float(compute_iou(*pair)), abs=1e-6)
