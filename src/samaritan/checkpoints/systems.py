"""Which published system a state dict comes from: an explicit table of names that only it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from samaritan.models.config import (
    MASKSAM_QUIRKS,
    NEUROSAM3D_DINOV2_QUIRKS,
    NEUROSAM3D_HIERA_QUIRKS,
    NEUROSAM3D_QUIRKS,
    SAM_QUIRKS,
    SAMMED3D_QUIRKS,
    Quirks,
    SamConfig,
    get_config,
    model_names,
)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class System:
    """One row of the table."""

    name: str
    """As it stands in reports."""
    title: str
    """As people call it."""
    marks: tuple[str, ...]
    """Regular expressions; one of them is found in some name."""
    quirks: Quirks | None = None
    """What its weights need; None leaves those of the model."""
    why_not: str = ""
    """Why it cannot be loaded yet; empty for systems that can."""
    needs_base: bool = False
    """Whether its files go with the weights of a whole SAM."""
    also: tuple[str, ...] = ()
    """Further ones; each of them is found as well."""
    only: str = ""
    """First word of all names that its files hold; everything else of a model keeps its values."""
    backbone: str = ""
    """The only backbone that it fits, if there is one."""
    licence: str | None = None
    """Of its published weights, where all have the same and it binds who uses them."""


_FINE_MASKS = (r"^prompt_encoder\.mask_downscaling\.9\.",)

FOREIGN = (
    System(
        "samed-s-lora",
        "SAMed_s LoRA file",
        (r"^(sa|cti|cit)_a_\d+$", r"^fati_qa$"),
        SAM_QUIRKS,
        needs_base=True,
    ),
    System(
        "samed-lora",
        "SAMed LoRA file",
        (r"^w_a_\d+$",),
        SAM_QUIRKS,
        needs_base=True,
    ),
    System("m-sam", "M-SAM", (r"^bidatt\.", r"^lora_sam\."), SAMMED3D_QUIRKS),
    System(
        "samed",
        "SAMed, all weights",
        (r"\.linear_[ab]_[qv]\.weight$",),
        SAM_QUIRKS,
    ),
    System(
        "sam-med2d",
        "SAM-Med2D with adapters",
        (r"\.Adapter\.(channel|spatial)\.",),
        SAM_QUIRKS,
    ),
    System(
        "masksam",
        "MaskSAM",
        (r"temporal_embedding", r"classifier_token", r"^sam_model\..*[Aa]dapter"),
        MASKSAM_QUIRKS,
    ),
    System(
        "neurosam3d-dinov2",
        "NeuroSAM3D with a DINOv2 encoder",
        (r"^image_encoder\.(model\.)?cls_token$",),
        NEUROSAM3D_DINOV2_QUIRKS,
        also=_FINE_MASKS,
        backbone="dinov2",
    ),
    System(
        "neurosam3d-hiera",
        "NeuroSAM3D with a Hiera encoder",
        (r"^image_encoder\.(trunk\.)?pos_embed_window$",),
        NEUROSAM3D_HIERA_QUIRKS,
        also=_FINE_MASKS,
        backbone="hiera",
    ),
    System("neurosam3d", "NeuroSAM3D", _FINE_MASKS, NEUROSAM3D_QUIRKS, backbone="vit"),
    System(
        "sam2",
        "SAM 2",
        (r"^memory_(attention|encoder)\.", r"^image_encoder\.trunk\."),
        why_not="SAM 2 is another architecture, which is not supported",
    ),
    System(
        "sam-hq",
        "SAM-HQ",
        (r"^mask_decoder\.(hf_token|hf_mlp|compress_vit_feat)\b",),
        why_not="its mask decoder has another output token, which is not supported",
    ),
    System(
        "mobile-sam",
        "MobileSAM or LiteMedSAM (TinyViT encoder)",
        (r"^image_encoder\.layers\.\d+\.",),
        why_not="its image encoder is another network, which is not supported",
    ),
    System(
        "dino",
        "a DINO backbone (an image encoder alone)",
        (r"^(backbone\.)?cls_token$", r"^backbone\."),
        Quirks(position_scale=True),
        only="image_encoder",
        backbone="dinov2",
        licence="CC-BY-NC-ND-4.0",
    ),
)
"""Systems that are recognised by names of their own; of those with a `why_not` to say what they are."""

SAM = System("sam", "SAM", (), SAM_QUIRKS)
SAM_MED3D = System("sam-med3d", "SAM-Med3D", (), SAMMED3D_QUIRKS)
SAM_MED3D_BOXES = System(
    "sam-med3d-boxes", "SAM-Med3D with 4 point embeddings (boxes)", (), SAMMED3D_QUIRKS
)
SAM_HF = System("sam-hf", "SAM of Hugging Face transformers", (), SAM_QUIRKS)
PLAIN = System("plain", "a model with SAM's parameter names, of no published size", ())
UNKNOWN = System(
    "unknown", "no system that is known", (), why_not="none of its names is a parameter of SAM"
)

_CORNER = "prompt_encoder.point_embeddings.2.weight"
_TOKENS = "mask_decoder.mask_tokens.weight"


def recognise(shapes: Shapes, *, hugging_face: bool = False) -> System:
    """The system that weights come from, by their official names and shapes."""
    for system in FOREIGN:
        if _found(system.marks, shapes) and all(_found((m,), shapes) for m in system.also):
            return system
    if not _found((r"^(image_encoder|prompt_encoder|mask_decoder)\.",), shapes):
        return UNKNOWN
    if hugging_face:
        return SAM_HF
    config = guess_config(shapes)
    if config is None or not config.name.startswith(("sam_vit_", "sammed3d_")):
        return PLAIN
    if config.ndim == 2:
        return SAM
    return SAM_MED3D_BOXES if _CORNER in shapes else SAM_MED3D


def guess_config(shapes: Shapes) -> SamConfig | None:
    """The configuration of a known model with these shapes, at the size that the weights have."""
    for name in model_names():
        config = get_config(name)
        if config.backbone != "unet" and _fits(config, shapes):
            grid = table_grid(config, shapes["image_encoder.pos_embed"]) or config.grid
            return replace(
                config,
                image_size=tuple(n * p for n, p in zip(grid, config.patch_size, strict=True)),
                num_point_embeddings=4 if _CORNER in shapes else 2,
                num_mask_tokens=shapes[_TOKENS][0],
            )
    return None


def creating(config: SamConfig) -> str:
    """The call that makes a model of a guessed configuration.

    >>> creating(replace(get_config("sam_vit_b"), num_mask_tokens=9))
    "create_model('sam_vit_b', num_mask_tokens=9)"
    """
    known = get_config(config.name)
    keys = ("image_size", "num_point_embeddings", "num_mask_tokens")
    changed = [k for k in keys if getattr(config, k) != getattr(known, k)]
    return f"create_model({', '.join([repr(config.name), *(f'{k}={getattr(config, k)}' for k in changed)])})"


def _fits(config: SamConfig, shapes: Shapes) -> bool:
    """Compare what fixes a model's size; `shapes` may lack names or have more."""
    depth = 1 + max((int(m[1]) for k in shapes if (m := _BLOCK.match(k))), default=-1)
    tokens = shapes.get(_TOKENS, ())
    last = {2: 6, 3: 6, 4: 9}[config.mask_steps]
    return (
        depth == config.depth
        and len(tokens) == 2
        and tokens[0] > 0
        and tokens[1] == config.embed_dim
        and shapes.get(_MASKS.format(0), (0,))[0]
        == config.mask_channels // _PARTS[config.mask_steps]
        and _MASKS.format(last) in shapes
        and all(shapes.get(key) == shape for key, shape in _wanted(config).items())
        and table_grid(config, shapes.get("image_encoder.pos_embed", ())) is not None
    )


