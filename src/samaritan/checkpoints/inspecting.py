"""Look at a file of weights without a model: what is it, is it whole, what would load it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from samaritan.assembly.blueprint import Blueprint
from samaritan.assembly.build import create_model
from samaritan.checkpoints.adapted import guess_blueprint
from samaritan.checkpoints.cache import licence_of
from samaritan.checkpoints.fitting import check_promises, fit, non_finite
from samaritan.checkpoints.header import Header
from samaritan.checkpoints.sources import Source, find_source
from samaritan.errors import CheckpointError
from samaritan.io.files import sha256_of
from samaritan.models.config import Quirks


@dataclass(frozen=True)
class Inspection:
    """What was found out about a file."""

    file: Path
    """The file."""
    kind: str
    """Its format."""
    layout: str
    """What is around the weights in it."""
    source: str
    """The system that they come from."""
    title: str
    """The same in words."""
    n_tensors: int
    """Tensors."""
    n_parameters: int
    """Numbers in them."""
    dtypes: dict[str, int]
    """Number type -> tensors of it."""
    non_finite: tuple[str, ...]
    """Tensors that hold NaN or infinity."""
    model: str | None
    """The model that they fit."""
    image_size: tuple[int, ...] | None
    """The input size that they fit."""
    quirks: tuple[str, ...]
    """Historic mistakes that loading will switch on."""
    ignored: tuple[str, ...]
    """Entries that are no weights."""
    sha256: str
    """Of the file."""
    licence: str | None
    """Of the weights, if it is known."""
    header: Header | None
    """Of our own files."""
    problems: tuple[str, ...]
    """Why it cannot be used; empty if it can."""
    needs_base: bool = False
    """Whether it is used together with the weights of the plain model."""

    @property
    def ok(self) -> bool:
        """Whether the file can be loaded and used."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {**asdict(self), "file": str(self.file), "ok": self.ok}


def inspect(path_or_name: str | Path, *, model: str | None = None) -> Inspection:
    """Examine a file of weights: layout, system, counts, finiteness, and whether it fits its model.

    Args:
        path_or_name: a file, or the name of published weights that are in the cache.
        model: the model that it should fit; else the one that the weights tell.

    Raises:
        FileError: if it cannot be read, is damaged, or unsafe.
        CheckpointError: if it holds no weights.
    """
    source = find_source(path_or_name, download=False)
    if source.file is None:
        raise CheckpointError("only files can be inspected")
    state = source.layout.state
    blueprint = _blueprint(source)
    config = None if blueprint is None else blueprint.config
    part = source.system.needs_base or (source.header is not None and source.header.holds != "all")
    bad = tuple(non_finite(state))
    sha256 = sha256_of(source.file)
    return Inspection(
        file=source.file,
        kind=source.kind,
        layout=str(source.layout),
        source=source.system.name,
        title=source.system.title,
        n_tensors=len(state),
        n_parameters=sum(tensor.numel() for tensor in state.values()),
        dtypes=dict(Counter(str(t.dtype).removeprefix("torch.") for t in state.values())),
        non_finite=bad,
        model=None if config is None else config.name,
        image_size=None if config is None or source.system.needs_base else config.image_size,
        quirks=_quirks(source),
        ignored=source.layout.ignored,
        sha256=sha256,
        licence=source.header.licence
        if source.header
        else licence_of(source.file, sha256) or source.system.licence,
        header=source.header,
        problems=tuple(_problems(source, blueprint, model, bad)),
        needs_base=part,
    )


def _blueprint(source: Source) -> Blueprint | None:
    if source.header is not None:
        return source.header.blueprint
    return guess_blueprint(source.shapes, source.system.name)


def _problems(
    source: Source, blueprint: Blueprint | None, model: str | None, bad: tuple[str, ...]
) -> list[str]:
    problems = [f"{len(bad)} tensors hold NaN or infinity: {', '.join(bad[:3])}"] if bad else []
    if source.system.why_not:
        return [*problems, f"{source.system.title} cannot be loaded: {source.system.why_not}"]
    target = model or blueprint
    if target is None:
        return [*problems, "its sizes are those of no model that is known; name one with --model"]
    try:
        if isinstance(target, Blueprint) and not source.system.needs_base:
            check_promises(source, target.config, source)
        with torch.device("meta"):
            net = create_model(target)
        fit(net, source, resize_positions=True)
    except CheckpointError as error:
        problems.append(str(error))
    return problems


def _quirks(source: Source) -> tuple[str, ...]:
    quirks = source.header.config.quirks if source.header else source.system.quirks
    return tuple(f.name for f in fields(Quirks) if quirks is not None and getattr(quirks, f.name))
