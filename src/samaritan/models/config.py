"""Frozen configurations of every model, by name, and the quirks of published weights.

This file knows no torch: a configuration can be listed, printed and stored without it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from samaritan.errors import ConfigError
from samaritan.models.config_checks import known_fields, problems_of
from samaritan.models.mask_classes_config import MaskClasses, problems_with
from samaritan.models.voxel_classes_config import VoxelClasses
from samaritan.models.voxel_classes_config import problems_with as voxel_problems


@dataclass(frozen=True)
class Quirks:
    """Historic mistakes that published weights were trained with. Set by checkpoint tables only."""

    rel_pos_axes: bool = False
    """SAM-Med3D: the depth bias is added along the wrong key axis, and two others use wrong queries."""
    dense_pe_axes: bool = False
    """SAM-Med3D: the dense position code orders coordinates (axis 1, axis 0, axis 2), points do not."""
    window_padding: bool = False
    """SAM, SAM-Med3D: tokens that pad the grid to whole windows take part in attention."""
    mask_corner: bool = False
    """NeuroSAM3D: of each 2 x 2 x 2 features of a mask prompt only the first is seen, not their mean."""
    window_order: bool = False
    """NeuroSAM3D with Hiera: windows are put together in another order than they were cut in."""
    position_scale: bool = False
    """DINOv2: a position table is stretched by (n + 0.1) / m instead of n / m."""
    window_depth: bool = False
    """MaskSAM: beside windowed attention, depth convolutions mix consecutive windows, not slices."""
    norm_padding: bool = False
    """MaskSAM: the grid is padded to whole windows before the norm, so padding becomes the norm's bias."""
    position_crop: bool = False
    """MaskSAM: smaller pictures take the corner of the absolute position table, but all of relative ones."""
    double_sigmoid: bool = False
    """MaskSAM: losses and matching take auxiliary probabilities for logits."""
    hard_prompts: bool = False
    """MaskSAM: masks and boxes are rounded before they become prompts, so no gradient passes through them."""
    mask_boxes: bool = False
    """MaskSAM: boxes of masks end on the last pixel, not after it; an empty mask has one, a corner point."""
    mask_blur: bool = False
    """MaskSAM (ACDC): masks are made as large as the canvas and small again, which blurs them."""


SAM_QUIRKS = Quirks(window_padding=True)
"""What the official SAM weights, and all that were tuned from them, expect."""

SAMMED3D_QUIRKS = Quirks(rel_pos_axes=True, dense_pe_axes=True, window_padding=True)
"""What the official SAM-Med3D weights, and all that were tuned from them, expect."""

NEUROSAM3D_QUIRKS = replace(SAMMED3D_QUIRKS, mask_corner=True)
"""What NeuroSAM3D's published program computes with SAM's encoder."""

NEUROSAM3D_DINOV2_QUIRKS = Quirks(dense_pe_axes=True, mask_corner=True, position_scale=True)
"""The same with the DINOv2 encoder."""

NEUROSAM3D_HIERA_QUIRKS = Quirks(
    dense_pe_axes=True, mask_corner=True, window_padding=True, window_order=True
)
"""The same with the Hiera encoder."""

MASKSAM_QUIRKS = Quirks(
    window_padding=True,
    window_depth=True,
    norm_padding=True,
    position_crop=True,
    double_sigmoid=True,
    hard_prompts=True,
    mask_boxes=True,
    mask_blur=True,
)
"""What MaskSAM's published program computes."""


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
    """Channels before the last step that brings a mask prompt to the token grid."""
    mask_steps: int = 2
    """Halvings between masks and token grid. 2: SAM; 4: NeuroSAM3D, whose masks are as fine as the image."""
    num_mask_tokens: int = 4
    """Mask tokens: the first for a single mask, the others for several."""
    decoder_depth: int = 2
    """Layers of the two-way transformer."""
    decoder_heads: int = 8
    """Attention heads of the two-way transformer."""
    decoder_mlp: int = 2048
    """Hidden width of its MLP."""
    decoder_dropout: float = 0.0
    """Share of its attention that is dropped in training."""
    iou_depth: int = 3
    """Layers of the head that predicts mask quality."""
    iou_hidden: int = 256
    """Hidden width of that head."""
    classes: bool = False
    """Mask tokens stand for classes, the first for background: all are predicted, prompts are not taken."""
    interpolate_positions: bool = False
    """Accept images of another size than `image_size`, interpolating position tables on the fly."""
    backbone: str = "vit"
    """"vit": SAM's transformers. "dinov2", "hiera": another image encoder, a plain transformer or one of
    `stages`, with SAM's prompts and decoder. "unet": convolutions on `levels`, prompts drawn on the grid; of
    the other fields `width` (of the stem), `patch_size`, `num_mask_tokens` and `embed_dim` count."""
    levels: tuple[int, ...] = ()
    """Channels at each level of the U-Net, the finest first, each level half as large as the one before."""
    stages: tuple[int, ...] = ()
    """Blocks of each stage of a Hiera; each stage has half the grid and twice the width of the one before."""
    stage_windows: tuple[int, ...] = ()
    """Window side in each of these stages."""
    background_grid: int = 14
    """Side of the position table of a Hiera that is interpolated to the whole grid."""
    mask_classes: MaskClasses | None = None
    """What MaskSAM adds: a volume's slices are labelled together, by masks with classes; no prompts."""
    voxel_classes: VoxelClasses | None = None
    """No SAM at all: a plain U-Net (backbone "plain") that labels voxels. Of the other fields `ndim`,
    `in_channels` and `image_size` count."""
    quirks: Quirks = field(default_factory=Quirks)
    """Historic mistakes to reproduce."""

    def __post_init__(self) -> None:
        if problems := problems_of(self) or [*problems_with(self), *voxel_problems(self)]:
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
        steps = self.mask_steps
        return tuple(n * s**steps for n, s in zip(self.grid, self.mask_strides, strict=True))

    @property
    def mask_strides(self) -> tuple[int, ...]:
        """Stride per axis of each of the steps between mask and token grid."""
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
        known_fields(values, cls)
        values = dict(values)
        quirks = values.get("quirks", {})
        if isinstance(quirks, Mapping):
            known_fields(quirks, Quirks)
            values["quirks"] = Quirks(**quirks)
        if isinstance(own := values.get("mask_classes"), Mapping):
            values["mask_classes"] = MaskClasses.from_dict(own)
        if isinstance(own := values.get("voxel_classes"), Mapping):
            values["voxel_classes"] = VoxelClasses.from_dict(own)
        for key in ("image_size", "patch_size"):
            if isinstance(values.get(key), int):
                ndim = values.get("ndim")
                values[key] = (values[key],) * (ndim if ndim in (2, 3) else 1)
        for key in _TUPLES:
            if isinstance(values.get(key), list):
                values[key] = tuple(values[key])
        try:
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"configuration is incomplete: {error}") from error


