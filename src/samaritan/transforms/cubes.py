"""Cubes of a volume for small 3D models: what is looked at fills the input, whatever its size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.transforms.focus import SLOT
from samaritan.transforms.preprocess import Frame, Preprocess, Prompting, thinned
from samaritan.transforms.windows import one_channel
from samaritan.volume import Volume

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]

LEVELS = 255.0
"""Intensities are brought to 0 .. this first, as grey values of pictures are."""

FLATTEST = 2.0
"""A cube's deviation counts as at least so much, on that scale: noise of flat cubes stays small."""

SLAB_VOXELS = 4_000_000
"""Voxels of a volume that are floats at a time: 16 MB."""


@dataclass(frozen=True)
class CubePreprocess(Preprocess):
    """Cubes of any side, each brought to the input's size and to mean 0 and deviation 1.

    A volume is turned to `orientation`, on a lattice of cubic voxels as fine as its finest side. Frames
    are named by (i, j, k, side) in `SLOT`s of a lattice voxel; () is the cube that holds the whole volume.
    Values are averaged where a cube is larger than the input; what lies outside the volume is 0 after
    normalising. Only the cube is ever resampled, slab by slab.

    Raises:
        ConfigError: on a range that cannot be.
    """

    kind: ClassVar[str] = "cubes"
    n_axes: ClassVar[int] = 3

    size: tuple[int, int, int] = (96, 96, 96)
    """Voxels of the model's input."""
    orientation: str = "RAS"
    """Where the axes of the model's input point."""
    window: tuple[float, float] | None = None
    """Intensities that become black and white; None: by `percentiles`."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Percentiles of the whole volume that become black and white."""
    margin: float = 1.5
    """Side of a cube over the longest side of what is in it."""
    prompting: Prompting = field(
        default_factory=lambda: Prompting(clicks="all", multimask="never", mask_values="logits")
    )
    """How prompts are put together."""

    def __post_init__(self) -> None:
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ConfigError(f"window is two ascending intensities, got {self.window}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ConfigError(
                f"percentiles are two from 0 to 100, ascending, got {self.percentiles}"
            )

    # -- where -----------------------------------------------------------------------------------

    def lattice(self, grid: Grid) -> Grid:
        """Cubic voxels all over an image."""
        turned = grid.reorient(self.orientation)
        spacing = turned.spacing_mm
        fine = min(spacing)
        return turned.resize(
            tuple(max(round(n * s / fine), 1) for n, s in zip(turned.shape, spacing, strict=True))
        )

    def stored_grid(self, grid: Grid) -> Grid:
        """The grid that volumes are kept on for training: their own voxels, turned."""
        return grid.reorient(self.orientation)

    def whole(self, grid: Grid) -> tuple[int, int, int, int]:
        """First corner and side, in slots, of the cube that holds a whole volume in its middle."""
        shape = self.lattice(grid).shape
        side = max(shape)
        i, j, k = ((n - side) * SLOT // 2 for n in shape)
        return i, j, k, side * SLOT

    def frame_grid(self, grid: Grid, key: tuple[int, ...]) -> Grid:
        """Lay the input over one cube."""
        *corner, side = key or self.whole(grid)
        lattice = self.lattice(grid)
        slots = lattice.resize(tuple(n * SLOT for n in lattice.shape))
        return slots.window(corner, (side,) * 3).resize(self.size)

    # -- what ------------------------------------------------------------------------------------

    def statistics(self, volume: Volume) -> dict[str, float]:
        """Find the intensities that become black and white."""
        if self.window is not None:
            return {"low": float(self.window[0]), "high": float(self.window[1])}
        values = thinned(one_channel(volume))
        if not values.size:
            return {"low": 0.0, "high": 1.0}
        low, high = np.percentile(values, self.percentiles)
        return {"low": float(low), "high": float(max(high, low + 1e-6))}

    def frame(self, volume: Volume, key: tuple[int, ...], statistics: Mapping[str, float]) -> Frame:
        """Make the input for one cube."""
        *corner, side = key or self.whole(volume.grid)
        turned = one_channel(volume).reorient(self.orientation)
        shape = self.lattice(volume.grid).shape
        scale = np.asarray(turned.shape) / np.asarray(shape) / SLOT
        low = np.asarray(corner, float) * scale
        values, content = cut_cube(turned.array, low, low + side * scale, self.size, statistics)
        tensor = self.normalised(torch.from_numpy(values), torch.from_numpy(content))
        return Frame(tensor[None, None], self.frame_grid(volume.grid, key), 3, statistics)

    @staticmethod
    def normalised(
        values: Float[Tensor, "*size"], content: Float[Tensor, "*size"]
    ) -> Float[Tensor, "*size"]:
        """Normalise a cube of 0..255; `content` is 1 on the volume, 0 outside."""
        inside = (content > 0.5).to(values.dtype)
        count = inside.sum().clamp(min=1)
        mean = (values * inside).sum() / count
        spread = (((values - mean) * inside).square().sum() / count).sqrt().clamp(min=FLATTEST)
        return (values - mean) / spread * inside


def cut_cube(
    array: Array,
    low: npt.ArrayLike,
    high: npt.ArrayLike,
    size: tuple[int, ...],
    statistics: Mapping[str, float],
) -> tuple[Floats, Floats]:
    """Cut a box out of an array, scale its intensities and resample it, averaging where it shrinks.

    Args:
        array: (i, j, k) of any numbers; NaN counts as black.
        low: of the box, in voxels, edges not centres; may leave the array.
        high: likewise.
        size: to make.
        statistics: "low" and "high" intensities, which become 0 and 255; those beyond are cut.

    Returns:
        Values, and 1 on the array to 0 outside; both (*size), float32.
    """
    start, stop = np.asarray(low, float), np.asarray(high, float)
    lines = [
        _weights(a, b, n, m) for a, b, n, m in zip(start, stop, array.shape, size, strict=True)
    ]
    weights, spans, covered = zip(*lines, strict=True)
    block = array[tuple(spans)]
    if not block.size:
        return np.zeros(size, np.float32), np.zeros(size, np.float32)
    slab = max(SLAB_VOXELS // max(block[0].size, 1), 1)
    rows = [
        _contracted(_scaled(block[at : at + slab], statistics), weights[1], weights[2])
        for at in range(0, len(block), slab)
    ]
    values = np.tensordot(weights[0], np.concatenate(rows), axes=1)
    content = covered[0][:, None, None] * covered[1][:, None] * covered[2]
    return np.ascontiguousarray(values, np.float32), np.ascontiguousarray(content, np.float32)


def _scaled(block: Array, statistics: Mapping[str, float]) -> Floats:
    """Cut intensities to their range and bring that to 0..255."""
    low, high = statistics["low"], statistics["high"]
    values = block.astype(np.float32)
    if block.dtype.kind == "f":
        np.nan_to_num(values, copy=False, nan=low, posinf=high, neginf=low)
    np.clip(values, low, high, out=values)
    values -= low
    values *= LEVELS / (high - low)
    return values


def _contracted(block: Floats, second: Floats, third: Floats) -> Floats:
    """Resample the last two axes."""
    made: Floats = np.matmul(second, block @ third.T)
    return made


def _weights(low: float, high: float, count: int, size: int) -> tuple[Floats, slice, Floats]:
    """Resample one axis: weights (size, m) of its voxels in a slice, and how much of each lies on it.

    Triangles as wide as the step between the voxels to make, or between those that are there if they are
    farther apart. Beyond the first and last voxel their values go on.
    """
    step = (high - low) / size
    reach = max(step, 1.0)
    centres = low + (np.arange(size) + 0.5) * step
    first = int(np.clip(np.floor(centres[0] - reach - 0.5), 0, count))
    last = int(np.clip(np.ceil(centres[-1] + reach + 0.5), first, count))
    away = np.abs(np.arange(first, last) + 0.5 - centres[:, None])
    weights = np.clip(1 - away / reach, 0, None)
    total = weights.sum(axis=1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 1e-6)
    edges = centres - step / 2
    covered = (np.minimum(edges + step, count) - np.maximum(edges, 0)) / step
    return weights.astype(np.float32), slice(first, last), np.clip(covered, 0, 1).astype(np.float32)
