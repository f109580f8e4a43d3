"""Interpolation of an array from one lattice onto another: any two, and fast where their axes run alike."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from samaritan.errors import GeometryError

Array = npt.NDArray[Any]
Interpolation = Literal["nearest", "linear"]

ALIGNED_VOXELS = 1e-5
"""Axes run alike if no voxel centre leaves the line of its axis by more: a part of a source voxel."""

_SLAB_VOXELS = 2**18
"""Results of this size are shared out to threads; slabs of about this size stay in a processor's cache."""


def resample(
    source: Array,
    step: Array,
    shape: Sequence[int],
    *,
    interpolation: Interpolation = "linear",
    fill: float = 0,
    dtype: np.dtype[Any] | None = None,
) -> Array:
    """Interpolate one channel onto another lattice.

    Args:
        source: (i, j, k).
        step: (4, 4), takes an index of the result to an index of the source.
        shape: of the result.
        interpolation: between the eight voxels around a point, or the voxel that holds it.
        fill: what voxels get whose centre lies in no voxel of the source. Between the outermost voxel
            centres and the outer faces the edge value continues.
        dtype: type of the result; None: that of the source.
    """
    dtype = dtype or source.dtype
    fill = fitting(fill, dtype)
    order = aligned(step, shape)
    if order is None:
        return _general(source, step, tuple(shape), interpolation, fill, dtype)
    out = np.empty(tuple(shape), dtype)
    lines = _Lines(source.transpose(order), step, order, shape)
    one_slab = lines.linear if interpolation == "linear" else lines.nearest
    _in_slabs(lambda first, last: one_slab(out[first:last], first, last), out.shape)
    for axis, beyond in enumerate(lines.beyond):
        if beyond.any():
            out[(slice(None),) * axis + (beyond,)] = fill
    return out


def aligned(step: Array, shape: Sequence[int]) -> list[int] | None:
    """For each axis of the result the source axis that it runs along; None if one runs between them."""
    turn = np.abs(step[:3, :3])
    order: list[int] = turn.argmax(axis=0).tolist()
    aside = turn * (np.asarray(shape) - 1.0)
    aside[order, range(3)] = 0
    if sorted(order) != [0, 1, 2] or aside.sum(axis=1).max() > ALIGNED_VOXELS:
        return None
    return order


def fitting(fill: float, dtype: np.dtype[Any]) -> float | int:
    """Return a fill value that `dtype` holds exactly, or raise."""
    if dtype.kind in "ui":
        limits = np.iinfo(dtype)
        if not (math.isfinite(fill) and limits.min <= fill <= limits.max and fill == int(fill)):
            raise GeometryError(
                f"voxels of type {dtype} cannot be filled with {fill}: expected a whole number from "
                f"{limits.min} to {limits.max}. Convert the array to float32 first if this is intended"
            )
        return int(fill)
    return fill


