"""Adapted models in the layouts of their publishers: which of our parameters each of their names is.

Every table is made from the names of a model, so it holds for any depth and for adapters in some
blocks only: SAMed numbers the matrices that there are, not the blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from samaritan.adapt.inject import is_adapter
from samaritan.assembly.blueprint import Blueprint, get_blueprint, model_names
from samaritan.checkpoints import masksam
from samaritan.checkpoints.systems import Shapes, guess_config, table_grid
from samaritan.models.config import SamConfig, get_config
from samaritan.models.config import model_names as plain_names

Table = dict[str, str]
"""Published name -> our name."""

_LORA_BLOCK = re.compile(r"image_encoder\.blocks\.(\d+)\.attn\.qkv\.adapters\.lora\.a_q")
_TRANSFORMER = "mask_decoder.transformer"
_ATTENTIONS = {
    "sa": "self_attn",
    "cti": "cross_attn_token_to_image",
    "cit": "cross_attn_image_to_token",
}


def samed(keys: Iterable[str]) -> Table:
    """SAMed's LoRA file: matrices of the encoder in order, prompt encoder, mask decoder."""
    keys = list(keys)
    blocks = sorted(int(match[1]) for key in keys if (match := _LORA_BLOCK.fullmatch(key)))
    table = {
        f"w_{m}_{2 * n + p:03d}": f"image_encoder.blocks.{block}.attn.qkv.adapters.lora.{m}_{part}"
        for n, block in enumerate(blocks)
        for p, part in enumerate("qv")
        for m in "ab"
    }
    parts = ("prompt_encoder.", "mask_decoder.")
    return table | {key: key for key in keys if key.startswith(parts) and not is_adapter(key)}


def samed_s(keys: Iterable[str]) -> Table:
    """SAMed_s: besides, matrices of the decoder; of the decoder itself all but the transformer."""
    keys = list(keys)
    table = {k: v for k, v in samed(keys).items() if not k.startswith(_TRANSFORMER)}
    layer_of = re.compile(rf"{_TRANSFORMER}\.layers\.(\d+)\.")
    layers = {match[1] for key in keys if (match := layer_of.match(key))}
    for m in "ab":
        for short, attention in _ATTENTIONS.items():
            for layer in range(len(layers)):
                for p, part in enumerate("qv"):
                    place = f"{_TRANSFORMER}.layers.{layer}.{attention}.{part}_proj"
                    table[f"{short}_{m}_{2 * layer + p:03d}"] = f"{place}.adapters.lora.{m}"
        for part in "qv":
            place = f"{_TRANSFORMER}.final_attn_token_to_image.{part}_proj"
            table[f"fati_{part}{m}"] = f"{place}.adapters.lora.{m}"
    there = set(keys)
    return {official: ours for official, ours in table.items() if ours in there}


def samed_whole(keys: Iterable[str]) -> Table:
    """All weights of SAMed or SAMed_s, as the running program names them."""
    keys = list(keys)
    wrapped = {key.partition(".adapters.")[0] for key in keys if is_adapter(key)}
    return {_in_memory(key, wrapped): key for key in keys}


def _in_memory(key: str, wrapped: set[str]) -> str:
    place, _, matrix = key.partition(".adapters.lora.")
    if matrix:
        fused = place.endswith(".qkv")
        return f"{place}.linear_{matrix}.weight" if fused else f"{place}.w_{matrix}.weight"
    place, _, leaf = key.rpartition(".")
    if place in wrapped:
        return f"{place}.qkv.{leaf}" if place.endswith(".qkv") else f"{place}.proj.{leaf}"
    return key


def sam_med2d(keys: Iterable[str]) -> Table:
    """SAM-Med2D: the adapter is a part of the block, not of its MLP."""
    return {key.replace(".mlp.adapters.bottleneck.", ".Adapter."): key for key in keys}


TABLES: Mapping[str, Callable[[Iterable[str]], Table]] = {
    "samed-lora": samed,
    "samed-s-lora": samed_s,
    "samed": samed_whole,
    "sam-med2d": sam_med2d,
}
"""System -> its table."""

ALIASES = re.compile(r"fa_ti_[qv]_proj_[AB]\.weight")
"""Second names of tensors that SAMed_s keeps twice in memory."""


def guess_blueprint(shapes: Shapes, system: str) -> Blueprint | None:
    """The model that weights of a published system belong to; None if it is of no size that is known."""
    if system in ("samed-lora", "samed-s-lora"):
        return _of_lora_file(shapes, "samed_s" if system == "samed-s-lora" else "samed")
    if system == "samed":
        return _of_samed_whole(shapes)
    if system == "dino":
        return _of_dino(shapes)
    if system == masksam.SYSTEM:
        return masksam.guess(shapes)
    config = guess_config(shapes)
    if config is None:
        return None
    if system == "sam-med2d":
        return _of_sam_med2d(shapes, config.name, config.image_size)
    if system == "m-sam":
        return _of_m_sam(shapes, config)
    return Blueprint(config)


