"""Pseudo Dice: what a validation counts over its patches, for batches of any size."""

from __future__ import annotations

import math

import pytest
import torch

from samaritan.data.nnunet.labels import LabelSet
from samaritan.models.voxel_classes import VoxelNet
from samaritan.train.voxel_classes import patch_judge, pooled_dice

LABELS = LabelSet({"disc": 1, "square": 2})


class Echo(VoxelNet):
    """Says of each voxel what the image says: its class."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)

    def forward(self, images, *_, **__):
        return torch.nn.functional.one_hot(images[:, 0].long(), 3).movedim(-1, 1).float()


def drawn(*patches: int) -> torch.Tensor:
    """Patches with as many voxels of "disc" as said, and half as many of "square"."""
    found = torch.zeros(len(patches), 4, 8, 6, dtype=torch.long)
    for one, count in zip(found, patches, strict=True):
        one.view(-1)[:count] = 1
        one.view(-1)[100 : 100 + count // 2] = 2
    return found


def judged(said: torch.Tensor, label: torch.Tensor, size: int) -> dict[str, float]:
    """Means over all patches of what the judge says, in batches; as a validation has them."""
    judge, rows = patch_judge(LABELS), []
    for start in range(0, len(said), size):
        part = slice(start, start + size)
        batch = {"image": said[part, None].float(), "label": label[part]}
        scores, _ = judge(Echo(), batch, torch.Generator())
        rows.append(scores)
    return pooled_dice({k: float(torch.cat([r[k] for r in rows]).mean()) for k in rows[0]})


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_perfect_prediction_scores_one_for_batches_of_any_size(size) -> None:
    label = drawn(40, 40, 8, 20)
    assert judged(label, label, size) == {"dice": 1.0, "class_disc": 1.0, "class_square": 1.0}


def test_labels_of_one_sample_alone_would_give_the_published_two_thirds() -> None:
    label = drawn(40, 40)
    lost = label.clone()
    lost[1] = 0  # as the published program loses them
    assert judged(label, lost, 2)["dice"] == pytest.approx(0.667, abs=5e-4)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_voxels_of_all_patches_are_counted_together(size) -> None:
    label, said = drawn(40, 10, 0), drawn(20, 10, 6)
    found = judged(said, label, size)
    assert found["class_disc"] == pytest.approx(2 * (20 + 10) / (50 + 36))
    assert found["class_square"] == pytest.approx(2 * (10 + 5) / (25 + 18))
    assert found["dice"] == pytest.approx((found["class_disc"] + found["class_square"]) / 2)


def test_a_class_that_is_nowhere_is_left_out() -> None:
    found = pooled_dice({"both_a": 2.0, "whole_a": 5.0, "both_b": 0.0, "whole_b": 0.0})
    assert found["dice"] == found["class_a"] == 0.8
    assert math.isnan(found["class_b"])
