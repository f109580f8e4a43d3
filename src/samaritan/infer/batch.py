"""Many images, one after the other: what is wrong with one of them never stops the others."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samaritan.data.manifest import Case, Manifest
from samaritan.data.reading import case_image
from samaritan.data.sources.names import stem_of
from samaritan.errors import (
    ConfigError,
    FileError,
    GeometryError,
    PromptError,
    SamaritanError,
    UnsupportedFormat,
)
from samaritan.geometry import Grid
from samaritan.infer.classes import predict_labels, require_classes
from samaritan.infer.cleaning import Cleaning
from samaritan.infer.labeller import VolumeLabeller
from samaritan.infer.ledger import Ledger, locked
from samaritan.infer.outputs import (
    check_inputs_stay,
    check_strangers,
    describe,
    is_picture,
    known_suffix,
    name_outputs,
    remove,
)
from samaritan.infer.predictor import Predictor
from samaritan.infer.probabilities import FullDisk, Kind, ProbabilityFiles
from samaritan.infer.prompt_cases import check_prompts, give
from samaritan.infer.prompt_files import CasePrompts, PromptFile
from samaritan.infer.session import Session
from samaritan.io import write
from samaritan.models import ClassSam
from samaritan.volume import LabelMap, Volume

__all__ = ["Outcome", "PredictOptions", "predict_cases", "predict_labels"]

logger = logging.getLogger(__name__)

Progress = Callable[[str, int, int], None]
Draw = Callable[[Volume, LabelMap, str], None]


@dataclass(frozen=True)
class PredictOptions:
    """How predictions are made; a run that goes on must have the same."""

    axis: int | None = None
    """Array axis that a 2D model's slices lie across; None: that of the thickest voxels."""
    window: tuple[float, float] | None = None
    """Intensities that become black and white; None: as the weights and the data say."""
    channel: int | str | None = None
    """Take one channel of each image."""
    format: str | None = None
    """Suffix of the outputs; None: .png for pictures, .tif for TIFF, .nii.gz for all else."""
    max_windows: int = 32
    """How many windows of a 3D model an object may grow over."""
    probabilities: Kind | None = None
    """Also write the probabilities of every class, as this; of models that learned from nnU-Net data."""

    def __post_init__(self) -> None:
        if self.format is not None:
            object.__setattr__(self, "format", known_suffix(self.format))


