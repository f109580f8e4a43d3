"""Frozen configurations of every model, by name, and the quirks of published weights.

This file knows no torch: a configuration can be listed, printed and stored without it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from samaritan.errors import ConfigError


@dataclass(frozen=True)
class Quirks:
    """Historic mistakes that published weights were trained with. Set by checkpoint tables only."""

    rel_pos_axes: bool = False
    """SAM-Med3D: the depth bias is added along the wrong key axis, and two others use wrong queries."""
    dense_pe_axes: bool = False
    """SAM-Med3D: the dense position code orders coordinates (axis 1, axis 0, axis 2), points do not."""
    window_padding: bool = False
    """SAM, SAM-Med3D: tokens that pad the grid to whole windows take part in attention."""


SAM_QUIRKS = Quirks(window_padding=True)
"""What the official SAM weights, and all that were tuned from them, expect."""

SAMMED3D_QUIRKS = Quirks(rel_pos_axes=True, dense_pe_axes=True, window_padding=True)
"""What the official SAM-Med3D weights, and all that were tuned from them, expect."""


BACKBONES = ("vit", "unet")
"""What a model can be made of."""


@dataclass(frozen=True)
class SamConfig:
    """Everything that fixes the shapes and the arithmetic of one model; no weights, no names of files.

    Sizes are given per axis in array order. Raises `ConfigError` naming every bad field at once.
    """

    name: str
    """Where it comes from in the list of models; free to choose for models of your own."""
    ndim: int
    """Number of image axes: 2 or 3."""
    in_channels: int
    """Channels of the image."""
    image_size: tuple[int, ...]
    """Input size per axis, in pixels or voxels."""
    patch_size: tuple[int, ...]
    """Patch size per axis: a multiple of 4, or 1 for an axis that is not divided."""
    width: int
    """Channels of the image encoder."""
    depth: int
    """Number of encoder blocks."""
    heads: int
    """Attention heads of the encoder."""
    global_blocks: tuple[int, ...]
    """Blocks that attend over the whole grid; all others attend inside windows."""
    window_size: int
    """Window side in tokens, on every axis."""
    mlp_ratio: float = 4.0
    """Hidden width of the encoder's MLP over `width`."""
    embed_dim: int = 256
    """Channels of image embedding, prompts and decoder: 2 or 3 times `pe_features`."""
    pe_features: int = 128
    """Random frequencies of the position code."""
    num_point_embeddings: int = 4
    """4: negative, positive, two box corners; 2: no boxes."""
    mask_channels: int = 16
    """Channels between the two steps that bring a mask prompt to the token grid."""
    num_mask_tokens: int = 4
    """Mask tokens: the first for a single mask, the others for several."""
    decoder_depth: int = 2
    """Layers of the two-way transformer."""
    decoder_heads: int = 8
    """Attention heads of the two-way transformer."""
    decoder_mlp: int = 2048
    """Hidden width of its MLP."""
    iou_depth: int = 3
    """Layers of the head that predicts mask quality."""
    iou_hidden: int = 256
    """Hidden width of that head."""
    classes: bool = False
    """Mask tokens stand for classes, the first for background: all are predicted, prompts are not taken."""
    interpolate_positions: bool = False
    """Accept images of another size than `image_size`, interpolating position tables on the fly."""
    backbone: str = "vit"
    """"vit": SAM's transformers. "unet": convolutions on `levels`, prompts drawn on the grid; of the other
    fields `width` (of the stem), `patch_size`, `num_mask_tokens` and `embed_dim` count."""
    levels: tuple[int, ...] = ()
    """Channels at each level of the U-Net, the finest first, each level half as large as the one before."""
    quirks: Quirks = field(default_factory=Quirks)
    """Historic mistakes to reproduce."""

    def __post_init__(self) -> None:
        problems = list(_type_problems(self)) or list(_problems(self))
        if problems:
            raise ConfigError(
                f"configuration {self.name!r} cannot be built: " + "; ".join(problems)
            )

    @property
    def grid(self) -> tuple[int, ...]:
        """Tokens per axis of the image embedding."""
        return tuple(n // p for n, p in zip(self.image_size, self.patch_size, strict=True))

    @property
    def low_res_size(self) -> tuple[int, ...]:
        """Size per axis of mask prompts and of predicted low-resolution masks."""
        return tuple(n * s * s for n, s in zip(self.grid, self.mask_strides, strict=True))

    @property
    def mask_strides(self) -> tuple[int, ...]:
        """Stride per axis of each of the two steps between mask and token grid."""
        return tuple(1 if p == 1 else 2 for p in self.patch_size)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SamConfig:
        """Build from plain values; one number stands for all axes of a size.

        >>> config = get_config("sam_tiny")
        >>> SamConfig.from_dict(config.to_dict()) == config
        True
        """
        _known(values, cls)
        values = dict(values)
        quirks = values.get("quirks", {})
        if isinstance(quirks, Mapping):
            _known(quirks, Quirks)
            values["quirks"] = Quirks(**quirks)
        for key in ("image_size", "patch_size"):
            if isinstance(values.get(key), int):
                ndim = values.get("ndim")
                values[key] = (values[key],) * (ndim if ndim in (2, 3) else 1)
        for key in ("image_size", "patch_size", "global_blocks", "levels"):
            if isinstance(values.get(key), list):
                values[key] = tuple(values[key])
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"configuration is incomplete: {error}") from error


