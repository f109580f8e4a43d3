"""Smooth random fields, from a few random numbers between which cubic splines run.

A field of 96 voxels a side takes some milliseconds: it is three small matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_SHRINKS = 0.479
"""What a cubic B-spline leaves of the variance of white noise at its knots, in the mean over places."""


def smooth_field(
    shape: Sequence[int], spacing_mm: Sequence[float], scale_mm: float, rng: np.random.Generator
) -> Array:
    """Draw a field of mean 0 and standard deviation 1 that changes over about `scale_mm`.

    Where the scale is less than a voxel, that is white noise. Returns float32 of `shape`.
    """
    splines = [
        _lattice(n, max(scale_mm / spacing, 1e-6), rng)
        for n, spacing in zip(shape, spacing_mm, strict=True)
    ]
    out: Array = rng.standard_normal([s.shape[1] for s in splines], np.float32)
    for axis in (2, 1, 0):
        out = along(splines[axis], out, axis)
    return out


def spline(positions: Array, knots: int) -> Array:
    """Weights (n, knots) of a uniform cubic B-spline at `positions` in 0 .. knots - 3."""
    first = np.clip(np.floor(positions).astype(int), 0, knots - 4)
    f = positions - first
    parts = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, 3 * f * (1 + f - f**2) + 1, f**3)
    out = np.zeros((len(positions), knots), np.float32)
    for k, part in enumerate(parts):
        out[np.arange(len(positions)), first + k] = part / 6
    return out


def along(matrix: Array, values: Array, axis: int) -> Array:
    """Multiply a (m, n) matrix with one axis of `values`, which gets m entries."""
    if axis == values.ndim - 1:
        last: Array = values @ matrix.T
        return last
    front = values.shape[:axis]
    flat = values.reshape(*front, values.shape[axis], -1)
    out: Array = np.matmul(matrix, flat).reshape(*front, len(matrix), *values.shape[axis + 1 :])
    return out


def _lattice(n: int, voxels: float, rng: np.random.Generator) -> Array:
    """Spline weights of `n` voxels with a knot each `voxels`, at a random place between them."""
    shift = rng.random()
    if voxels <= 1 and n > 1:
        return np.eye(n, dtype=np.float32)
    positions = np.arange(n) / voxels + shift
    return spline(positions, int(positions[-1]) + 4) * np.float32(_SHRINKS**-0.5)
