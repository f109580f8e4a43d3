"""M-SAM's mask-enhanced adapter: image embedding and mask prompt are joined by attention, not added."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch.nn.functional as F
from torch import Tensor, nn

from samaritan.adapt.adapter import Adapter, draw_weights
from samaritan.errors import ConfigError
from samaritan.products import Conv3d, Linear

_CONV: dict[int, Any] = {2: nn.Conv2d, 3: Conv3d}

MLP_RATIO = 4
"""Hidden width of its MLPs over the width of the embedding."""

HEAD_WIDTH = 64
"""Channels of an attention head, unless told otherwise."""

MOST_BLOCKS = 24


class MaskEnhanced(Adapter):
    """Join image embedding and dense prompt by convolutions and self-attention, in place of their sum.

    It stands beside `mask_decoder.fuse`. Both inputs are normed; in each block they are smoothed by
    themselves, then each attends to itself plus the sum of both; a last attention over all of it ends in
    one map. It is not the identity at first. `add_norm4` of the published weights is kept and never used.

    Source: M-SAM (Xie et al., MICCAI 2024), mea.py. The figures of the paper differ from that code (second
    convolution of the mask 3 x 3 x 3; streams that mix at every norm; a last MLP without residual); the
    code is followed. There width, grid and heads are fixed numbers, here they are the model's.
    """

    kind: ClassVar[str] = "mask_enhanced"

    def __init__(
        self, seam: Any, *, ndim: int = 3, blocks: int = 1, attention_heads: int = 6
    ) -> None:
        super().__init__()
        self.n_blocks, self.attention_heads = blocks, attention_heads
        width = seam.width
        self.norm_mask, self.norm_image = _ChannelNorm(width), _ChannelNorm(width)
        self.blocks = nn.ModuleList(Exchange(seam, ndim, attention_heads) for _ in range(blocks))
        self.attend = Attend(seam, attention_heads)
        self.norm = _ChannelNorm(width)
        self.mlp = _TokenMLP(width)
        self.unused_norm = _ChannelNorm(width)

    @classmethod
    def beside(cls, target: nn.Module, *, where: str, ndim: int, **options: Any) -> Self:
        """Make one for the place where a mask decoder joins its two inputs."""
        if not hasattr(target, "attention") or not hasattr(target, "width"):
            raise ConfigError(
                f"the mask-enhanced adapter stands where image embedding and mask prompt are joined, and "
                f"{where!r} is a {type(target).__name__}. Use mask_decoder.fuse"
            )
        seam: Any = target
        blocks, heads = options.get("blocks", 1), options.get("attention_heads")
        if heads is None:
            heads = _usual_heads(seam.width)
        for name, value, most in (
            ("blocks", blocks, MOST_BLOCKS),
            ("attention_heads", heads, seam.width),
        ):
            whole = isinstance(value, int) and not isinstance(value, bool)
            if not whole or not 1 <= value <= most:
                raise ConfigError(
                    f"{name} of the mask-enhanced adapter must be a whole number from 1 to {most}, "
                    f"not {value!r}"
                )
        if seam.width % heads:
            raise ConfigError(
                f"attention_heads of the mask-enhanced adapter must divide the width {seam.width} of "
                f"the embedding, and {heads} does not"
            )
        adapter = cls(seam, ndim=ndim, blocks=blocks, attention_heads=heads)
        if generator := options.get("generator"):
            draw_weights(adapter, generator)
        return adapter

    def forward(self, x: tuple[Tensor, Tensor], output: Tensor) -> Tensor:
        """Join image embedding and dense prompt, (n, e, *grid) each; `output`, their sum, is not used."""
        image, dense = self.norm_image(x[0]), self.norm_mask(x[1])
        image_now, mask_now = image, dense
        for block in self.blocks:
            image_now, mask_now = block(image_now, mask_now)
        joined = image_now + image + mask_now + dense
        out = self.norm(self.attend(joined) + joined)
        result: Tensor = out + self.mlp(out)
        return result

    @property
    def options(self) -> dict[str, Any]:
        """Blocks and heads."""
        return {"blocks": self.n_blocks, "attention_heads": self.attention_heads}


class Exchange(nn.Module):
    """One block: image and mask, each smoothed by itself, attend to themselves plus both inputs."""

    def __init__(self, seam: Any, ndim: int, heads: int) -> None:
        super().__init__()
        self.image = Stream(seam, ndim, heads)
        self.prompt = Stream(seam, ndim, heads)

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Image and mask embedding, (n, e, *grid) each."""
        both = image + mask
        return self.image(image, both), self.prompt(mask, both)


class Stream(nn.Module):
    """Convolutions, attention and an MLP on one of the two maps, each with residual and norm."""

    def __init__(self, seam: Any, ndim: int, heads: int) -> None:
        super().__init__()
        width, conv = seam.width, _CONV[ndim]
        self.conv1 = conv(width, width, kernel_size=3, padding=1)
        self.norm = _ChannelNorm(width)
        self.conv2 = conv(width, width, kernel_size=1)
        self.addnorm1, self.addnorm2, self.addnorm3 = (_ChannelNorm(width) for _ in range(3))
        self.attend = Attend(seam, heads)
        self.mlp = _TokenMLP(width)

    def forward(self, x: Tensor, both: Tensor) -> Tensor:
        """The new map, given the old one and the sum of both."""
        x = self.addnorm1(self.conv2(F.gelu(self.norm(self.conv1(x)))) + x)
        x = self.addnorm2(self.attend(x + both) + x)
        out: Tensor = self.addnorm3(self.mlp(x) + x)
        return out


class Attend(nn.Module):
    """Pre-norm self-attention with residual, then an MLP without one."""

    def __init__(self, seam: Any, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _ChannelNorm(seam.width), _ChannelNorm(seam.width)
        self.attn = seam.attention(heads)
        self.mlp = _TokenMLP(seam.width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend over the whole grid; channels first."""
        x = x + self.attn(self.norm1(x).movedim(1, -1)).movedim(-1, 1)
        out: Tensor = self.mlp(self.norm2(x))
        return out


class _TokenMLP(nn.Module):
    """Widen, activate, narrow at every position of a channels-first map."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lin1 = Linear(width, MLP_RATIO * width)
        self.lin2 = Linear(MLP_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(F.gelu(self.lin1(x.movedim(1, -1))))
        return out.movedim(-1, 1)


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a channels-first map."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


def _usual_heads(width: int) -> int:
    """Heads of about 64 channels: 6 at the published width of 384."""
    return next(n for n in range(max(1, width // HEAD_WIDTH), 0, -1) if width % n == 0)
