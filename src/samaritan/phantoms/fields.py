"""Smooth random fields, from a few random numbers between which cubic splines run.

A field of 96 voxels a side takes some milliseconds, a field of millions its share.
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
    places = [
        _lattice(n, max(scale_mm / spacing, 1e-6), rng)
        for n, spacing in zip(shape, spacing_mm, strict=True)
    ]
    knots = [n if at is None else int(at[-1]) + 4 for n, at in zip(shape, places, strict=True)]
    out: Array = rng.standard_normal(knots, np.float32)
    for axis, at in reversed(list(enumerate(places))):
        if at is not None:
            out = spline(out, at, axis)
            out *= np.float32(_SHRINKS**-0.5)
    return out


def spline(values: Array, at: Array, axis: int = 0) -> Array:
    """Run a uniform cubic B-spline along one axis of `values` (m entries), seen at places in 0 .. m - 3."""
    first = np.clip(np.floor(at).astype(int), 0, values.shape[axis] - 4)
    f = at - first
    parts = ((1 - f) ** 3, 3 * f**3 - 6 * f**2 + 4, 3 * f * (1 + f - f**2) + 1, f**3)
    aside = [-1 if k == axis else 1 for k in range(values.ndim)]
    out: Array | None = None
    for k, part in enumerate(parts):
        term = np.take(values, first + k, axis)
        term *= (part / 6).astype(values.dtype).reshape(aside)
        out = term if out is None else np.add(out, term, out=out)
    assert out is not None
    return out


def _lattice(n: int, voxels: float, rng: np.random.Generator) -> Array | None:
    """Where `n` voxels lie among knots that are some voxels apart; None if each is a knot."""
    shift = rng.random()
    return None if voxels <= 1 and n > 1 else np.arange(n) / voxels + shift
