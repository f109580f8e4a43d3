"""Make weights fit a model without touching it, and copy them in once they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samaritan.checkpoints.comparing import Comparison, compare, explain, shapes_of
from samaritan.checkpoints.sources import Source
from samaritan.errors import CheckpointError
from samaritan.models.config import Quirks, SamConfig
from samaritan.models.positions import resize_positions as resize_tables
from samaritan.models.sam import Sam


@dataclass(frozen=True)
class Fitted:
    """Weights that fit, name by name and shape by shape."""

    state: dict[str, Tensor]
    """What to copy, in the model's order."""
    fresh: tuple[str, ...]
    """Names that may keep their values."""
    left_out: tuple[str, ...]
    """Names that are not needed."""
    resized: tuple[str, ...]
    """Position tables that were interpolated, with both shapes."""
    quirks: Quirks | None
    """What the weights need; None if they do not tell."""
    notes: tuple[str, ...]
    """What else is worth knowing."""


def fit(model: Sam, source: Source, *, resize_positions: bool) -> Fitted:
    """Compare weights with a model strictly; the model is not touched.

    Raises:
        CheckpointError: with everything that does not fit, sorted by kind.
    """
    if source.system.why_not:
        raise CheckpointError(
            f"{source.where} holds {source.system.title}: {source.system.why_not}"
        )
    wanted = model.state_dict()
    state = source.layout.state
    resized: list[str] = []
    if resize_positions:
        state, resized = _resize(state, wanted, model.config)
    result = _compare(state, wanted, model.config, source)
    state = {key: state[key] for key in wanted if key in state}
    quirks = source.header.config.quirks if source.header else source.system.quirks
    notes = [
        *_source_notes(source, result, quirks),
        *_dtype_notes(state, wanted),
        *_finite_notes(state),
    ]
    return Fitted(
        state, tuple(result.fresh), tuple(result.left_out), tuple(resized), quirks, tuple(notes)
    )


def copy_into(model: Sam, state: Mapping[str, Tensor]) -> None:
    """Set parameters and buffers, in place; nothing is checked any more."""
    own = model.state_dict()
    if any(tensor.is_meta for tensor in own.values()):
        cast = {key: tensor.to(own[key].dtype, copy=True) for key, tensor in state.items()}
        model.load_state_dict(cast, strict=False, assign=True)
        return
    with torch.no_grad():
        for key, tensor in state.items():
            own[key].copy_(tensor)


def non_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that hold NaN or infinity."""
    return [k for k, t in state.items() if t.is_floating_point() and not t.isfinite().all()]


def _resize(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], config: SamConfig
) -> tuple[dict[str, Tensor], list[str]]:
    """Interpolate position tables where weights and model differ in the input size alone."""
    key = "image_encoder.pos_embed"
    table, target = state.get(key), wanted[key]
    if table is None or table.ndim != target.ndim or table.shape[-1] != target.shape[-1]:
        return state, []
    if table.shape[0] != 1 or 0 in table.shape or not table.is_floating_point():
        return state, []
    if not all(t.ndim == 2 and len(t) for k, t in state.items() if ".rel_pos_" in k):
        return state, []
    size = tuple(n * p for n, p in zip(table.shape[1:-1], config.patch_size, strict=True))
    new = resize_tables(state, replace(config, image_size=size), config)
    changed = [k for k in state if new[k].shape != state[k].shape]
    return new, [f"{k}: {tuple(state[k].shape)} -> {tuple(new[k].shape)}" for k in changed]


def _compare(
    state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], config: SamConfig, source: Source
) -> Comparison:
    given, shapes = shapes_of(state), shapes_of(wanted)
    result = compare(given, shapes, ndim=config.ndim)
    result.misshaped += [
        f"{key}: {_kind(state[key])} numbers, expected {_kind(tensor)}"
        for key, tensor in wanted.items()
        if key in state and state[key].is_floating_point() != tensor.is_floating_point()
    ]
    if not result.fits:
        text = explain(result, source.shapes, shapes, config, source.system, source.where)
        raise CheckpointError(text)
    return result


def _source_notes(source: Source, result: Comparison, quirks: Quirks | None) -> Iterable[str]:
    if result.fresh:
        yield (
            "the weights know no boxes: the embeddings of box corners keep their random values, so use "
            "points and masks only, or train them"
        )
    if result.left_out:
        yield f"left out constants of preprocessing: {', '.join(result.left_out)}"
    if source.layout.ignored:
        names = ", ".join(source.layout.ignored[:8])
        yield f"not weights, and not used: {names}"
    if quirks is None:
        yield "the weights are of no published size, so the quirks of the model were left as they are"


def _dtype_notes(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Iterable[str]:
    kinds = sorted(
        {(_kind(t), _kind(wanted[k])) for k, t in state.items() if t.dtype != wanted[k].dtype}
    )
    for old, new in kinds:
        yield f"{old} weights were cast to the model's {new}"


def _finite_notes(state: Mapping[str, Tensor]) -> Iterable[str]:
    bad = non_finite(state)
    if bad:
        yield (
            f"{len(bad)} tensors hold NaN or infinity, so the model will not work: "
            f"{', '.join(bad[:3])}"
        )


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
