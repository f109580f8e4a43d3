"""The image encoder: a vision transformer on a grid of patches, in 2 or 3 dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.errors import ConfigError
from samaritan.models.attention import Attention
from samaritan.models.config import Quirks, SamConfig
from samaritan.models.layers import CONV, ChannelNorm, PatchEmbed, TwoLayerMLP
from samaritan.models.positions import interpolate_grid


class ImageEncoder(nn.Module):
    """Images to embeddings: patches, absolute positions, transformer blocks, neck.

    Source: segment-anything, modeling/image_encoder.py; SAM-Med3D, modeling/image_encoder3D.py.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.in_channels = config.in_channels
        self.patch_size = config.patch_size
        self.interpolate_positions = config.interpolate_positions
        self.quirks = config.quirks
        self.patch_embed = PatchEmbed(config.in_channels, config.width, config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, *config.grid, config.width))
        self.blocks = nn.ModuleList(
            Block(
                config.width,
                config.heads,
                config.grid,
                mlp_hidden=int(config.width * config.mlp_ratio),
                window=None if i in config.global_blocks else config.window_size,
                quirks=config.quirks,
            )
            for i in range(config.depth)
        )
        conv = CONV[config.ndim]
        self.neck = nn.Sequential(
            conv(config.width, config.embed_dim, kernel_size=1, bias=False),
            ChannelNorm(config.embed_dim),
            conv(config.embed_dim, config.embed_dim, kernel_size=3, padding=1, bias=False),
            ChannelNorm(config.embed_dim),
        )

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b e *grid"]:
        """Embed images that are already normalised.

        Raises:
            ConfigError: if the channels or the size of the images are not those of the model.
        """
        x = self.tokens(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.neck(x.movedim(-1, 1))
        return out

    def tokens(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b *grid d"]:
        """Patches with their positions: what the first block sees.

        Raises:
            ConfigError: as `forward`.
        """
        self._check(x)
        x = self.patch_embed(x)
        grid = tuple(x.shape[1:-1])
        if self.quirks.position_crop:
            return x + self.pos_embed[(slice(None), *(slice(0, n) for n in grid))]
        return x + interpolate_grid(self.pos_embed, grid)

    def levels(self, tokens: Float[Tensor, "b *grid d"]) -> list[Float[Tensor, "b _ ..."]]:
        """What blocks that attend over the whole grid give, shallow to deep, and the neck at last."""
        kept = []
        for block in self.blocks:
            tokens = block(tokens)
            if block.attn.window is None:  # type: ignore[union-attr]
                kept.append(tokens.movedim(-1, 1))
        return [*kept, self.neck(tokens.movedim(-1, 1))]

    def resize(self, grid: Sequence[int]) -> None:
        """Interpolate all position tables for another token grid, in place."""
        self.pos_embed = nn.Parameter(interpolate_grid(self.pos_embed, grid).detach().clone())
        for module in self.modules():
            if isinstance(module, Attention):
                module.resize(grid)

    def _check(self, x: Tensor) -> None:
        check_image(x, self.in_channels, self.patch_size)
        size = tuple(x.shape[2:])
        grid = tuple(n // p for n, p in zip(size, self.patch_size, strict=True))
        if grid != tuple(self.pos_embed.shape[1:-1]) and not self.interpolate_positions:
            own = tuple(
                n * p for n, p in zip(self.pos_embed.shape[1:-1], self.patch_size, strict=True)
            )
            raise ConfigError(
                f"image size {size} differs from the model's {own}. Resize the images, use "
                f"model.resized({size}), or create the model with interpolate_positions=True"
            )


def check_image(x: Tensor, in_channels: int, patch_size: Sequence[int]) -> None:
    """Look at what is given to an image encoder.

    Raises:
        ConfigError: if axes, channels or size are not what it takes.
    """
    ndim = len(patch_size)
    if x.ndim != ndim + 2:
        raise ConfigError(
            f"images have shape {tuple(x.shape)}; this {ndim}D model expects "
            f"(batch, channels and {ndim} axes). Add the missing axes with x[None]"
        )
    if x.shape[1] != in_channels:
        raise ConfigError(
            f"images have {x.shape[1]} channels; this model expects {in_channels}. "
            f"Repeat or drop channels, or create the model with in_channels={x.shape[1]}"
        )
    size = tuple(x.shape[2:])
    if any(n % p for n, p in zip(size, patch_size, strict=True)):
        raise ConfigError(
            f"image size {size} is not a multiple of the patch size {tuple(patch_size)}. "
            f"Pad or resize the images"
        )


class Block(nn.Module):
    """A pre-norm transformer block on a token grid."""

    def __init__(
        self,
        width: int,
        heads: int,
        grid: Sequence[int],
        *,
        mlp_hidden: int,
        window: int | None,
        quirks: Quirks,
    ) -> None:
        super().__init__()
        self.quirks = quirks
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, grid, window=window, quirks=quirks)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = TwoLayerMLP(width, mlp_hidden)

    def forward(self, x: Float[Tensor, "b *grid d"]) -> Float[Tensor, "b *grid d"]:
        """Attend, then apply the MLP, each added to its input."""
        x = x + (self._padded(x) if self.quirks.norm_padding else self.attn(self.norm1(x)))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _padded(self, x: Float[Tensor, "b *grid d"]) -> Float[Tensor, "b *grid d"]:
        """Attend on a grid of whole windows, padded before the norm (see `Quirks.norm_padding`)."""
        grid = x.shape[1:-1]
        short = [-n % w for n, w in zip(grid, self.attn.window or grid, strict=True)]
        padded = F.pad(x, [0, 0, *(v for n in reversed(short) for v in (0, n))])
        attended: Tensor = self.attn(self.norm1(padded))
        return attended[(slice(None), *(slice(0, n) for n in grid))]
