"""Write a model in the layout of the system that it belongs to, for the programs of its publishers."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from samaritan.adapt.inject import adapters_of
from samaritan.adapt.lora import Lora
from samaritan.checkpoints import masksam
from samaritan.checkpoints.adapted import TABLES
from samaritan.checkpoints.saving import write_torch
from samaritan.checkpoints.volumes import their_names
from samaritan.errors import CheckpointError
from samaritan.io.files import replacing
from samaritan.models.config import (
    MASKSAM_QUIRKS,
    NEUROSAM3D_DINOV2_QUIRKS,
    NEUROSAM3D_HIERA_QUIRKS,
    NEUROSAM3D_QUIRKS,
    SAM_QUIRKS,
    SAMMED3D_QUIRKS,
    Quirks,
    SamConfig,
)
from samaritan.models.sam import Sam

logger = logging.getLogger(__name__)

Layout = Literal[
    "sam", "samed", "samed_s", "sam_med2d", "sam_med3d", "neurosam3d", "m_sam", "masksam"
]

_SYSTEMS = {"samed": "samed-lora", "samed_s": "samed-s-lora", "sam_med2d": "sam-med2d"}
_NEUROSAM3D = {
    "vit": "neurosam3d",
    "dinov2": "neurosam3d-dinov2",
    "hiera": "neurosam3d-hiera",
}

_ALSO = (("sam_med2d", "sam"), ("sam", "sam_med3d"))
"""Layouts that may be asked for, and what they may be asked for instead of."""

_NEUROSAM3D_QUIRKS = {
    "vit": NEUROSAM3D_QUIRKS,
    "dinov2": NEUROSAM3D_DINOV2_QUIRKS,
    "hiera": NEUROSAM3D_HIERA_QUIRKS,
}


def save_official(
    model: Sam,
    path: str | Path,
    *,
    layout: Layout | None = None,
    optimizer: Mapping[str, Any] | None = None,
) -> Path:
    """Write weights as the published program of a system reads them, with torch.save.

    "sam" is a bare state dict; "samed" and "samed_s" are LoRA files, which go with the weights of a plain
    SAM; "sam_med2d" is ``{"model": ..., "optimizer": ...}``; "neurosam3d" is a file of Lightning;
    "sam_med3d" and "m_sam" are ``{"model_state_dict": ...}``; "masksam" is ``{"network_weights": ...}``, of
    models with `shared_skips` where the published one has them. The file appears when it is complete.
    Published programs compute with historic mistakes; if the model does not have these, it is logged as a
    warning that they answer otherwise.

    Args:
        model: plain, or adapted as that system does.
        path: the file, usually ending in .pth.
        layout: None: the one that fits the adapters of the model.
        optimizer: a state dict to go with SAM-Med2D's weights.

    Returns:
        The path.

    Raises:
        CheckpointError: if the model is not adapted as that system does.
        FileError: if the file cannot be written.
    """
    fitting = _layout_of(model)
    chosen = layout or fitting
    if chosen is None or (chosen != fitting and (chosen, fitting) not in _ALSO):
        there = ", ".join(sorted({f"{p.name} beside {p.target}" for p in adapters_of(model)})[:3])
        raise CheckpointError(
            f"the model cannot be written in the layout {chosen or 'of any system'}: it has "
            f"{there or 'no adapters'}. Use save_weights, or fold LoRA away with samaritan.adapt.merge"
        )
    state = official_state(model, chosen)
    content: Any = state
    if chosen == "sam_med2d":
        content = {"model": state, "optimizer": dict(optimizer or {})}
    elif chosen in ("sam_med3d", "m_sam"):
        content = {"model_state_dict": state}
    elif chosen == "masksam":
        content = {"network_weights": state}
    elif chosen == "neurosam3d":
        content = {"state_dict": {f"model.{key}": value for key, value in state.items()}}
    if optimizer is not None and chosen != "sam_med2d":
        raise CheckpointError(f"the layout {chosen!r} has no place for an optimizer")
    differing = quirks_that_differ(model.config, chosen)
    if differing:
        logger.warning(
            "the model does not share what the published program computes with (%s): that program will give "
            "other answers with these weights. A model that begins with published weights shares it",
            ", ".join(differing),
        )
    path = Path(path).expanduser()
    with replacing(path) as (temporary,):
        write_torch(content, temporary)
    return path


def quirks_that_differ(config: SamConfig, layout: Layout) -> tuple[str, ...]:
    """Names of the quirks in which a model and the published program of a layout differ."""
    program = _quirks_of_program(config, layout)
    if program is None:
        return ()
    own, theirs = asdict(config.quirks), asdict(program)
    fits = all(side % config.window_size == 0 for side in config.grid)
    whole = config.backbone == "vit" and fits  # no window is padded
    return tuple(
        name
        for name, value in theirs.items()
        if own[name] != value and not (name == "window_padding" and whole)
    )


def _quirks_of_program(config: SamConfig, layout: Layout) -> Quirks | None:
    if config.backbone == "unet":
        return None
    if layout == "masksam":
        return MASKSAM_QUIRKS
    if layout == "neurosam3d":
        return _NEUROSAM3D_QUIRKS[config.backbone]
    return SAMMED3D_QUIRKS if config.ndim == 3 else SAM_QUIRKS


def official_state(model: Sam, layout: Layout) -> dict[str, Tensor]:
    """The weights under the names of a system, on the CPU; a scale of LoRA is folded into B."""
    state = {key: value.detach().cpu() for key, value in model.state_dict().items()}
    for placed in adapters_of(model):
        if isinstance(placed.adapter, Lora) and placed.adapter.scale != 1.0:
            for key in placed.adapter.state_dict():
                if key.startswith("b"):
                    own = f"{placed.target}.adapters.{placed.name}.{key}"
                    state[own] = state[own] * placed.adapter.scale
    if layout in ("sam", "sam_med3d"):
        return state
    if layout in ("neurosam3d", "m_sam"):
        system = "m-sam" if layout == "m_sam" else _NEUROSAM3D[model.config.backbone]
        names = their_names(system, state, depth=model.config.depth)
        return {names[key]: value.clone() for key, value in state.items()}
    if layout == "masksam":
        added = model.config.mask_classes
        assert added is not None
        every = masksam.their_names(state, added)
        return {name: state[key].clone() for key, names in every.items() for name in names}
    table = TABLES[_SYSTEMS[layout]](state)
    return {official: state[ours].clone() for official, ours in table.items()}


def _layout_of(model: Sam) -> Layout | None:
    """The system that adapts its models like this one."""
    placed = adapters_of(model)
    if model.config.mask_classes is not None:
        return "masksam" if masksam.is_as_published(model.state_dict(), model.config) else None
    fine = model.config.mask_steps == 4 and model.config.backbone in _NEUROSAM3D
    if not placed:
        if fine:
            return "neurosam3d"
        if model.config.ndim == 3 and model.config.backbone == "vit":
            return "sam_med3d"
        return "sam" if model.config.backbone in ("vit", "unet") else None
    if fine or model.config.backbone != "vit":
        return None
    kinds = {(p.name, p.adapter.kind) for p in placed}
    targets = {p.target for p in placed}
    fused = {t for t in targets if t.endswith("attn.qkv")}
    if kinds == {("bottleneck", "bottleneck")} and all(t.endswith(".mlp") for t in targets):
        return "sam_med2d"
    if kinds == {("lora", "lora"), ("mask_enhanced", "mask_enhanced")}:
        parts = [p.adapter.options["parts"] for p in placed if p.name == "lora"]
        return (
            "m_sam" if targets - fused == {"mask_decoder.fuse"} and set(parts) == {"qv"} else None
        )
    if kinds != {("lora", "lora")} or not fused:
        return None
    if any(p.adapter.options["parts"] != ("qv" if p.target in fused else "") for p in placed):
        return None
    if targets == fused:
        return "samed"
    plain = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    expected = {
        name
        for name in plain
        if name.startswith("mask_decoder.transformer.") and name.endswith((".q_proj", ".v_proj"))
    }
    return "samed_s" if targets - fused == expected else None
