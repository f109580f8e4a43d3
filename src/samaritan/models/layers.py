"""Small layers that the encoder, the prompt encoder and the decoder share, for 2 or 3 axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.products import Conv3d, ConvTranspose3d, Linear

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: Conv3d}
"""Convolution by number of axes."""

CONV_TRANSPOSE: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: ConvTranspose3d,
}
"""Transposed convolution by number of axes."""

_TOKENS_AT_ONCE = 1024
"""Tokens that go through an MLP together where nothing learns."""


class ChannelNorm(nn.Module):
    """Layer norm over the channels of a channels-first tensor, at every position by itself."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b c *size"]:
        """Normalise; the result keeps the shape and lies channels-last in memory."""
        last = x.movedim(1, -1)
        return F.layer_norm(last, self.weight.shape, self.weight, self.bias, self.eps).movedim(
            -1, 1
        )


class TwoLayerMLP(nn.Module):
    """Widen, activate, narrow: the MLP of a transformer block."""

    def __init__(
        self, width: int, hidden: int, activation: Callable[[Tensor], Tensor] = F.gelu
    ) -> None:
        super().__init__()
        self.lin1 = Linear(width, hidden)
        self.lin2 = Linear(hidden, width)
        self.activation = activation

    def forward(self, x: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        """Apply to the last axis; for inference in parts, whose hidden numbers stay in the cache."""
        few = x.numel() <= _TOKENS_AT_ONCE * x.shape[-1]
        if few or torch.is_grad_enabled() or x.device.type != "cpu":
            return self._apply_to(x)
        parts = torch.split(x.flatten(0, -2), _TOKENS_AT_ONCE)
        return torch.cat([self._apply_to(part) for part in parts]).reshape(*x.shape[:-1], -1)

    def _apply_to(self, x: Float[Tensor, "*n c"]) -> Float[Tensor, "*n c"]:
        out: Tensor = self.lin2(self.activation(self.lin1(x)))
        return out


class MLP(nn.Module):
    """A plain ReLU network of `depth` linear layers: the decoder's heads."""

    def __init__(self, width: int, hidden: int, out: int, depth: int) -> None:
        super().__init__()
        widths = [width, *[hidden] * (depth - 1), out]
        self.layers = nn.ModuleList(Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Float[Tensor, "*n c"]) -> Float[Tensor, "*n d"]:
        """Apply to the last axis."""
        *hidden, last = self.layers
        for layer in hidden:
            x = F.relu(layer(x))
        out: Tensor = last(x)
        return out


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each to one token."""

    def __init__(self, in_channels: int, width: int, patch_size: Sequence[int]) -> None:
        super().__init__()
        size = tuple(patch_size)
        self.proj = CONV[len(size)](in_channels, width, kernel_size=size, stride=size)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b *grid d"]:
        """Tokens on their grid, channels last."""
        out: Tensor = self.proj(x)
        return out.movedim(1, -1).contiguous()  # sums keep this layout, which norms would copy
