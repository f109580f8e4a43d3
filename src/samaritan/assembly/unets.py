"""Plain U-Nets by name, yardsticks for automatic SAMs. This file knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from samaritan.models.config import SamConfig
from samaritan.models.voxel_classes_config import VoxelClasses


def _own(filters: tuple[int, ...], supervised: int) -> VoxelClasses:
    """As nnU-Net would have it for isotropic voxels."""
    stages = len(filters)
    strides = ((1, 1, 1), *((2, 2, 2) for _ in range(stages - 1)))
    kernels = tuple((3, 3, 3) for _ in range(stages))
    return VoxelClasses(2, strides, kernels, filters, supervised=supervised)


_PRESETS = {
    "dynunet": (_own((32, 64, 128, 256, 320, 320), 4), (128, 128, 128)),
    "dynunet_small": (_own((16, 32, 64, 128), 2), (64, 64, 64)),
    "dynunet_tiny": (_own((8, 16, 24), 1), (16, 16, 16)),
}

NAMES = tuple(_PRESETS)
"""Names of all presets."""


def plan(name: str, options: Mapping[str, Any]) -> SamConfig:
    """The configuration of a preset.

    Options are fields of `VoxelClasses` and of `SamConfig`.

    Raises:
        ConfigError: if an option is not known, or they do not fit together.

    >>> plan("dynunet_small", {"heads": 3, "image_size": (48, 64, 48)}).voxel_classes.divisor
    (8, 8, 8)
    """
    preset, size = _PRESETS[name]
    options = dict(options)
    given = {f.name: options.pop(f.name, getattr(preset, f.name)) for f in fields(VoxelClasses)}
    own = VoxelClasses.from_dict(given)
    ndim = len(own.strides[0])
    values = {
        "name": name,
        "ndim": ndim,
        "in_channels": 1,
        "image_size": size[:ndim],
        "patch_size": (1,) * ndim,
        "width": own.filters[0],
        "depth": 1,
        "heads": 1,
        "global_blocks": (),
        "window_size": 1,
        "embed_dim": 16,
        "pe_features": 8,
        "decoder_heads": 1,
        "num_mask_tokens": 1,
        "backbone": "plain",
        "voxel_classes": own,
    }
    options.pop("ndim", None)
    return SamConfig.from_dict({**values, **options})
