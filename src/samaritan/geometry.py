"""Where an array lies in the patient: a shape and an affine, and nothing else.

Conventions, once for all: an index (i, j, k) is in array order with voxel centres at integers;
millimetres are in the patient's RAS+ frame (x to the right, y to the front, z to the head), as in
nibabel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from samaritan.errors import GeometryError, GridMismatch

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]
Triple = tuple[int, int, int]

SAME_GRID_VOXELS = 0.01
"""Two grids are the same if no corner differs by more than this part of the smallest voxel side."""

SHEAR_COSINE = 1e-3
"""Axes whose cosine exceeds this are sheared: beyond the rounding of headers stored in float32."""

OBLIQUE_COSINE = 1e-3
"""A direction cosine further than this from 0 and from 1 makes a grid oblique."""

_CODES = (("R", "L"), ("A", "P"), ("S", "I"))


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular lattice of voxels in the patient: three axes always.

    A slice is a grid one voxel thick; a photograph is `Grid.pixels`, whose unit is the pixel.

    Attributes:
        shape: number of voxels along each array axis.
        affine: (4, 4), takes an array index (i, j, k, 1) to millimetres (x, y, z, 1), RAS+. Read-only.
        unit: "mm", or "px" for pictures that have no physical size.

    Raises:
        GeometryError: if the shape is not three positive integers, or the affine is not finite
            and invertible.

    >>> grid = Grid.from_spacing((4, 5, 6), (1.0, 1.0, 3.0), orientation="LAS")
    >>> grid.orientation, grid.spacing_mm
    ('LAS', (1.0, 1.0, 3.0))
    """

    shape: Triple
    affine: FloatArray = field(repr=False)
    unit: Literal["mm", "px"] = "mm"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checked_shape(self.shape))
        object.__setattr__(self, "affine", _checked_affine(self.affine))

    # -- making one ------------------------------------------------------------------------------

    @classmethod
    def from_spacing(
        cls,
        shape: Sequence[int],
        spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
        *,
        orientation: str = "RAS",
        origin_mm: Sequence[float] = (0.0, 0.0, 0.0),
    ) -> Self:
        """Make an upright grid from a spacing and an orientation such as "LPS".

        Args:
            shape: voxels along each array axis.
            spacing_mm: voxel side along each array axis.
            orientation: where each array axis points, one letter of RL, AP, SI for each axis.
            origin_mm: position of voxel (0, 0, 0).

        Raises:
            GeometryError: if the spacing is not three positive numbers.
        """
        affine = np.eye(4)
        affine[:3, :3] = orientation_matrix(orientation) * _checked_spacing(spacing_mm)
        affine[:3, 3] = origin_mm
        return cls(tuple(shape), affine)  # type: ignore[arg-type]

    @classmethod
    def pixels(cls, shape: Sequence[int]) -> Self:
        """Make the grid of a picture: index order (row, column[, page]), one pixel a unit.

        Rows run down (to the back), columns run right in the picture (to the patient's left), as
        ITK has it for pictures without geometry: orientation "PLS".
        """
        full = (*shape, 1)[:3] if len(shape) == 2 else tuple(shape)
        affine = np.eye(4)
        affine[:3, :3] = orientation_matrix("PLS")
        return cls(full, affine, unit="px")  # type: ignore[arg-type]

    # -- what it is ------------------------------------------------------------------------------

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel side along each array axis, in `unit`."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))  # type: ignore[return-value]

    @property
    def direction(self) -> FloatArray:
        """(3, 3): unit vector of each array axis, as columns."""
        return np.divide(self.affine[:3, :3], self.spacing_mm)

    @property
    def origin_mm(self) -> tuple[float, float, float]:
        """Position of the centre of voxel (0, 0, 0)."""
        return tuple(float(v) for v in self.affine[:3, 3])  # type: ignore[return-value]

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    @property
    def orientation(self) -> str:
        """The patient direction nearest to each array axis, such as "RAS"."""
        codes = ""
        for axis, world in enumerate(self._world_axes()):
            codes += _CODES[world][0 if self.direction[world, axis] > 0 else 1]
        return codes

    @property
    def is_sheared(self) -> bool:
        """Whether two axes are not at a right angle."""
        cosines = self.direction.T @ self.direction
        return bool(np.abs(cosines - np.eye(3)).max() > SHEAR_COSINE)

    @property
    def is_oblique(self) -> bool:
        """Whether an axis is not along a patient axis."""
        cosines = np.abs(self.direction)
        return bool(np.minimum(cosines, np.abs(1 - cosines)).max() > OBLIQUE_COSINE)

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    def _world_axes(self) -> list[int]:
        """For each array axis the patient axis that it runs along, each used once."""
        cosines = np.abs(self.direction)
        world = [-1, -1, -1]
        for _ in range(3):
            row, column = np.unravel_index(int(np.argmax(cosines)), (3, 3))
            world[int(column)] = int(row)
            cosines[row, :] = -1
            cosines[:, column] = -1
        return world

    # -- comparing -------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        """Exact equality; see `same_as` for equality within rounding."""
        if not isinstance(other, Grid):
            return NotImplemented
        return (self.shape, self.unit) == (other.shape, other.unit) and bool(
            np.array_equal(self.affine, other.affine)
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.unit, self.affine.tobytes()))

    def same_as(self, other: Grid, *, voxels: float = SAME_GRID_VOXELS) -> bool:
        """Tell whether both grids have one shape and no corner differs by more than `voxels` of a voxel.

        Outer corners are compared, so the thickness of a single slice counts.
        """
        if self.shape != other.shape:
            return False
        corners = np.indices((2, 2, 2)).reshape(3, 8).T * np.asarray(self.shape) - 0.5
        distance = np.linalg.norm(self.index_to_mm(corners) - other.index_to_mm(corners), axis=1)
        return bool(distance.max() <= voxels * min(self.spacing_mm))

    def require_same(self, other: Grid, *, what: str = "grids", hint: str = "") -> None:
        """Raise unless `same_as`.

        Raises:
            GridMismatch: naming what differs: shape, spacing, orientation or position.
        """
        if not self.same_as(other):
            default = "Resample one with volume.to_grid(other.grid) if the difference is intended."
            raise GridMismatch(f"{what} differ: {_difference(self, other)}. {hint or default}")

    # -- points ----------------------------------------------------------------------------------

    def index_to_mm(self, index: npt.ArrayLike) -> FloatArray:
        """Take array indices (..., 3) to millimetres (..., 3)."""
        points = np.asarray(index, float)
        return points @ self.affine[:3, :3].T + self.affine[:3, 3]

    def mm_to_index(self, mm: npt.ArrayLike) -> FloatArray:
        """Take millimetres (..., 3) to continuous array indices (..., 3)."""
        points = np.asarray(mm, float) - self.affine[:3, 3]
        flat = np.linalg.solve(self.affine[:3, :3], points.reshape(-1, 3).T).T
        return np.asarray(flat.reshape(points.shape), np.float64)

    def contains(self, index: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Tell for each continuous index (..., 3) whether it lies in a voxel of this grid."""
        points = np.asarray(index, float)
        inside = (points >= -0.5) & (points < np.asarray(self.shape) - 0.5)
        return np.asarray(inside.all(axis=-1))

    def corners(self) -> FloatArray:
        """(8, 3): indices of the corner voxels' centres."""
        ends = [(0.0, n - 1.0) for n in self.shape]
        return np.array([[i, j, k] for i in ends[0] for j in ends[1] for k in ends[2]])

    # -- other grids -----------------------------------------------------------------------------

    def window(self, start: Sequence[int], shape: Sequence[int]) -> Grid:
        """Cut or extend: the grid of `shape` voxels whose voxel 0 is voxel `start` of this one."""
        affine = self.affine.copy()
        affine[:3, 3] = self.index_to_mm(np.asarray(start, float))
        return Grid(tuple(shape), affine, self.unit)  # type: ignore[arg-type]

    def flip(self, axes: Iterable[int]) -> Grid:
        """Reverse array axes; the voxels stay where they are in the patient."""
        steps, start = np.eye(4), np.zeros(3)
        for axis in checked_axes(axes):
            steps[axis, axis] = -1
            start[axis] = self.shape[axis] - 1
        steps[:3, 3] = start
        return Grid(self.shape, self.affine @ steps, self.unit)

    def permute(self, order: Sequence[int]) -> Grid:
        """Reorder array axes: new axis `a` is old axis `order[a]`."""
        if sorted(order) != [0, 1, 2]:
            raise GeometryError(
                f"axis order must be a permutation of (0, 1, 2), got {tuple(order)}"
            )
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, list(order)]
        shape = tuple(self.shape[axis] for axis in order)
        return Grid(shape, affine, self.unit)  # type: ignore[arg-type]

    def steps_to(self, orientation: str) -> tuple[tuple[int, int, int], tuple[int, ...]]:
        """Say how to reach an orientation: permute by the first tuple, then flip the axes in the second."""
        wanted = orientation_matrix(orientation)
        world = self._world_axes()
        order = tuple(world.index(int(np.argmax(np.abs(wanted[:, axis])))) for axis in range(3))
        signs = wanted.sum(axis=0) * [self.direction[world[axis], axis] for axis in order]
        flips = tuple(axis for axis in range(3) if signs[axis] < 0)
        return order, flips  # type: ignore[return-value]

    def reorient(self, orientation: str) -> Grid:
        """Reorder and reverse axes so that they point as `orientation` says (nearest patient axes)."""
        order, flips = self.steps_to(orientation)
        return self.permute(order).flip(flips)

    def resample(self, spacing_mm: float | Sequence[float]) -> Grid:
        """Cover the same field of view with voxels of another size.

        The outer faces of voxel 0 stay where they are; the far faces move by less than half a new voxel.
        """
        new = _checked_spacing(spacing_mm)
        old = np.asarray(self.spacing_mm)
        shape = np.maximum(np.rint(np.asarray(self.shape) * old / new), 1).astype(int)
        return self._divided(tuple(shape.tolist()), new / old)

    def resize(self, shape: Sequence[int]) -> Grid:
        """Divide the same field of view into another number of voxels: all outer faces stay."""
        return self._divided(tuple(shape), np.asarray(self.shape) / np.asarray(shape, float))

    def _divided(self, shape: tuple[int, ...], steps: FloatArray) -> Grid:
        """Keep the outer corner of voxel 0 and let new voxels be `steps` old ones long."""
        affine = self.affine.copy()
        affine[:3, :3] = self.affine[:3, :3] * steps
        affine[:3, 3] = self.index_to_mm(0.5 * steps - 0.5)
        return Grid(shape, affine, self.unit)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        spacing = " x ".join(f"{s:g}" for s in self.spacing_mm)
        shape = " x ".join(map(str, self.shape))
        return f"Grid({shape}, {spacing} {self.unit}, {self.orientation})"


