"""Runs of several folds on the cases that each did not learn from: every case once, as nnU-Net validates.

Predictions lie in a folder for each fold, with nnU-Net's summary.json, and stay for its tools; a stopped
validation goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from samaritan.data.manifest import Case, Manifest
from samaritan.data.nnunet.results import SUMMARY, Compared, compare, summarise, write_summary
from samaritan.data.reading import case_image, case_labels
from samaritan.errors import FileError, SamaritanError
from samaritan.evaluation.choosing import MOST_COLOURED, caption_of, choose_cases
from samaritan.evaluation.labelling import measured_labels, without_ignored
from samaritan.evaluation.pictures import colour_of, draw_case
from samaritan.evaluation.report import Picture
from samaritan.evaluation.trials import GroupBy, Progress, Tried, group_name, patient_name, why
from samaritan.infer.batch import predict_cases
from samaritan.infer.cleaning import Cleaning, determine, pair_of
from samaritan.infer.labeller import VolumeLabeller
from samaritan.io import read_labels
from samaritan.metrics import Protocol, Row
from samaritan.volume import LabelMap


@dataclass(frozen=True)
class HeldOut:
    """A fold: its model, and the cases that it did not learn from."""

    name: str
    labeller: VolumeLabeller
    ids: tuple[str, ...]
    facts: Mapping[str, Any]
    """What identifies the weights."""


@dataclass(frozen=True)
class Validated:
    """What became of the held-out cases.

    Attributes:
        predictions: case -> its label map's file.
        problems: case -> why there is none.
        manifest: the cases.
    """

    predictions: Mapping[str, Path]
    problems: Mapping[str, str]
    manifest: Manifest

    def pair(self, case: Case, clean: Cleaning | None = None) -> tuple[LabelMap, LabelMap]:
        """Read prediction and reference of a case."""
        prediction, (labels,) = (
            read_labels(self.predictions[case.id]),
            case_labels(self.manifest, case),
        )
        prediction.grid.require_same(labels.grid, what="grids of prediction and reference")
        cleaned = prediction if clean is None else clean.of_map(prediction)
        return without_ignored(self.manifest, case, cleaned, labels)


def predict_held_out(
    folds: Sequence[HeldOut],
    manifest: Manifest,
    folder: Path,
    *,
    progress: Progress | None = None,
) -> Validated:
    """Label the cases that each fold did not learn from, and write nnU-Net's summary.json beside them.

    Raises:
        FileError: if the data lack such cases, or the folder cannot be used.
        ConfigError: if the predictions that are there were made otherwise.
    """
    there = {case.id for case in manifest}
    missing = sorted({i for fold in folds for i in fold.ids} - there)
    if missing:
        raise FileError(
            f"{manifest.root} lacks {len(missing)} cases that the run held out, such as {missing[0]!r}: give "
            "the data set that it learned from, or name a part with --split"
        )
    found: dict[str, Path] = {}
    problems: dict[str, str] = {}
    for fold in folds:
        cases = manifest.select(ids=list(fold.ids))
        outcome = predict_cases(
            fold.labeller,
            cases,
            folder / fold.name,
            model=fold.facts,
            progress=lambda what, done, total: _tell(progress, "labelling", done, total),
        )
        made = {**outcome.there, **outcome.done}
        found |= made
        problems |= outcome.failed
        _summarise(fold, made, cases, folder / fold.name)
    return Validated(found, problems, manifest.select(ids=[i for fold in folds for i in fold.ids]))


def decide_cleaning(
    validated: Validated, labeller: VolumeLabeller, *, progress: Progress | None = None
) -> Cleaning:
    """Decide by held-out cases which structures are kept to their largest part."""
    pairs = {
        case.id: pair_of(validated.predictions[case.id], validated.manifest.path(case.labels[0]))
        for case in validated.manifest
        if case.id in validated.predictions
    }
    labels = labeller.chain.labels
    return determine(
        pairs, labels, progress=lambda done, total: _tell(progress, "largest parts", done, total)
    )


def measure(
    validated: Validated,
    names: Mapping[int, str],
    protocol: Protocol,
    *,
    clean: Cleaning | None = None,
    group_by: GroupBy = "set",
    progress: Progress | None = None,
) -> Tried:
    """Measure every held-out case; one that failed is told."""
    rows: list[Row] = []
    problems = dict(validated.problems)
    for done, case in enumerate(validated.manifest):
        _tell(progress, "measuring", done, len(validated.manifest))
        if case.id not in validated.predictions:
            continue
        try:
            one, two = validated.pair(case, clean)
            found = measured_labels(names, validated.manifest, case, one, two, case.id, protocol)
        except (SamaritanError, MemoryError) as error:
            problems[case.id] = why(error)
        else:
            group = group_name(case, group_by)
            rows += [replace(row, group=group, patient=patient_name(case)) for row in found]
    return Tried(tuple(rows), problems)


def show(
    validated: Validated,
    rows: Sequence[Row],
    *,
    clean: Cleaning | None = None,
    each: int = 3,
    progress: Progress | None = None,
) -> tuple[list[Picture], list[tuple[str, str]]]:
    """Draw the worst, median and best cases."""
    names = {row.label: row.name for row in rows}
    labels = sorted(names)[:MOST_COLOURED]
    chosen = choose_cases(rows, each=each) if each else {}
    cases = {case.id: case for case in validated.manifest}
    pictures: list[Picture] = []
    total = sum(map(len, chosen.values()))
    for kind, found in chosen.items():
        for name in found:
            image = case_image(validated.manifest, cases[name])
            png = draw_case(*validated.pair(cases[name], clean), image=image, labels=labels)
            pictures.append(Picture(kind, name, caption_of(name, rows), png))
            _tell(progress, "drawing", len(pictures), total)
    return pictures, [(names[label], colour_of(at)) for at, label in enumerate(labels)]


def _summarise(fold: HeldOut, made: Mapping[str, Path], cases: Manifest, folder: Path) -> None:
    labels, rows = fold.labeller.chain.labels, []
    for case in cases:
        if case.id in made and case.labels:
            reference = cases.path(case.labels[0])
            counted = compare(*pair_of(made[case.id], reference)(), labels)
            rows.append(Compared(str(made[case.id]), str(reference), counted))
    if rows:
        write_summary(summarise(rows, labels), folder / SUMMARY)


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)
