"""Insert adapters into a model, list, freeze, eject and merge them, and take their weights alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from samaritan.adapt.adapter import SEAM, Adapter, adapters_beside, attach, detach
from samaritan.adapt.bottleneck import Bottleneck
from samaritan.adapt.depth import DepthConv, DepthMlp
from samaritan.adapt.fuse import MaskEnhanced
from samaritan.adapt.lora import Lora
from samaritan.adapt.methods import Insertion, Method, get_method
from samaritan.adapt.names import select
from samaritan.errors import ConfigError

KINDS: dict[str, type[Adapter]] = {
    kind.kind: kind for kind in (Lora, Bottleneck, MaskEnhanced, DepthConv, DepthMlp)
}
"""Every adapter by its word."""


@dataclass(frozen=True)
class Placed:
    """One adapter, where it is."""

    target: str
    """Name of the module that it stands beside."""
    name: str
    """What it is called there."""
    adapter: Adapter
    """Itself."""

    @property
    def n_parameters(self) -> int:
        """Numbers in it."""
        return sum(p.numel() for p in self.adapter.parameters())


def insert(
    model: nn.Module,
    targets: str | Iterable[str],
    kind: str,
    *,
    name: str = "",
    generator: torch.Generator | None = None,
    **options: Any,
) -> tuple[str, ...]:
    """Put adapters of one kind beside all modules that `targets` find; all of them or none.

    Args:
        model: in 2 or 3 dimensions, of any size.
        targets: patterns over module names, such as "image_encoder.blocks.*.attn.qkv"; see `names.select`.
        kind: "lora", "bottleneck", "mask_enhanced", "depth_conv" or "depth_mlp".
        name: what to call it among the adapters of a module; else its kind.
        generator: where its first values are drawn from; else torch's own.
        **options: those of this kind.

    Returns:
        The modules that now have one.

    Raises:
        ConfigError: if a pattern finds nothing, a module has one already, or it cannot stand there.
    """
    patterns = (targets,) if isinstance(targets, str) else tuple(targets)
    plan = Insertion(kind, patterns, options, name)
    places = _places(model, plan)
    drawn = {} if generator is None else {"generator": generator}
    ndim = axes_of(model)
    made = [
        KINDS[kind].beside(target, where=where, ndim=ndim, **plan.options, **drawn)
        for where, target in places
    ]
    for (_, target), adapter in zip(places, made, strict=True):
        attach(target, plan.name, _like(model, target, adapter))
    return tuple(where for where, _ in places)


def apply_method(model: nn.Module, method: str | Method, **options: Any) -> Method:
    """Adapt a model by a plan: insert its adapters and freeze what does not learn.

    Args:
        model: the model.
        method: one of `method_names()`, or a plan of your own.
        **options: those of its adapters, such as `rank=8`.

    Returns:
        The plan that was carried out.

    Raises:
        ConfigError: as `insert`; then the model is left as it was.
    """
    plan = (
        get_method(method, **options) if isinstance(method, str) else method.with_options(**options)
    )
    insert_all(model, plan.insertions)
    freeze(model, plan.trainable)
    return plan


def insert_all(model: nn.Module, insertions: Iterable[Insertion]) -> None:
    """Insert several, all of them or none: what `describe` told, for example."""
    done: list[tuple[str, str]] = []
    try:
        for one in insertions:
            placed = insert(model, one.targets, one.kind, name=one.name, **one.options)
            done += [(target, one.name) for target in placed]
    except ConfigError:
        for target, name in done:
            detach(model.get_submodule(target), name)
        raise


def adapters_of(model: nn.Module) -> tuple[Placed, ...]:
    """All adapters of a model, in the order of its modules."""
    return tuple(
        Placed(where, name, adapter)
        for where, module in model.named_modules()
        for name, adapter in (adapters_beside(module) or nn.ModuleDict()).items()
        if isinstance(adapter, Adapter)
    )


def describe(model: nn.Module) -> tuple[Insertion, ...]:
    """The adapters of a model as plain values; `insert_all` makes the same again."""
    groups: dict[str, tuple[Placed, list[str]]] = {}
    for placed in adapters_of(model):
        key = f"{placed.name} {placed.adapter.kind} {placed.adapter.options}"
        groups.setdefault(key, (placed, []))[1].append(placed.target)
    return tuple(
        Insertion(first.adapter.kind, tuple(targets), first.adapter.options, first.name)
        for first, targets in groups.values()
    )


def eject(model: nn.Module, targets: str | Iterable[str] = "**", *, name: str = "") -> int:
    """Take adapters away again. The plain model is what it was, bit for bit.

    Args:
        model: the model.
        targets: patterns over the modules that they stand beside; all of them unless told.
        name: only those of this name.

    Returns:
        How many were taken away.

    Raises:
        ConfigError: if a pattern finds none.
    """
    chosen = _chosen(model, targets, name)
    for placed in chosen:
        detach(model.get_submodule(placed.target), placed.name)
    return len(chosen)


def merge(model: nn.Module, targets: str | Iterable[str] = "**", *, name: str = "") -> int:
    """Fold adapters into the weights that they stand beside, and take them away.

    Returns:
        How many were folded.

    Raises:
        ConfigError: if one cannot be folded; then nothing was.
    """
    chosen = _chosen(model, targets, name)
    if fixed := [p for p in chosen if not p.adapter.mergeable]:
        first = fixed[0]
        raise ConfigError(
            f"{len(fixed)} adapters cannot be folded into weights, such as {first.name!r} beside "
            f"{first.target!r} (kind {first.adapter.kind!r}). Keep them, or fold others by name=..."
        )
    for placed in chosen:
        target = model.get_submodule(placed.target)
        placed.adapter.merge_into(target)
        detach(target, placed.name)
    return len(chosen)


def freeze(model: nn.Module, trainable: str | Iterable[str]) -> int:
    """Let only the parameters learn whose names some pattern fits.

    Returns:
        How many numbers learn.

    Raises:
        ConfigError: if a pattern fits no parameter; then nothing was changed.
    """
    patterns = (trainable,) if isinstance(trainable, str) else tuple(trainable)
    parameters = dict(model.named_parameters())
    chosen = set(select(patterns, list(parameters), what="parameter"))
    for key, parameter in parameters.items():
        parameter.requires_grad_(key in chosen)
    return sum(parameters[key].numel() for key in chosen)


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """The weights of the adapters alone, under their names in the model."""
    return {key: value for key, value in model.state_dict().items() if is_adapter(key)}


def load_adapter_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Set the weights of the adapters; they must be exactly those that the model has.

    Raises:
        ConfigError: if names or shapes differ; then nothing was changed.
    """
    own = adapter_state(model)
    shapes = {key: tuple(value.shape) for key, value in own.items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    if shapes != given:
        differing = sorted(key for key in {**shapes, **given} if shapes.get(key) != given.get(key))
        raise ConfigError(
            f"the adapters differ from those of the model in {len(differing)} tensors, such as "
            f"{differing[0]!r}: {given.get(differing[0], 'missing')} given, "
            f"{shapes.get(differing[0], 'none')} there. Insert the same adapters first"
        )
    with torch.no_grad():
        for key, value in state.items():
            own[key].copy_(value)


def is_adapter(key: str) -> bool:
    """Whether a parameter of this name belongs to an adapter."""
    return f".{SEAM}." in key


def axes_of(model: nn.Module) -> int:
    """Number of image axes, told by the model's first convolution; 2 without one."""
    kinds: dict[type[nn.Module], int] = {nn.Conv2d: 2, nn.Conv3d: 3}
    found = (n for m in model.modules() for kind, n in kinds.items() if isinstance(m, kind))
    return next(found, 2)


def _places(model: nn.Module, plan: Insertion) -> list[tuple[str, nn.Module]]:
    """The modules that a plan is about, each of them free."""
    if not plan.name.isidentifier() or hasattr(nn.ModuleDict, plan.name):
        raise ConfigError(f"{plan.name!r} cannot be the name of an adapter; use a plain word")
    names = [key for key, _ in model.named_modules() if key and SEAM not in key.split(".")]
    found = select(plan.targets, names, what="module")
    places = [(where, model.get_submodule(where)) for where in found]
    for where, target in places:
        if plan.name in (adapters_beside(target) or ()):
            raise ConfigError(
                f"{where!r} already has an adapter called {plan.name!r}. Eject it first, or give the new "
                f"one another name="
            )
    return places


def _like(model: nn.Module, target: nn.Module, adapter: Adapter) -> Adapter:
    """An adapter beside a module without weights goes where those of the model are."""
    weight = next(model.parameters(), None)
    if weight is None or next(target.parameters(), None) is not None:
        return adapter
    return adapter.to(device=weight.device, dtype=weight.dtype)


def _chosen(model: nn.Module, targets: str | Iterable[str], name: str) -> list[Placed]:
    placed = [p for p in adapters_of(model) if not name or p.name == name]
    if name and not placed:
        there = sorted({p.name for p in adapters_of(model)})
        raise ConfigError(f"the model has no adapters called {name!r}; it has {there or 'none'}")
    if not placed and targets == "**":
        return []
    patterns = (targets,) if isinstance(targets, str) else tuple(targets)
    found = set(select(patterns, [p.target for p in placed], what="module with adapters"))
    return [p for p in placed if p.target in found]
