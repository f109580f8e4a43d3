"""Load weights into a model: everything is checked first, and only then is the model touched."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from samaritan.checkpoints.cache import licence_of
from samaritan.checkpoints.fitting import copy_into, fit
from samaritan.checkpoints.hashing import sha256_of
from samaritan.checkpoints.header import Header
from samaritan.checkpoints.report import LoadReport
from samaritan.checkpoints.saving import save_weights
from samaritan.checkpoints.sources import Source, find_source
from samaritan.checkpoints.systems import guess_config
from samaritan.errors import CheckpointError
from samaritan.models.config import Quirks, SamConfig, get_config
from samaritan.models.registry import create_model
from samaritan.models.sam import Sam

logger = logging.getLogger(__name__)


def load_weights(
    model: nn.Module,
    path_or_mapping: str | Path | Mapping[str, Any],
    *,
    resize_positions: bool = True,
    keep_quirks: bool = False,
) -> LoadReport:
    """Load weights of any known system and layout, strictly.

    The model is changed only if everything fits: never in part. Quirks that the weights were trained
    with are switched on in the model.

    Args:
        model: from `create_model`.
        path_or_mapping: a file, a folder of Hugging Face, the name of published weights, or a
            mapping of names to tensors (or of wrappers to such a mapping).
        resize_positions: interpolate position tables where the model has another input size.
        keep_quirks: leave the model's quirks as they are.

    Raises:
        CheckpointError: if names or shapes do not fit; the text sorts them by kind.
        UnsafeFile: if reading the file would execute code.
        FileError: if it cannot be read.
        DownloadError: if published weights could not be fetched.

    >>> from samaritan.models import create_model
    >>> a, b = create_model("sam_tiny"), create_model("sam_tiny")
    >>> report = load_weights(a, b.state_dict())
    >>> report.source, report.missing
    ('plain', ())
    """
    if not isinstance(model, Sam):
        raise CheckpointError(
            f"weights are loaded into a model of create_model, not into a {type(model).__name__}"
        )
    return _load(
        model,
        find_source(path_or_mapping),
        resize_positions=resize_positions,
        keep_quirks=keep_quirks,
    )


def load_model(
    path_or_name: str | Path, *, download: bool = True, **overrides: Any
) -> tuple[Sam, Header]:
    """Build the model that a file of weights belongs to, and load it.

    Args:
        path_or_name: one of our files, a file of a known system, or the name of published weights.
        download: fetch published weights that are not in the cache.
        **overrides: fields of the configuration that should differ, such as `image_size=512`.

    Returns:
        The model in eval mode, and its header: for files of other systems, one that says what was
        found out about them, with no `preprocess`.

    Raises:
        CheckpointError: if the file does not tell what model it belongs to.
    """
    source = find_source(path_or_name, download=download)
    model = _built(source, _config_of(source), overrides)
    report = _load(model, source, resize_positions=True, keep_quirks="quirks" in overrides)
    return model, _header(model, source, report)


def convert(
    path_or_name: str | Path, out: str | Path, *, model: str | None = None, download: bool = True
) -> LoadReport:
    """Write weights of any known system and layout as one of our own files.

    Args:
        path_or_name: a file, or the name of published weights.
        out: the file to write, usually ending in .safetensors.
        model: the name of the model, if the weights do not tell it.
        download: fetch published weights that are not in the cache.
    """
    source = find_source(path_or_name, download=download)
    net = _built(source, _config_of(source) if model is None else get_config(model), {})
    report = _load(net, source, resize_positions=True, keep_quirks=False)
    header = _header(net, source, report)
    save_weights(
        net,
        out,
        preprocess=header.preprocess,
        provenance=header.provenance,
        licence=header.licence,
        extra=header.extra,
    )
    return report


def _load(model: Sam, source: Source, *, resize_positions: bool, keep_quirks: bool) -> LoadReport:
    fitted = fit(model, source, resize_positions=resize_positions)
    sha256 = None if source.file is None else sha256_of(source.file)
    if fitted.quirks is not None and not keep_quirks:
        model.set_quirks(fitted.quirks)
    copy_into(model, fitted.state)
    report = LoadReport(
        source=source.system.name,
        layout=str(source.layout),
        file=source.file,
        sha256=sha256,
        loaded=tuple(fitted.state),
        missing=fitted.fresh,
        unexpected=fitted.left_out,
        resized=fitted.resized,
        quirks=tuple(f.name for f in fields(Quirks) if getattr(model.config.quirks, f.name)),
        notes=fitted.notes,
        n_parameters=sum(tensor.numel() for tensor in fitted.state.values()),
        licence=source.header.licence if source.header else licence_of(source.file, sha256),
    )
    logger.info("%s", report)
    return report


def _built(source: Source, config: SamConfig, overrides: Mapping[str, Any]) -> Sam:
    """Build a model once the weights are known to fill it: a header can promise any size.

    It stays on the meta device, without memory of its own, unless some of it stays as it is made.
    """
    parts = (
        config.depth,
        config.decoder_depth,
        config.num_point_embeddings,
        config.num_mask_tokens,
    )
    if max(parts) > len(source.shapes):
        raise CheckpointError(
            f"{source.where} promises {max(parts)} blocks or tokens, but holds {len(source.shapes)} tensors"
        )
    with torch.device("meta"):
        frame = create_model(config, **overrides)
    if fit(frame, source, resize_positions=True).fresh:
        return create_model(config, **overrides)
    return frame


def _config_of(source: Source) -> SamConfig:
    """The model that weights belong to."""
    if source.header is not None:
        return source.header.config
    if source.system.why_not:
        raise CheckpointError(
            f"{source.where} holds {source.system.title}: {source.system.why_not}"
        )
    config = guess_config(source.shapes)
    if config is None:
        raise CheckpointError(
            f"{source.where} does not tell what model it belongs to: its sizes are those of no model "
            f"that is known. Build the model with create_model and use load_weights, then save_weights"
        )
    return config


def _header(model: Sam, source: Source, report: LoadReport) -> Header:
    """The header of loaded weights: their own, or what was found out about them."""
    if source.header is not None:
        return replace(source.header, config=model.config)
    provenance = {
        "source": report.source,
        "layout": report.layout,
        "file": None if report.file is None else report.file.name,
        "sha256": report.sha256,
        "resized": list(report.resized),
        "notes": list(report.notes),
    }
    return Header(model.config, provenance=provenance, licence=report.licence)
