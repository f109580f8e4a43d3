"""MaskSAM's official names: how each reads in our models and back, and which preset weights belong to.

Its files hold some tensors under several names: every convolution twice, and the ways from features
to the finest grid of the ACDC model three times.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from samaritan.assembly.blueprint import Blueprint, get_blueprint
from samaritan.checkpoints.systems import Shapes
from samaritan.errors import CheckpointError, ConfigError
from samaritan.models.config import SamConfig
from samaritan.models.mask_classes_config import MaskClasses

SYSTEM = "masksam"

_Rules = tuple[tuple[str, str], ...]

_LAYER = r"mask_decoder\.transformer\.layers\.(\d+)"
_OURS_LAYER = r"mask_decoder.transformer.layers.\1"

_PLACES: _Rules = (
    (r"^sam_model\.", ""),
    (r"\.convs\.0\.conv\.|\.convs\.0\.all_modules\.0\.", ".0."),
    (r"\.convs\.0\.norm\.|\.convs\.0\.all_modules\.1\.", ".1."),
    (r"^(image_decoder_stages\.0)\.convs\.1\.(?:conv|all_modules\.0)\.", r"\1.second.0."),
    (r"^(image_decoder_stages\.0)\.convs\.1\.(?:norm|all_modules\.1)\.", r"\1.second.1."),
    (r"^image_decoder_stages\.0\.second\.", "generator.first.1."),
    (r"^image_decoder_stages\.0\.", "generator.first.0."),
    (r"^image_decoder_(stages|skips)_second\.0\.", r"generator.\1.2."),
    (r"^image_decoder_(stages|skips)_first\.0\.", r"generator.\1.3."),
    (r"^image_decoder_skips\.", "generator.skips."),
    (r"^image_decoder_transpconvs\.", "generator.doublings."),
    (r"^image_decoder_seg_layers\.0\.", "generator.masks."),
    (r"^bbox_conv\.", "generator.boxes."),
    (r"^residual_classifier\.", "generator.tokens."),
    (r"^first_conv\.", "stem."),
    (r"^final_conv\.", "mask_head."),
    (r"^image_encoder\.temporal_embedding$", "slice_embedding"),
    (r"^prompt_encoder\.temporal_embedding$", "slice_code"),
    (r"^mask_decoder\.classifier_token_Adapter\.", "class_token."),
    (r"^mask_decoder\.classifier_embed_Adapter\.", "class_head."),
    (r"^(image_encoder\.blocks\.\d+)\.Space_Adapter\.", r"\1.attn.adapters.depth_conv."),
    (r"^(image_encoder\.blocks\.\d+)\.MLP_Adapter\.", r"\1.mlp.adapters.depth_conv."),
    (rf"^{_LAYER}\.Space_Queries_Adapter\.", rf"{_OURS_LAYER}.self_attn.adapters.depth_mlp."),
    (
        rf"^{_LAYER}\.Cross_Space_Adapter1\.",
        rf"{_OURS_LAYER}.cross_attn_token_to_image.adapters.depth_mlp.",
    ),
    (rf"^{_LAYER}\.MLP_Queries_Adapter\.", rf"{_OURS_LAYER}.mlp.adapters.depth_mlp."),
    (
        rf"^{_LAYER}\.Cross_Space_Adapter2\.",
        rf"{_OURS_LAYER}.cross_attn_image_to_token.adapters.depth_conv.",
    ),
    (
        r"^mask_decoder\.transformer\.Space_Adapter\.",
        "mask_decoder.transformer.final_attn_token_to_image.adapters.depth_mlp.",
    ),
)
_LEAVES = {
    "D_fc1": "down",
    "D_fc2": "up",
    "T_DWconv": "conv",
    "norm": "norm",
    "T_fc1": "depth_in",
    "T_fc2": "depth_out",
}


def our_name(key: str) -> str:
    """How an official name reads in our models.

    >>> our_name("sam_model.image_encoder.blocks.3.Space_Adapter.T_DWconv.weight")
    'image_encoder.blocks.3.attn.adapters.depth_conv.conv.weight'
    """
    stage = re.match(r"image_decoder_stages\.([1-9]\d*)\.", key)
    if stage:
        key = f"generator.stages.{int(stage[1]) - 1}.{key[stage.end() :]}"
    for pattern, new in _PLACES:
        key = re.sub(pattern, new, key)
    if ".adapters." in key:
        *place, leaf, kind = key.split(".")
        key = ".".join([*place, _LEAVES.get(leaf, leaf), kind])
    return key


def our_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under our names, each once.

    Raises:
        CheckpointError: if a tensor that is held under several names differs among them.
    """
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        new = our_name(key)
        if new in renamed and not _same(renamed[new], value):
            raise CheckpointError(
                f"it holds {new!r} under several names, and {key!r} differs from an earlier one"
            )
        renamed[new] = value
    return renamed


