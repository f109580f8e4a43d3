"""Make weights fit a model without touching it, and copy them in once they do."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from samaritan.adapt.inject import is_adapter
from samaritan.assembly.blueprint import MAX_CLASSES
from samaritan.checkpoints import masksam
from samaritan.checkpoints.adapted import ALIASES, TABLES
from samaritan.checkpoints.classes import TOKENS, ClassInit, refit_classes
from samaritan.checkpoints.comparing import (
    CORNERS,
    IGNORABLE,
    Comparison,
    compare,
    explain,
    shapes_of,
)
from samaritan.checkpoints.inflating import inflate as inflate_weights
from samaritan.checkpoints.parts import added_parts, check_backbone, other_parts, quirks_of
from samaritan.checkpoints.sources import Source
from samaritan.checkpoints.systems import table_grid
from samaritan.checkpoints.volumes import HEADS
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


def fit(
    model: Sam,
    source: Source,
    *,
    resize_positions: bool,
    init_extra_classes: ClassInit | None = None,
    drop_adapters: bool = False,
    inflate: bool | None = False,
) -> Fitted:
    """Compare weights with a model strictly; the model is not touched.

    Args:
        model: what they should fit.
        source: the weights.
        resize_positions: interpolate position tables where the input size differs.
        init_extra_classes: what to do with another number of mask tokens; see `refit_classes`. None:
            "samed_compat" for SAM's own weights in a model that labels classes, else an error.
        drop_adapters: leave out adapters that the model does not have.
        inflate: start a 3D model from weights of a 2D one; see `inflating.inflate`. None: if they are of
            a 2D one and the model is in 3D.

    Raises:
        CheckpointError: with everything that does not fit, sorted by kind.
    """
    if source.system.why_not:
        raise CheckpointError(
            f"{source.where} holds {source.system.title}: {source.system.why_not}"
        )
    wanted = model.state_dict()
    state, copies = masksam.without_copies(_our_names(source, wanted), wanted)
    if inflate or (inflate is None and model.config.ndim == 3 and _is_flat(state)):
        return _inflated(source, state, wanted, model.config)
    check_backbone(source, model.config)
    kept = _kept(source, state, wanted)
    fresh = _new_adapters(state, wanted) | other_parts(source, state, wanted)
    added = added_parts(state, wanted, model.config)
    notes = [*_adapter_notes(kept, fresh), *_added_notes(added, copies)]
    fresh |= added
    policy = init_extra_classes or _class_policy(source, state, wanted, model.config)
    if policy is not None and TOKENS in state:
        refitted = refit_classes(state, wanted, policy)
        state, fresh = refitted.state, fresh | refitted.renewed
        notes.append(refitted.note)
    quirks = quirks_of(source, model.config)
    resized: list[str] = []
    if resize_positions:
        state, resized = _resize(state, model.config, quirks)
    dropped = {key for key in state if drop_adapters and _of_adapter(key)} - wanted.keys()
    dropped |= {key for key in state if HEADS.match(key)}
    allowed = {"kept": kept, "fresh": fresh, "dropped": dropped}
    result = _compare(state, wanted, model.config, source, allowed)
    if kept:
        _check_base(source, wanted)
    state = {key: state[key] for key in wanted if key in state}
    notes += [
        *_source_notes(source, result, quirks),
        *_dtype_notes(state, wanted),
        *_finite_notes(state),
    ]
    return Fitted(
        state, tuple(result.fresh), tuple(result.left_out), tuple(resized), quirks, tuple(notes)
    )


def _inflated(
    source: Source, state: dict[str, Tensor], wanted: Mapping[str, Tensor], config: SamConfig
) -> Fitted:
    """Weights of a 2D model for one in 3D; its quirks are left as they are."""
    if config.ndim != 3 or not _is_flat(state):
        raise CheckpointError(
            f"inflate=True starts a 3D model from the weights of a 2D SAM, but {source.where} holds "
            f"{source.system.title}, and {config.name!r} is {config.ndim}D. Leave inflate out"
        )
    new = inflate_weights(state, wanted)
    notes = [
        f"2D weights start a 3D model: {len(new.state)} tensors were made from them, {len(new.fresh)} keep "
        f"the model's values",
        *_dtype_notes(new.state, wanted),
        *_finite_notes(new.state),
    ]
    left_out = tuple(k for k in state if k in new.left_out)
    return Fitted(
        new.state, tuple(k for k in wanted if k in new.fresh), left_out, (), None, tuple(notes)
    )


def _is_flat(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are those of a 2D model."""
    patch = state.get("image_encoder.patch_embed.proj.weight")
    return patch is not None and patch.ndim == 4


