"""Windows of a picture or slice for small 2D models: what is looked at fills the input, whatever its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Num
from torch import Tensor

from samaritan.geometry import Grid
from samaritan.transforms.preprocess import (
    Frame,
    SlicePreprocess,
    display_codes,
    displayed,
    to_bytes,
)
from samaritan.volume import Volume

Array = npt.NDArray[Any]

SLOT = 8
"""Parts of a lattice pixel that windows start and end at, so that whole numbers name one."""


@dataclass(frozen=True)
class FocusPreprocess(SlicePreprocess):
    """Square windows of a slice, each brought to the input's size and to mean 0 and deviation 1.

    A slice is turned as radiologists look at it, on a lattice of square pixels as fine as its finest
    side. Frames are named by (array axis, index, top, left, side), the last three in `SLOT`s of a lattice
    pixel; (array axis, index) alone is the whole slice. What lies outside the slice is 0 after normalising.
    """

    kind: ClassVar[str] = "focus"

    size: tuple[int, int] = (96, 96)
    mean: tuple[float, ...] = ()
    """Not used: each window has its own."""
    std: tuple[float, ...] = ()
    """Not used: each window has its own."""
    margin: float = 1.5
    """Side of a window over the longest side of what is in it."""
    finest: int = 1024
    """Longest side of pictures in training: larger ones are made smaller first."""

    def lattice(self, grid: Grid, axis: int, index: int) -> Grid:
        """Square pixels over a slice as it is looked at: (rows, columns, 1)."""
        shown = _shown(grid, axis, index)
        spacing = shown.spacing_mm
        if abs(spacing[0] / spacing[1] - 1) < 1e-3:
            return shown
        fine = min(spacing[:2])
        rows, columns = (
            max(round(n * s / fine), 1) for n, s in zip(shown.shape, spacing[:2], strict=False)
        )
        return shown.resize((rows, columns, 1))

    def whole(self, grid: Grid, axis: int, index: int) -> tuple[int, int, int]:
        """Top, left and side, in slots, of the window that holds a whole slice in its middle."""
        rows, columns = self.lattice(grid, axis, index).shape[:2]
        side = max(rows, columns)
        return ((rows - side) * SLOT // 2, (columns - side) * SLOT // 2, side * SLOT)

    def frame_grid(self, grid: Grid, key: tuple[int, ...]) -> Grid:
        """Lay the input over one window."""
        axis, index, *place = key
        top, left, side = place or self.whole(grid, axis, index)
        lattice = self.lattice(grid, axis, index)
        rows, columns, _ = lattice.shape
        slots = lattice.resize((rows * SLOT, columns * SLOT, 1))
        return slots.window((top, left, 0), (side, side, 1)).resize((*self.size, 1))

    def frame(self, volume: Volume, key: tuple[int, ...], statistics: Mapping[str, float]) -> Frame:
        """Make the input for one window."""
        axis, index, *place = key
        shown = displayed(volume.slice(axis, index), axis)
        pixels = to_bytes(shown.array[:, :, 0], statistics["low"], statistics["high"])
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        top, left, side = place or self.whole(volume.grid, axis, index)
        lattice = self.lattice(volume.grid, axis, index).shape
        ratio = [n / total for n, total in zip(pixels.shape[:2], lattice, strict=False)]
        box = [top * ratio[0], left * ratio[1], (top + side) * ratio[0], (left + side) * ratio[1]]
        values, content = cut(pixels, [edge / SLOT for edge in box], self.size)
        tensor = self.normalised(torch.from_numpy(values), torch.from_numpy(content))
        return Frame(tensor, self.frame_grid(volume.grid, key), 2, statistics)

    def content_size(self, grid: Grid) -> tuple[int, int]:
        """Rows and columns that pictures are kept at for training: their own, unless they are large."""
        spacing = grid.spacing_mm
        sides = [n * s / min(spacing[:2]) for n, s in zip(grid.shape, spacing[:2], strict=False)]
        scale = min(self.finest / max(sides), 1.0)
        rows, columns = (max(round(side * scale), 1) for side in sides)
        return rows, columns

    def normalised(
        self, values: Num[Tensor, "rows columns c"], content: Float[Tensor, "rows columns"]
    ) -> Float[Tensor, "1 _ rows columns"]:
        """Normalise a window of 0..255 that was cut already; `content` is 1 on the picture, 0 outside."""
        channels = self._to_channels(values).float()
        if self.channel_order == "bgr" and self.channels == 3:
            channels = channels.flip(2)
        inside = content[..., None] > 0.5
        count = (inside.sum() * channels.shape[2]).clamp(min=1)
        mean = (channels * inside).sum() / count
        spread = (((channels - mean) * inside).square().sum() / count).sqrt().clamp(min=2.0)
        tensor = ((channels - mean) / spread * inside).permute(2, 0, 1)
        return tensor.contiguous()[None]


def cut(pixels: Array, box: list[float], size: tuple[int, int]) -> tuple[Array, Array]:
    """Cut a box out of a picture and resize it, averaging where it shrinks.

    Args:
        pixels: (rows, columns, c) of 8 bits.
        box: top, left, bottom, right in pixels, edges not centres; may leave the picture.
        size: rows and columns to make.

    Returns:
        (rows, columns, c) uint8, and float32 (rows, columns): 1 on the picture, 0 outside.
    """
    from PIL import Image

    rows, columns = pixels.shape[:2]
    first = [int(np.floor(edge)) - 2 for edge in box[:2]]
    last = [int(np.ceil(edge)) + 2 for edge in box[2:]]
    part = np.zeros((last[0] - first[0], last[1] - first[1], pixels.shape[2]), np.uint8)
    content = np.zeros(part.shape[:2], np.float32)
    top, left = max(first[0], 0), max(first[1], 0)
    bottom, right = min(last[0], rows), min(last[1], columns)
    if top < bottom and left < right:
        there = (
            slice(top - first[0], bottom - first[0]),
            slice(left - first[1], right - first[1]),
        )
        part[there] = pixels[top:bottom, left:right]
        content[there] = 1
    where = (box[1] - first[1], box[0] - first[0], box[3] - first[1], box[2] - first[0])
    shape = (size[1], size[0])
    linear = Image.Resampling.BILINEAR
    made = [
        np.asarray(Image.fromarray(channel).resize(shape, linear, where))
        for channel in np.ascontiguousarray(part.transpose(2, 0, 1))
    ]
    known = np.array(Image.fromarray(content).resize(shape, linear, where))
    return np.stack(made, axis=2), known


def _shown(grid: Grid, axis: int, index: int) -> Grid:
    """The grid of a slice as it is looked at."""
    start, shape = [0, 0, 0], list(grid.shape)
    start[axis], shape[axis] = index, 1
    return grid.window(start, shape).reorient(display_codes(grid, axis))
