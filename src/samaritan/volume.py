"""An array together with its grid, so that a picture cannot lose its geometry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from samaritan.errors import GeometryError
from samaritan.geometry import Grid, checked_axes
from samaritan.resampling import Interpolation, fitting, resample

Array = npt.NDArray[Any]

LATTICE_TOLERANCE = 1e-3
"""Two lattices coincide if no voxel centre is off by more: a part of a voxel."""


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    """An image: array and grid, frozen. Methods return new volumes that share memory where they can.

    Attributes:
        array: (i, j, k), or (i, j, k, c) for several channels such as RGB.
        grid: where the voxels lie; `grid.shape` is the shape of the first three axes.
        channels: a name for each channel; empty for one-channel arrays.
        meta: what a reader found that is neither voxels nor geometry (source, modality, ...).
        notes: what was odd about the source, in sentences for people.

    Raises:
        GeometryError: if array and grid disagree.
    """

    array: Array
    grid: Grid
    channels: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        array = np.asarray(self.array)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))
        if array.ndim not in (3, 4) or array.shape[:3] != self.grid.shape:
            raise GeometryError(
                f"array of shape {array.shape} does not lie on a grid of shape {self.grid.shape}: "
                "expected (i, j, k), or (i, j, k, channels)"
            )
        if array.ndim == 4 and len(self.channels) != array.shape[3]:
            names = tuple(f"channel {c}" for c in range(array.shape[3]))
            if self.channels:
                raise GeometryError(f"{array.shape[3]} channels, but names {self.channels}")
            object.__setattr__(self, "channels", names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "meta": dict(self.meta)}  # a read-only view cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, meta=MappingProxyType(state["meta"]))

    # -- what it is ------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the three array axes."""
        return self.grid.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the voxels."""
        return self.array.dtype

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self.array.shape[3] if self.array.ndim == 4 else 1

    @property
    def is_flat(self) -> bool:
        """Whether it is one voxel thick along some axis: a slice or a picture."""
        return min(self.shape) == 1

    def __repr__(self) -> str:
        channels = f", channels {', '.join(self.channels)}" if self.channels else ""
        return f"{type(self).__name__}({self.array.dtype}{channels}, {self.grid!r})"

    def with_array(self, array: Array, **changes: Any) -> Self:
        """Replace the voxels, keeping the grid."""
        channels = self.channels if array.ndim == 4 and self.array.ndim == 4 else ()
        return replace(self, array=array, **{"channels": channels, **changes})

    def channel(self, which: int | str) -> Self:
        """Take one channel."""
        if self.array.ndim == 3:
            return self
        if which not in self.channels and which not in range(-self.n_channels, self.n_channels):
            raise GeometryError(f"no channel {which!r}; known: {', '.join(self.channels)}")
        index = self.channels.index(which) if isinstance(which, str) else which
        return replace(self, array=self.array[..., index], channels=())

    # -- cutting and turning ---------------------------------------------------------------------

    def window(self, start: Sequence[int], shape: Sequence[int], *, fill: float = 0) -> Self:
        """Cut `shape` voxels from index `start`; what lies outside is filled.

        A window inside the volume is a view; otherwise it is a copy.
        """
        begin = np.asarray(start, int)
        end = begin + np.asarray(shape, int)
        low, high = np.maximum(begin, 0), np.minimum(end, self.shape)
        grid = self.grid.window(begin.tolist(), list(shape))
        inner = self.array[tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))]
        if inner.shape[:3] == tuple(shape):
            return replace(self, array=inner, grid=grid)
        array = np.full((*shape, *self.array.shape[3:]), fitting(fill, self.dtype), self.dtype)
        if inner.size:
            array[tuple(slice(a, b) for a, b in zip(low - begin, high - begin, strict=True))] = (
                inner
            )
        return replace(self, array=array, grid=grid)

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> Self:
        """Cut the half-open box from `start` to `stop`, which must lie inside."""
        if any(not 0 <= a < b <= n for a, b, n in zip(start, stop, self.shape, strict=True)):
            raise GeometryError(
                f"crop from {tuple(start)} to {tuple(stop)} does not lie inside shape {self.shape}"
            )
        return self.window(start, [b - a for a, b in zip(start, stop, strict=True)])

    def pad(self, before: Sequence[int], after: Sequence[int], *, fill: float = 0) -> Self:
        """Add voxels of value `fill` before and after each axis."""
        shape = [b + n + a for b, n, a in zip(before, self.shape, after, strict=True)]
        return self.window([-b for b in before], shape, fill=fill)

    def flip(self, axes: Iterable[int]) -> Self:
        """Reverse array axes, a view; the voxels stay where they are in the patient."""
        axes = checked_axes(axes)
        return replace(self, array=np.flip(self.array, axes), grid=self.grid.flip(axes))

    def permute(self, order: Sequence[int]) -> Self:
        """Reorder array axes, a view: new axis `a` is old axis `order[a]`."""
        grid = self.grid.permute(order)
        full = (*order, 3) if self.array.ndim == 4 else tuple(order)
        return replace(self, array=self.array.transpose(full), grid=grid)

    def reorient(self, orientation: str) -> Self:
        """Turn axes to point as `orientation` says ("RAS", "LPS", ...): a view, nothing is interpolated."""
        order, flips = self.grid.steps_to(orientation)
        return self.permute(order).flip(flips)

    def slice(self, axis: int, index: int) -> Self:
        """Take one slice, which stays a volume one voxel thick."""
        start, shape = [0, 0, 0], list(self.shape)
        if not 0 <= index < shape[axis]:
            raise GeometryError(f"slice {index} is outside axis {axis} of shape {self.shape}")
        start[axis], shape[axis] = index, 1
        return self.window(start, shape)

    # -- resampling ------------------------------------------------------------------------------

    def to_grid(
        self, grid: Grid, *, interpolation: Interpolation = "linear", fill: float = 0
    ) -> Self:
        """Resample onto another grid, any orientation, shear included.

        Where both lattices coincide the voxels are copied exactly and keep their type. Otherwise "linear"
        gives float32 and "nearest" keeps the type. Voxels whose centre lies in no voxel of the source get
        `fill`; between the outermost voxel centres and the outer faces the edge value continues.
        """
        moved = self._on_same_lattice(grid, fill)
        if moved is not None:
            return moved
        dtype = np.dtype(np.float32) if interpolation == "linear" else self.array.dtype
        planes = [self.array] if self.array.ndim == 3 else np.moveaxis(self.array, 3, 0)
        step = np.linalg.solve(self.grid.affine, grid.affine)
        resampled = [
            resample(p, step, grid.shape, interpolation=interpolation, fill=fill, dtype=dtype)
            for p in planes
        ]
        array = resampled[0] if self.array.ndim == 3 else np.stack(resampled, axis=-1)
        return replace(self, array=array, grid=grid)

    def _on_same_lattice(self, grid: Grid, fill: float) -> Self | None:
        """Cut, pad, permute and flip if that is all it takes; else None."""
        step = np.linalg.solve(self.grid.affine, grid.affine)
        order = np.abs(step[:3, :3]).argmax(axis=0)
        if sorted(order.tolist()) != [0, 1, 2]:
            return None
        start = np.rint(step[:3, 3])
        exact = np.zeros((3, 3))
        exact[order, range(3)] = np.sign(step[order, range(3)])
        corners = grid.corners()
        error = corners @ (step[:3, :3] - exact).T + (step[:3, 3] - start)
        if np.abs(error).max() > LATTICE_TOLERANCE:
            return None
        ends = start + exact @ (np.asarray(grid.shape) - 1)
        low = np.minimum(start, ends).astype(int)
        shape = np.abs(ends - start).astype(int) + 1
        view = self.window(low.tolist(), shape.tolist(), fill=fill).permute(order.tolist())
        flipped = view.flip(a for a in range(3) if exact[order[a], a] < 0)
        return replace(flipped, grid=grid)


@dataclass(frozen=True, eq=False, repr=False)
class LabelMap(Volume):
    """A segmentation: an integer volume whose values have names. 0 is the background.

    Attributes:
        names: label value -> name, for the values that have one.

    Raises:
        GeometryError: if the array is not of an integer type, or has channels.
    """

    names: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.array.dtype == np.bool_:
            object.__setattr__(self, "array", self.array.view(np.uint8))
        if self.array.dtype.kind not in "ui" or self.array.ndim != 3:
            raise GeometryError(
                f"a label map is a 3D array of integers, got {self.array.dtype} of shape {self.array.shape}"
            )
        object.__setattr__(self, "names", {int(k): str(v) for k, v in dict(self.names).items()})

    def labels(self) -> list[int]:
        """List the values that occur, without the background, ascending."""
        return [int(v) for v in np.unique(self.array) if v != 0]

    def mask(self, label: int | str) -> Volume:
        """Make the boolean volume of one label, given by value or by name."""
        if isinstance(label, str):
            values = [value for value, name in self.names.items() if name == label]
            if not values:
                raise GeometryError(
                    f"no label named {label!r}; known: {sorted(self.names.values())}"
                )
            label = values[0]
        return Volume(self.array == label, self.grid)

    def to_grid(
        self, grid: Grid, *, interpolation: Interpolation = "nearest", fill: float = 0
    ) -> Self:
        """Resample onto another grid by nearest neighbour; labels are never mixed."""
        if interpolation != "nearest":
            raise GeometryError(
                "label maps are resampled by nearest neighbour: labels cannot be mixed"
            )
        return super().to_grid(grid, interpolation="nearest", fill=fill)


def smallest_label_dtype(largest: int) -> np.dtype[Any]:
    """Choose the smallest unsigned type that holds a label."""
    return np.dtype(np.uint8 if largest < 2**8 else np.uint16 if largest < 2**16 else np.uint32)
