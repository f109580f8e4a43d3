"""The whole model: image encoder, prompt encoder and mask decoder under one configuration."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.errors import ConfigError
from samaritan.models.config import Quirks, SamConfig
from samaritan.models.dense_prompts import DensePromptEncoder
from samaritan.models.dinov2 import DinoV2Encoder
from samaritan.models.hiera import HieraEncoder
from samaritan.models.image_encoder import ImageEncoder
from samaritan.models.mask_decoder import MaskDecoder
from samaritan.models.prompt_checks import AnyTensor, PointPrompts
from samaritan.models.prompt_encoder import PromptEncoder
from samaritan.models.unet import ConvStem, UNetDecoder

_PARTS: dict[str, tuple[Callable[[SamConfig], Any], ...]] = {
    "vit": (ImageEncoder, PromptEncoder, MaskDecoder),
    "dinov2": (DinoV2Encoder, PromptEncoder, MaskDecoder),
    "hiera": (HieraEncoder, PromptEncoder, MaskDecoder),
    "unet": (ConvStem, DensePromptEncoder, UNetDecoder),
}
"""Image encoder, prompt encoder and mask decoder of each backbone; all are called alike."""


class SamOutput(NamedTuple):
    """What the model predicts for each set of prompts."""

    low_res_logits: Tensor
    """Mask logits (n, masks, *low_res): above zero is foreground."""
    iou: Tensor
    """Predicted IoU of each mask (n, masks), not clipped."""


class Sam(nn.Module):
    """Segment Anything, in 2 or 3 dimensions. Parameter names are those of the official weights.

    Use `create_model` to build one by name. The three parts can be called on their own; an image
    embedding serves any number of prompts.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.config = config
        image_encoder, prompt_encoder, mask_decoder = _PARTS[config.backbone]
        self.image_encoder = image_encoder(config)
        self.prompt_encoder = prompt_encoder(config)
        self.mask_decoder = mask_decoder(config)

    def forward(
        self,
        images: Float[Tensor, "b c *size"],
        points: PointPrompts | None = None,
        boxes: AnyTensor | None = None,
        masks: AnyTensor | None = None,
        multimask_output: bool = False,
    ) -> SamOutput:
        """Encode images and decode all prompts.

        Prompts are those of `PromptEncoder`; with several images their batch is image-major.
        """
        size = tuple(images.shape[2:])
        embeddings = self.image_encoder(images)
        sparse, dense = self.prompt_encoder(points, boxes, masks, image_size=size)
        low_res_logits, iou = self.mask_decoder(
            image_embeddings=embeddings,
            image_pe=self.prompt_encoder.get_dense_pe(size),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask_output,
        )
        return SamOutput(low_res_logits, iou)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def embedding_size(self) -> tuple[int, ...]:
        """Size per axis of the image embedding."""
        return self.config.grid

    @property
    def low_res_size(self) -> tuple[int, ...]:
        """Size per axis of mask prompts and predicted masks."""
        return self.config.low_res_size

    def set_quirks(self, quirks: Quirks) -> None:
        """Reproduce (or no longer reproduce) historic mistakes; weights stay as they are.

        Raises:
            ConfigError: if a quirk does not exist for this model.
        """
        self.config = replace(self.config, quirks=quirks)
        for module in self.modules():
            if hasattr(module, "quirks"):
                module.quirks = quirks  # type: ignore[assignment]

    def resized(self, image_size: int | Sequence[int]) -> Sam:
        """A copy for another input size, its position tables interpolated.

        Raises:
            ConfigError: if the size is not a multiple of the patch size.
        """
        ndim = self.config.ndim
        size = (image_size,) * ndim if isinstance(image_size, int) else tuple(image_size)
        config = replace(self.config, image_size=size)
        if not hasattr(self.image_encoder, "resize"):
            raise ConfigError(f"the image encoder of {config.name!r} works at one size only")
        model = copy.deepcopy(self)
        model.config = config
        model.image_encoder.resize(config.grid)
        if hasattr(model.mask_decoder, "resize"):
            model.mask_decoder.resize(config.grid)
        model.prompt_encoder.image_size = config.image_size
        return model