def creating(blueprint: Blueprint) -> str:
    """The call that makes an adapted model.

    >>> creating(get_blueprint("samed_vit_b", num_classes=3, image_size=224))
    "create_model('samed_vit_b', num_classes=3, rank=4, image_size=(224, 224))"
    """
    config = blueprint.config
    if config.mask_classes is not None:
        return masksam.creating(blueprint)
    words = [repr(config.name)]
    if config.classes:
        words.append(f"num_classes={config.num_mask_tokens - 1}")
    words += [f"rank={i.options['rank']}" for i in blueprint.insertions[:1] if "rank" in i.options]
    if config.image_size != get_blueprint(config.name).config.image_size:
        words.append(f"image_size={config.image_size}")
    return f"create_model({', '.join(words)})"


def _of_lora_file(shapes: Shapes, family: str) -> Blueprint | None:
    first, tokens = shapes.get("w_a_000", ()), shapes.get("mask_decoder.mask_tokens.weight", ())
    if len(first) != 2 or len(tokens) != 2 or tokens[0] < 2:
        return None
    matrices = sum(1 for key in shapes if key.startswith("w_a_"))
    for name in plain_names():
        config = get_config(name)
        sizes = (first[1], tokens[1], matrices)
        if config.ndim == 2 and sizes == (config.width, config.embed_dim, 2 * config.depth):
            return _adapted(name, family, num_classes=tokens[0] - 1, rank=first[0])
    return None


def _of_samed_whole(shapes: Shapes) -> Blueprint | None:
    def plain(key: str) -> str:
        return re.sub(r"\.(qkv|q_proj|v_proj)\.(?:qkv|proj)\.", r".\1.", key)

    config = guess_config({plain(key): shape for key, shape in shapes.items()})
    rank = next((s[0] for k, s in shapes.items() if k.endswith(".linear_a_q.weight")), 0)
    if config is None or not rank:
        return None
    decoder = any(key.endswith(".w_a.weight") for key in shapes)
    return _adapted(
        config.name,
        "samed_s" if decoder else "samed",
        num_classes=config.num_mask_tokens - 1,
        rank=rank,
        image_size=config.image_size,
    )


def _of_sam_med2d(shapes: Shapes, name: str, size: tuple[int, ...]) -> Blueprint | None:
    gate = shapes.get("image_encoder.blocks.0.Adapter.channel.0.weight", ())
    if len(gate) != 2 or not 0 < gate[0] <= gate[1]:
        return None
    return _adapted(name, "sammed2d", image_size=size, ratio=gate[0] / gate[1])


def _of_m_sam(shapes: Shapes, config: SamConfig) -> Blueprint | None:
    """Sizes of the mask-enhanced adapter, and the rank of LoRA if that is there."""
    adapter = "mask_decoder.fuse.adapters.mask_enhanced"
    head = shapes.get(f"{adapter}.attend.attn.rel_pos_h", ())
    name = "msam_" + config.name.removeprefix("sammed3d_").removeprefix("sam3d_")
    if len(head) != 2 or not head[1] or name not in model_names():
        return None
    blocks = {key.split(".")[5] for key in shapes if key.startswith(f"{adapter}.blocks.")}
    lora = shapes.get("image_encoder.blocks.0.attn.qkv.adapters.lora.a_q", (4,))
    return get_blueprint(
        name,
        image_size=config.image_size,
        num_point_embeddings=config.num_point_embeddings,
        rank=lora[0],
        blocks=len(blocks),
        attention_heads=config.embed_dim // head[1],
    )


def _of_dino(shapes: Shapes) -> Blueprint | None:
    """A model with that image encoder, of which nothing else is trained."""
    table = shapes.get("image_encoder.pos_embed", ())
    blocks = {key.split(".")[2] for key in shapes if key.startswith("image_encoder.blocks.")}
    for name in plain_names():
        config = get_config(name)
        if config.backbone == "dinov2" and len(blocks) == config.depth:
            grid = table_grid(config, table)
            if grid is not None:
                size = tuple(n * p for n, p in zip(grid, config.patch_size, strict=True))
                return get_blueprint(name, image_size=size)
    return None


def _adapted(name: str, family: str, **options: object) -> Blueprint | None:
    """The adapted version of a plain SAM of any size."""
    if not name.startswith("sam_"):
        return None
    return get_blueprint(name.replace("sam", family, 1), **options)  # type: ignore[arg-type]
