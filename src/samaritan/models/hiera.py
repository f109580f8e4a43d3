"""The Hiera image encoder: stages of windowed attention, each with half the grid and twice the width.

NeuroSAM3D uses SAM 2's in three dimensions; it works in two as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.errors import ConfigError
from samaritan.models import windows
from samaritan.models.config import Quirks, SamConfig
from samaritan.models.image_encoder import check_image
from samaritan.models.layers import CONV, TwoLayerMLP
from samaritan.models.positions import interpolate_grid
from samaritan.products import Linear

_MAX: dict[int, Callable[..., Tensor]] = {2: F.max_pool2d, 3: F.max_pool3d}

STEM = {"kernel_size": 7, "stride": 4, "padding": 3}
"""The first convolution: overlapping patches."""


class HieraEncoder(nn.Module):
    """Images to embeddings: overlapping patches, positions, stages, and a neck that joins the last two.

    The embedding is that of the last stage but one, plus the last stage's, doubled in size. The neck's
    projections of earlier stages belong to the weights and are not used, as published.

    Positions are the sum of a coarse table, interpolated to the grid, and of a table as large as the
    windows of the first stage, repeated over it. Both work for any grid, so there is nothing to resize.

    Source: Ryali et al. 2023, arXiv:2306.00989; SAM 2, modeling/backbones/hieradet.py; NeuroSAM3D, the
    same in 3D. There windows are put together in a wrong order (see
    `Quirks.window_order`), and only 128^3 works.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.in_channels = config.in_channels
        self.patch_size = config.patch_size
        conv, ndim = CONV[config.ndim], config.ndim
        self.patch_embed = OverlappingPatches(config.in_channels, config.width, ndim)
        sides = config.background_grid, config.stage_windows[0]
        self.pos_embed = nn.Parameter(torch.zeros(1, config.width, *[sides[0]] * ndim))
        self.pos_embed_window = nn.Parameter(torch.zeros(1, config.width, *[sides[1]] * ndim))
        self.stage_ends = [end - 1 for end in accumulate(config.stages)]
        self.blocks = nn.ModuleList()
        stage = 0
        for i in range(config.depth):
            # the first block of a stage still cuts the grid of the stage before it
            window = None if i in config.global_blocks else config.stage_windows[stage]
            halves = i - 1 in self.stage_ends
            stage += halves
            self.blocks.append(
                HieraBlock(
                    config.width * 2 ** (stage - halves),
                    config.width * 2**stage,
                    config.heads * 2**stage,
                    mlp_ratio=config.mlp_ratio,
                    window=window,
                    halves=halves,
                    quirks=config.quirks,
                )
            )
        widths = [config.width * 2**i for i in reversed(range(len(config.stages)))]
        self.neck = nn.ModuleList(conv(width, config.embed_dim, kernel_size=1) for width in widths)

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b e *grid"]:
        """Embed images that are already normalised.

        Raises:
            ConfigError: if the channels of the images are not those of the model, or their size is no
                multiple of twice the patch size.
        """
        *_, fine, coarse = self.stages(x)
        above = F.interpolate(self.neck[0](coarse), scale_factor=2.0, mode="nearest")
        out: Tensor = self.neck[1](fine) + above
        return out

    def stages(self, x: Float[Tensor, "b c *size"]) -> list[Float[Tensor, "b _ ..."]]:
        """What comes out of each stage, channels first, the finest grid first."""
        check_image(x, self.in_channels, self.patch_size)
        size, least = tuple(x.shape[2:]), tuple(2 * p for p in self.patch_size)
        if any(n % m for n, m in zip(size, least, strict=True)):
            raise ConfigError(
                f"image size {size} is not a multiple of {least}, which this encoder needs since its last "
                f"stage has half the grid. Pad or resize the images"
            )
        x = self.patch_embed(x)
        x = x + self._positions(x.shape[1:-1])
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i in self.stage_ends:
                outputs.append(x.movedim(-1, 1))
        return outputs

    def resize(self, grid: Sequence[int]) -> None:
        """Nothing to do: positions fit any grid."""

    def _positions(self, grid: Sequence[int]) -> Float[Tensor, "1 *grid d"]:
        background = interpolate_grid(self.pos_embed.movedim(1, -1), grid)
        tile = self.pos_embed_window.movedim(1, -1)
        side = tile.shape[1]
        tiled = tile.repeat(1, *(-(-n // side) for n in grid), 1)
        return background + tiled[(slice(None), *(slice(0, n) for n in grid))]


class OverlappingPatches(nn.Module):
    """A strided convolution whose kernel is wider than its step."""

    def __init__(self, in_channels: int, width: int, ndim: int) -> None:
        super().__init__()
        self.proj = CONV[ndim](in_channels, width, **STEM)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b *grid d"]:
        """Tokens on their grid, channels last."""
        out: Tensor = self.proj(x)
        return out.movedim(1, -1)


class HieraBlock(nn.Module):
    """A pre-norm block; the first of a stage halves the grid and doubles the width.

    Then the shortcut is the normed input, projected and pooled.
    """

    def __init__(
        self,
        width: int,
        out: int,
        heads: int,
        *,
        mlp_ratio: float,
        window: int | None,
        halves: bool,
        quirks: Quirks,
    ) -> None:
        super().__init__()
        self.halves = halves
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = PoolingAttention(width, out, heads, window=window, halves=halves, quirks=quirks)
        self.norm2 = nn.LayerNorm(out, eps=1e-6)
        self.mlp = TwoLayerMLP(out, int(out * mlp_ratio))
        self.proj = Linear(width, out) if halves else None

    def forward(self, x: Float[Tensor, "b *grid d"]) -> Float[Tensor, "b *grid2 e"]:
        """Attend, then apply the MLP, each added to its input."""
        normed = self.norm1(x)
        shortcut = x if self.proj is None else halve(self.proj(normed))
        x = shortcut + self.attn(normed)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PoolingAttention(nn.Module):
    """Self-attention inside windows or over the whole grid; queries may be pooled, so fewer come out.

    Windows that stick out of the grid hold only their real tokens, unless `Quirks.window_padding` says that
    zero tokens fill them up.
    """

    def __init__(
        self, width: int, out: int, heads: int, *, window: int | None, halves: bool, quirks: Quirks
    ) -> None:
        super().__init__()
        self.heads, self.window, self.halves, self.quirks = heads, window, halves, quirks
        self.qkv = Linear(width, 3 * out)
        self.proj = Linear(out, out)

    def forward(self, x: Float[Tensor, "b *grid d"]) -> Float[Tensor, "b *grid2 e"]:
        """Attend; tokens come and go on their grid, channels last."""
        grid, step = x.shape[1:-1], 2 if self.halves else 1
        window = tuple(grid) if self.window is None else (self.window,) * len(grid)
        if self.quirks.window_padding:
            x = _padded(x, window)
        qkv = self.qkv(x)
        out = qkv.new_empty(len(x), *(n // step for n in qkv.shape[1:-1]), qkv.shape[-1] // 3)
        for place, size in windows.regions(qkv.shape[1:-1], window):
            part = qkv[(slice(None), *place)]
            q, k, v = windows.cut(part, size, self.heads)
            if self.halves:
                pooled = halve(q.flatten(0, 1))
                q = pooled.reshape(*q.shape[:2], *pooled.shape[1:])
            k, v = k.flatten(2, -2), v.flatten(2, -2)
            attended = F.scaled_dot_product_attention(q.flatten(2, -2), k, v).reshape(q.shape)
            shape = (len(part), *(n // step for n in part.shape[1:-1]))
            join = _join_in_wrong_order if self.quirks.window_order else windows.join
            target = tuple(slice(s.start // step, s.stop // step) for s in place)
            out[(slice(None), *target)] = join(attended, shape)
        real: Tensor = self.proj(out[(slice(None), *(slice(0, n // step) for n in grid))])
        return real


def halve(x: Float[Tensor, "b *grid d"]) -> Float[Tensor, "b *half d"]:
    """The largest value of each 2 x 2 (x 2) cells, channel by channel; channels last."""
    ndim = x.ndim - 2
    return _MAX[ndim](x.movedim(-1, 1), 2).movedim(1, -1)


def _padded(x: Float[Tensor, "b *grid d"], window: Sequence[int]) -> Float[Tensor, "b *full d"]:
    """Fill the grid up with zeros, at the end of each axis, to whole windows."""
    missing = [-n % w for n, w in zip(x.shape[1:-1], window, strict=True)]
    pads = [0, 0] + [m for n in reversed(missing) for m in (0, n)]
    return F.pad(x, pads) if any(missing) else x


def _join_in_wrong_order(
    cut: Float[Tensor, "n h *size c"], shape: Sequence[int]
) -> Float[Tensor, "b *grid d"]:
    """Put windows together as NeuroSAM3D's program does (see `Quirks.window_order`).

    It takes the axes in the order in which they were parted, where the inverse of that order is needed.
    """
    b, *grid = shape
    tokens = cut.movedim(1, -2).flatten(-2)  # n *size d
    size = tokens.shape[1:-1]
    ndim = len(grid)
    counts = [n // s for n, s in zip(grid, size, strict=True)]
    x = tokens.reshape(b, *counts, *size, -1)
    order = [*range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2)]
    return x.permute(0, *order, 2 * ndim + 1).reshape(b, *grid, -1)
