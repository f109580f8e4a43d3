"""Segment Anything in 2 and 3 dimensions from one code: plain torch, no files, no geometry, no medicine.

Names that need torch are resolved on first use, so that configurations can be listed without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from samaritan.models.config import Quirks, SamConfig, get_config, model_names

_HOMES = {
    "ClassOutput": "samaritan.models.classes",
    "ClassSam": "samaritan.models.classes",
    "MaskClassOutput": "samaritan.models.mask_classes",
    "MaskClasses": "samaritan.models.mask_classes_config",
    "MaskSam": "samaritan.models.mask_classes",
    "create_model": "samaritan.models.registry",
    "Sam": "samaritan.models.sam",
    "VoxelClasses": "samaritan.models.voxel_classes_config",
    "VoxelNet": "samaritan.models.voxel_classes",
    "patch_logits": "samaritan.models.patch_classes",
    "SamOutput": "samaritan.models.sam",
    "Prompts": "samaritan.models.stages",
    "Stage": "samaritan.models.stages",
    "refine": "samaritan.models.stages",
    "resize_positions": "samaritan.models.positions",
}

__all__ = [
    "ClassOutput",
    "ClassSam",
    "MaskClassOutput",
    "MaskClasses",
    "MaskSam",
    "Prompts",
    "Quirks",
    "Sam",
    "SamConfig",
    "SamOutput",
    "Stage",
    "VoxelClasses",
    "VoxelNet",
    "create_model",
    "get_config",
    "model_names",
    "patch_logits",
    "refine",
    "resize_positions",
]

if TYPE_CHECKING:
    from samaritan.models.classes import ClassOutput, ClassSam
    from samaritan.models.mask_classes import MaskClassOutput, MaskSam
    from samaritan.models.mask_classes_config import MaskClasses
    from samaritan.models.patch_classes import patch_logits
    from samaritan.models.positions import resize_positions
    from samaritan.models.registry import create_model
    from samaritan.models.sam import Sam, SamOutput
    from samaritan.models.stages import Prompts, Stage, refine
    from samaritan.models.voxel_classes import VoxelNet
    from samaritan.models.voxel_classes_config import VoxelClasses


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'samaritan.models' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
