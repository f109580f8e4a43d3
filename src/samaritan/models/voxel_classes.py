"""A plain U-Net of MONAI under the manners of our models: the yardstick of automatic SAMs."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from samaritan.errors import ConfigError, PromptError
from samaritan.models.config import SamConfig
from samaritan.models.sam import Sam
from samaritan.models.voxel_classes_config import VoxelClasses
from samaritan.optional import monai


class VoxelNet(Sam):
    """Logits of every class for every voxel of a patch; no prompts.

    Its blocks are those of MONAI's `DynUNet`, after nnU-Net's network (Isensee et al. 2021). They are called
    here one by one, because that module holds each of them under two names.
    """

    def __init__(self, config: SamConfig) -> None:
        nn.Module.__init__(self)
        self.config = config
        own = self.own
        nets = monai("networks.nets", purpose="build a plain U-Net")
        made: Any = nets.DynUNet(
            spatial_dims=config.ndim,
            in_channels=config.in_channels,
            out_channels=own.heads,
            kernel_size=own.kernels,
            strides=own.strides,
            upsample_kernel_size=own.strides[1:],
            filters=own.filters,
            deep_supervision=own.supervised > 0,
            deep_supr_num=max(own.supervised, 1),
            trans_bias=True,
        )
        self.input_block = made.input_block
        self.downsamples = made.downsamples
        self.bottleneck = made.bottleneck
        self.upsamples = made.upsamples
        self.output_block = made.output_block
        self.coarse_heads = made.deep_supervision_heads if own.supervised else nn.ModuleList()

    @property
    def own(self) -> VoxelClasses:
        """What the configuration adds to that of a SAM."""
        assert self.config.voxel_classes is not None
        return self.config.voxel_classes

    def forward(  # type: ignore[override]
        self,
        images: Float[Tensor, "b c *size"],
        points: Any = None,
        boxes: Any = None,
        masks: Any = None,
        multimask_output: bool = True,
    ) -> Float[Tensor, "b heads *size"]:
        """Logits of patches that are already normalised; the last argument changes nothing.

        Raises:
            PromptError: if there is a prompt.
            ConfigError: if channels or size are not those of the model.
        """
        if not (points is None and boxes is None and masks is None):
            raise PromptError(
                f"{self.config.name!r} labels the whole patch and takes no prompts: call it with images alone"
            )
        return self.supervised_logits(images, 0)[0]

    def supervised_logits(self, images: Tensor, coarse: int | None = None) -> list[Tensor]:
        """Logits of patches, then those of as many coarser stages as are supervised, each half as fine."""
        self._check(images)
        kept, x = [], self.input_block(images)
        for down in self.downsamples:
            kept.append(x)
            x = down(x)
        kept.append(x)
        x, found = self.bottleneck(x), []
        for level, up in zip(reversed(range(len(kept))), self.upsamples, strict=True):
            x = up(x, kept[level])
            if 0 < level <= len(self.coarse_heads) and coarse != 0:
                found.append(self.coarse_heads[level - 1](x))
        return [self.output_block(x), *reversed(found)]

    def resized(self, image_size: Any) -> Sam:
        """Not needed: patches of any size that the strides divide are accepted as they are."""
        raise ConfigError(
            f"{self.config.name!r} takes patches of any size that its strides divide; for another usual size "
            f"create it with image_size={image_size!r}"
        )

    def _check(self, images: Tensor) -> None:
        divisor, channels = self.own.divisor, self.config.in_channels
        fits = images.ndim == len(divisor) + 2 and images.shape[1] == channels
        if not fits or any(n % d for n, d in zip(images.shape[2:], divisor, strict=True)):
            raise ConfigError(
                f"patches have shape {tuple(images.shape)}; this model expects (batch, {channels} channels, "
                f"*patch), sides being multiples of {divisor}"
            )