def _our_names(source: Source, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights under the names of the model, as far as a table of their system knows them."""
    state = source.layout.state
    make_table = TABLES.get(source.system.name)
    if make_table is None:
        return state
    table = make_table(wanted)
    return {table.get(k, k): value for k, value in state.items() if not ALIASES.fullmatch(k)}


def _kept(
    source: Source, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> frozenset[str]:
    """Names that weights without their base leave to it."""
    if source.header is not None and source.header.holds != "all":
        return frozenset(k for k in wanted if k not in state and not is_adapter(k))
    if not source.system.needs_base:
        return frozenset()
    table = TABLES[source.system.name](wanted)
    return frozenset(wanted) - frozenset(table.values())


def _new_adapters(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> frozenset[str]:
    """Adapters of the model that the weights know nothing of, by the adapters' names."""
    known = {_adapter_name(key) for key in state}
    return frozenset(k for k in wanted if is_adapter(k) and _adapter_name(k) not in known)


def _adapter_name(key: str) -> str:
    return key.partition(".adapters.")[2].partition(".")[0]


def _of_adapter(key: str) -> bool:
    """Whether a name, ours or a published one, is that of an adapter."""
    return is_adapter(key) or ".Adapter." in key


def _class_policy(
    source: Source, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], config: SamConfig
) -> ClassInit | None:
    """What to do with SAM's own mask tokens in a model that labels classes."""
    if source.system.needs_base or source.system.name in TABLES or TOKENS not in state:
        return None
    theirs = source.header.config.classes if source.header else len(state[TOKENS]) != 4
    own = config.classes and not theirs
    return "samed_compat" if own and len(state[TOKENS]) != len(wanted[TOKENS]) else None


def _check_base(source: Source, wanted: Mapping[str, Tensor]) -> None:
    """Refuse weights without their base: in a new model the position table is still zero."""
    table = wanted.get("image_encoder.pos_embed")
    if table is not None and not table.is_meta and not table.any():
        raise CheckpointError(
            f"{source.where} holds {_title(source)}: they change the weights of a plain model, and this "
            f"model has none yet. Load those first: load_weights(model, 'sam_vit_b_01ec64.pth'), then this "
            f"file; or load_model(file, base='sam_vit_b_01ec64.pth')"
        )


def _title(source: Source) -> str:
    if source.header is None:
        return f"a {source.system.title}"
    return f"only the {source.header.holds} weights of {source.header.config.name!r}"


def _adapter_notes(kept: Collection[str], fresh: Collection[str]) -> Iterable[str]:
    if kept:
        yield f"{len(kept)} tensors of the plain model stay as they are"
    if adapters := [key for key in fresh if is_adapter(key)]:
        yield f"the weights know nothing of the adapters: {len(adapters)} tensors keep the model's values"
    if others := len(fresh) - len(adapters):
        yield f"the weights are those of an image encoder alone: {others} tensors keep the model's values"


def _added_notes(added: Collection[str], copies: int) -> Iterable[str]:
    if added:
        yield (
            f"the weights are those of a SAM: {len(added)} tensors that MaskSAM adds keep the model's values"
        )
    if copies:
        yield f"left out {copies} copies of ways to the finest grid, which are one in this model"


def check_promises(source: Source, config: SamConfig, plain: Source) -> None:
    """Refuse a header that promises more parts than the weights, of the plain model above all, can fill.

    This must precede building the model, even without memory: a header can promise any number.
    """
    most = len(plain.shapes)
    parts = [len(config.levels)]
    if config.mask_classes is not None:
        parts.append(len(config.mask_classes.generator))
    if config.voxel_classes is not None:
        parts.append(len(config.voxel_classes.filters))
    elif config.backbone != "unet":
        parts += [config.depth, config.decoder_depth, config.num_point_embeddings]
    if not config.classes or config.num_mask_tokens > MAX_CLASSES + 1:
        parts.append(config.num_mask_tokens)
    if max(parts) > most:
        raise CheckpointError(
            f"{source.where} promises {max(parts)} blocks or tokens, but there are {most} tensors to "
            f"fill them"
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
    state: dict[str, Tensor], config: SamConfig, quirks: Quirks | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Interpolate position tables where weights and model differ in the input size alone."""
    table = state.get("image_encoder.pos_embed")
    if table is None or not table.is_floating_point():
        return state, []
    if not all(t.ndim == 2 and len(t) for k, t in state.items() if ".rel_pos_" in k):
        return state, []
    grid = table_grid(config, tuple(table.shape))
    if grid is None:
        return state, []
    size = tuple(n * p for n, p in zip(grid, config.patch_size, strict=True))
    needed = replace(config, quirks=quirks or config.quirks)
    new = resize_tables(state, replace(config, image_size=size), needed)
    changed = [k for k in state if new[k].shape != state[k].shape]
    return new, [f"{k}: {tuple(state[k].shape)} -> {tuple(new[k].shape)}" for k in changed]


def _compare(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    config: SamConfig,
    source: Source,
    allowed: Mapping[str, Collection[str]],
) -> Comparison:
    given, shapes = shapes_of(state), shapes_of(wanted)
    result = compare(given, shapes, ndim=config.ndim, **allowed)
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
    if any(key in CORNERS for key in result.fresh) and not source.system.only:
        yield (
            "the weights know no boxes: the embeddings of box corners keep their random values, so use "
            "points and masks only, or train them"
        )
    constants = [key for key in result.left_out if key in IGNORABLE]
    if constants:
        yield f"left out constants of preprocessing: {', '.join(constants)}"
    if others := len(result.left_out) - len(constants):
        yield f"left out {others} tensors of adapters that the model does not have"
    if source.layout.ignored:
        names = ", ".join(source.layout.ignored[:8])
        yield f"not weights, and not used: {names}"
    if source.system.licence:
        yield (
            f"published weights of {source.system.title} are under {source.system.licence}: not for "
            f"commercial use, and changed versions must not be passed on"
        )
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