@dataclass
class Outcome:
    """What became of each case, by its id."""

    done: dict[str, Path] = field(default_factory=dict)
    """Made in this run."""
    there: dict[str, Path] = field(default_factory=dict)
    """Made by a run before."""
    failed: dict[str, str] = field(default_factory=dict)
    """Not made, and why."""
    without_prompts: list[str] = field(default_factory=list)
    """Left out, since nothing was asked of them."""
    notes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What a person should know about a result."""

    def to_dict(self) -> dict[str, Any]:
        """Describe it in JSON types."""
        return {
            "done": {case: str(path) for case, path in self.done.items()},
            "there": {case: str(path) for case, path in self.there.items()},
            "failed": self.failed,
            "without_prompts": self.without_prompts,
            "notes": {case: list(notes) for case, notes in self.notes.items()},
        }


def predict_cases(
    predictor: Predictor | VolumeLabeller,
    manifest: Manifest,
    out: str | Path,
    *,
    options: PredictOptions | None = None,
    prompts: PromptFile | None = None,
    model: Mapping[str, Any] | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
    clean: Cleaning | None = None,
    draw: Draw | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Outcome:
    """Predict a label map for each case, on its own grid, into a folder.

    A case that is there already is not made again, so a run that was stopped goes on. A case that cannot be
    read or does not fit the model is noted, and the others go on. Every file appears complete or not at
    all, and no input is ever replaced.

    Args:
        predictor: the model, or several that learned from nnU-Net data.
        manifest: the cases, such as from `find_cases`.
        out: a folder; made if it is missing.
        options: how predictions are made.
        prompts: for models that answer prompts, from `read_prompts`.
        model: what identifies the weights, such as their hash; with `options` it is compared with the run
            that is there.
        batch_size: slices that go through a model without prompts together.
        overwrite: make everything anew.
        clean: which structures are kept to their largest part.
        draw: called with (image, labels, name of the output without suffix) for each result.
        progress: called with (case id or what is done, cases done, cases in all).

    Raises:
        PromptError: if the model needs prompts and there are none, or telling all that is wrong with them.
        ConfigError: if the run that is there was made otherwise.
        FileError: if the folder cannot be used, or is full; what was made until then stays.
    """
    options, folder = options or PredictOptions(), Path(out).expanduser()
    _check_model(predictor, options, prompts)
    outputs = name_outputs(manifest, folder, options.format)
    check_inputs_stay(manifest, folder, outputs)
    told = {**(model or {"model": predictor.model.config.name}), **asdict(options)}
    if clean is not None:
        told["largest_parts"] = [str(step) for step in clean.steps]
    ledger = Ledger.open(folder, told, overwrite=overwrite)
    if not overwrite:
        check_strangers(ledger, outputs)
    run = _Run(predictor, manifest, options, batch_size, draw, folder, clean)
    asked = (
        None
        if prompts is None
        else check_prompts(
            prompts, manifest, lambda c: run.session(run.image(c)), progress=progress
        )
    )
    with locked(folder):
        if isinstance(predictor, VolumeLabeller):
            describe(folder, predictor.chain)
        return run.all(ledger, outputs, asked, overwrite, progress)


def _check_model(
    predictor: Predictor | VolumeLabeller, options: PredictOptions, prompts: PromptFile | None
) -> None:
    """See that a model can do what is asked."""
    name = predictor.model.config.name
    automatic = isinstance(predictor, VolumeLabeller)
    if prompts is not None and (automatic or isinstance(predictor.model, ClassSam)):
        raise PromptError(
            f"model {name!r} labels whole images and takes no prompts: leave out {prompts.path} (--prompts)"
        )
    given = [k for k in ("axis", "window") if getattr(options, k) is not None]
    if isinstance(predictor, VolumeLabeller):
        if given:
            raise ConfigError(
                f"model {name!r} sees volumes as its plans say: leave out --{' and --'.join(given)}"
            )
        return
    if options.probabilities is not None:
        raise ConfigError(
            f"model {name!r} writes no probabilities (--probabilities): only models that learned from "
            "nnU-Net data do"
        )
    if prompts is None:
        require_classes(predictor)


@dataclass(frozen=True, eq=False)
class _Run:
    """One pass over all cases."""

    predictor: Predictor | VolumeLabeller
    manifest: Manifest
    options: PredictOptions
    batch_size: int
    draw: Draw | None
    folder: Path
    clean: Cleaning | None

    def all(
        self,
        ledger: Ledger,
        outputs: Mapping[str, Path],
        asked: Mapping[str, CasePrompts] | None,
        overwrite: bool,
        progress: Progress,
    ) -> Outcome:
        outcome, waiting = Outcome(), []
        for case in self.manifest:
            output, prompts = outputs[case.id], None if asked is None else asked.get(case.id)
            made_from = self.facts(case, prompts)
            if asked is not None and prompts is None:
                outcome.without_prompts.append(case.id)
            elif not overwrite and ledger.is_done(case.id, output, made_from):
                outcome.there[case.id] = output
                ledger.cases[case.id]["status"] = "done"  # even if a kill came before it was noted
            else:
                waiting.append((case, output, prompts))
                remove(output)  # made from something else, or to be made anew
                ledger.cases[case.id] = _waiting(output, made_from)
        ledger.write()
        try:
            for count, (case, output, prompts) in enumerate(waiting):
                progress(case.id, count, len(waiting))
                self.one(case, output, prompts, ledger, outcome)
        except BaseException:
            with contextlib.suppress(FileError):  # what stopped the run is what is to be told
                ledger.write()
            raise
        ledger.write()
        progress("done", len(waiting), len(waiting))
        return outcome

    def one(
        self,
        case: Case,
        output: Path,
        prompts: CasePrompts | None,
        ledger: Ledger,
        outcome: Outcome,
    ) -> None:
        """Make one case, or note why not."""
        start = time.monotonic()
        try:
            volume = self.image(case)
            labels = self.labels(case, volume, prompts, stem_of(output.name))
            self.keep(case, volume, labels, output, outcome)
        except (_Full, FullDisk):
            raise
        except Exception as error:  # whatever it is, the other cases go on
            reason = _reason(error)
            logger.debug("case %s", case.id, exc_info=True)
            outcome.failed[case.id] = reason
            ledger.note(case.id, status="failed", reason=reason)
            return
        outcome.done[case.id] = output
        notes = (*volume.notes, *labels.notes)
        if notes:
            outcome.notes[case.id] = notes
        ledger.note(
            case.id,
            status="done",
            labels=_counted(labels),
            notes=list(notes),
            time_s=round(time.monotonic() - start, 3),
        )

    def image(self, case: Case) -> Volume:
        """Read the image of a case, on its own grid."""
        volume = case_image(self.manifest, case)
        return volume if self.options.channel is None else volume.channel(self.options.channel)

    def window(self, case: Case) -> tuple[float, float] | None:
        """Find the intensities that become black and white, where somebody said so."""
        return self.options.window or self.manifest.group_of(case).window

    def session(self, volume: Volume, window: tuple[float, float] | None = None) -> Session:
        options = self.options
        assert isinstance(self.predictor, Predictor)
        return self.predictor.session(
            volume, axis=options.axis, max_windows=options.max_windows, window=window
        )

    def labels(
        self, case: Case, volume: Volume, prompts: CasePrompts | None, name: str
    ) -> LabelMap:
        if isinstance(self.predictor, VolumeLabeller):
            found = self.windows(self.predictor, volume, name)
            return found if self.clean is None else self.clean.of_map(found)
        window = self.window(case)
        if prompts is None:
            found = predict_labels(
                self.predictor,
                volume,
                axis=self.options.axis,
                batch_size=self.batch_size,
                window=window,
            )
            return found if self.clean is None else self.clean.of_map(found)
        session = self.session(volume, window)
        try:
            return give(session, prompts).mask
        finally:
            self.predictor.forget(session.image)

    def windows(self, labeller: VolumeLabeller, volume: Volume, name: str) -> LabelMap:
        """Label a volume in windows, and write its probabilities if they are wanted."""
        if self.options.probabilities is None:
            return labeller.labels(volume)
        files = ProbabilityFiles(self.folder, name, self.options.probabilities)
        try:
            labels = labeller.labels(volume, tee=files.tee)
            try:
                files.write(volume)
            except FileError as error:
                raise FullDisk(str(error)) from error
        finally:
            files.forget()
        return labels

    def facts(self, case: Case, prompts: CasePrompts | None) -> str:
        """Sum up what the prediction of a case is made from."""
        files = [_facts_of(self.manifest.path(name)) for name in case.images]
        told = [case.images, files, self.window(case), None if prompts is None else prompts.told()]
        return hashlib.sha256(json.dumps(told, default=str).encode()).hexdigest()

    def keep(
        self, case: Case, volume: Volume, labels: LabelMap, output: Path, outcome: Outcome
    ) -> None:
        """Write a result; a slice that was stored as a picture is a picture again."""
        stored = labels
        if case.place is not None and is_picture(output):
            stored = replace(labels, grid=Grid.pixels(labels.shape))
        try:
            write(stored, output)
            if self.draw is not None:
                self.draw(volume, labels, stem_of(output.name))
        except UnsupportedFormat:
            raise
        except FileError as error:
            count = len(outcome.done) + len(outcome.there)
            raise _Full(
                f"{error}. The {count} predictions that are complete stay, and the same command goes on"
            ) from error


class _Full(FileError):
    """The folder takes no more files: going on would fail for every case."""


def _waiting(output: Path, made_from: str) -> dict[str, Any]:
    return {"output": output.name, "status": "waiting", "made_from": made_from}


def _reason(error: BaseException) -> str:
    """Say in one line why a case failed."""
    text = " ".join(str(error).split())
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "not enough memory" in text:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return "out of memory: try a smaller --batch-size, or a machine with more of it"
    if isinstance(error, GeometryError) and "Write" in text:
        return f"{text} (--format)"
    return text if isinstance(error, SamaritanError) else f"{type(error).__name__}: {text[:300]}"


def _facts_of(path: Path) -> list[Any]:
    if path.is_dir():
        files = (p for p in path.iterdir() if p.is_file())
        return sorted([p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files)
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.exists() else []


def _counted(labels: LabelMap) -> dict[str, int]:
    """Voxels of each label by its name."""
    counts = np.bincount(labels.array.reshape(-1), minlength=max(labels.names, default=0) + 1)
    return {name: int(counts[value]) for value, name in labels.names.items()}
