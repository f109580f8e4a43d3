"""MaskSAM's convolutions over a stack of slices: blocks, doublings, the stem and the mask head.

Slices lie on axis 2 of a tensor (b c t h w). Doublings leave their number as it is.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from samaritan.models.config import SamConfig
from samaritan.products import Conv3d

Volume = Float[Tensor, "b c t h w"]


class ConvBlock(nn.Sequential):
    """Convolution, instance norm, leaky ReLU; a flat one sees each slice by itself."""

    def __init__(self, channels: int, out: int, *, flat: bool = False) -> None:
        depth = 1 if flat else 3
        super().__init__(
            Conv3d(channels, out, kernel_size=(depth, 3, 3), padding=(depth // 2, 1, 1)),
            nn.InstanceNorm3d(out, affine=True),
            nn.LeakyReLU(0.01),
        )


def double(channels: int, out: int) -> nn.ConvTranspose3d:
    """Twice as many rows and columns, learned."""
    return nn.ConvTranspose3d(channels, out, kernel_size=(1, 2, 2), stride=(1, 2, 2))


def doubled(channels: int, out: int) -> list[nn.Module]:
    """A doubling with the norm and activation that stem and head have after it."""
    return [double(channels, out), nn.InstanceNorm3d(out), nn.GELU()]


class Stem(nn.Sequential):
    """A volume to pictures for the image encoder, in place of SAM's normalisation.

    Its pictures are `MaskClasses.enlarge` times as large as the slices.
    """

    def __init__(self, config: SamConfig) -> None:
        own = config.mask_classes
        assert own is not None
        width = own.stem_width
        wide = 2 * width if own.enlarge > 1 else width
        larger: list[nn.Module] = []
        for factor in range(own.enlarge.bit_length() - 1, 0, -1):
            larger += doubled(width, wide if factor == 1 else width)
        if larger:
            larger.append(ConvBlock(wide, wide))
        super().__init__(
            ConvBlock(own.channels, width), *larger, ConvBlock(wide, config.in_channels)
        )


class MaskHead(nn.Sequential):
    """Low-resolution masks of all queries to masks four times as large.

    Queries are its channels, so they are mixed, and the place of a query gets a meaning of its own.
    """

    def __init__(self, config: SamConfig) -> None:
        own = config.mask_classes
        assert own is not None
        width = own.head_width
        super().__init__(
            ConvBlock(own.queries, width),
            *doubled(width, width),
            *doubled(width, width),
            Conv3d(width, own.queries, kernel_size=3, padding=1),
        )
