"""MaskSAM's adapters: a bottleneck beside a module for pictures, in which slices of a volume meet."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from samaritan.adapt.adapter import Adapter, draw_weights
from samaritan.errors import ConfigError
from samaritan.products import Conv3d, Linear

SEES = ("output", "input")
STARTS = ("identity", "published")

MOST_FRAMES = 1024
MLP_RATIO = 4
"""Hidden numbers for each slice of a `DepthMlp`."""

Layout = tuple[int, int, tuple[int, ...]]


class Between(Adapter):
    """Narrow, activate, add what slices tell each other, widen; the result is added to the output.

    Slices are folded into the batch: volume, then slice, then the sets of prompts of a slice.
    `layout` says how many of each there are; a model that folds them sets it before it calls. Until then
    every `frames` pictures in a row are a volume.

    With start "identity" the last layer begins as zero, so nothing changes at first; "published" draws it as
    torch does.

    Source: MaskSAM (Xie et al., ICCV 2025, arXiv:2403.14103), from a description of its program.
    """

    def __init__(
        self,
        width: int,
        *,
        frames: int = 4,
        ratio: float = 0.25,
        scale: float = 1.0,
        sees: str = "output",
        start: str = "identity",
    ) -> None:
        super().__init__()
        self.frames, self.ratio, self.scale = frames, float(ratio), float(scale)
        self.sees, self.start = sees, start
        self.layout: Layout = (frames, 1, ())
        self.hidden = max(1, int(width * ratio))
        self.down = Linear(width, self.hidden)
        self.up = Linear(self.hidden, width)

    @classmethod
    def beside(cls, target: nn.Module, *, where: str, ndim: int, **options: Any) -> Self:
        """Make one for a module of a model for pictures that gives tokens, channels last."""
        generator = options.pop("generator", None)
        linears = [module for module in target.modules() if isinstance(module, nn.Linear)]
        if ndim != 2 or not linears:
            raise ConfigError(
                f"an adapter between slices stands in a model for pictures, beside a module that gives "
                f"tokens; {where!r} is a {type(target).__name__} of a model in {ndim}D"
            )
        _check_options(options)
        adapter = cls(linears[-1].out_features, **options)
        if generator is not None:
            draw_weights(adapter, generator)
        if adapter.start == "identity":
            nn.init.zeros_(adapter.up.weight)
            nn.init.zeros_(adapter.up.bias)
        adapter.stand_beside(target)
        return adapter.to(device=linears[-1].weight.device, dtype=linears[-1].weight.dtype)

    def stand_beside(self, target: nn.Module) -> None:
        """Learn what is needed of the module that it stands beside."""

    def forward(self, x: Any, output: Tensor) -> Tensor:
        """Add the branch to the output, given the output itself or what went in."""
        seen = output if self.sees == "output" else x[0] if isinstance(x, tuple) else x
        trunk = F.gelu(self.down(seen))
        branch: Tensor = self.up(trunk + self.between(trunk))
        return output + self.scale * branch

    def between(self, trunk: Tensor) -> Tensor:
        """What slices tell each other; tokens (b t q) ... c, channels last."""
        raise NotImplementedError

    @property
    def options(self) -> dict[str, Any]:
        """All of them."""
        return {
            "frames": self.frames,
            "ratio": self.ratio,
            "scale": self.scale,
            "sees": self.sees,
            "start": self.start,
        }

    def unfolded(self, trunk: Tensor, slices: int, sets: int) -> Tensor:
        """The batch as b t q; whatever follows stays."""
        if len(trunk) % (slices * sets):
            raise ConfigError(
                f"a batch of {len(trunk)} cannot be cut into volumes of {slices} slices"
                + (f" with {sets} sets of prompts each" if sets > 1 else "")
                + ". Fold whole volumes into the batch"
            )
        return trunk.reshape(-1, slices, sets, *trunk.shape[1:])


class DepthConv(Between):
    """Slices meet in a depth-wise convolution of width 3 over slices, rows and columns, with a norm."""

    kind: ClassVar[str] = "depth_conv"

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(width, **options)
        self.conv = Conv3d(self.hidden, self.hidden, 3, padding=1, groups=self.hidden)
        self.norm = nn.LayerNorm(self.hidden, eps=1e-6)
        self.window: tuple[int, ...] | None = None
        self.quirks: Any = None

    def stand_beside(self, target: nn.Module) -> None:
        """Windows of attention, and whether they are to be taken for slices (`Quirks.window_depth`)."""
        window, quirks = getattr(target, "window", None), getattr(target, "quirks", None)
        self.window = window if isinstance(window, tuple) else None
        self.quirks = quirks

    def between(self, trunk: Tensor) -> Tensor:
        """Convolve over the slices of a volume, for each set of prompts by itself."""
        slices, sets, grid = self.layout
        if trunk.ndim == 3:  # tokens in a row: those of the image in the decoder
            rows = trunk.reshape(len(trunk), *self._grid(trunk, grid), -1)
            return self.between(rows).flatten(1, 2)
        if self.window is not None and getattr(self.quirks, "window_depth", False):
            return self._between_windows(trunk, slices)
        return self._convolve(self.unfolded(trunk, slices, sets)).flatten(0, 2)

    def _convolve(self, x: Tensor) -> Tensor:
        """Tokens (b t q h w c), each set by itself."""
        b, _, q = x.shape[:3]
        folded = x.permute(0, 2, 5, 1, 3, 4).flatten(0, 1)
        mixed: Tensor = self.conv(folded)
        mixed = mixed.reshape(b, q, *mixed.shape[1:]).permute(0, 3, 1, 4, 5, 2)
        return F.gelu(self.norm(mixed))

    def _between_windows(self, trunk: Tensor, slices: int) -> Tensor:
        """The published mistake: as many windows in a row as there are slices are taken for slices."""
        assert self.window is not None
        n, *grid, channels = trunk.shape
        rows, columns = self.window
        padded = F.pad(trunk, (0, 0, 0, -grid[1] % columns, 0, -grid[0] % rows))
        r, c = padded.shape[1] // rows, padded.shape[2] // columns
        cells = padded.reshape(n, r, rows, c, columns, channels)
        in_row = cells.transpose(2, 3).reshape(-1, rows, columns, channels)
        mixed = self._convolve(self.unfolded(in_row, slices, 1)).flatten(0, 2)
        mixed = mixed.reshape(n, r, c, rows, columns, channels).transpose(2, 3)
        return mixed.reshape(n, r * rows, c * columns, channels)[:, : grid[0], : grid[1]]

    @staticmethod
    def _grid(trunk: Tensor, grid: tuple[int, ...]) -> tuple[int, ...]:
        if grid:
            return grid
        side = round(trunk.shape[1] ** 0.5)
        if side * side != trunk.shape[1]:
            raise ConfigError(
                f"{trunk.shape[1]} tokens in a row are no square, and nobody has said what their grid is. "
                f"Set layout of the adapter to (slices, sets, grid)"
            )
        return side, side


class DepthMlp(Between):
    """Each token meets itself in the other slices, in an MLP over slices.

    It is made for so many slices; others are interpolated to theirs and back.
    """

    kind: ClassVar[str] = "depth_mlp"

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(width, **options)
        self.depth_in = Linear(self.frames, MLP_RATIO * self.frames)
        self.depth_out = Linear(MLP_RATIO * self.frames, self.frames)

    def between(self, trunk: Tensor) -> Tensor:
        """Mix the slices of every token and channel."""
        slices, sets, _ = self.layout
        x = self.unfolded(trunk, slices, sets).movedim(1, -1)  # b q ... c t
        mixed = self.depth_out(F.gelu(self.depth_in(_stretched(x, self.frames))))
        return _stretched(mixed, slices).movedim(-1, 1).flatten(0, 2)


def _stretched(x: Tensor, length: int) -> Tensor:
    """Another number of slices on the last axis, interpolated linearly; the same where it fits."""
    if x.shape[-1] == length:
        return x
    rows = x.reshape(1, -1, x.shape[-1])
    resized = F.interpolate(rows, length, mode="linear", align_corners=False)
    return resized.reshape(*x.shape[:-1], length)


def _check_options(options: dict[str, Any]) -> None:
    frames, ratio = options.get("frames", 4), options.get("ratio", 0.25)
    scale, start = options.get("scale", 1.0), options.get("start", "identity")
    whole = isinstance(frames, int) and not isinstance(frames, bool)
    if not whole or not 1 <= frames <= MOST_FRAMES:
        raise ConfigError(
            f"frames of an adapter between slices must be a whole number from 1 to {MOST_FRAMES}, "
            f"not {frames!r}"
        )
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        raise ConfigError(f"the ratio of an adapter must be above 0 and up to 1, not {ratio!r}")
    if isinstance(scale, bool) or not isinstance(scale, int | float):
        raise ConfigError(f"the scale of an adapter must be a number, not {scale!r}")
    if options.get("sees", "output") not in SEES:
        raise ConfigError(f"an adapter sees one of {SEES}, not {options['sees']!r}")
    if start not in STARTS:
        raise ConfigError(f"the start of an adapter is one of {STARTS}, not {start!r}")