def orientation_matrix(orientation: str) -> FloatArray:
    """(3, 3): the unit vectors of an orientation such as "LPS", as columns.

    Raises:
        GeometryError: if it is not one letter each of RL, AP and SI.
    """
    matrix = np.zeros((3, 3))
    letters = orientation.upper()
    for axis, letter in enumerate(letters):
        for world, (plus, minus) in enumerate(_CODES):
            if letter in (plus, minus) and axis < 3:
                matrix[world, axis] = 1.0 if letter == plus else -1.0
    if len(letters) != 3 or abs(np.linalg.det(matrix)) != 1:
        raise GeometryError(
            f"orientation must hold one letter each of R/L, A/P and S/I, such as 'RAS', got {orientation!r}"
        )
    return matrix


def checked_axes(axes: Iterable[int]) -> tuple[int, ...]:
    """Name array axes as 0, 1 and 2, each once; -1 is the last.

    Raises:
        GeometryError: if one is not an axis of a grid.
    """
    named = tuple(axes)
    if any(not -3 <= axis < 3 for axis in named):
        raise GeometryError(f"a grid has axes 0, 1 and 2, got {named}")
    return tuple(sorted({axis % 3 for axis in named}))


def _checked_spacing(spacing_mm: float | Sequence[float]) -> FloatArray:
    spacing = np.asarray(spacing_mm, float)
    if spacing.shape not in ((), (3,)) or not (np.isfinite(spacing) & (spacing > 0)).all():
        raise GeometryError(
            f"spacing must be three positive numbers in mm, got {np.asarray(spacing_mm).tolist()}"
        )
    return np.broadcast_to(spacing, 3)


