"""MaskSAM by name: the published sizes, and small ones that two cores can train. This file knows no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from samaritan.adapt.methods import ADAPTERS, SLICES, Insertion
from samaritan.errors import ConfigError
from samaritan.models.config import MASKSAM_QUIRKS, SamConfig, get_config
from samaritan.models.mask_classes_config import MaskClasses

COMPAT = ("fixed", "reference")
"""What can be asked for: everything done right, or as the published program does it."""


@dataclass(frozen=True)
class _Preset:
    """One named model."""

    sam: SamConfig
    """The SAM for pictures inside; its `image_size` is the canvas of its position tables."""
    own: MaskClasses
    """What is added."""
    published_own: Mapping[str, Any]
    """Fields of `own` that differ in the published program."""
    frozen: bool
    """Whether the SAM inside keeps its weights."""


def _official(sam: str, own: MaskClasses, **published: Any) -> _Preset:
    return _Preset(get_config(sam), own, published, frozen=True)


def _small(own: MaskClasses, **fields_of_sam: Any) -> _Preset:
    size = own.picture_size
    sam = replace(get_config("sam_tiny"), image_size=size, **fields_of_sam)
    return _Preset(sam, own, {}, frozen=False)


_PRESETS = {
    "masksam_acdc": _official(
        "sam_vit_b",
        MaskClasses(
            frames=4,
            queries=8,
            num_classes=4,
            slice_size=(256, 256),
            enlarge=4,
            stem_width=16,
            generator=(128, 128, 128, 128),
            doublings=2,
            conv_head=False,
        ),
        shared_skips=True,
    ),
    "masksam_synapse": _official(
        "sam_vit_h",
        MaskClasses(
            frames=26, queries=24, num_classes=9, slice_size=(256, 256), doublings=4, flat_stages=1
        ),
    ),
    "masksam_amos": _official(
        "sam_vit_h",
        MaskClasses(
            frames=9, queries=24, num_classes=16, slice_size=(512, 512), doublings=4, flat_stages=1
        ),
    ),
    "masksam_small": _small(  # its generator is nearly a U-Net, whose masks SAM's decoder corrects
        MaskClasses(
            frames=8,
            queries=4,
            num_classes=4,
            slice_size=(96, 96),
            stem_width=16,
            generator=(32, 16),
            doublings=2,
            stem_skip=True,
            residual=True,
            conv_head=False,
        ),
        in_channels=16,
        patch_size=(4, 4),
        width=96,
        depth=4,
        heads=4,
        global_blocks=(1, 3),
        window_size=8,
        embed_dim=64,
        pe_features=32,
        decoder_heads=4,
        decoder_mlp=128,
    ),
    "masksam_tiny": _small(
        MaskClasses(
            frames=3,
            queries=4,
            num_classes=3,
            slice_size=(32, 32),
            generator=(16, 8),
            doublings=2,
            conv_head=False,
        ),
        in_channels=3,
        patch_size=(8, 8),
        width=48,
        depth=3,
        heads=3,
        global_blocks=(1, 2),
        window_size=3,
        embed_dim=64,
        pe_features=32,
        decoder_heads=4,
        decoder_mlp=64,
    ),
}

NAMES = tuple(_PRESETS)
"""Names of all presets."""

_LEARNS = (
    ADAPTERS,
    "{stem,generator,mask_head,class_token,class_head}.**",
    "{slice_embedding,slice_code}",
)


def trainable(name: str) -> tuple[str, ...] | None:
    """Patterns of what learns in a preset; None: everything."""
    return _LEARNS if _PRESETS[name].frozen else None


def plan(name: str, options: Mapping[str, Any]) -> tuple[SamConfig, tuple[Insertion, ...]]:
    """The configuration of a preset, and its adapters.

    Options are fields of both configurations, those of the adapters, and `compat`.

    Raises:
        ConfigError: if an option is not known, or they do not fit together.

    >>> config, adapters = plan("masksam_acdc", {"compat": "reference"})
    >>> config.mask_classes.shared_skips, config.quirks.window_depth, len(adapters)
    (True, True, 7)
    """
    preset, options = _PRESETS[name], dict(options)
    reference = _compat(options.pop("compat", None)) == "reference"
    own, sam = _taken(options, MaskClasses), _taken(options, SamConfig)
    given = {**vars(preset.own), **(preset.published_own if reference else {}), **own}
    mask_classes = MaskClasses.from_dict(given)
    values = {**preset.sam.to_dict(), "name": name, "interpolate_positions": True}
    if not preset.frozen:
        values["image_size"] = mask_classes.picture_size
    if reference:
        values["quirks"] = MASKSAM_QUIRKS
    config = SamConfig.from_dict({**values, "mask_classes": mask_classes, **sam})
    if reference:
        options.setdefault("start", "published")
    method = SLICES.with_options(frames=mask_classes.frames, **options)
    return config, method.insertions


def _compat(value: Any) -> str:
    if value not in (None, *COMPAT):
        raise ConfigError(f"compat is one of {COMPAT}, not {value!r}")
    return value or COMPAT[0]


def _taken(options: dict[str, Any], cls: type) -> dict[str, Any]:
    """Take the options out that are fields of a configuration."""
    return {f.name: options.pop(f.name) for f in fields(cls) if f.name in options}
