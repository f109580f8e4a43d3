"""The parts of a small convolutional model: a stem for the image, and a U-Net that answers prompts.

The stem is cheap and the prompts come first: the whole U-Net sees image and prompts together, so that a
click can change everything. Ours; that an early meeting of image and prompt suits small networks is known
from ScribblePrompt (Wong et al. 2024, arXiv:2312.07381).
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.errors import ConfigError
from samaritan.models.config import SamConfig
from samaritan.models.layers import CONV, CONV_TRANSPOSE, MLP
from samaritan.models.mask_decoder import AddPrompt, repeat_sets
from samaritan.products import Linear

NORM: dict[int, type[nn.BatchNorm2d] | type[nn.BatchNorm3d]] = {
    2: nn.BatchNorm2d,
    3: nn.BatchNorm3d,
}
"""Batch norm by number of axes: at inference it is part of the convolution before it."""

_MODES = {2: "bilinear", 3: "trilinear"}


class ConvNorm(nn.Sequential):
    """Convolution of width 3, norm, ReLU."""

    def __init__(self, ndim: int, channels: int, out: int, *, stride: int = 1) -> None:
        super().__init__(
            CONV[ndim](channels, out, kernel_size=3, stride=stride, padding=1, bias=False),
            NORM[ndim](out),
            nn.ReLU(),
        )


class Residual(nn.Module):
    """Two convolutions beside a way past them (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, ndim: int, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(ndim, channels, channels)
        self.second = nn.Sequential(
            CONV[ndim](channels, channels, kernel_size=3, padding=1, bias=False),
            NORM[ndim](channels),
        )

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
        """Keep the shape."""
        return F.relu(x + self.second(self.first(x)))


class Overview(nn.Module):
    """Every cell of the coarsest level looks at every other: attention with one head, beside a way past."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.qkv = Linear(channels, 3 * channels)
        self.proj = Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
        """Keep the shape."""
        cells = x.flatten(2).transpose(1, 2)
        query, key, value = self.qkv(self.norm(cells)).chunk(3, dim=-1)
        found = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(found)
        return x + out.transpose(1, 2).reshape(x.shape)


class ConvStem(nn.Module):
    """Images to embeddings of a quarter of their size, by convolutions alone; any size will do."""

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        ndim, width = config.ndim, config.width
        self.in_channels = config.in_channels
        self.patch_size = config.patch_size
        self.blocks = nn.ModuleList(
            [
                ConvNorm(ndim, config.in_channels, width, stride=2),
                ConvNorm(ndim, width, config.embed_dim, stride=2),
                Residual(ndim, config.embed_dim),
            ]
        )

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b e *grid"]:
        """Embed images that are already normalised.

        Raises:
            ConfigError: if the channels of the images are not those of the model, or their sides no
                multiples of 4.
        """
        if x.shape[1] != self.in_channels or any(n % 4 for n in x.shape[2:]):
            raise ConfigError(
                f"images have shape {tuple(x.shape)}; expected {self.in_channels} channels and sides that "
                "are multiples of 4"
            )
        for block in self.blocks:
            x = block(x)
        return x

    def resize(self, grid: tuple[int, ...]) -> None:
        """Take images of another size: nothing needs to change."""


class UNetDecoder(nn.Module):
    """Masks and their quality from image and prompts on one grid. Called as `MaskDecoder` is.

    Prompts come as a dense map only; sparse tokens are those of `DensePromptEncoder`: none.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        ndim, levels, tokens = config.ndim, config.levels, config.num_mask_tokens
        self.ndim, self.tokens = ndim, tokens
        self.fuse = AddPrompt(config)
        self.down = nn.ModuleList(Residual(ndim, c) for c in levels)
        self.shrink = nn.ModuleList(ConvNorm(ndim, a, b, stride=2) for a, b in pairwise(levels))
        self.overview = Overview(levels[-1])
        self.widen = nn.ModuleList(CONV[ndim](b, a, kernel_size=1) for a, b in pairwise(levels))
        self.up = nn.ModuleList(Residual(ndim, c) for c in levels[:-1])
        top = levels[0]
        self.enlarge = nn.Sequential(
            CONV_TRANSPOSE[ndim](top, top // 2, kernel_size=2, stride=2),
            ConvNorm(ndim, top // 2, top // 2),
            CONV_TRANSPOSE[ndim](top // 2, top // 4, kernel_size=2, stride=2),
            nn.ReLU(),
        )
        self.masks = CONV[ndim](top // 4, tokens, kernel_size=1)
        self.quality = MLP(top + levels[-1] + 2, 64, 1, 3)

    def forward(
        self,
        *,
        image_embeddings: Float[Tensor, "b e *grid"],
        image_pe: Float[Tensor, "1 _ ..."],
        sparse_prompt_embeddings: Float[Tensor, "n t _"],
        dense_prompt_embeddings: Float[Tensor, "m _ ..."],
        multimask_output: bool = False,
    ) -> tuple[Float[Tensor, "sets c *low_res"], Float[Tensor, "sets c"]]:
        """Mask logits and predicted IoU of each set of prompts, as `MaskDecoder.forward`.

        `image_pe` and the sparse embeddings are not looked at. With one mask token there is one mask always.
        """
        masks, quality = self.every_mask(
            image_embeddings=image_embeddings,
            image_pe=image_pe,
            sparse_prompt_embeddings=sparse_prompt_embeddings,
            dense_prompt_embeddings=dense_prompt_embeddings,
        )
        several = multimask_output and self.tokens > 1
        chosen = slice(1, None) if several else slice(0, 1)
        return masks[:, chosen], quality[:, chosen]

    def every_mask(
        self,
        *,
        image_embeddings: Float[Tensor, "b e *grid"],
        image_pe: Float[Tensor, "1 _ ..."],
        sparse_prompt_embeddings: Float[Tensor, "n t _"],
        dense_prompt_embeddings: Float[Tensor, "m _ ..."],
    ) -> tuple[Float[Tensor, "sets c *low_res"], Float[Tensor, "sets c"]]:
        """As `forward`, for all mask tokens at once: the single one first, then the several."""
        n = max(len(image_embeddings), len(dense_prompt_embeddings))
        image, dense = (repeat_sets(x, n) for x in (image_embeddings, dense_prompt_embeddings))
        fine, coarse = self._features(self.fuse(image, dense))
        masks: Tensor = self.masks(self.enlarge(fine))
        return masks, self._quality(masks.detach(), fine.detach(), coarse.detach())

    def masks_above(
        self, limit: float, **embeddings: Tensor
    ) -> tuple[Float[Tensor, "k ..."], Float[Tensor, "sets c"]]:
        """As `MaskDecoder.masks_above`; here the masks come before their quality."""
        masks, quality = self(**embeddings, multimask_output=True)
        return masks[quality > limit], quality

    def _features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features on the grid, and those of the coarsest level."""
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else self.shrink[level - 1](x))
            kept.append(x)
        x = coarse = self.overview(kept.pop())
        for level in reversed(range(len(kept))):
            wide = self.widen[level](x)
            size = kept[level].shape[2:]
            wide = F.interpolate(wide, size, mode=_MODES[self.ndim], align_corners=False)
            x = self.up[level](kept[level] + wide)
        return x, coarse

    def _quality(self, masks: Tensor, fine: Tensor, coarse: Tensor) -> Tensor:
        """How good each mask is, by what lies under it and how sure its pixels are."""
        sure = masks.float().sigmoid()
        inside = F.interpolate(sure, fine.shape[2:], mode="area")
        weights = inside.flatten(2)
        under = weights @ fine.float().flatten(2).transpose(1, 2)
        under = under / weights.sum(dim=2, keepdim=True).clamp(min=1e-3)
        whole = coarse.float().flatten(2).mean(dim=2)[:, None].expand(-1, masks.shape[1], -1)
        flat = sure.flatten(2)
        taken = (flat > 0.5).to(flat.dtype)
        sureness = (flat * taken).sum(dim=2) / taken.sum(dim=2).clamp(min=1)
        rest = (flat * (1 - taken)).sum(dim=2) / taken.sum(dim=2).clamp(min=1)
        clues = torch.stack([sureness, rest.clamp(max=2)], dim=2)
        found: Tensor = self.quality(torch.cat([under, whole, clues], dim=2))
        return found[..., 0].sigmoid()