def model_names() -> list[str]:
    """Names that `create_model` knows."""
    return sorted(_CONFIGS)


def get_config(name: str) -> SamConfig:
    """The configuration of a named model.

    >>> get_config("sam_vit_b").grid
    (64, 64)
    """
    if name not in _CONFIGS:
        near = difflib.get_close_matches(name, _CONFIGS, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise ConfigError(f"unknown model {name!r}. {hint}Known: {', '.join(model_names())}")
    return _CONFIGS[name]


def _known(values: Mapping[str, Any], cls: type) -> None:
    known = [f.name for f in fields(cls)]
    unknown = [str(key) for key in values if key not in known]
    if unknown:
        near = [m for key in unknown for m in difflib.get_close_matches(key, known, n=1)]
        hint = f" Did you mean {', '.join(map(repr, near))}?" if near else ""
        raise ConfigError(f"{cls.__name__} has no field {', '.join(map(repr, unknown))}.{hint}")


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _type_problems(config: SamConfig) -> Iterable[str]:
    """What is not of the declared type or not positive (values may come from a file's header)."""
    for f in fields(config):
        value = getattr(config, f.name)
        if f.type == "int" and not (_is_int(value) and value > 0):
            yield f"{f.name} must be a positive whole number, not {value!r}"
        elif f.type == "bool" and not isinstance(value, bool):
            yield f"{f.name} must be true or false, not {value!r}"
        elif f.type == "str" and not isinstance(value, str):
            yield f"{f.name} must be text, not {value!r}"
        elif f.type == "float" and not (isinstance(value, int | float) and value > 0):
            yield f"{f.name} must be a positive number, not {value!r}"
        elif f.type == "tuple[int, ...]" and not (
            isinstance(value, tuple) and all(_is_int(v) and v >= 0 for v in value)
        ):
            yield f"{f.name} must be a tuple of whole numbers, not {value!r}"
        elif f.type == "Quirks" and not isinstance(value, Quirks):
            yield f"{f.name} must be Quirks, not {value!r}"
    bad = [
        f.name for f in fields(Quirks) if not isinstance(getattr(config.quirks, f.name, 0), bool)
    ]
    if bad:
        yield f"quirks {', '.join(bad)} must be true or false"


def _problems(config: SamConfig) -> Iterable[str]:
    """What does not fit together, given that every field is of its type."""
    c = config
    if c.ndim not in (2, 3):
        yield f"ndim must be 2 or 3, not {c.ndim}"
    elif len(c.image_size) != c.ndim or len(c.patch_size) != c.ndim:
        yield f"image_size {c.image_size} and patch_size {c.patch_size} must have {c.ndim} axes each"
    elif any(p != 1 and (p < 4 or p % 4) for p in c.patch_size):
        yield f"patch_size {c.patch_size} must be 1 or a multiple of 4 on every axis"
    elif any(n < p or n % p for n, p in zip(c.image_size, c.patch_size, strict=True)):
        yield f"image_size {c.image_size} must be a multiple of patch_size {c.patch_size}"
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
    if c.backbone not in BACKBONES:
        yield f"backbone must be one of {BACKBONES}, not {c.backbone!r}"
    if c.backbone == "unet":
        yield from _unet_problems(c)
    elif c.levels:
        yield f"levels {c.levels} are for backbone 'unet'"
    if c.ndim == 2 and (c.quirks.rel_pos_axes or c.quirks.dense_pe_axes):
        yield "quirks rel_pos_axes and dense_pe_axes exist in 3D only"


def _unet_problems(config: SamConfig) -> Iterable[str]:
    c = config
    if len(c.levels) < 2 or min(c.levels) < 1 or any(level % 8 for level in c.levels):
        yield f"levels {c.levels} must be at least two multiples of 8"
    elif c.levels[0] != c.embed_dim:
        yield f"the first of levels {c.levels} must be embed_dim {c.embed_dim}"
    if any(p != 4 for p in c.patch_size):
        yield f"patch_size {c.patch_size} must be 4 on every axis: the stem halves the image twice"
    if c.quirks != Quirks():
        yield "quirks are for backbone 'vit'"
    if c.classes:
        yield "classes are for backbone 'vit'"


def _sam(name: str, width: int, depth: int, heads: int, blocks: tuple[int, ...]) -> SamConfig:
    """SAM (Kirillov et al. 2023, arXiv:2304.02643)."""
    return SamConfig(
        name=name,
        ndim=2,
        in_channels=3,
        image_size=(1024, 1024),
        patch_size=(16, 16),
        width=width,
        depth=depth,
        heads=heads,
        global_blocks=blocks,
        window_size=14,
    )


def _sammed3d(
    name: str, size: int, width: int, depth: int, heads: int, blocks: tuple[int, ...]
) -> SamConfig:
    """SAM-Med3D (Wang et al. 2023, arXiv:2310.15161)."""
    return SamConfig(
        name=name,
        ndim=3,
        in_channels=1,
        image_size=(size, size, size),
        patch_size=(16, 16, 16),
        width=width,
        depth=depth,
        heads=heads,
        global_blocks=blocks,
        window_size=14,
        embed_dim=384,
        num_point_embeddings=2,
    )


def _unet(name: str, size: int, width: int, levels: tuple[int, ...]) -> SamConfig:
    """Small models of our own, for pictures."""
    return SamConfig(
        name=name,
        ndim=2,
        in_channels=3,
        image_size=(size, size),
        patch_size=(4, 4),
        width=width,
        depth=1,
        heads=1,
        global_blocks=(),
        window_size=1,
        embed_dim=levels[0],
        pe_features=levels[0] // 2,
        decoder_heads=1,
        backbone="unet",
        levels=levels,
    )


_B, _L, _H = (2, 5, 8, 11), (5, 11, 17, 23), (7, 15, 23, 31)

_CONFIGS = {
    config.name: config
    for config in (
        _sam("sam_vit_b", 768, 12, 12, _B),
        _sam("sam_vit_l", 1024, 24, 16, _L),
        _sam("sam_vit_h", 1280, 32, 16, _H),
        _sammed3d("sammed3d_vit_b_ori", 128, 768, 12, 12, _B),
        _sammed3d("sammed3d_vit_b", 256, 384, 12, 12, _B),
        _sammed3d("sammed3d_vit_l", 256, 1024, 24, 16, _L),
        _sammed3d("sammed3d_vit_h", 256, 1280, 32, 16, _H),
        _unet("samaritan_2d", 160, 24, (48, 96, 160, 256)),
        _unet("unet_tiny", 64, 8, (16, 24)),
        SamConfig(  # windows fill the grid exactly: 4 x 4 windows of 8 x 8 tokens
            name="sam_small",
            ndim=2,
            in_channels=3,
            image_size=(512, 512),
            patch_size=(16, 16),
            width=384,
            depth=12,
            heads=6,
            global_blocks=_B,
            window_size=8,
        ),
        SamConfig(  # finer tokens than SAM-Med3D: 16^3 tokens of 8^3 voxels, masks at half resolution
            name="sam3d_small",
            ndim=3,
            in_channels=1,
            image_size=(128, 128, 128),
            patch_size=(8, 8, 8),
            width=384,
            depth=8,
            heads=6,
            global_blocks=(3, 7),
            window_size=8,
            embed_dim=384,
        ),
        SamConfig(
            name="sam_tiny",
            ndim=2,
            in_channels=3,
            image_size=(64, 64),
            patch_size=(16, 16),
            width=48,
            depth=2,
            heads=3,
            global_blocks=(1,),
            window_size=3,
            embed_dim=32,
            pe_features=16,
            decoder_heads=4,
            decoder_mlp=64,
            iou_hidden=32,
        ),
        SamConfig(
            name="sam3d_tiny",
            ndim=3,
            in_channels=1,
            image_size=(32, 32, 32),
            patch_size=(8, 8, 8),
            width=48,
            depth=2,
            heads=3,
            global_blocks=(1,),
            window_size=3,
            embed_dim=48,
            pe_features=16,
            decoder_heads=4,
            decoder_mlp=64,
            iou_hidden=32,
        ),
    )
}
