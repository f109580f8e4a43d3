"""Load weights into a model: everything is checked first, and only then is the model touched."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from samaritan.adapt.inject import describe, merge
from samaritan.assembly.blueprint import Blueprint, get_blueprint
from samaritan.assembly.build import create_model
from samaritan.checkpoints.adapted import guess_blueprint
from samaritan.checkpoints.cache import licence_of
from samaritan.checkpoints.chains import published_preprocess
from samaritan.checkpoints.classes import ClassInit
from samaritan.checkpoints.fitting import check_promises, copy_into, fit
from samaritan.checkpoints.header import Header
from samaritan.checkpoints.official import save_official
from samaritan.checkpoints.report import LoadReport
from samaritan.checkpoints.saving import Part, save_weights
from samaritan.checkpoints.sources import Source, find_source
from samaritan.errors import CheckpointError
from samaritan.io.files import sha256_of
from samaritan.models.config import Quirks
from samaritan.models.sam import Sam

logger = logging.getLogger(__name__)


def load_weights(
    model: nn.Module,
    path_or_mapping: str | Path | Mapping[str, Any],
    *,
    resize_positions: bool = True,
    keep_quirks: bool = False,
    init_extra_classes: ClassInit | None = None,
    drop_adapters: bool = False,
    inflate: bool | None = False,
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
        init_extra_classes: where the number of mask tokens differs: "samed_compat" takes what has the
            right shape, "fresh" leaves tokens and heads as the model has them, "copy" repeats the tokens.
            None: "samed_compat" for SAM's own weights in a model that labels classes (so did SAMed),
            else an error.
        drop_adapters: leave out adapters that the model does not have.
        inflate: start a 3D model from the weights of a 2D SAM with as many blocks of the same width;
            None: if the weights are those of a 2D model.

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
        init_extra_classes=init_extra_classes,
        drop_adapters=drop_adapters,
        inflate=inflate,
    )


def load_model(
    path_or_name: str | Path,
    *,
    base: str | Path | None = None,
    adapters: bool = True,
    download: bool = True,
    **overrides: Any,
) -> tuple[Sam, Header]:
    """Build the model that a file of weights belongs to, adapters included, and load it.

    Args:
        path_or_name: one of our files, a file of a known system, or the name of published weights.
        base: weights of the plain model, for files that hold adapters and little else, such as SAMed's.
        adapters: False builds and loads the model without its adapters.
        download: fetch published weights that are not in the cache.
        **overrides: fields of the configuration that should differ, such as `image_size=512`.

    Returns:
        The model in eval mode, and its header: for files of other systems, one that says what was
        found out about them, with the `preprocess` of SAMed and SAM-Med2D, and else none.

    Raises:
        CheckpointError: if the file does not tell what model it belongs to, needs a `base`, or holds an
            image encoder alone.
    """
    source = find_source(path_or_name, download=download)
    model, header, _ = _load_model(
        source, _blueprint_of(source), base, adapters, download, overrides
    )
    return model, header


def _load_model(
    source: Source,
    blueprint: Blueprint,
    base: str | Path | None,
    adapters: bool,
    download: bool,
    overrides: Mapping[str, Any],
) -> tuple[Sam, Header, LoadReport]:
    blueprint = get_blueprint(blueprint, adapters=adapters, **overrides)
    _check_needs(source, base, adapters)
    first = source if base is None else find_source(base, download=download)
    options = {"resize_positions": True, "drop_adapters": not adapters}
    check_promises(source, blueprint.config, first)
    if base is not None:
        with torch.device("meta"):
            fit(create_model(blueprint), source, resize_positions=True)
    model = _built(first, blueprint, drop_adapters=not adapters)
    for one in (first,) if first is source else (first, source):
        report = _load(model, one, keep_quirks="quirks" in overrides, **options)
        if one is not source:
            _compare_with_reference(source, report)
    return model, _header(model, source, report), report


def _compare_with_reference(source: Source, base: LoadReport) -> None:
    """Warn where a part of a model was trained on another base than it now stands on."""
    told = {} if source.header is None else source.header.provenance.get("init", {})
    wanted = told.get("sha256") if isinstance(told, Mapping) else None
    if isinstance(wanted, str) and base.sha256 is not None and wanted != base.sha256:
        logger.warning(
            "%s was trained on %s (sha256 %.12s...), and the base is another file (%.12s...): the model may "
            "answer otherwise than in training",
            source.where,
            told.get("file") or "other weights",
            wanted,
            base.sha256,
        )


def _check_needs(source: Source, base: str | Path | None, adapters: bool) -> None:
    """Whether a base is given where one is needed, and only there."""
    if source.system.only:
        raise CheckpointError(
            f"{source.where} holds {source.system.title}: no prompt encoder and no mask decoder, so nothing "
            f"can be segmented with it. Start training from it: create_model('neurosam3d_dinov2'), then "
            f"load_weights"
        )
    part = source.system.needs_base or (source.header is not None and source.header.holds != "all")
    if part and base is None:
        title = f"a {source.system.title}" if source.header is None else "a part of a model"
        raise CheckpointError(
            f"{source.where} holds {title}, without the weights of the plain model that it changes. "
            f"Give those as well: base='sam_vit_b_01ec64.pth' (--base on the command line)"
        )
    if part and not adapters:
        raise CheckpointError(f"{source.where} holds adapters, so adapters=False leaves nothing")
    if base is not None and not part:
        raise CheckpointError(f"{source.where} is whole: leave out base={str(base)!r}")


def convert(
    path_or_name: str | Path,
    out: str | Path,
    *,
    model: str | None = None,
    base: str | Path | None = None,
    fold: bool = False,
    only: Part = "all",
    download: bool = True,
) -> LoadReport:
    """Write weights of any known system and layout as one of our own files, or as its publishers do.

    Args:
        path_or_name: a file, the folder of a training run, or the name of published weights.
        out: the file to write. A name that ends in .pth or .pt gets the layout of the system that the model
            belongs to (see `save_official`), any other one, such as .safetensors, our own.
        model: the name of the model, if the weights do not tell it.
        base: weights of the plain model, where the file holds adapters and little else.
        fold: fold adapters into the weights that they stand beside: the same outputs, without adapters.
        only: a part of the weights, as in `save_weights`.
        download: fetch published weights that are not in the cache.

    Raises:
        CheckpointError: if the weights do not fit their model, or cannot be written like this.
        ConfigError: if its adapters cannot be folded.
        FileError: if the file cannot be written.
    """
    official = Path(out).suffix.lower() in (".pth", ".pt")
    if official and only != "all":
        raise CheckpointError(
            f"{Path(out).name} gets the layout of its publishers, which says itself what is in it: leave out "
            f"only={only!r}, or choose a name that ends in .safetensors"
        )
    source = find_source(path_or_name, download=download)
    blueprint = _blueprint_of(source) if model is None else get_blueprint(model)
    net, header, report = _load_model(source, blueprint, base, True, download, {})
    if fold and not merge(net):
        raise CheckpointError(
            f"{source.where} holds no adapters to fold into weights: leave out fold"
        )
    if official:
        save_official(net, out)
        return report
    save_weights(
        net,
        out,
        preprocess=header.preprocess,
        provenance=header.provenance,
        licence=header.licence,
        extra=header.extra,
        only=only,
    )
    return report


def _load(model: Sam, source: Source, *, keep_quirks: bool, **options: Any) -> LoadReport:
    fitted = fit(model, source, **options)
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
        licence=source.header.licence
        if source.header
        else licence_of(source.file, sha256) or source.system.licence,
    )
    logger.info("%s", report)
    return report


def _built(source: Source, blueprint: Blueprint, **options: Any) -> Sam:
    """Build a model once the weights are known to fill it: a header can promise any size.

    It stays on the meta device, without memory of its own, unless some of it stays as it is made.
    """
    with torch.device("meta"):
        frame = create_model(blueprint)
    if fit(frame, source, resize_positions=True, **options).fresh:
        return create_model(blueprint)
    return frame


def _blueprint_of(source: Source) -> Blueprint:
    """The model that weights belong to."""
    if source.header is not None:
        return source.header.blueprint
    if source.system.why_not:
        raise CheckpointError(
            f"{source.where} holds {source.system.title}: {source.system.why_not}"
        )
    blueprint = guess_blueprint(source.shapes, source.system.name)
    if blueprint is None:
        raise CheckpointError(
            f"{source.where} does not tell what model it belongs to: its sizes are those of no model "
            f"that is known. Build the model with create_model and use load_weights, then save_weights"
        )
    return blueprint


def _header(model: Sam, source: Source, report: LoadReport) -> Header:
    """The header of loaded weights: their own, or what was found out about them."""
    if source.header is not None:
        return replace(source.header, config=model.config, adapters=describe(model), holds="all")
    provenance = {
        "source": report.source,
        "layout": report.layout,
        "file": None if report.file is None else report.file.name,
        "sha256": report.sha256,
        "resized": list(report.resized),
        "notes": list(report.notes),
    }
    return Header(
        model.config,
        preprocess=published_preprocess(source, model.config, report.sha256),
        provenance=provenance,
        licence=report.licence,
        adapters=describe(model),
    )
