"""The names that Hugging Face transformers gives the parameters of SAM, and the official ones.

The table agrees with transformers' own conversion script,
src/transformers/models/sam/convert_sam_to_hf.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

MARK = "vision_encoder."
"""Every file of transformers' SamModel has names that begin so."""

PARTS = ("vision_encoder", "prompt_encoder", "mask_decoder", "shared_image_embedding")
"""First words of all names."""

TIED = "shared_image_embedding.positional_embedding"
"""The position code stands under a second name as well, in some files under this one alone."""

_GAUSSIAN = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

# Hugging Face's name of a module -> the official one; "*" stands for one number.
_MODULES = {
    "vision_encoder.pos_embed": "image_encoder.pos_embed",
    "vision_encoder.patch_embed.projection": "image_encoder.patch_embed.proj",
    "vision_encoder.layers.*.layer_norm1": "image_encoder.blocks.*.norm1",
    "vision_encoder.layers.*.layer_norm2": "image_encoder.blocks.*.norm2",
    "vision_encoder.layers.*.attn": "image_encoder.blocks.*.attn",
    "vision_encoder.layers.*.mlp": "image_encoder.blocks.*.mlp",
    "vision_encoder.neck.conv1": "image_encoder.neck.0",
    "vision_encoder.neck.layer_norm1": "image_encoder.neck.1",
    "vision_encoder.neck.conv2": "image_encoder.neck.2",
    "vision_encoder.neck.layer_norm2": "image_encoder.neck.3",
    "prompt_encoder.shared_embedding.positional_embedding": _GAUSSIAN,
    "prompt_encoder.point_embed": "prompt_encoder.point_embeddings",
    "prompt_encoder.not_a_point_embed": "prompt_encoder.not_a_point_embed",
    "prompt_encoder.no_mask_embed": "prompt_encoder.no_mask_embed",
    "prompt_encoder.mask_embed.conv1": "prompt_encoder.mask_downscaling.0",
    "prompt_encoder.mask_embed.layer_norm1": "prompt_encoder.mask_downscaling.1",
    "prompt_encoder.mask_embed.conv2": "prompt_encoder.mask_downscaling.3",
    "prompt_encoder.mask_embed.layer_norm2": "prompt_encoder.mask_downscaling.4",
    "prompt_encoder.mask_embed.conv3": "prompt_encoder.mask_downscaling.6",
    "mask_decoder.iou_token": "mask_decoder.iou_token",
    "mask_decoder.mask_tokens": "mask_decoder.mask_tokens",
    "mask_decoder.transformer.layers.*.self_attn": "mask_decoder.transformer.layers.*.self_attn",
    "mask_decoder.transformer.layers.*.cross_attn_token_to_image": (
        "mask_decoder.transformer.layers.*.cross_attn_token_to_image"
    ),
    "mask_decoder.transformer.layers.*.cross_attn_image_to_token": (
        "mask_decoder.transformer.layers.*.cross_attn_image_to_token"
    ),
    "mask_decoder.transformer.layers.*.mlp": "mask_decoder.transformer.layers.*.mlp",
    "mask_decoder.transformer.layers.*.layer_norm1": "mask_decoder.transformer.layers.*.norm1",
    "mask_decoder.transformer.layers.*.layer_norm2": "mask_decoder.transformer.layers.*.norm2",
    "mask_decoder.transformer.layers.*.layer_norm3": "mask_decoder.transformer.layers.*.norm3",
    "mask_decoder.transformer.layers.*.layer_norm4": "mask_decoder.transformer.layers.*.norm4",
    "mask_decoder.transformer.final_attn_token_to_image": (
        "mask_decoder.transformer.final_attn_token_to_image"
    ),
    "mask_decoder.transformer.layer_norm_final_attn": "mask_decoder.transformer.norm_final_attn",
    "mask_decoder.upscale_conv1": "mask_decoder.output_upscaling.0",
    "mask_decoder.upscale_layer_norm": "mask_decoder.output_upscaling.1",
    "mask_decoder.upscale_conv2": "mask_decoder.output_upscaling.3",
    "mask_decoder.output_hypernetworks_mlps.*.proj_in": (
        "mask_decoder.output_hypernetworks_mlps.*.layers.0"
    ),
    "mask_decoder.output_hypernetworks_mlps.*.layers.0": (
        "mask_decoder.output_hypernetworks_mlps.*.layers.1"
    ),
    "mask_decoder.output_hypernetworks_mlps.*.proj_out": (
        "mask_decoder.output_hypernetworks_mlps.*.layers.2"
    ),
    "mask_decoder.iou_prediction_head.proj_in": "mask_decoder.iou_prediction_head.layers.0",
    "mask_decoder.iou_prediction_head.layers.0": "mask_decoder.iou_prediction_head.layers.1",
    "mask_decoder.iou_prediction_head.proj_out": "mask_decoder.iou_prediction_head.layers.2",
}
_BACK = {official: theirs for theirs, official in _MODULES.items()}
_UNTIED = _BACK[_GAUSSIAN]


def from_hugging_face(key: str) -> str | None:
    """The official name of a parameter of transformers' SamModel; None if there is none.

    >>> from_hugging_face("vision_encoder.layers.3.layer_norm1.weight")
    'image_encoder.blocks.3.norm1.weight'
    """
    return _GAUSSIAN if key == TIED else _renamed(key, _MODULES)


def to_hugging_face(key: str) -> str | None:
    """The name that transformers gives an official parameter; None if there is none.

    >>> to_hugging_face("prompt_encoder.point_embeddings.2.weight")
    'prompt_encoder.point_embed.2.weight'
    """
    return _renamed(key, _BACK)


def convert(state: Mapping[str, T]) -> dict[str, T]:
    """Official names for a whole state dict; names that are not in the table stay as they are.

    Where the position code stands under both of its names, the prompt encoder's own counts.
    """
    both = TIED in state and _UNTIED in state
    return {
        from_hugging_face(key) or key: value
        for key, value in state.items()
        if not (both and key == TIED)
    }


def _renamed(key: str, table: Mapping[str, str]) -> str | None:
    """Rename the longest known beginning of a name, made of whole words."""
    words = key.split(".")
    for n in range(len(words), 0, -1):
        numbers = [w for w in words[:n] if w.isdecimal()]
        for pattern in _patterns(words[:n]):
            if pattern in table:
                head = table[pattern]
                for number in numbers[: head.count("*")]:
                    head = head.replace("*", number, 1)
                return ".".join([head, *words[n:]])
    return None


def _patterns(words: list[str]) -> list[str]:
    """The words as they are, and with their first number open."""
    plain = ".".join(words)
    for i, word in enumerate(words):
        if word.isdecimal():
            return [plain, ".".join([*words[:i], "*", *words[i + 1 :]])]
    return [plain]
