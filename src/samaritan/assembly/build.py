"""Build a model with its adapters, by name or blueprint; and tell the blueprint of a model."""

from __future__ import annotations

from typing import Any

from samaritan.adapt.inject import describe, freeze, insert_all
from samaritan.assembly.blueprint import Blueprint, get_blueprint
from samaritan.models.config import Quirks, SamConfig
from samaritan.models.registry import create_model as create_plain
from samaritan.models.sam import Sam


def create_model(
    name_or_config: str | SamConfig | Blueprint,
    *,
    quirks: Quirks | None = None,
    num_classes: int | None = None,
    method: str | None = None,
    adapters: bool = True,
    **options: Any,
) -> Sam:
    """A new model with random weights, in eval mode; of an adapted one only what the method trains learns.

    Args:
        name_or_config: one of `model_names()`, such as "sam_vit_b", "samed_vit_b" or "sammed2d_vit_b"; or
            a configuration; or a blueprint.
        quirks: historic mistakes to reproduce; `load_weights` sets those that its weights need.
        num_classes: label whole images with so many classes, background not counted, instead of answering
            prompts. 8 for SAMed unless told. For MaskSAM the background is counted, as its publishers do.
        method: of `samaritan.adapt`, to adapt a plain model with.
        adapters: False leaves out the adapters of an adapted name; then everything learns.
        **options: fields of `SamConfig` that differ, such as `image_size=512`, and options of the
            method's adapters, such as `rank=8`. For MaskSAM also fields of `MaskClasses`, such as
            `frames=4`, and `compat="reference"`: what its published program does, mistakes included.

    Raises:
        ConfigError: if a name or option is not known, or they do not fit together.

    >>> model = create_model("samed_tiny", num_classes=3, rank=2)
    >>> type(model).__name__, model.config.num_mask_tokens
    ('ClassSam', 4)
    """
    blueprint = get_blueprint(
        name_or_config,
        quirks=quirks,
        num_classes=num_classes,
        method=method,
        adapters=adapters,
        **options,
    )
    model = create_plain(blueprint.config)
    insert_all(model, blueprint.insertions)
    if blueprint.trainable is not None:
        freeze(model, blueprint.trainable)
    return model


def blueprint_of(model: Sam) -> Blueprint:
    """What a model is built from, read off the model itself; what learns is left open."""
    return Blueprint(model.config, describe(model))
