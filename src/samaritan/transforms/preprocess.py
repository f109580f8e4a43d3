"""The frozen chain from an image to a model's input, which belongs to a checkpoint and is stored with it.

A chain makes frames. A frame is one input of the model together with the grid that the input lies
on, so that prompts reach the model, and masks come back, through millimetres alone. Training and
inference share one chain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from samaritan.errors import ConfigError
from samaritan.geometry import FloatArray, Grid
from samaritan.volume import Volume

PRIOR_LOGIT = 6.0
"""A mask drawn by a person counts as logits of at most this size: a probability of 0.9975."""


@dataclass(frozen=True)
class Prompting:
    """How the prompts of several interactions are put together, as a system was trained.

    Raises:
        ConfigError: on a word that is not known.
    """

    clicks: Literal["all", "newest"] = "all"
    """Show the decoder all clicks so far, or only the newest together with the previous mask."""
    multimask: Literal["first", "never", "always"] = "first"
    """Choose among three masks by predicted quality at a first lone click, never, or at every prompt."""
    first_mask: Literal["none", "zeros"] = "none"
    """What stands for the previous mask at the first interaction."""
    mask_values: Literal["logits", "probabilities"] = "logits"
    """What a mask prompt holds."""
    refine: Literal["mask", "prompts"] = "mask"
    """Show the present mask alone when it is to be redrawn, or the prompts with it: where training never
    showed a mask alone (M-SAM)."""
    feedback: bool = False
    """Give the decoder the image as the last answer joined it with the mask (M-SAM's paper, not its code)."""

    def __post_init__(self) -> None:
        known = {
            "clicks": ("all", "newest"),
            "multimask": ("first", "never", "always"),
            "first_mask": ("none", "zeros"),
            "mask_values": ("logits", "probabilities"),
            "refine": ("mask", "prompts"),
        }
        for name, words in known.items():
            if getattr(self, name) not in words:
                raise ConfigError(
                    f"prompting.{name} is one of {words}, got {getattr(self, name)!r}"
                )


@dataclass(frozen=True, eq=False)
class Frame:
    """One input of a model and where it lies.

    Attributes:
        tensor: "1 c *size", normalised.
        grid: the grid of the input's voxels; in 2D one voxel thick along its third axis.
        n_axes: 2 or 3: how many axes the model sees.
        statistics: the intensities that it was normalised with, to make its neighbours alike.
    """

    tensor: Float[Tensor, "1 c *size"]
    grid: Grid
    n_axes: int
    statistics: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "statistics", dict(self.statistics))


PLANNED = "nnunet"
"""The kind of chain that labels whole volumes by nnU-Net's plans: `samaritan.data.nnunet.chain`."""


def is_planned(preprocess: Mapping[str, Any] | None) -> bool:
    """Tell whether the `preprocess` of a header is such a chain, without importing what it needs."""
    return preprocess is not None and preprocess.get("kind") == PLANNED


class Preprocess(ABC):
    """A chain from a volume to frames. See `SlicePreprocess` and `WindowPreprocess`."""

    kind: ClassVar[str]
    n_axes: ClassVar[int]
    prompting: Prompting

    @abstractmethod
    def statistics(self, volume: Volume) -> dict[str, float]:
        """Measure once for a volume what `frame` needs for each of its frames."""

    @abstractmethod
    def frame_grid(self, grid: Grid, key: tuple[int, ...]) -> Grid:
        """Say where the frame that `key` names lies in an image on `grid`, without making it."""

    @abstractmethod
    def frame(self, volume: Volume, key: tuple[int, ...], statistics: Mapping[str, float]) -> Frame:
        """Make the input of the model that `key` names."""

    def to_dict(self) -> dict[str, Any]:
        """Describe the chain in JSON types, for a checkpoint's header."""
        return {"kind": self.kind, **asdict(self)}  # type: ignore[call-overload]

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Preprocess:
        """Make the chain that `to_dict` described.

        Raises:
            ConfigError: if the kind or a field is not known.
        """
        rest = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        kind = rest.pop("kind", None)
        from samaritan.transforms.cubes import CubePreprocess  # which are made from what is here
        from samaritan.transforms.focus import FocusPreprocess
        from samaritan.transforms.windows import WindowPreprocess

        chains: dict[str, type[Preprocess]] = {
            c.kind: c for c in (SlicePreprocess, WindowPreprocess, FocusPreprocess, CubePreprocess)
        }
        if kind not in chains:
            raise ConfigError(
                f"preprocessing kind {kind!r} is not known; expected one of {list(chains)}"
            )
        try:
            prompting = Prompting(**dict(values.get("prompting", {})))
            chain: Preprocess = chains[kind](**{**rest, "prompting": prompting})
            return chain
        except TypeError as error:
            raise ConfigError(
                f"preprocessing of kind {kind!r} does not take these fields: {error}"
            ) from error


