"""Cut a token grid into attention windows and put it together again.

SAM pads the grid so that whole windows fill it. Here the grid is cut into regions instead: the part
that whole windows fill, and on each axis the rest, which is one smaller window. So only real tokens
are ever cut out, and each region is one batch of equal windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

from jaxtyping import Shaped
from torch import Tensor


class Region(NamedTuple):
    """A box of the token grid that windows of one size tile exactly."""

    place: tuple[slice, ...]
    """Where it lies, per axis."""
    size: tuple[int, ...]
    """Tokens of one window, per axis."""


def regions(grid: Sequence[int], window: Sequence[int]) -> Iterator[Region]:
    """The regions of a grid, together all of it.

    >>> [r.size for r in regions((7, 2), (3, 3))]
    [(3, 2), (1, 2)]
    """
    axes = []
    for n, w in zip(grid, window, strict=True):
        whole = n // w * w
        parts = [(slice(0, whole), w), (slice(whole, n), n - whole)]
        axes.append([(place, size) for place, size in parts if place.stop > place.start])
    for parts_of_region in product(*axes):
        yield Region(tuple(p for p, _ in parts_of_region), tuple(s for _, s in parts_of_region))


def filled(
    tokens: Shaped[Tensor, "b *grid d"], window: Sequence[int], value: Shaped[Tensor, " d"]
) -> Shaped[Tensor, "b *full d"]:
    """Pad the grid at the end of each axis to whole windows, with one value."""
    size = [n + -n % w for n, w in zip(tokens.shape[1:-1], window, strict=True)]
    return fill(tokens[:, None], size, value[None])[:, 0]


def cut(
    qkv: Shaped[Tensor, "b *grid d"], size: Sequence[int], heads: int
) -> tuple[Shaped[Tensor, "n h *size c"], ...]:
    """Queries, keys and values of each window, given the tokens of one region."""
    b, *grid, _ = qkv.shape
    ndim = len(grid)
    counts = [n // s for n, s in zip(grid, size, strict=True)]
    interleaved = [m for pair in zip(counts, size, strict=True) for m in pair]
    x = qkv.reshape(b, *interleaved, 3, heads, -1)
    count_axes = range(1, 2 * ndim, 2)
    size_axes = range(2, 2 * ndim + 1, 2)
    which, head, channel = 2 * ndim + 1, 2 * ndim + 2, 2 * ndim + 3
    x = x.permute(which, 0, *count_axes, head, *size_axes, channel)
    q, k, v = x.reshape(3, -1, heads, *size, x.shape[-1])
    return q, k, v


def join(
    windows: Shaped[Tensor, "n h *size c"], shape: Sequence[int]
) -> Shaped[Tensor, "b *grid d"]:
    """Tokens of one region from its windows, heads merged; `shape` is (b, *grid)."""
    b, *grid = shape
    _, heads, *size, channels = windows.shape
    ndim = len(grid)
    counts = [n // s for n, s in zip(grid, size, strict=True)]
    x = windows.reshape(b, *counts, heads, *size, channels)
    pairs = [axis for i in range(ndim) for axis in (1 + i, 2 + ndim + i)]
    x = x.permute(0, *pairs, 1 + ndim, 2 + 2 * ndim)
    return x.reshape(b, *grid, heads * channels)


def fill(
    tokens: Shaped[Tensor, "n h *size c"], size: Sequence[int], value: Shaped[Tensor, "h c"]
) -> Shaped[Tensor, "n h *full c"]:
    """Pad windows at the end of each axis to `size` with one value per head."""
    if tokens.shape[2:-1] == tuple(size):
        return tokens
    n, heads, *old, channels = tokens.shape
    padding = value.reshape(1, heads, *[1] * len(old), channels).to(tokens.dtype)
    full = padding.expand(n, heads, *size, channels).clone()
    full[(slice(None), slice(None), *(slice(0, m) for m in old))] = tokens
    return full
