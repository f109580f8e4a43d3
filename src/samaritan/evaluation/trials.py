"""A model on a manifest: every case is opened once, asked for its objects, and measured on its own grid."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from samaritan.data.manifest import Case, Manifest
from samaritan.errors import ConfigError, GeometryError, SamaritanError
from samaritan.evaluation.asking import Answer, answers
from samaritan.evaluation.ceiling import ceilings
from samaritan.evaluation.estimates import ENCODING, OPENING, QUALITY, SECONDS
from samaritan.evaluation.targets import Subject, Target, read_subject
from samaritan.evaluation.trial import Trial
from samaritan.infer import Predictor, Session
from samaritan.metrics import Protocol, Row, measure_case
from samaritan.models import ClassSam
from samaritan.transforms import FocusPreprocess

Progress = Callable[[str, int, int], None]
GroupBy = Literal["set", "modality", "split", "none"]

Asking = Callable[[Predictor, Manifest, Subject, Trial], Iterator[tuple[Target, Answer]]]
"""Asks a model for all objects of one case."""


@dataclass(frozen=True)
class Tried:
    """All that came of a trial.

    Attributes:
        rows: of every case, object and prompt.
        problems: case -> why it could not be asked or measured; such cases are in no number.
        notes: what readers must know.
        trial: what was asked in the end; None of models that take no prompts.
    """

    rows: tuple[Row, ...]
    problems: Mapping[str, str]
    notes: tuple[str, ...] = ()
    trial: Trial | None = None


def try_model(
    predictor: Predictor,
    manifest: Manifest,
    trial: Trial,
    protocol: Protocol,
    *,
    asking: Asking | None = None,
    group_by: GroupBy = "set",
    progress: Progress | None = None,
) -> Tried:
    """Ask a promptable model for every object of a manifest's cases, and measure the answers.

    What is asked of an object depends on the object and the seed alone: not on the order of cases, nor on
    which others there are. A case that fails is told, and the others go on.

    Args:
        predictor: the model.
        manifest: the cases.
        trial: what to ask.
        protocol: how to measure.
        asking: how to ask; by default through a session, as a person does.
        group_by: what tables keep apart.
        progress: called with (what, done, total).

    Raises:
        ConfigError: if the model cannot be asked so.
    """
    check_model(predictor, trial)
    ask = asking or ask_by_session
    rows: list[Row] = []
    problems: dict[str, str] = {}
    told: Counter[str] = Counter()
    without = 0
    for done, case in enumerate(manifest):
        if progress is not None:
            progress("asking", done, len(manifest))
        try:
            subject = read_subject(manifest, case, trial)
            without += not subject.targets
            group, patient = group_name(case, group_by), patient_name(case)
            found, said = [], []
            for target, answer in ask(predictor, manifest, subject, trial):
                row = measured(subject, target, answer, protocol)
                found.append(replace(row, group=group, patient=patient))
                said += [note.partition(": ")[2] or note for note in answer.notes]
        except (SamaritanError, MemoryError, RuntimeError) as error:
            problems[case.id] = why(error)
        else:
            rows += found
            told.update(said)
    notes = [f"{without} of {len(manifest)} cases hold no object to ask for."] if without else []
    notes += [f"{count} answers: {note}." for note, count in told.items()]
    return Tried(tuple(rows), problems, tuple(notes), trial)


def ask_by_session(
    predictor: Predictor, manifest: Manifest, subject: Subject, trial: Trial
) -> Iterator[tuple[Target, Answer]]:
    """Ask as a person does, in one session on the image, which is encoded once.

    Raises:
        GeometryError: if the image is not one for this model.
    """
    check_image(predictor, subject)
    session, opening = opened(predictor, manifest, subject, trial.max_windows)
    seconds: float | None = opening
    for target in subject.targets:
        if trial.ceiling:
            reference = subject.image.with_array(target.mask(subject.image.shape))
            for name, mask in ceilings(predictor, reference).items():
                yield target, Answer(name, None, mask)
        before = predictor.encoding_seconds
        for answer in answers(session, target, subject.image.shape, trial):
            spent = predictor.encoding_seconds - before or None
            yield target, replace(answer, opening=seconds, encoding=spent)
            seconds, before = None, predictor.encoding_seconds


def opened(
    predictor: Predictor, manifest: Manifest, subject: Subject, max_windows: int = 32
) -> tuple[Session, float]:
    """Begin a session, and say how long the image took; windows are encoded when they are asked for."""
    start = time.perf_counter()
    window = manifest.group_of(subject.case).window
    image = predictor.open(subject.image, window=window)
    chain = predictor.preprocess
    if chain.n_axes == 2 and not isinstance(chain, FocusPreprocess):
        image.embedded((image.axis, 0))
    return Session(image, max_windows=max_windows), time.perf_counter() - start


def measured(subject: Subject, target: Target, answer: Answer, protocol: Protocol) -> Row:
    """Measure one answer on the grid of the image; voxels that nobody decided count for neither side."""
    reference, prediction = target.mask(subject.image.shape), answer.mask
    if subject.ignored is not None:
        prediction = prediction & ~subject.ignored
    grid = subject.image.grid
    (row,) = measure_case(
        prediction.view(np.uint8),
        reference.view(np.uint8),
        case=target.case,
        spacing=grid.spacing_mm,
        unit=grid.unit,
        protocol=protocol,
        labels=[1],
        prompt=answer.prompt,
        clicks=answer.clicks,
    )
    more = {QUALITY: answer.quality, SECONDS: answer.seconds}
    more |= {ENCODING: answer.encoding, OPENING: answer.opening}
    values = {
        **answer.scores,
        **row.values,
        **{key: value for key, value in more.items() if value is not None},
    }
    return replace(row, label=target.label, name=target.name, values=values)


def takes_prompts(predictor: Predictor) -> bool:
    """Whether a model answers prompts, rather than labelling the whole image."""
    return not isinstance(predictor.model, ClassSam)


def suited(trial: Trial, predictor: Predictor) -> Trial:
    """Ask a model of what suits it: volumes are clicked on, and boxes are drawn for who takes them."""
    prompts = trial.prompts
    if predictor.preprocess.n_axes == 3:
        prompts = tuple(prompt for prompt in prompts if prompt != "points")
    if not predictor.takes_boxes:
        prompts = tuple(prompt for prompt in prompts if "box" not in prompt)
    return replace(trial, prompts=prompts)


def check_model(predictor: Predictor, trial: Trial) -> None:
    """Refuse models that cannot be asked what the trial asks.

    Raises:
        PromptError: if the model takes no prompts.
        ConfigError: if it takes no boxes.
    """
    predictor.require_prompts()
    if trial.needs_boxes and not predictor.takes_boxes:
        raise ConfigError(
            f"model {predictor.model.config.name!r} takes no boxes (its weights hold none): "
            "use --prompts points,clicks"
        )


def check_image(predictor: Predictor, subject: Subject) -> None:
    """Refuse volumes for 2D models, and pictures for 3D models.

    Raises:
        GeometryError: if image and model do not fit.
    """
    shape, axes = subject.image.shape, predictor.preprocess.n_axes
    name = predictor.model.config.name
    if axes == 2 and not subject.image.is_flat:
        raise GeometryError(
            f"a volume of shape {shape}, and {name!r} is a 2D model: one prompt would mean one slice. Make "
            "slices first with `samaritan prepare slices`, and evaluate on these"
        )
    if axes == 3 and subject.image.is_flat:
        raise GeometryError(
            f"a picture of shape {shape[:2]}, and {name!r} is a 3D model for volumes"
        )


def group_name(case: Case, by: GroupBy) -> str:
    """What tables keep a case apart by."""
    return {
        "set": case.group, "modality": case.modality or "", "split": case.split or "", "none": ""
    }[by]  # fmt: skip


def patient_name(case: Case) -> str:
    """Whom a case shows: ids of two data sets may be alike."""
    return f"{case.group}/{case.patient}" if case.group else case.patient


def why(error: BaseException) -> str:
    """What is told of a case that failed."""
    if isinstance(error, SamaritanError):
        return str(error)
    return f"{type(error).__name__}: {error}".rstrip(": ")