def without_copies(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], int]:
    """Leave out ways to the finest grid that are copies of one, where the model has one for all."""
    ways = sorted({int(m[1]) for key in wanted if (m := _SKIP.match(key))})
    if not ways:
        return dict(state), 0
    shared = f"generator.skips.{ways[-1]}."
    kept, copies = {}, 0
    for key, value in state.items():
        match = _SKIP.match(key)
        if match and int(match[1]) > ways[-1]:
            first = state.get(shared + key[match.end() :])
            if first is not None and _same(first, value):
                copies += 1
                continue
        kept[key] = value
    return kept, copies


def guess(shapes: Shapes) -> Blueprint | None:
    """The preset that weights under our names belong to, as published; None if it is no such."""
    code, head = shapes.get("slice_code", ()), shapes.get("class_head.weight", ())
    boxes, stem = shapes.get("generator.boxes.0.weight", ()), shapes.get("stem.0.0.weight", ())
    table = shapes.get("image_encoder.pos_embed", ())
    if not (len(code) == 4 and len(head) == 2 and len(boxes) == 5 and len(stem) == 5):
        return None
    depth = {key.split(".")[2] for key in shapes if key.startswith("image_encoder.blocks.")}
    grid = code[2]
    name = {(768, 12): "masksam_acdc", (1280, 32): "masksam_synapse"}.get(
        (table[-1] if table else 0, len(depth))
    )
    if name is None or code[2] != code[3]:
        return None
    if name == "masksam_synapse" and grid == 32:
        name = "masksam_amos"
    last = shapes.get("generator.stages.3.0.weight", ())
    flat = len(last) == 5 and last[2] == 1
    try:
        return get_blueprint(
            name,
            compat="reference",
            frames=code[0],
            num_classes=head[0] - 1,
            queries=boxes[0],
            channels=stem[1],
            slice_size=grid * 16 // (4 if name == "masksam_acdc" else 1),
            flat_stages=int(flat),
        )
    except ConfigError:
        return None


def creating(blueprint: Blueprint) -> str:
    """The call that makes such a model.

    >>> creating(get_blueprint("masksam_acdc", compat="reference"))
    "create_model('masksam_acdc', frames=4, num_classes=4, compat='reference')"
    """
    own = blueprint.config.mask_classes
    assert own is not None
    usual = get_blueprint(blueprint.config.name).config.mask_classes
    words = [repr(blueprint.config.name), f"frames={own.frames}", f"num_classes={own.num_classes}"]
    words += [
        f"{key}={getattr(own, key)}"
        for key in ("queries", "channels", "slice_size", "flat_stages")
        if getattr(own, key) != getattr(usual, key)
    ]
    return f"create_model({', '.join(words)}, compat='reference')"


def is_added(key: str) -> bool:
    """Whether a parameter is what MaskSAM adds to SAM, beside adapters."""
    return not key.startswith(("image_encoder.", "prompt_encoder.", "mask_decoder."))


def _same(one: Tensor, two: Tensor) -> bool:
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    return one.is_meta or two.is_meta or torch.equal(one, two)


_SKIP = re.compile(r"generator\.skips\.(\d+)\.")

