"""Low-resolution masks on a picture's pixels, worked out only where something may be."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from torch import Tensor

from samaritan.infer.frames import interpolation
from samaritan.infer.mask_filters import IntArray

Size = tuple[int, int]


class Enlarging:
    """The published way of low-resolution logits to pixels: to the input's size, cut, to the picture's.

    Both steps are linear along each axis by itself, so together they are one matrix for each.

    Args:
        low: rows and columns of the logits, which lie over the model's whole input.
        size: rows and columns of the model's input.
        content: the part of them, upper left, that the picture fills.
        target: rows and columns of the picture.
    """

    def __init__(self, low: Size, size: Size, content: Size, target: Size) -> None:
        self.rows, self.columns = (
            _matrix(*lengths) for lengths in zip(low, size, content, target, strict=True)
        )
        self._row_reach, self._column_reach = _reach(self.rows), _reach(self.columns)

    def part(
        self, logits: Float[Tensor, "h w"], box: IntArray
    ) -> tuple[tuple[int, int], Float[Tensor, "rows columns"]]:
        """Enlarge what a box of the logits (x0, y0, x1, y1; inclusive) has a part in.

        Returns:
            The first row and column, and the pixels from there on; columns follow each other in memory.
        """
        x0, y0, x1, y1 = (int(v) for v in box)
        top, bottom, up, down = _span(self._row_reach, y0, y1)
        left, right, start, stop = _span(self._column_reach, x0, x1)
        near = logits[up:down, start:stop]
        across = self.columns[left:right, start:stop] @ near.T
        pixels = across @ self.rows[top:bottom, up:down].T
        return (top, left), pixels.T


def _matrix(low: int, size: int, content: int, target: int) -> Float[Tensor, "target low"]:
    whole = interpolation(low, size, range(content))
    return whole if content == target else interpolation(content, target, range(target)) @ whole


def _reach(matrix: Float[Tensor, "n low"]) -> tuple[IntArray, IntArray]:
    """The first and the last low-resolution cell that each pixel sees."""
    seen = matrix.numpy() != 0
    return seen.argmax(axis=1), seen.shape[1] - 1 - seen[:, ::-1].argmax(axis=1)


def _span(reach: tuple[IntArray, IntArray], low: int, high: int) -> tuple[int, int, int, int]:
    """The pixels that see any of the cells from `low` to `high`, and the cells that these see; half-open."""
    first, last = reach
    start = int(np.searchsorted(last, low, "left"))
    stop = int(np.searchsorted(first, high, "right"))
    if start >= stop:
        return start, start, low, low
    return start, stop, int(first[start]), int(last[stop - 1]) + 1
