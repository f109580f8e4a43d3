"""Changes of grey and colour that are a line or two of arithmetic on (c, rows, columns), 0 to 255."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Change = Callable[[Array, np.random.Generator], Array]


def random_window(values: Array, rng: np.random.Generator) -> Array:
    """Cut off up to a quarter of the grey values at each end and stretch the rest."""
    low, high = np.float32(rng.uniform(0, 64)), np.float32(rng.uniform(191, 255))
    out: Array = np.clip((values - low) * (255 / (high - low)), 0, 255)
    return out


def gamma(values: Array, rng: np.random.Generator) -> Array:
    """Bend the grey values, darker or lighter, up to a power of 2."""
    power = np.float32(np.exp(rng.uniform(-np.log(2), np.log(2))))
    out: Array = np.float32(255) * (np.clip(values, 0, 255) / np.float32(255)) ** power
    return out


def contrast(values: Array, rng: np.random.Generator) -> Array:
    """Spread or press the grey values about their mean, and shift them."""
    mean = values.mean(dtype=np.float32)
    spread, shift = np.float32(rng.uniform(0.6, 1.5)), np.float32(rng.uniform(-30, 30))
    out: Array = (values - mean) * spread + mean + shift
    return out


def invert(values: Array, rng: np.random.Generator) -> Array:
    """Make white black: T1 looks a little like T2, and bright objects become dark ones."""
    return np.float32(255) - values


def color_gain(values: Array, rng: np.random.Generator) -> Array:
    """Give each colour a brightness of its own."""
    return values * rng.uniform(0.7, 1.3, (len(values), 1, 1)).astype(np.float32)


def color_order(values: Array, rng: np.random.Generator) -> Array:
    """Exchange colours."""
    return values[rng.permutation(len(values))]


def grey(values: Array, rng: np.random.Generator) -> Array:
    """Take the colours away, mixed by random weights."""
    weights = rng.dirichlet(np.full(len(values), 2.0)).astype(np.float32)
    mixed = np.tensordot(weights, values, axes=1)
    return np.broadcast_to(mixed, values.shape).copy()


GREYS: tuple[tuple[float, Change], ...] = (
    (0.25, random_window),
    (0.35, gamma),
    (0.35, contrast),
    (0.15, invert),
)
"""Probability and change, for every picture."""

COLORS: tuple[tuple[float, Change], ...] = (
    (0.4, color_gain),
    (0.15, color_order),
    (0.25, grey),
)
"""Probability and change, for pictures in colour."""
