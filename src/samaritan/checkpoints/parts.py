"""Weights that fit one kind of image encoder, or are those of an image encoder alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from torch import Tensor

from samaritan.checkpoints import masksam
from samaritan.checkpoints.sources import Source
from samaritan.errors import CheckpointError
from samaritan.models.config import Quirks, SamConfig

_EXAMPLES = {
    "vit": "neurosam3d_vit_l",
    "dinov2": "neurosam3d_dinov2",
    "hiera": "neurosam3d_hiera",
}


def check_backbone(source: Source, config: SamConfig) -> None:
    """Refuse weights of another kind of image encoder by its name.

    Raises:
        CheckpointError: if the model is of another backbone.
    """
    needed = source.system.backbone
    if needed and needed != config.backbone:
        raise CheckpointError(
            f"{source.where} holds {source.system.title}, whose image encoder is of backbone {needed!r}; "
            f"that of {config.name!r} is {config.backbone!r}. Use a model such as {_EXAMPLES[needed]!r}"
        )


def other_parts(
    source: Source, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> frozenset[str]:
    """Names of the model that weights of an image encoder alone are silent about."""
    if not source.system.only:
        return frozenset()
    inside = (f"{source.system.only}.neck.", f"{source.system.only}.mask_token")
    own = {k for k in wanted if k.startswith(f"{source.system.only}.") and not k.startswith(inside)}
    return frozenset(k for k in wanted if k not in state and k not in own)


def added_parts(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], config: SamConfig
) -> frozenset[str]:
    """Names that MaskSAM adds to the SAM that weights are of."""
    if config.mask_classes is None or any(masksam.is_added(k) for k in state):
        return frozenset()
    return frozenset(k for k in wanted if masksam.is_added(k))


def quirks_of(source: Source, config: SamConfig) -> Quirks | None:
    """What the weights need; those of a part of the model need it besides what the model has.

    Parts are an image encoder alone, and the SAM inside a MaskSAM.

    None: they do not tell.
    """
    if source.header is not None:
        needed, whole = source.header.config.quirks, source.header.config.mask_classes
    else:
        needed, whole = source.system.quirks, source.system.name == masksam.SYSTEM  # type: ignore[assignment]
    base_alone = config.mask_classes is not None and not whole
    if needed is None or not (source.system.only or base_alone):
        return needed
    names = [f.name for f in fields(Quirks)]
    return Quirks(**{n: getattr(config.quirks, n) or getattr(needed, n) for n in names})
