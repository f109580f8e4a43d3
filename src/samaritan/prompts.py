"""What a person points at: points, boxes and masks, each of which knows its grid.

Prompts are given in array indices (i, j, k) of the grid that they carry, or in millimetres, and move to other
grids through millimetres, so a click stays on the same spot of the patient whatever happens to the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from samaritan.errors import PromptError
from samaritan.geometry import FloatArray, Grid
from samaritan.volume import Volume

FACE_TOLERANCE = 1e-6
"""A point moved from another grid may lie this part of a voxel beyond the outer faces."""


@dataclass(frozen=True, eq=False)
class Points:
    """Clicks on a grid.

    Attributes:
        coords: (n, 3) continuous array indices, voxel centres at integers. A pair (row, column) is taken as
            a point of the only slice of a flat grid.
        labels: (n,), 1 for "this belongs to the object" and 0 for "this does not".
        grid: what the indices refer to.

    Raises:
        PromptError: if a point lies outside the grid, or a label is neither 0 nor 1.
    """

    coords: FloatArray
    labels: npt.NDArray[np.int64]
    grid: Grid

    def __post_init__(self) -> None:
        coords = complete(self.coords, self.grid, "a point")
        labels = np.atleast_1d(np.asarray(self.labels))
        if labels.shape != (len(coords),) or not np.isin(labels, (0, 1)).all():
            raise PromptError(
                f"{len(coords)} points need as many labels of 1 or 0, got {labels.tolist()}"
            )
        for point in coords[~self.grid.contains(coords)]:
            raise PromptError(
                f"point {_told(point)} lies outside the image: indices run from (0, 0, 0) to "
                f"{tuple(n - 1 for n in self.grid.shape)} in array order"
            )
        object.__setattr__(self, "coords", coords)
        object.__setattr__(self, "labels", labels.astype(np.int64))

    @classmethod
    def from_mm(cls, mm: npt.ArrayLike, labels: npt.ArrayLike, grid: Grid) -> Self:
        """Make points from millimetres (n, 3), RAS+."""
        coords = grid.mm_to_index(np.atleast_2d(np.asarray(mm, float)))
        return cls(_off_the_faces(coords, grid), labels, grid)  # type: ignore[arg-type]

    def to_grid(self, grid: Grid) -> Self:
        """Move to another grid through millimetres."""
        return type(self).from_mm(self.grid.index_to_mm(self.coords), self.labels, grid)

    def __len__(self) -> int:
        return len(self.coords)


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes on a grid, half-open like slices: a box from 2 to 5 holds voxels 2, 3 and 4.

    Attributes:
        start: (n, 3) first voxel along each axis; continuous after a change of grid.
        stop: (n, 3) one past the last voxel. Faces lie half a voxel before `start` and before `stop`.
        grid: what the indices refer to. A pair of 2-tuples is a box in the only slice of a flat grid.

    Raises:
        PromptError: if a box has no size along some axis, or does not touch the grid.
    """

    start: FloatArray
    stop: FloatArray
    grid: Grid

    def __post_init__(self) -> None:
        start = complete(self.start, self.grid, "a box")
        stop = complete(self.stop, self.grid, "a box", flat=1.0)
        if start.shape != stop.shape:
            raise PromptError(f"{len(start)} box starts, but {len(stop)} stops")
        for low, high in zip(start, stop, strict=True):
            if not (low < high).all():
                raise PromptError(
                    f"box from {_told(low)} to {_told(high)} has no size: boxes are half-open, so every "
                    "stop must exceed its start (one slice k is k to k + 1)"
                )
            if not ((high > 0) & (low < np.asarray(self.grid.shape))).all():
                raise PromptError(
                    f"box from {_told(low)} to {_told(high)} lies outside the image, "
                    f"whose shape is {self.grid.shape}"
                )
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "stop", stop)

    def to_grid(self, grid: Grid) -> Self:
        """Move to another grid: the upright box there around this one."""
        low, high = [], []
        for start, stop in zip(self.start - 0.5, self.stop - 0.5, strict=True):
            ends = np.stack([start, stop])
            corners = np.array(
                [[ends[a, 0], ends[b, 1], ends[c, 2]] for a, b, c in np.ndindex(2, 2, 2)]
            )
            moved = grid.mm_to_index(self.grid.index_to_mm(corners))
            low.append(moved.min(axis=0) + 0.5)
            high.append(moved.max(axis=0) + 0.5)
        return type(self)(np.array(low), np.array(high), grid)

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, eq=False)
class MaskPrompt:
    """A mask to start from: a boolean or integer volume (0 outside, anything else inside).

    Raises:
        PromptError: if the mask is empty.
    """

    volume: Volume

    def __post_init__(self) -> None:
        if self.volume.array.ndim != 3:
            raise PromptError(f"a mask has one channel, got shape {self.volume.array.shape}")
        if not self.volume.array.any():
            raise PromptError(
                "the mask to start from is empty: mark at least one voxel of this image, or leave it out"
            )

    @property
    def grid(self) -> Grid:
        """What the mask lies on."""
        return self.volume.grid

    def to_grid(self, grid: Grid) -> Self:
        """Resample to another grid by nearest neighbour."""
        mask = self.volume.with_array(self.volume.array != 0)
        return type(self)(mask.to_grid(grid, interpolation="nearest"))


def complete(
    values: npt.ArrayLike | Sequence[float], grid: Grid, what: str, *, flat: float = 0.0
) -> FloatArray:
    """Bring indices to (n, 3); pairs get index `flat` along the only thin axis of a flat grid.

    Raises:
        PromptError: if they are neither triples, nor pairs on a grid one voxel thick, or not finite.
    """
    array = np.atleast_2d(np.asarray(values, float))
    thin = [axis for axis in range(3) if grid.shape[axis] == 1]
    if array.ndim == 2 and array.shape[1] == 2 and thin:
        array = np.insert(array, thin[-1], flat, axis=1)
    if array.ndim != 2 or array.shape[1] != 3:
        pairs = " (or two, since the image is flat)" if thin else ""
        raise PromptError(
            f"{what} on an image of shape {grid.shape} needs three indices{pairs}, "
            f"got {np.asarray(values).tolist()}"
        )
    if not np.isfinite(array).all():
        raise PromptError(f"{what} must have finite indices, got {np.asarray(values).tolist()}")
    return array


def _off_the_faces(coords: FloatArray, grid: Grid) -> FloatArray:
    """Pull points that rounding put on or beyond an outer face back into the outermost voxel."""
    far = np.asarray(grid.shape) - 0.5 - FACE_TOLERANCE
    inside = np.clip(coords, -0.5, far)
    return np.where(np.abs(inside - coords) <= 2 * FACE_TOLERANCE, inside, coords)


def _told(index: FloatArray) -> str:
    return "(" + ", ".join(f"{v:g}" for v in index) + ")"
