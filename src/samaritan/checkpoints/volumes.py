"""NeuroSAM3D, 3DINO and M-SAM: how each of their names reads in our models.

Rules on single names, which need no model: they hold for every depth, with or without chunks of blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from samaritan.errors import CheckpointError

_T = TypeVar("_T")
_Rules = tuple[tuple[str, str], ...]

_MEA = "mask_decoder.fuse.adapters.mask_enhanced"

_DINOV2: _Rules = (
    (r"^image_encoder\.model\.", "image_encoder."),
    (r"^(image_encoder\.blocks)\.\d+\.(\d+)\.", r"\1.\2."),  # chunk and index, the index over all
    (r"^(image_encoder\.blocks\.\d+\.mlp)\.fc([12])\.", r"\1.lin\2."),
)
_TEACHER: _Rules = ((r"^(backbone\.)?(?!image_encoder\.)", "image_encoder."), *_DINOV2)
_HIERA: _Rules = (
    (r"^image_encoder\.trunk\.", "image_encoder."),
    (r"^(image_encoder\.blocks\.\d+\.mlp)\.layers\.0\.", r"\1.lin1."),
    (r"^(image_encoder\.blocks\.\d+\.mlp)\.layers\.1\.", r"\1.lin2."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"image_encoder.neck.\1."),
)
_MSAM: _Rules = (
    (r"^lora_sam\.sam\.", ""),
    (r"\.attn\.qkv\.qkv\.", ".attn.qkv."),
    (r"\.attn\.qkv\.linear_([ab]_[qv])\.weight$", r".attn.qkv.adapters.lora.\1"),
    (r"^bidatt\.bidirectional_attentions\.(\d+)\.mlp1\.", rf"{_MEA}.blocks.\1.image.mlp."),
    (r"^bidatt\.bidirectional_attentions\.(\d+)\.mlp2\.", rf"{_MEA}.blocks.\1.prompt.mlp."),
    (
        r"^bidatt\.bidirectional_attentions\.(\d+)\.(image|prompt)_(?=\w)",
        rf"{_MEA}.blocks.\1.\2.",
    ),
    (r"^bidatt\.multi_head_self_attention\.", f"{_MEA}.attend."),
    (r"^bidatt\.add_norm\.", f"{_MEA}.norm."),
    (r"^bidatt\.add_norm2\.", f"{_MEA}.norm_mask."),
    (r"^bidatt\.add_norm3\.", f"{_MEA}.norm_image."),
    (r"^bidatt\.add_norm4\.", f"{_MEA}.unused_norm."),
    (r"^bidatt\.", f"{_MEA}."),
    (r"\.multiheadattn\.", ".attend."),
    (rf"^({re.escape(_MEA)}\..*?attend)\.(rel_pos_\w|qkv\.\w+|proj\.\w+)$", r"\1.attn.\2"),
)

_RULES: Mapping[str, _Rules] = {
    "neurosam3d": (),
    "neurosam3d-dinov2": _DINOV2,
    "neurosam3d-hiera": _HIERA,
    "dino": _TEACHER,
    "m-sam": _MSAM,
}
"""System -> rules, each applied in turn."""

SYSTEMS = frozenset(_RULES)
"""Systems whose names are read here."""

HEADS = re.compile(r"^(?:image_encoder\.)?(?:dino_head|ibot_head)\.")
"""Names that a DINO training file holds beside its backbone."""


def our_names(system: str, state: Mapping[str, _T]) -> dict[str, _T]:
    """The same under the names of our models; of systems that are not read here as it is.

    Raises:
        CheckpointError: if two names mean the same tensor.

    >>> list(our_names("m-sam", {"bidatt.add_norm.weight": 0}))
    ['mask_decoder.fuse.adapters.mask_enhanced.norm.weight']
    """
    renamed: dict[str, _T] = {}
    for key, value in state.items():
        new = _renamed(key, _RULES.get(system, ()))
        if new in renamed:
            raise CheckpointError(f"it holds {new!r} under two names, the second of them {key!r}")
        renamed[new] = value
    return renamed


def their_names(system: str, keys: Iterable[str], *, depth: int, chunks: int = 4) -> dict[str, str]:
    """Our names -> theirs, as the published programs keep them: the way back from `our_names`.

    Args:
        system: one of `SYSTEMS`, but for "dino".
        keys: names of a model.
        depth: its blocks.
        chunks: of DINOv2's blocks.
    """
    if system == "m-sam":
        return {key: _msam_name(key) for key in keys}
    names = {}
    for key in keys:
        new = _renamed(key, _BACK.get(system, ()))
        if system == "neurosam3d-dinov2":
            new = re.sub(
                r"\.blocks\.(\d+)\.",
                lambda m: f".blocks.{int(m[1]) * chunks // depth}.{m[1]}.",
                new,
            )
        names[key] = new
    return names


def _msam_name(key: str) -> str:
    if key.startswith(_MEA):
        return _renamed(key, _MEA_BACK)
    return f"lora_sam.sam.{_renamed(key, _LORA_BACK)}"


_BACK: Mapping[str, _Rules] = {
    "neurosam3d-dinov2": (
        (r"^(image_encoder\.blocks\.\d+\.mlp)\.lin([12])\.", r"\1.fc\2."),
        (r"^image_encoder\.(?!neck\.)", "image_encoder.model."),
    ),
    "neurosam3d-hiera": (
        (r"^image_encoder\.neck\.(\d+)\.", r"image_encoder.neck.convs.\1.conv."),
        (r"^(image_encoder\.blocks\.\d+\.mlp)\.lin1\.", r"\1.layers.0."),
        (r"^(image_encoder\.blocks\.\d+\.mlp)\.lin2\.", r"\1.layers.1."),
        (r"^image_encoder\.(?!neck\.)", "image_encoder.trunk."),
    ),
}
_LORA_BACK: _Rules = (
    (r"\.attn\.qkv\.(weight|bias)$", r".attn.qkv.qkv.\1"),
    (r"\.attn\.qkv\.adapters\.lora\.([ab]_[qv])$", r".attn.qkv.linear_\1.weight"),
)
_MEA_BACK: _Rules = (
    (rf"^{re.escape(_MEA)}\.", "bidatt."),
    (r"\.attend\.attn\.", ".attend."),
    (r"^bidatt\.blocks\.(\d+)\.image\.mlp\.", r"bidatt.bidirectional_attentions.\1.mlp1."),
    (r"^bidatt\.blocks\.(\d+)\.prompt\.mlp\.", r"bidatt.bidirectional_attentions.\1.mlp2."),
    (r"^bidatt\.blocks\.(\d+)\.(\w+)\.attend\.", r"bidatt.blocks.\1.\2.multiheadattn."),
    (r"^bidatt\.blocks\.(\d+)\.(\w+)\.", r"bidatt.bidirectional_attentions.\1.\2_"),
    (r"^bidatt\.attend\.", "bidatt.multi_head_self_attention."),
    (r"^bidatt\.norm\.", "bidatt.add_norm."),
    (r"^bidatt\.norm_mask\.", "bidatt.add_norm2."),
    (r"^bidatt\.norm_image\.", "bidatt.add_norm3."),
    (r"^bidatt\.unused_norm\.", "bidatt.add_norm4."),
)


def _renamed(key: str, rules: _Rules) -> str:
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key
