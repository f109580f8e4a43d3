"""Build a model by name."""

from __future__ import annotations

from typing import Any

from samaritan.models.classes import ClassSam
from samaritan.models.config import Quirks, SamConfig, get_config
from samaritan.models.mask_classes import MaskSam
from samaritan.models.sam import Sam
from samaritan.models.voxel_classes import VoxelNet


def create_model(
    name_or_config: str | SamConfig, *, quirks: Quirks | None = None, **overrides: Any
) -> Sam:
    """A new model with random weights, in eval mode.

    Args:
        name_or_config: one of `model_names()`, or a configuration.
        quirks: historic mistakes to reproduce; `load_weights` sets those that its weights need.
        **overrides: fields of `SamConfig` that differ, such as `image_size=512`.

    Raises:
        ConfigError: if the name or a field is not known, or the fields do not fit together.

    >>> create_model("sam_tiny", image_size=(64, 96)).embedding_size
    (4, 6)
    """
    config = get_config(name_or_config) if isinstance(name_or_config, str) else name_or_config
    values = {**config.to_dict(), **overrides}
    if quirks is not None:
        values["quirks"] = quirks
    config = SamConfig.from_dict(values)
    return _kind(config)(config).eval()


def _kind(config: SamConfig) -> type[Sam]:
    if config.voxel_classes:
        return VoxelNet
    return MaskSam if config.mask_classes else ClassSam if config.classes else Sam
