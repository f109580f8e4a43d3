from __future__ import annotations

import numpy as np
import pytest
import torch

from samaritan.infer import mask_filters
from samaritan.infer.mask_filters import (
    areas,
    cut_by_crop,
    mask_boxes,
    non_maximum_suppression,
    overlaps,
    stability_scores,
    tidy_regions,
)


def drawn(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def random_boxes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 30, (n, 2))
    boxes = np.concatenate([low, low + rng.integers(0, 12, (n, 2))], axis=1)
    return boxes, rng.integers(0, n // 2, n) / n  # with ties


def slow_suppression(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for n in sorted(range(len(boxes)), key=lambda n: -scores[n]):
        a = boxes[n]
        for m in kept:
            b = boxes[m]
            width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
            height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
            both = width * height
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
            if union > 0 and both / union > threshold:
                break
        else:
            kept.append(n)
    return kept


@pytest.mark.parametrize("block", [3, 1024])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7])
def test_suppression_agrees_with_a_loop(monkeypatch, block, threshold):
    monkeypatch.setattr(mask_filters, "_BLOCK", block)
    for seed in range(5):
        boxes, scores = random_boxes(60, seed)
        expected = slow_suppression(boxes, scores, threshold)
        assert non_maximum_suppression(boxes, scores, threshold).tolist() == expected


def test_suppression_of_nothing_is_nothing():
    assert non_maximum_suppression(np.zeros((0, 4)), np.zeros(0), 0.7).tolist() == []


def test_boxes_at_the_threshold_both_stay_and_boxes_of_no_size_overlap_nothing():
    boxes = np.array([[0, 0, 10, 7], [0, 0, 10, 10], [3, 3, 3, 3], [3, 3, 3, 3]])
    assert overlaps(boxes[:1], boxes[1:2]).item() == 0.7
    assert non_maximum_suppression(boxes, np.array([4, 3, 2, 1]), 0.7).tolist() == [0, 1, 2, 3]


def test_boxes_are_inclusive_and_a_single_pixel_is_its_own_box():
    masks = np.zeros((3, 4, 5), bool)
    masks[0, 2, 3] = True
    masks[1, 1:3, 0:4] = True
    assert mask_boxes(masks).tolist() == [[3, 2, 3, 2], [0, 1, 3, 2], [0, 0, 0, 0]]


def test_stability_is_defined_for_empty_masks_and_does_not_overflow():
    logits = torch.full((3, 300, 300), -5.0)
    logits[1] = 5.0  # 90,000 pixels: beyond 16 bits
    logits[2, :100] = 5.0
    logits[2, 100:150] = 0.5
    assert stability_scores(logits, 1.0).tolist() == [0, 1, pytest.approx(2 / 3)]
    assert areas(logits > 0).tolist() == [0, 90_000, 45_000]


def test_boxes_cut_by_a_crop_are_told_from_boxes_at_the_edge_of_the_picture():
    crop, size = (0, 0, 100, 100), (100, 200)
    boxes = np.array([[30, 30, 70, 70], [30, 30, 80, 70], [30, 30, 79, 70], [0, 0, 70, 99]])
    assert cut_by_crop(boxes, crop, size).tolist() == [False, True, False, False]
    assert not cut_by_crop(boxes, (0, 0, 200, 100), size).any()


def test_small_holes_are_filled_and_small_islands_removed():
    mask = drawn("#####...", "#.###..#", "#####...", "........", "........")
    tidied, changed = tidy_regions(mask, 3)
    assert changed
    assert np.array_equal(tidied, drawn("#####...", "#####...", "#####...", "........", "........"))
    again, changed = tidy_regions(tidied, 3)
    assert not changed
    assert np.array_equal(again, tidied)


def test_regions_touch_at_corners():
    mask = drawn("#....", ".#...", "..#..", ".....")
    assert not tidy_regions(mask, 3)[1]


def test_of_small_islands_alone_the_largest_stays():
    tidied, changed = tidy_regions(drawn("##...#", "......", "#....."), 5)
    assert changed
    assert np.array_equal(tidied, drawn("##....", "......", "......"))
