"""Refine a mask stage by stage: each stage sees the mask of the one before, as M-SAM is trained and used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from samaritan.errors import ConfigError
from samaritan.models.prompt_checks import AnyTensor, PointPrompts
from samaritan.models.sam import Sam


class Prompts(NamedTuple):
    """What a person adds at one stage; nothing: the mask alone goes on."""

    points: PointPrompts | None = None
    """Coordinates and labels, as `PromptEncoder` takes them."""
    boxes: AnyTensor | None = None
    """Boxes."""


class Stage(NamedTuple):
    """What one stage gave."""

    low_res_logits: Tensor
    """Mask logits (n, 1, *low_res): the mask prompt of the next stage."""
    iou: Tensor
    """Predicted IoU (n, 1)."""
    image_embeddings: Tensor
    """What this stage took for the image embedding."""


def refine(
    model: Sam,
    image_embeddings: Float[Tensor, "b e *grid"],
    stages: Iterable[Prompts],
    *,
    masks: AnyTensor | None = None,
    feedback_embedding: bool = False,
) -> Iterator[Stage]:
    """Decode a mask at each stage, given the prompts of that stage and the mask of the stage before.

    As M-SAM's program does it, every stage takes the same image embedding, and the first one a mask of
    zeros. With `feedback_embedding`, as the figures of its paper have it, each later stage takes what the
    stage before made of the image embedding where it joined it with the mask, and the first stage has no mask
    at all.

    Gradients flow through all stages; detach `low_res_logits` yourself by passing one stage at a time.

    Args:
        model: any model with prompts.
        image_embeddings: of `model.image_encoder`.
        stages: the prompts of each stage; may be a generator that looks at the stage before.
        masks: logits to start from (n, 1, *low_res).
        feedback_embedding: feed back the joined embedding as well.

    Raises:
        ConfigError: if the model has a decoder of another kind (backbone "unet").

    Source: M-SAM, train_msam.py and the figures of the paper (Xie et al., MICCAI 2024).
    """
    if not hasattr(model.mask_decoder, "join"):
        raise ConfigError(
            f"{model.config.name!r} is of backbone {model.config.backbone!r}, whose decoder has no stages: "
            f"call the model once for each set of prompts, with masks= of the time before"
        )
    embeddings = image_embeddings
    size = tuple(n * p for n, p in zip(embeddings.shape[2:], model.config.patch_size, strict=True))
    image_pe = model.prompt_encoder.get_dense_pe(size)
    if masks is None and not feedback_embedding:
        low_res = replace(model.config, image_size=size).low_res_size
        masks = embeddings.new_zeros(1, 1, *low_res)
    for prompts in stages:
        sparse, dense = model.prompt_encoder(prompts.points, prompts.boxes, masks, image_size=size)
        joined = model.mask_decoder.join(embeddings, sparse, dense)
        masks, iou = model.mask_decoder.decode_joined(joined, image_pe, sparse)
        yield Stage(masks, iou, embeddings)
        if feedback_embedding:
            embeddings = joined
