"""What everything-mode asks of its candidate masks: how stable, where, how alike, how ragged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float
from torch import Tensor

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

EDGE_PX = 20
"""A box that ends this near to the edge of a crop was probably cut by it."""

_BLOCK = 1024


def stability_scores(logits: Float[Tensor, "n h w"], offset: float) -> FloatArray:
    """Measure how little masks change when the threshold moves by `offset` up and down, from 0 to 1.

    This is the area above the high threshold over that above the low one; 0 where both are empty. (The
    published code gives NaN there, and its sums run over in 16 bits.)
    """
    return areas(logits > offset) / np.maximum(areas(logits > -offset), 1)


def areas(masks: Bool[Tensor, "n h w"]) -> IntArray:
    """Count the pixels of each mask."""
    if masks.device.type == "cpu":  # ten times as fast as torch's sum
        return np.array([np.count_nonzero(mask) for mask in masks.numpy()], np.int64)
    return np.asarray(masks.sum(dim=(1, 2)).cpu().numpy(), np.int64)


def mask_boxes(masks: BoolArray) -> IntArray:
    """Find the box (x0, y0, x1, y1) of each mask (n, rows, columns): first and last pixel, inclusive.

    An empty mask has the box (0, 0, 0, 0).
    """
    rows, columns = (np.logical_or.reduce(masks, axis=axis) for axis in (2, 1))
    low = [side.argmax(axis=1) for side in (columns, rows)]
    high = [side.shape[1] - 1 - side[:, ::-1].argmax(axis=1) for side in (columns, rows)]
    boxes = np.stack(low + high, axis=1).astype(np.int64)
    boxes[~rows.any(axis=1)] = 0
    return boxes


def cut_by_crop(
    boxes: IntArray, crop: tuple[int, int, int, int], size: tuple[int, int]
) -> BoolArray:
    """Tell which boxes end near an edge of their crop that is not near an edge of the picture.

    Args:
        boxes: (n, 4) as (x0, y0, x1, y1) in the picture.
        crop: (x0, y0, x1, y1), half-open.
        size: rows and columns of the picture.
    """
    picture = np.array([0, 0, size[1], size[0]])
    near_crop = np.abs(boxes - np.array(crop)) <= EDGE_PX
    near_picture = np.abs(boxes - picture) <= EDGE_PX
    return np.asarray((near_crop & ~near_picture).any(axis=1))


def non_maximum_suppression(
    boxes: npt.NDArray[Any], scores: npt.NDArray[Any], threshold: float
) -> IntArray:
    """Keep the best box of each group of boxes that overlap.

    From the highest score down, a box is kept unless its intersection over union with a kept one
    exceeds `threshold`. Equal scores keep their order. Boxes are (x0, y0, x1, y1) and their size is
    x1 - x0 by y1 - y0, as published; boxes of no size overlap nothing.

    Returns:
        Indices of the kept boxes, best first.
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    sorted_boxes = np.asarray(boxes, np.float64)[order]
    kept = np.empty(0, np.int64)
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        for known in range(0, len(kept), _BLOCK):
            others = sorted_boxes[kept[known : known + _BLOCK]]
            block = block[~(overlaps(sorted_boxes[block], others) > threshold).any(axis=1)]
        alike = overlaps(sorted_boxes[block], sorted_boxes[block]) > threshold
        alive = np.ones(len(block), bool)
        for i in range(len(block)):
            if alive[i]:
                alive[i + 1 :] &= ~alike[i, i + 1 :]
        kept = np.concatenate([kept, block[alive]])
    return np.asarray(order[kept], np.int64)


def overlaps(one: FloatArray, two: FloatArray) -> FloatArray:
    """Measure intersection over union of every box (n, 4) with every box (m, 4); 0 / 0 counts as 0."""
    low = np.maximum(one[:, None, :2], two[None, :, :2])
    high = np.minimum(one[:, None, 2:], two[None, :, 2:])
    both = np.clip(high - low, 0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (one, two)]
    union = areas[0][:, None] + areas[1][None, :] - both
    share: FloatArray = np.divide(both, union, out=np.zeros(both.shape), where=union > 0)
    return share


def tidy_regions(mask: BoolArray, min_area: int) -> tuple[BoolArray, bool]:
    """Fill holes, then remove islands, of fewer than `min_area` pixels (8-connected).

    The largest island stays even when it is small. A hole may touch the border.

    Returns:
        The tidied mask, and whether anything changed.
    """
    filled = ~mask
    small_holes = _small_regions(filled, min_area)
    tidied = mask | small_holes
    islands = _small_regions(tidied, min_area, spare_largest=True)
    return tidied & ~islands, bool(small_holes.any() or islands.any())


def _small_regions(mask: BoolArray, min_area: int, *, spare_largest: bool = False) -> BoolArray:
    """Mark connected regions of fewer than `min_area` pixels."""
    from scipy import ndimage

    regions, n = ndimage.label(mask, structure=np.ones((3, 3), bool))
    sizes = np.bincount(regions.ravel(), minlength=n + 1)
    small = sizes < min_area
    small[0] = False
    if spare_largest and n and small[1:].all():
        small[1 + sizes[1:].argmax()] = False
    return np.asarray(small[regions])