DISPLAY = ("IPR", "ILA", "PLS")
"""How radiologists look at a slice across each patient axis (x, y, z): rows, columns, through."""


@dataclass(frozen=True)
class SlicePreprocess(Preprocess):
    """Pictures and slices for 2D models, as published for SAM.

    A slice is turned as radiologists look at it (rows down, patient's right on the left side),
    brought to 0..255, resized so that the longer physical side fills the input, normalised, and
    padded with zeros at the right and bottom. Frames are named by (array axis, index) of the slice.

    Source: facebookresearch/segment-anything, predictor.py and utils/transforms.py. There the pixels count,
    not millimetres; both agree where pixels are square.
    """

    kind: ClassVar[str] = "slices"
    n_axes: ClassVar[int] = 2

    size: tuple[int, int] = (1024, 1024)
    """Rows and columns of the model's input."""
    channels: int = 3
    """Channels of the model's input; grey images are repeated."""
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    """Subtracted from 0..255."""
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    """Divides what `mean` leaves."""
    resize: Literal["longest", "stretch", "pad"] = "longest"
    """Keep the aspect and pad; or stretch to the whole input; or pad around pictures that are smaller than
    the input on both sides, and stretch others (SAM-Med2D's training and test)."""
    interpolation: Literal["bilinear", "nearest", "bicubic"] = "bilinear"
    """How pixels are found when resizing; all of them keep the centre of the picture in its place."""
    channel_order: Literal["rgb", "bgr"] = "rgb"
    """Which colour comes first in the model's input; makes no difference to grey images."""
    window: tuple[float, float] | None = None
    """Intensities that become 0 and 255; None: pictures of 8 bits as they are, others by `percentiles`."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Percentiles of the whole volume that become 0 and 255."""
    prompting: Prompting = field(default_factory=Prompting)
    """How prompts are put together."""

    def __post_init__(self) -> None:
        known = {
            "resize": ("longest", "stretch", "pad"),
            "interpolation": ("bilinear", "nearest", "bicubic"),
            "channel_order": ("rgb", "bgr"),
        }
        for name, words in known.items():
            if getattr(self, name) not in words:
                raise ConfigError(f"{name} is one of {words}, got {getattr(self, name)!r}")

    def statistics(self, volume: Volume) -> dict[str, float]:
        """Find the intensities that become 0 and 255."""
        if self.window is not None:
            return {"low": float(self.window[0]), "high": float(self.window[1])}
        if volume.dtype == np.uint8 and volume.grid.unit == "px":
            return {"low": 0.0, "high": 255.0}
        values = thinned(volume)
        if not values.size:
            return {"low": 0.0, "high": 1.0}
        low, high = np.percentile(values, self.percentiles)
        return {"low": float(low), "high": float(max(high, low + 1e-6))}

    def frame(self, volume: Volume, key: tuple[int, ...], statistics: Mapping[str, float]) -> Frame:
        """Make the input for one slice; `key` is (array axis, index)."""
        from PIL import Image

        axis, index = key
        shown = displayed(volume.slice(axis, index), axis)
        pixels = to_bytes(shown.array[:, :, 0], statistics["low"], statistics["high"])
        rows, columns = self.content_size(shown.grid)
        method = Image.Resampling[self.interpolation.upper()]
        picture = Image.fromarray(pixels).resize((columns, rows), method)
        tensor = self.tensor(np.array(picture).reshape(rows, columns, -1))
        return Frame(tensor, self.frame_grid(volume.grid, key), 2, statistics)

    def tensor(
        self, pixels: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    ) -> Float[Tensor, "1 c *size"]:
        """Normalise a picture (rows, columns, c) that has its size in the input already, and pad it."""
        rows, columns = pixels.shape[:2]
        values = self._to_channels(torch.from_numpy(np.ascontiguousarray(pixels)))
        if self.channel_order == "bgr" and self.channels == 3:
            values = values.flip(2)
        tensor = torch.zeros(1, self.channels, *self.size)
        top, left = self.offset(rows, columns)
        content = tensor[0, :, top : top + rows, left : left + columns]
        content.copy_(values.permute(2, 0, 1))
        content.sub_(torch.tensor(self.mean)[:, None, None])
        content.div_(torch.tensor(self.std)[:, None, None])
        return tensor

    def frame_grid(self, grid: Grid, key: tuple[int, ...]) -> Grid:
        """Lay the input over one slice: its content and, to the right and below, the padding."""
        axis, index = key
        start, shape = [0, 0, 0], list(grid.shape)
        start[axis], shape[axis] = index, 1
        shown = grid.window(start, shape).reorient(display_codes(grid, axis))
        content = shown.resize((*self.content_size(shown), 1))
        top, left = self.offset(*content.shape[:2])
        return content.window((-top, -left, 0), (*self.size, 1))

    def content_size(self, grid: Grid) -> tuple[int, int]:
        """Rows and columns of the input that the slice fills; the rest is padding."""
        if self.resize != "longest":
            small = all(n < total for n, total in zip(grid.shape, self.size, strict=False))
            return grid.shape[:2] if small and self.resize == "pad" else self.size
        spacing = grid.spacing_mm
        square = abs(spacing[0] / spacing[1] - 1) < 1e-3
        sides = [
            n * (1.0 if square else s) for n, s in zip(grid.shape[:2], spacing[:2], strict=True)
        ]
        scale = min(total / side for total, side in zip(self.size, sides, strict=True))
        rows, columns = (max(int(side * scale + 0.5), 1) for side in sides)
        return min(rows, self.size[0]), min(columns, self.size[1])

    def offset(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of padding before the content."""
        if self.resize != "pad":
            return 0, 0
        return (self.size[0] - rows) // 2, (self.size[1] - columns) // 2

    def _to_channels(self, values: Tensor) -> Tensor:
        """Give (rows, columns, c) the model's channels."""
        if values.shape[2] == self.channels:
            return values
        if values.shape[2] == 1:
            return values.expand(-1, -1, self.channels)
        if self.channels == 1:
            return values.float().mean(dim=2, keepdim=True)
        if values.shape[2] == 4:
            return values[:, :, :3]
        raise ConfigError(
            f"the image has {values.shape[2]} channels and the model takes {self.channels}; "
            "pick one with volume.channel(name)"
        )


def default_preprocess(n_axes: int, size: tuple[int, ...], channels: int) -> Preprocess:
    """Choose the published chain for plain SAM (2 axes) or SAM-Med3D (3 axes) at an input size."""
    if n_axes == 3:
        from samaritan.transforms.windows import WindowPreprocess

        return WindowPreprocess(size=size)  # type: ignore[arg-type]
    if channels == 3:
        return SlicePreprocess(size=size)  # type: ignore[arg-type]
    grey = {"mean": (float(np.mean(SlicePreprocess.mean)),) * channels, "std": (57.63,) * channels}
    return SlicePreprocess(size=size, channels=channels, **grey)  # type: ignore[arg-type]


def displayed(volume: Volume, axis: int) -> Volume:
    """Turn a slice across `axis` as it is looked at: a view of shape (rows, columns, 1[, c])."""
    return volume.reorient(display_codes(volume.grid, axis))


def display_codes(grid: Grid, axis: int) -> str:
    """Say how slices across an array axis are turned to be looked at."""
    across = next(
        world for world, pair in enumerate(("RL", "AP", "SI")) if grid.orientation[axis] in pair
    )
    return DISPLAY[across]


def slice_axis(grid: Grid) -> int:
    """Choose the array axis that slices are stacked along: the thin one, or that of the thickest voxels."""
    thin = [axis for axis in range(3) if grid.shape[axis] == 1]
    if thin:
        return thin[-1]
    spacing: FloatArray = np.asarray(grid.spacing_mm)
    if spacing.max() > 1.05 * spacing.min():
        return int(spacing.argmax())
    letters = grid.orientation
    return next(axis for axis in range(3) if letters[axis] in "SI")


def to_bytes(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[Any]:
    """Window intensities to 0..255 of 8 bits; NaN becomes 0."""
    if values.dtype == np.uint8 and (low, high) == (0.0, 255.0):
        return np.ascontiguousarray(values)
    scaled = (values.astype(np.float32) - low) * (255.0 / (high - low))
    clipped = np.clip(np.nan_to_num(scaled), 0, 255)
    return np.ascontiguousarray(np.rint(clipped).astype(np.uint8))


def thinned(volume: Volume, most: int = 2_000_000) -> npt.NDArray[Any]:
    """Take about `most` finite voxels, evenly spread, to measure intensities on."""
    step = max(1, round((volume.grid.n_voxels / most) ** (1 / 3)))
    values = volume.array[tuple(slice(None, None, min(step, n)) for n in volume.shape)]
    return values[np.isfinite(values)] if values.dtype.kind == "f" else values.reshape(-1)