_ADAPTERS_BACK = {
    "attn.adapters.depth_conv": "Space_Adapter",
    "mlp.adapters.depth_conv": "MLP_Adapter",
    "self_attn.adapters.depth_mlp": "Space_Queries_Adapter",
    "cross_attn_token_to_image.adapters.depth_mlp": "Cross_Space_Adapter1",
    "mlp.adapters.depth_mlp": "MLP_Queries_Adapter",
    "cross_attn_image_to_token.adapters.depth_conv": "Cross_Space_Adapter2",
    "final_attn_token_to_image.adapters.depth_mlp": "Space_Adapter",
}
_HEADS_BACK = {
    "slice_embedding": "sam_model.image_encoder.temporal_embedding",
    "slice_code": "sam_model.prompt_encoder.temporal_embedding",
    "class_token": "sam_model.mask_decoder.classifier_token_Adapter",
    "class_head": "sam_model.mask_decoder.classifier_embed_Adapter",
    "generator.masks": "image_decoder_seg_layers.0",
    "generator.boxes": "bbox_conv",
    "generator.tokens": "residual_classifier",
    "generator.doublings": "image_decoder_transpconvs",
    "generator.first": "image_decoder_stages.0",
    "generator.stages": "image_decoder_stages",
    "generator.skips": "image_decoder_skips",
    "stem": "first_conv",
    "mask_head": "final_conv",
}
_LEAVES_BACK = {ours: theirs for theirs, ours in _LEAVES.items()}
_AFTER = {2: "second", 3: "first"}
"""Stages of the ACDC model that keep the grid have names of their own."""


def is_as_published(keys: Iterable[str], config: SamConfig) -> bool:
    """Whether a model has all adapters and ways that its publishers' has, and no others."""
    own = config.mask_classes
    if own is None or len(own.generator) != 4:
        return False
    if (own.doublings, own.shared_skips) not in ((2, True), (4, False), (4, True)):
        return False
    found = {m[0] for key in keys if (m := re.match(r".*\.adapters\.\w+", key))}
    decoder = "mask_decoder.transformer"
    layers = [f"{decoder}.layers.{i}" for i in range(config.decoder_depth)]
    blocks = [f"image_encoder.blocks.{i}" for i in range(config.depth)]
    last = "final_attn_token_to_image.adapters.depth_mlp"
    expected = {f"{b}.{place}" for b in blocks for place in list(_ADAPTERS_BACK)[:2]}
    expected |= {f"{layer}.{place}" for layer in layers for place in list(_ADAPTERS_BACK)[2:-1]}
    return found == expected | {f"{decoder}.{last}"}


def their_names(keys: Iterable[str], own: MaskClasses) -> dict[str, tuple[str, ...]]:
    """Our names -> all official ones, as the published program saves them.

    Args:
        keys: names of a model with the four stages that the published ones have.
        own: its configuration.
    """
    return {key: tuple(_officials(key, own)) for key in keys}


def _officials(key: str, own: MaskClasses) -> Iterable[str]:
    if not is_added(key):
        yield f"sam_model.{_sam_name(key)}"
        return
    place = next(p for p in _HEADS_BACK if key == p or key.startswith(f"{p}."))
    rest = key[len(place) + 1 :].split(".")
    if place in ("generator.stages", "generator.skips"):
        number = int(rest.pop(0))
        folders = [_folder(place, number, own)]
        if place == "generator.skips" and own.shared_skips and number == own.doublings - 1:
            folders += [_folder(place, i, own) for i in range(number + 1, len(own.generator))]
    else:
        folders = [_HEADS_BACK[place]]
    for folder in folders:
        yield from _with_copies(place, folder, rest)


def _folder(place: str, number: int, own: MaskClasses) -> str:
    folder = _HEADS_BACK[place]
    if number >= own.doublings:
        return f"{folder}_{_AFTER[number]}.0"
    return f"{folder}.{number + 1 if place == 'generator.stages' else number}"


def _with_copies(place: str, folder: str, rest: list[str]) -> Iterable[str]:
    """A name; of convolutions and norms in a block also that of their copy."""
    *numbers, leaf = rest if rest else [""]
    deep = {
        "generator.first": 2,
        "generator.stages": 1,
        "generator.boxes": 1,
        "generator.tokens": 1,
    }
    if len(numbers) < deep.get(place, 2):
        yield ".".join(word for word in (folder, *numbers, leaf) if word)
        return
    *before, part = numbers
    conv = before.pop() if place == "generator.first" else "0"
    stem = ".".join([folder, *before, "convs", conv])
    yield f"{stem}.{('conv', 'norm')[int(part)]}.{leaf}"
    yield f"{stem}.all_modules.{part}.{leaf}"


def _sam_name(key: str) -> str:
    place, seam, rest = key.partition(".adapters.")
    if not seam:
        return key
    before, _, module = place.rpartition(".")
    name, leaf, kind = rest.split(".")
    return f"{before}.{_ADAPTERS_BACK[f'{module}.adapters.{name}']}.{_LEAVES_BACK[leaf]}.{kind}"
