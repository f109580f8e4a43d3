"""The DINOv2 image encoder: a plain vision transformer with one token for the whole image.

NeuroSAM3D uses it in three dimensions (3DINO's vit_large_3d); it works in two as well. Written from a
description of the architecture. 3DINO's code and weights, under CC BY-NC-ND 4.0, are no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.models.config import SamConfig
from samaritan.models.image_encoder import check_image
from samaritan.models.layers import CONV, ChannelNorm, PatchEmbed, TwoLayerMLP
from samaritan.models.positions import interpolate_grid, split_table, stretch_grid
from samaritan.products import Linear

LAYER_SCALE = 1e-5
"""What each branch is multiplied with at first."""


class DinoV2Encoder(nn.Module):
    """Images to embeddings: patches, learned positions, blocks of global attention, a norm, a neck.

    Images of any size are taken; the position table is interpolated where the grid differs.

    Source: Oquab et al. 2023, arXiv:2304.07193; Xu et al. 2025, arXiv:2501.11755 (3D); NeuroSAM3D,
    modeling/dinov2_image_encoder.py (neck). There only cubes of one size are taken.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.in_channels = config.in_channels
        self.patch_size = config.patch_size
        self.grid = config.grid
        self.quirks = config.quirks
        width, tokens = config.width, 1
        for n in config.grid:
            tokens *= n
        self.patch_embed = PatchEmbed(config.in_channels, width, config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + tokens, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))  # of self-supervised training only
        hidden = int(width * config.mlp_ratio)
        self.blocks = nn.ModuleList(
            DinoV2Block(width, config.heads, hidden) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.neck = nn.Sequential(
            CONV[config.ndim](width, config.embed_dim, kernel_size=1, bias=False),
            ChannelNorm(config.embed_dim),
        )
        nn.init.normal_(self.cls_token, std=1e-6)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b e *grid"]:
        """Embed images that are already normalised.

        Raises:
            ConfigError: if the channels of the images are not those of the model, or their size is no
                multiple of the patch size.
        """
        _, patches = self.features(x)
        out: Tensor = self.neck(patches.movedim(-1, 1))
        return out

    def features(
        self, x: Float[Tensor, "b c *size"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b *grid d"]]:
        """The features of the whole image and of its patches, before the neck."""
        check_image(x, self.in_channels, self.patch_size)
        patches = self.patch_embed(x)
        whole, table = split_table(self.pos_embed, self.grid)
        patches = patches + self._stretched(table, patches.shape[1:-1])
        first = (self.cls_token + whole).expand(len(x), -1, -1)
        for block in self.blocks:
            first, patches = block(first, patches)
        return self.norm(first)[:, 0], self.norm(patches)

    def resize(self, grid: Sequence[int]) -> None:
        """Interpolate the position table for another token grid, in place."""
        whole, table = split_table(self.pos_embed, self.grid)
        table = self._stretched(table, grid).flatten(1, -2)
        self.pos_embed = nn.Parameter(torch.cat([whole, table], dim=1).detach().clone())
        self.grid = tuple(grid)

    def _stretched(self, table: Tensor, grid: Sequence[int]) -> Tensor:
        stretch = stretch_grid if self.quirks.position_scale else interpolate_grid
        return stretch(table, grid)


class DinoV2Block(nn.Module):
    """A pre-norm block over all tokens, each branch scaled channel by channel."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = GlobalAttention(width, heads)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = TwoLayerMLP(width, hidden)
        self.ls2 = LayerScale(width)

    def forward(
        self, first: Float[Tensor, "b 1 d"], patches: Float[Tensor, "b *grid d"]
    ) -> tuple[Float[Tensor, "b 1 d"], Float[Tensor, "b *grid d"]]:
        """The token of the whole image and those of patches, which stay on their grid."""
        grid = patches.shape[1:-1]
        tokens = torch.cat([first, patches.flatten(1, -2)], dim=1)
        attended = self.ls1(self.attn(self.norm1(tokens)))
        first = first + attended[:, :1]
        patches = patches + attended[:, 1:].unflatten(1, grid)
        # the whole image is a grid of one, so that what stands beside the MLP sees grids only
        alone = first.reshape(len(first), *[1] * len(grid), -1)
        alone = alone + self.ls2(self.mlp(self.norm2(alone)))
        return alone.flatten(1, -2), patches + self.ls2(self.mlp(self.norm2(patches)))


class GlobalAttention(nn.Module):
    """Multi-head self-attention of all tokens, without relative positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        """Attend."""
        qkv: Tensor = self.qkv(x)
        qkv = qkv.reshape(*x.shape[:2], 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # b heads n c
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = self.proj(attended.transpose(1, 2).flatten(2))
        return out


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), LAYER_SCALE))

    def forward(self, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """Scale."""
        return x * self.gamma