def _wanted(config: SamConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the image encoder that tell a model from others."""
    width, encoder, ones = config.width, "image_encoder", [1] * config.ndim
    hidden = int(width * config.mlp_ratio)
    wanted: dict[str, tuple[int, ...]] = {f"{encoder}.blocks.0.mlp.lin1.weight": (hidden, width)}
    if config.backbone == "hiera":
        window = [config.stage_windows[0]] * config.ndim
        background = [config.background_grid] * config.ndim
        wanted[f"{encoder}.pos_embed_window"] = (1, width, *window)
        wanted[f"{encoder}.pos_embed"] = (1, width, *background)
        return wanted
    wanted[f"{encoder}.patch_embed.proj.weight"] = (width, config.in_channels, *config.patch_size)
    wanted[f"{encoder}.neck.0.weight"] = (config.embed_dim, width, *ones)
    if config.backbone == "dinov2":
        wanted[f"{encoder}.cls_token"] = (1, 1, width)
        return wanted
    windowed = sorted(set(range(config.depth)) - set(config.global_blocks))[:1]
    rows, head = 2 * config.window_size - 1, width // config.heads
    wanted.update({f"{encoder}.blocks.{i}.attn.rel_pos_h": (rows, head) for i in windowed})
    return wanted


def table_grid(config: SamConfig, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """Tokens per axis that a position table was made for; None if it is of another kind."""
    if not shape or shape[0] != 1 or 0 in shape:
        return None
    if config.backbone == "hiera":  # its tables fit any grid
        return config.grid
    if config.backbone == "dinov2":
        side = round((shape[1] - 1) ** (1 / config.ndim)) if len(shape) == 3 else 0
        cube = side and side**config.ndim == shape[1] - 1 and shape[2] == config.width
        return (side,) * config.ndim if cube else None
    return (
        tuple(shape[1:-1]) if len(shape) == config.ndim + 2 and shape[-1] == config.width else None
    )


_MASKS = "prompt_encoder.mask_downscaling.{}.weight"
_PARTS = {2: 4, 3: 2, 4: 4}
"""Steps between masks and tokens -> which part of the mask channels the first of them gives."""

_BLOCK = re.compile(r"^image_encoder\.blocks\.(\d+)\.")


def _found(marks: Iterable[str], shapes: Shapes) -> bool:
    return any(re.search(mark, key) for mark in marks for key in shapes)
