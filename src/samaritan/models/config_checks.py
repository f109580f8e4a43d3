"""What is wrong with a configuration of a model: every bad field at once.

Values may come from the header of a file, so nothing is taken for granted. This file knows no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from samaritan.errors import ConfigError

BACKBONES = ("vit", "dinov2", "hiera", "unet", "plain")
"""What a model can be made of."""

_MAY_BE_ZERO = ("decoder_dropout",)


def problems_of(config: Any) -> list[str]:
    """What is wrong with a `SamConfig`: types and ranges first, else what does not fit together."""
    return list(_type_problems(config)) or list(_problems(config))


def known_fields(values: Mapping[str, Any], cls: type) -> None:
    """Check that all keys are fields of a dataclass.

    Raises:
        ConfigError: with the nearest names.
    """
    known = [f.name for f in fields(cls)]
    unknown = [str(key) for key in values if key not in known]
    if unknown:
        near = [m for key in unknown for m in difflib.get_close_matches(key, known, n=1)]
        hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
        raise ConfigError(f"{cls.__name__} has no field {', '.join(map(repr, unknown))}.{hint}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _type_problems(config: Any) -> Iterable[str]:
    """What is not of the declared type or not positive."""
    for f in fields(config):
        value = getattr(config, f.name)
        zero = f.name in _MAY_BE_ZERO and _is_number(value) and value == 0
        if f.type == "int" and not (_is_int(value) and value > 0):
            yield f"{f.name} must be a positive whole number, not {value!r}"
        elif f.type == "bool" and not isinstance(value, bool):
            yield f"{f.name} must be true or false, not {value!r}"
        elif f.type == "str" and not isinstance(value, str):
            yield f"{f.name} must be text, not {value!r}"
        elif f.type == "float" and not (_is_number(value) and (value > 0 or zero)):
            yield f"{f.name} must be a positive number, not {value!r}"
        elif f.type == "tuple[int, ...]" and not (
            isinstance(value, tuple) and all(_is_int(v) and v >= 0 for v in value)
        ):
            yield f"{f.name} must be a tuple of whole numbers, not {value!r}"
        elif f.type == "Quirks":
            yield from _quirk_problems(value)
        elif f.type in ("MaskClasses | None", "VoxelClasses | None"):
            wanted = f.type.removesuffix(" | None")
            if type(value).__name__ not in (wanted, "NoneType"):
                yield f"{f.name} must be {wanted} or none, not {value!r}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _quirk_problems(quirks: Any) -> Iterable[str]:
    if type(quirks).__name__ != "Quirks":
        yield f"quirks must be Quirks, not {quirks!r}"
        return
    bad = [f.name for f in fields(quirks) if not isinstance(getattr(quirks, f.name), bool)]
    if bad:
        yield f"quirks {', '.join(bad)} must be true or false"


def _problems(c: Any) -> Iterable[str]:
    """What does not fit together, given that every field is of its type."""
    yield from _size_problems(c)
    if c.width % c.heads:
        yield f"width {c.width} must be a multiple of heads {c.heads}"
    if any(i >= c.depth for i in c.global_blocks):
        yield f"global_blocks {c.global_blocks} must be below depth {c.depth}"
    if c.embed_dim not in (2 * c.pe_features, 3 * c.pe_features):
        yield f"embed_dim {c.embed_dim} must be 2 or 3 times pe_features {c.pe_features}"
    if c.embed_dim % 8 or c.embed_dim % (2 * c.decoder_heads):
        yield f"embed_dim {c.embed_dim} must be a multiple of 8 and of 2 x decoder_heads {c.decoder_heads}"
    if c.num_point_embeddings not in (2, 4):
        yield f"num_point_embeddings must be 2 (no boxes) or 4, not {c.num_point_embeddings}"
    if c.mask_channels % 4:
        yield f"mask_channels {c.mask_channels} must be a multiple of 4"
    if c.decoder_dropout >= 1:
        yield f"decoder_dropout must be below 1, not {c.decoder_dropout}"
    if c.backbone not in BACKBONES:
        yield f"backbone must be one of {BACKBONES}, not {c.backbone!r}"
    yield from {"unet": _unet_problems, "hiera": _hiera_problems}.get(c.backbone, _none)(c)
    if c.backbone != "unet" and c.levels:
        yield f"levels {c.levels} are for backbone 'unet'"
    if c.backbone != "hiera" and (c.stages or c.stage_windows):
        yield f"stages {c.stages} are for backbone 'hiera'"
    if c.ndim == 2 and (c.quirks.rel_pos_axes or c.quirks.dense_pe_axes):
        yield "quirks rel_pos_axes and dense_pe_axes exist in 3D only"


def _size_problems(c: Any) -> Iterable[str]:
    if c.mask_steps not in (2, 3, 4):
        yield f"mask_steps must be 2, 3 or 4, not {c.mask_steps}"
        return
    step = 2**c.mask_steps
    if c.ndim not in (2, 3):
        yield f"ndim must be 2 or 3, not {c.ndim}"
    elif len(c.image_size) != c.ndim or len(c.patch_size) != c.ndim:
        yield f"image_size {c.image_size} and patch_size {c.patch_size} must have {c.ndim} axes each"
    elif any(p != 1 and (p < step or p % step) for p in c.patch_size):
        yield f"patch_size {c.patch_size} must be 1 or a multiple of {step} on every axis"
    elif any(n < p or n % p for n, p in zip(c.image_size, c.patch_size, strict=True)):
        yield f"image_size {c.image_size} must be a multiple of patch_size {c.patch_size}"


def _none(_c: Any) -> Iterable[str]:
    return ()


def _hiera_problems(c: Any) -> Iterable[str]:
    count = len(c.stages)
    if count < 2 or min(c.stages) < 1 or sum(c.stages) != c.depth:
        yield f"stages {c.stages} must be at least two positive numbers that sum up to depth {c.depth}"
        return
    if len(c.stage_windows) != count or min(c.stage_windows) < 1:
        yield f"stage_windows {c.stage_windows} must be a positive number for each of {count} stages"
    elif any(window % 2 for window in c.stage_windows[:-1]):
        yield f"stage_windows {c.stage_windows} must be even but for the last, since grids are halved"
    patch = 2**count
    if any(p != patch for p in c.patch_size):
        yield f"patch_size {c.patch_size} must be {patch} on every axis for {count} stages"
    elif any(n % (2 * patch) for n in c.image_size):
        yield f"image_size {c.image_size} must be a multiple of {2 * patch}: the last stage has half the grid"


def _unet_problems(c: Any) -> Iterable[str]:
    if len(c.levels) < 2 or min(c.levels) < 1 or any(level % 8 for level in c.levels):
        yield f"levels {c.levels} must be at least two multiples of 8"
    elif c.levels[0] != c.embed_dim:
        yield f"the first of levels {c.levels} must be embed_dim {c.embed_dim}"
    if any(p != 4 for p in c.patch_size):
        yield f"patch_size {c.patch_size} must be 4 on every axis: the stem halves the image twice"
    if any(getattr(c.quirks, f.name) for f in fields(c.quirks)):
        yield "quirks are for the other backbones"
    if c.classes:
        yield "classes are for the other backbones"
    if c.mask_steps != 2:
        yield f"mask_steps must be 2 for backbone 'unet', not {c.mask_steps}"
