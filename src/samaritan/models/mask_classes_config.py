"""What MaskSAM adds to a SAM for pictures, as plain values. This file knows no torch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from samaritan.errors import ConfigError
from samaritan.models.config_checks import known_fields

MOST = {"frames": 1024, "queries": 1024, "num_classes": 10_000, "channels": 1024}
"""No model needs more; a header of a file may promise anything."""

MOST_STAGES = 32

OWN_QUIRKS = (
    "window_depth",
    "norm_padding",
    "position_crop",
    "double_sigmoid",
    "hard_prompts",
    "mask_boxes",
    "mask_blur",
)
"""Quirks that other models do not have."""


@dataclass(frozen=True)
class MaskClasses:
    """Slices of a volume through a SAM for pictures; masks found by queries, each with a class.

    The SAM itself is the `SamConfig` that this belongs to: its `image_size` is the canvas that its
    position tables are for, its `in_channels` are those that the stem makes.
    """

    frames: int
    """Slices that go through the model together."""
    queries: int
    """Masks that are proposed in every slice."""
    num_classes: int
    """Classes, background included."""
    slice_size: tuple[int, int]
    """Rows and columns of a slice."""
    channels: int = 1
    """Channels of the volume."""
    enlarge: int = 1
    """How much larger than a slice the stem's pictures are: 1, 2 or 4, learned."""
    stem_width: int = 8
    """Channels inside the stem."""
    generator: tuple[int, ...] = (128, 128, 64, 64)
    """Channels of the prompt generator's stages, each of which takes the features of one global block in."""
    doublings: int = 4
    """How many of these stages, the first ones, double the grid."""
    flat_stages: int = 0
    """How many of these stages, the last ones, look at each slice by itself."""
    shared_skips: bool = False
    """All ways from features to stages of the finest grid are one module (published for ACDC)."""
    stem_skip: bool = False
    """The last stage, which is as fine as the slice, also sees the stem's pictures; not in MaskSAM."""
    residual: bool = False
    """Masks of the decoder correct those that became prompts; not in MaskSAM."""
    conv_head: bool = True
    """Masks pass convolutions that make them four times as large, else they are interpolated."""
    head_width: int = 64
    """Channels of these convolutions."""

    def __post_init__(self) -> None:
        if problems := list(_types(self)) or list(_ranges(self)):
            raise ConfigError(f"mask_classes cannot be built: {'; '.join(problems)}")

    @property
    def picture_size(self) -> tuple[int, int]:
        """Size of the pictures that the stem makes for the image encoder."""
        rows, columns = self.slice_size
        return rows * self.enlarge, columns * self.enlarge

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MaskClasses:
        """Build from plain values, as they may stand in a file.

        Raises:
            ConfigError: if it is not that.
        """
        known_fields(values, cls)
        values = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if isinstance(values.get("slice_size"), int):
            values["slice_size"] = (values["slice_size"],) * 2
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"mask_classes is incomplete: {error}") from error


def problems_with(config: Any) -> Iterable[str]:
    """What of a `SamConfig` does not go with its `mask_classes`, or needs some."""
    own: MaskClasses | None = config.mask_classes
    if own is None:
        if alien := [name for name in OWN_QUIRKS if getattr(config.quirks, name)]:
            yield f"quirks {', '.join(alien)} are for MaskSAM (mask_classes)"
        return
    if config.backbone != "vit" or config.ndim != 2 or config.classes:
        yield "mask_classes are for a SAM for pictures (ndim 2, backbone 'vit', classes false)"
        return
    if not config.interpolate_positions:
        yield "mask_classes need interpolate_positions"
    if config.num_point_embeddings != 4 or config.mask_steps != 2:
        yield "mask_classes need num_point_embeddings 4 (boxes) and mask_steps 2"
    if math.isqrt(config.embed_dim) ** 2 != config.embed_dim:
        yield f"embed_dim {config.embed_dim} must be a square number: a pooled map becomes a token"
    if len(own.generator) != len(config.global_blocks):
        yield (
            f"generator {own.generator} must have a stage for each of the "
            f"{len(config.global_blocks)} global blocks"
        )
    if any(n % p for n, p in zip(own.picture_size, config.patch_size, strict=True)):
        yield f"slice_size x enlarge {own.picture_size} must be a multiple of patch_size {config.patch_size}"
    fine = [
        n // p * 2**own.doublings for n, p in zip(own.picture_size, config.patch_size, strict=True)
    ]
    if own.stem_skip and not tuple(fine) == own.picture_size == own.slice_size:
        yield f"stem_skip needs enlarge 1 and doublings up to the slice {own.slice_size}, not {tuple(fine)}"
    crop = config.quirks.position_crop
    if crop and any(n > m for n, m in zip(own.picture_size, config.image_size, strict=True)):
        yield f"quirk position_crop cannot cut {own.picture_size} from image_size {config.image_size}"


def _types(own: MaskClasses) -> Iterable[str]:
    for name in ("shared_skips", "conv_head", "stem_skip", "residual"):
        if not isinstance(getattr(own, name), bool):
            yield f"{name} must be true or false, not {getattr(own, name)!r}"
    whole = ("frames", "queries", "num_classes", "channels", "enlarge", "stem_width", "head_width")
    for name in (*whole, "doublings"):
        if not _is_count(getattr(own, name)):
            yield f"{name} must be a positive whole number, not {getattr(own, name)!r}"
    if own.flat_stages != 0 and not _is_count(own.flat_stages):
        yield f"flat_stages must be a whole number, not {own.flat_stages!r}"
    for name in ("slice_size", "generator"):
        value = getattr(own, name)
        if not (isinstance(value, tuple) and value and all(map(_is_count, value))):
            yield f"{name} must be a tuple of positive whole numbers, not {value!r}"


def _ranges(own: MaskClasses) -> Iterable[str]:
    for name, most in MOST.items():
        if getattr(own, name) > most:
            yield f"{name} must be at most {most}, not {getattr(own, name)}"
    stages = len(own.generator)
    if len(own.slice_size) != 2:
        yield f"slice_size must have 2 axes, not {own.slice_size}"
    if own.num_classes < 2:
        yield f"num_classes must be 2 or more, background included, not {own.num_classes}"
    if own.enlarge not in (1, 2, 4):
        yield f"enlarge must be 1, 2 or 4, not {own.enlarge}"
    if stages > MOST_STAGES:
        yield f"generator must have at most {MOST_STAGES} stages, not {stages}"
    if not own.doublings <= stages or own.flat_stages > stages:
        yield f"doublings {own.doublings} and flat_stages {own.flat_stages} must be at most {stages}"
    elif own.shared_skips and len(set(own.generator[own.doublings - 1 :])) > 1:
        yield f"shared_skips need the same width in stages {own.doublings} to {stages}: {own.generator}"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