class _Lines:
    """Where the voxels of a result lie along each axis of a source whose axes run alike."""

    def __init__(
        self, data: Array, step: Array, order: Sequence[int], shape: Sequence[int]
    ) -> None:
        self.data = data
        at = [step[s, 3] + step[s, a] * np.arange(shape[a]) for a, s in enumerate(order)]
        sides = list(zip(at, data.shape, strict=True))
        self.beyond = [(x < -0.5) | (x >= n - 0.5) for x, n in sides]
        inside = [np.clip(x, 0, n - 1) for x, n in sides]
        self.nearby = [np.clip(np.floor(x + 0.5), 0, n - 1).astype(np.intp) for x, n in sides]
        self.before = [
            np.minimum(x.astype(np.intp), max(n - 2, 0))
            for x, n in zip(inside, data.shape, strict=True)
        ]
        self.share = [(x - b).astype(np.float32) for x, b in zip(inside, self.before, strict=True)]
        widths = [b.max() - b.min() + 2 for b in self.before]
        enlarging = [n / width for n, width in zip(shape, widths, strict=True)]
        self.axes = sorted(range(3), key=lambda a: (enlarging[a], -a))
        """Axes that make fewer of many come first."""

    def nearest(self, out: Array, first: int, last: int) -> None:
        """Take the voxels that hold the centres of rows `first` to `last` of the result."""
        chosen = [self.nearby[0][first:last], *self.nearby[1:]]
        values, low = self._around(chosen, beside=0)
        for axis in self.axes:
            values = values.take(chosen[axis] - low[axis], axis=axis)
        out[...] = values

    def linear(self, out: Array, first: int, last: int) -> None:
        """Interpolate rows `first` to `last` of the result, axis by axis; infinities make NaN beside them."""
        with np.errstate(invalid="ignore", over="ignore"):
            out[...] = self._blended(first, last)

    def _blended(self, first: int, last: int) -> Array:
        before = [self.before[0][first:last], *self.before[1:]]
        share = [self.share[0][first:last], *self.share[1:]]
        values, low = self._around(before, beside=1)
        for axis in self.axes:
            one = before[axis] - low[axis]
            two = np.minimum(one + 1, values.shape[axis] - 1)
            weight = share[axis].reshape([-1 if a == axis else 1 for a in range(3)])
            near = values.take(one, axis=axis).astype(np.float32, copy=False)
            far = values.take(two, axis=axis).astype(np.float32, copy=False)
            near *= 1 - weight
            far *= weight
            near += far
            values = near
        return values

    def _around(self, chosen: Sequence[Array], beside: int) -> tuple[Array, list[int]]:
        """Cut what the chosen indices need from the source; also where it begins."""
        low = [int(index.min()) for index in chosen]
        high = [int(index.max()) + 1 + beside for index in chosen]
        return self.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))], low


def _in_slabs(one_slab: Callable[[int, int], None], shape: tuple[int, ...]) -> None:
    """Work on slabs of the first axis, in threads where there is much to do."""
    count = min(max(math.prod(shape) // _SLAB_VOXELS, 1), shape[0])
    edges = np.linspace(0, shape[0], count + 1).astype(int).tolist()
    slabs = list(itertools.pairwise(edges))
    workers = min(os.cpu_count() or 1, 8, len(slabs))
    if workers == 1:
        for first, last in slabs:
            one_slab(first, last)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(lambda slab: one_slab(*slab), slabs))


def _general(
    source: Array,
    step: Array,
    shape: tuple[int, ...],
    interpolation: Interpolation,
    fill: float,
    dtype: np.dtype[Any],
) -> Array:
    """Interpolate between lattices that are turned or sheared against each other."""
    from scipy import ndimage

    ours = {"b1": np.uint8, "f2": np.float32}.get(dtype.str[1:], dtype)  # ndimage knows neither
    out = np.empty(shape, ours)
    data = source.view(np.uint8) if source.dtype == np.bool_ else source
    if data.dtype == np.float16:
        data = data.astype(np.float32)
    ends = np.array(list(itertools.product(*[(0.0, n - 1.0) for n in shape])))
    ends = ends @ step[:3, :3].T + step[:3, 3]
    all_inside = bool(((ends >= -0.5) & (ends < np.asarray(source.shape) - 0.5)).all())

    def one_slab(first: int, last: int) -> None:
        offset = step[:3, 3] + step[:3, 0] * first
        slab = out[first:last]
        ndimage.affine_transform(
            data,
            step[:3, :3],
            offset,
            output=slab,
            output_shape=slab.shape,
            order=1 if interpolation == "linear" else 0,
            mode="nearest",
            prefilter=False,
        )
        if not all_inside:
            slab[_outside(source.shape, step[:3, :3], offset, slab.shape)] = fill

    _in_slabs(one_slab, shape)
    return out.view(np.bool_) if dtype == np.bool_ else out.astype(dtype, copy=False)


def _outside(
    shape: tuple[int, ...], matrix: Array, offset: Array, out_shape: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """Mark output voxels whose centre lies in no voxel of a source of `shape`."""
    outside = np.zeros(out_shape, bool)
    axes = [np.arange(n, dtype=np.float32) for n in out_shape]
    for source_axis, n in enumerate(shape):
        i, j, k = (matrix[source_axis, a] * axes[a] for a in range(3))
        where = offset[source_axis] + i[:, None, None] + j[None, :, None] + k[None, None, :]
        outside |= (where < -0.5) | (where >= n - 0.5)
    return outside