_TUPLES = ("image_size", "patch_size", "global_blocks", "levels", "stages", "stage_windows")


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


def _neurosam3d(plain: SamConfig, name: str, **changes: Any) -> SamConfig:
    """NeuroSAM3D (github.com/anthonyprinaldi/NeuroSAM3D): boxes, and masks as fine as the image."""
    steps = {16: 4, 8: 3}[plain.patch_size[0]]
    own = {"num_point_embeddings": 4, "mask_steps": steps, "decoder_dropout": 0.1, **changes}
    return replace(plain, name=name, **own)


def _unet(name: str, ndim: int, size: int, width: int, levels: tuple[int, ...]) -> SamConfig:
    """Small models of our own, for pictures and for volumes."""
    return SamConfig(
        name=name,
        ndim=ndim,
        in_channels={2: 3, 3: 1}[ndim],
        image_size=(size,) * ndim,
        patch_size=(4,) * ndim,
        width=width,
        depth=1,
        heads=1,
        global_blocks=(),
        window_size=1,
        embed_dim=levels[0],
        pe_features=levels[0] // 2,
        decoder_heads=1,
        num_mask_tokens=1,
        backbone="unet",
        levels=levels,
    )


_B, _L, _H = (2, 5, 8, 11), (5, 11, 17, 23), (7, 15, 23, 31)

_NEURO_B = _sammed3d("", 112, 384, 12, 12, _B)
_NEURO_L = _sammed3d("", 112, 1024, 24, 16, _L)
_SAM3D_TINY = SamConfig(
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
)

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
        _unet("samaritan_2d", 2, 96, 24, (48, 96, 160, 256)),
        _unet("samaritan_3d", 3, 64, 24, (48, 88, 144, 200)),
        _unet("unet_tiny", 2, 64, 8, (16, 24)),
        _unet("unet3d_tiny", 3, 32, 8, (16, 24)),
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
        _SAM3D_TINY,
        _neurosam3d(_NEURO_B, "neurosam3d_vit_b"),
        _neurosam3d(_sammed3d("", 112, 768, 12, 12, _B), "neurosam3d_vit_b_ori"),
        _neurosam3d(_NEURO_L, "neurosam3d_vit_l"),
        _neurosam3d(_sammed3d("", 112, 1280, 32, 16, _H), "neurosam3d_vit_h"),
        _neurosam3d(
            _NEURO_L, "neurosam3d_dinov2", backbone="dinov2", global_blocks=(), window_size=1
        ),
        _neurosam3d(
            _sammed3d("", 128, 256, 20, 8, (7, 12, 16)),
            "neurosam3d_hiera",
            backbone="hiera",
            window_size=1,
            stages=(2, 3, 12, 3),
            stage_windows=(8, 4, 14, 7),
        ),
        _neurosam3d(_SAM3D_TINY, "neurosam3d_tiny"),
        _neurosam3d(
            _SAM3D_TINY,
            "neurosam3d_dinov2_tiny",
            backbone="dinov2",
            global_blocks=(),
            window_size=1,
        ),
        _neurosam3d(
            _SAM3D_TINY,
            "neurosam3d_hiera_tiny",
            backbone="hiera",
            width=24,
            depth=4,
            global_blocks=(2,),
            window_size=1,
            stages=(1, 2, 1),
            stage_windows=(4, 6, 3),
            background_grid=3,
        ),
    )
}
