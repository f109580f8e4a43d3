"""nnU-Net's default resampling: splines in the plane, nearest neighbour across thick slices.

Source: `resample_data_or_seg_to_shape` of nnU-Net 2.8.1 with batchgenerators 0.25.5 and scikit-image
0.26, by whose rules values agree to the last digit; ours takes a whole axis by index where theirs
interpolates it, and needs neither package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import ConfigError

Array = npt.NDArray[Any]

ANISOTROPY = 3.0
"""Voxels are thick when one side is more than so many times another."""


@dataclass(frozen=True)
class Resampling:
    """How one kind of array is resampled, as a plans file says it."""

    labels: bool = False
    """Whether values are labels: each is interpolated by itself and the largest wins."""
    order: int = 3
    """Order of the spline; across thick slices it is that within the slices."""
    order_z: int = 0
    """Order across thick slices."""
    separate: bool | None = None
    """Whether slices are resampled one by one; None: if they are thick."""

    def __call__(
        self,
        array: Array,
        shape: Sequence[int],
        spacing: Sequence[float],
        new_spacing: Sequence[float],
    ) -> Array:
        """Resample (c, *grid) to (c, *shape); the type of values stays."""
        if tuple(array.shape[1:]) == tuple(shape):
            return array
        axis = thick_axis(spacing, new_spacing, self.separate)
        made = np.empty((len(array), *shape), array.dtype)
        for c in range(len(array)):
            made[c] = self._one(array[c].astype(np.float64), tuple(shape), axis)
        return made

    def _one(self, array: Array, shape: tuple[int, ...], axis: int | None) -> Array:
        zoom = _zoom_labels if self.labels else _zoom
        if axis is None:
            return zoom(array, shape, self.order)
        if self.order_z not in (0, 1) or (self.labels and self.order_z):
            raise ConfigError(f"order_z {self.order_z} is not known here; expected 0")
        slices = np.moveaxis(array, axis, 0)
        plane = tuple(n for a, n in enumerate(shape) if a != axis)
        flat = np.stack([zoom(one, plane, self.order) for one in slices])
        if len(flat) != shape[axis]:
            flat = _across(flat, shape[axis], self.order_z)
        return np.moveaxis(flat, 0, axis)


def new_shape(
    shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
) -> tuple[int, ...]:
    """Say how many voxels of another size cover a grid; halves go to the even number.

    >>> new_shape((10, 256, 216), (8.0, 1.5, 1.5), (4.0, 1.5, 3.0))
    (20, 256, 108)
    """
    return tuple(
        round(old / new * n) for old, new, n in zip(spacing, new_spacing, shape, strict=True)
    )


def thick_axis(
    spacing: Sequence[float], new_spacing: Sequence[float], separate: bool | None = None
) -> int | None:
    """Name the axis across which slices are thick, before resampling or else after it; None: no such axis.

    >>> thick_axis((8.0, 1.5, 1.5), (2.0, 1.5, 1.5)), thick_axis((1.0, 1.0, 0.2), (1.0, 1.0, 0.2))
    (0, None)
    """
    if separate is False:
        return None
    for sides in (np.asarray(spacing, float), np.asarray(new_spacing, float)):
        if separate or sides.max() / sides.min() > ANISOTROPY:
            axes = np.flatnonzero(sides.max() / sides == 1)
            return int(axes[0]) if len(axes) == 1 else None
    return None


def nearest_index(count: int, new: int) -> npt.NDArray[np.int64]:
    """Say which of `count` voxels lies nearest to each of `new` voxels over the same length."""
    at = count / new * (np.arange(new) + 0.5) - 0.5
    index: npt.NDArray[np.int64] = np.floor(np.clip(at, 0, count - 1) + 0.5).astype(np.int64)
    return index


def _across(slices: Array, count: int, order: int) -> Array:
    if order == 0:
        return slices[nearest_index(len(slices), count)]
    at = np.clip(len(slices) / count * (np.arange(count) + 0.5) - 0.5, 0, len(slices) - 1)
    below = np.minimum(at.astype(np.int64), len(slices) - 1)
    above = np.minimum(below + 1, len(slices) - 1)
    share = (at - below).reshape(-1, *[1] * (slices.ndim - 1))
    mixed: Array = slices[below] * (1 - share) + slices[above] * share
    return mixed


def _zoom(array: Array, shape: tuple[int, ...], order: int) -> Array:
    """Interpolate over the same field of view; what lies outside is the edge, and no value is new extreme."""
    from scipy import ndimage

    factors = [1 / (old / new) for old, new in zip(array.shape, shape, strict=True)]
    made: Array = ndimage.zoom(array, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(made, array.min(), array.max(), out=made)


def _zoom_labels(array: Array, shape: tuple[int, ...], order: int) -> Array:
    """Interpolate each label's mask and take the largest; ties go to the nearest voxel, then the lowest."""
    if order == 0:
        return _zoom(array, shape, 0)
    values = np.unique(array)
    if len(values) == 1:
        return np.full(shape, values[0])
    nearest = np.searchsorted(values, _zoom(array, shape, 0))
    best = _zoom((array == values[0]).astype(np.float64), shape, order)
    won = np.zeros(shape, np.int64)
    near_leads = (nearest == 0) & (best > 0)
    for index, value in enumerate(values[1:], 1):
        score = _zoom((array == value).astype(np.float64), shape, order)
        better, level = score > best, (score == best) & (score > 0)
        near_leads = np.where(better, nearest == index, near_leads | (level & (nearest == index)))
        won[better] = index
        best = np.maximum(best, score)
    return values[np.where(near_leads, nearest, won)]
