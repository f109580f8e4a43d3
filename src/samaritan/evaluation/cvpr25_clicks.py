"""Where the CVPR 2025 challenge clicks: deepest in the largest error, on axes (z, y, x)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.evaluation.prompting import Clicked, Index
from samaritan.evaluation.targets import Mask
from samaritan.geometry import Grid
from samaritan.io.npz import ORIENTATION
from samaritan.io.npz_prompts import SliceBox

LARGE = 60_000_000
"""Errors whose padded box has more voxels are looked at in blocks of 2 x 2 x 2."""

_SEED = 42
_PADDING = 0.25


def core_of_error(predicted: Mask, reference: Mask) -> Clicked | None:
    """Click at the core of the largest error: the voxel (z, y, x) that is deepest in it, counted in voxels.

    Errors hang together by corners too. One of several deepest voxels is drawn, always by the same seed.
    None if nothing is wrong.

    Source: JunMa11/CVPR-MedSegFMCompetition, CVPR25_iter_eval.py compute_edt and sample_coord.
    """
    from scipy import ndimage

    wrong = predicted != reference
    boxes = ndimage.find_objects(wrong.astype(np.uint8))
    if not boxes:
        return None
    parts, _ = ndimage.label(wrong[boxes[0]], np.ones((3,) * wrong.ndim, int))
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    largest = parts == int(sizes.argmax())
    inner = ndimage.find_objects(largest.astype(np.uint8))[0]
    depth = _depth(largest[inner])
    deepest = np.argwhere(depth == depth.max())
    drawn = deepest[np.random.RandomState(_SEED).choice(len(deepest))]
    start = [outer.start + own.start for outer, own in zip(boxes[0], inner, strict=True)]
    at = tuple((drawn + start).tolist())
    return Clicked(at, bool(reference[at]))


def _depth(part: Mask, large: int = LARGE) -> npt.NDArray[Any]:
    """Distance to the outside in voxels; of very large parts, of blocks that hold some of it."""
    from scipy import ndimage

    padding = [max(int(_PADDING * side), 1) for side in part.shape]
    if math.prod(n + 2 * p for n, p in zip(part.shape, padding, strict=True)) <= large:
        found: npt.NDArray[Any] = ndimage.distance_transform_edt(np.pad(part, 1))
        return found[(slice(1, -1),) * part.ndim]
    padded = np.pad(
        part, [(p, p + (n + 2 * p) % 2) for n, p in zip(part.shape, padding, strict=True)]
    )
    blocks = padded.reshape([size for n in padded.shape for size in (n // 2, 2)])
    found = ndimage.distance_transform_edt(blocks.any(axis=tuple(range(1, 2 * part.ndim, 2))))
    for axis in range(part.ndim):
        found = found.repeat(2, axis=axis)
    inner = tuple(slice(p, p + n) for n, p in zip(part.shape, padding, strict=True))
    return np.asarray(found[inner] * part)


@dataclass(frozen=True)
class Axes:
    """How an image's axes become (z, y, x), as the challenge's files have them.

    Attributes:
        shape: of the image.
        order: new axis -> old axis.
        flips: new axes that run the other way.
    """

    shape: Index
    order: tuple[int, ...]
    flips: tuple[int, ...]

    @classmethod
    def of(cls, grid: Grid) -> Axes:
        """Those of a grid. Without millimetres nothing is known, and axes stay as they are."""
        order, flips = grid.steps_to(ORIENTATION) if grid.unit == "mm" else ((0, 1, 2), ())
        return cls(grid.shape, order, flips)

    def there(self, array: Mask) -> Mask:
        """An array of the image as (z, y, x)."""
        return np.flip(array.transpose(self.order), self.flips)

    def back(self, at: Index) -> Index:
        """A voxel (z, y, x) as an index of the image."""
        found = [0] * len(at)
        for new, old in enumerate(self.order):
            found[old] = self.shape[old] - 1 - at[new] if new in self.flips else at[new]
        return tuple(found)

    def box_back(self, box: SliceBox) -> tuple[Index, Index]:
        """First voxel, and one past the last, in the image."""
        ends = [self.back(box.start), self.back(tuple(n - 1 for n in box.stop))]
        start = tuple(map(min, *ends))
        stop = tuple(max(a, b) + 1 for a, b in zip(*ends, strict=True))
        return start, stop