def _checked_shape(shape: Sequence[int]) -> Triple:
    values = np.asarray(shape, float)
    if values.shape != (3,) or not (np.isfinite(values) & (values >= 1) & (values % 1 == 0)).all():
        raise GeometryError(f"a grid has three axes of at least one voxel each, got shape {shape}")
    return tuple(int(n) for n in shape)  # type: ignore[return-value]


def _checked_affine(affine: npt.ArrayLike) -> FloatArray:
    matrix = np.array(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise GeometryError(f"an affine is a finite (4, 4) matrix, got {np.asarray(affine)!r}")
    if np.abs(matrix[3] - (0, 0, 0, 1)).max() > 1e-5:
        raise GeometryError(f"the last row of an affine is (0, 0, 0, 1), got {matrix[3].tolist()}")
    matrix[3] = (0, 0, 0, 1)
    matrix += 0.0  # turns -0.0 into 0.0, so that equal grids have equal hashes
    sides = np.linalg.norm(matrix[:3, :3], axis=0)
    if (sides == 0).any() or abs(np.linalg.det(matrix[:3, :3] / sides)) < 1e-4:
        raise GeometryError(
            f"the affine cannot be inverted (voxel sides {sides.tolist()}): the voxels have no volume. "
            "Expected three independent axes"
        )
    matrix.setflags(write=False)
    return matrix


def _difference(one: Grid, two: Grid) -> str:
    """Name the first thing that differs."""

    def told(values: Iterable[float]) -> str:
        return "(" + ", ".join(f"{v:.6g}" for v in values) + ")"

    if one.shape != two.shape:
        return f"shape {one.shape} vs {two.shape}"
    if not np.allclose(one.spacing_mm, two.spacing_mm, rtol=1e-4):
        return f"spacing {told(one.spacing_mm)} mm vs {told(two.spacing_mm)} mm"
    if one.orientation != two.orientation:
        return f"orientation {one.orientation} vs {two.orientation}"
    if not np.allclose(one.direction, two.direction, atol=1e-4):
        return f"axis directions {one.direction.round(4).tolist()} vs {two.direction.round(4).tolist()}"
    return f"origin {told(one.origin_mm)} mm vs {told(two.origin_mm)} mm"
