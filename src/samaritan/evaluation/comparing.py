"""Measure every case of two folders, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from samaritan.errors import ConfigError, SamaritanError
from samaritan.evaluation.matching import Group, Matched, Pair
from samaritan.geometry import Grid
from samaritan.io import read_labels
from samaritan.metrics import Protocol, Row, get_protocol, measure_case
from samaritan.metrics.protocols import Unit
from samaritan.volume import LabelMap

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Settings:
    """How masks are compared.

    Attributes:
        protocol: name of the convention.
        tolerance: of surface Dice; None for the protocol's own.
        labels: values or names to measure; None for all.
        names: label value -> name, before those in the files.
        binary: take all that is not 0 as one object.
        resample: resample predictions that lie on another grid.
    """

    protocol: str = "samaritan"
    tolerance: float | None = None
    labels: tuple[int | str, ...] | None = None
    names: Mapping[int, str] | None = None
    binary: bool = False
    resample: bool = False


@dataclass(frozen=True)
class Measured:
    """What came of one case: rows, or why there are none."""

    case: str
    rows: tuple[Row, ...] = ()
    unit: Unit = "mm"
    names: Mapping[int, str] | None = None
    problem: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """All that was measured.

    Attributes:
        rows: of every case and label.
        problems: case -> why it could not be measured; such cases are in no number.
        notes: what was odd, in sentences.
    """

    rows: tuple[Row, ...]
    problems: Mapping[str, str]
    notes: tuple[str, ...] = ()


def compare(
    matched: Matched,
    settings: Settings = Settings(),
    *,
    groups: Mapping[str, Group] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """Measure every pair; a case that cannot be measured is told, and the others go on.

    A label that occurs in any case is looked for in all of them. A missing prediction is an empty mask.

    Args:
        matched: from `match`.
        settings: how.
        groups: case -> set and patient.
        workers: processes.
        progress: called with (what, done, total).

    Raises:
        ConfigError: if protocol or tolerance are not known.
    """
    protocol = get_protocol(settings.protocol, tolerance=settings.tolerance)
    done: list[Measured] = []
    for measured in _each(matched.pairs, settings, workers):
        done.append(measured)
        if progress is not None:
            progress("measuring", len(done), len(matched.pairs))
    names: dict[int, str] = {}
    for measured in done:
        names = {**(measured.names or {}), **names}
    names |= settings.names or {}
    known = {row.label: row.name for measured in done for row in measured.rows}
    rows = []
    for measured in done:
        if measured.problem:
            continue
        own = {row.label: row for row in measured.rows}
        about = (groups or {}).get(measured.case, Group())
        for label in sorted(known):
            row = own.get(label) or _absent(measured, label, protocol)
            name = names.get(label, row.name)
            rows.append(replace(row, name=name, group=about.group, patient=about.patient))
    problems = {measured.case: measured.problem for measured in done if measured.problem}
    notes = dict.fromkeys(note for measured in done for note in measured.notes)
    return Comparison(tuple(rows), problems, tuple(notes))


def load(pair: Pair, settings: Settings) -> tuple[LabelMap, LabelMap]:
    """Read prediction and reference on one grid.

    Raises:
        GridMismatch: if the grids differ and may not be resampled.
        FileError: if a file cannot be read.
    """
    reference = read_labels(pair.reference)
    if pair.prediction is None:
        prediction = reference.with_array(np.zeros(reference.shape, np.uint8))
    else:
        prediction = read_labels(pair.prediction)
    if pair.prediction is not None and _in_pixels(prediction.grid, reference.grid):
        # a PNG has no place in the patient: with the same pixels it is meant to lie on the reference
        prediction = replace(prediction, grid=reference.grid)
    if settings.resample:
        prediction = prediction.to_grid(reference.grid)
    reference.grid.require_same(
        prediction.grid,
        what="grids of reference and prediction",
        hint="Use --resample if the prediction was meant to lie on another grid.",
    )
    if settings.binary:
        prediction, reference = (
            labels.with_array((labels.array != 0).astype(np.uint8), names={})
            for labels in (prediction, reference)
        )
    return prediction, reference


def _each(pairs: Sequence[Pair], settings: Settings, workers: int) -> Iterator[Measured]:
    """Measure pairs in their order."""
    if workers < 1:
        raise ConfigError(f"at least one worker is needed, got {workers}")
    work = partial(_measure, settings=settings)
    if min(workers, len(pairs)) == 1:
        yield from map(work, pairs)
        return
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(min(workers, len(pairs)), mp_context=context) as pool:
            yield from pool.map(work, pairs)
    except BrokenProcessPool as error:
        raise ConfigError(
            f"one of {workers} workers was ended from outside, probably because memory ran out. "
            "Use fewer with --workers"
        ) from error


def _measure(pair: Pair, settings: Settings) -> Measured:
    try:
        prediction, reference = load(pair, settings)
        names = {**prediction.names, **reference.names}
        labels = _labels(settings, {**names, **(settings.names or {})})
    except (SamaritanError, MemoryError) as error:
        return Measured(pair.case, problem=str(error) or type(error).__name__)
    grid = reference.grid
    rows = measure_case(
        prediction.array,
        reference.array,
        case=pair.case,
        spacing=grid.spacing_mm,
        unit=grid.unit,
        protocol=get_protocol(settings.protocol, tolerance=settings.tolerance),
        labels=labels,
        names={1: "object"} if settings.binary else None,
    )
    notes = [] if pair.prediction else [f"{pair.case} has no prediction: its objects are missed."]
    for value, name in reference.names.items():
        other = prediction.names.get(value, name)
        if other.casefold() != name.casefold():
            notes.append(f"Label {value} is {name!r} in references, but {other!r} in predictions.")
    if grid.is_sheared:
        notes.append("Some grids are sheared: distances are along their axes, so approximate.")
    return Measured(pair.case, tuple(rows), grid.unit, names, notes=tuple(notes))


def _labels(settings: Settings, names: Mapping[int, str]) -> list[int] | None:
    """Values of the labels that were asked for."""
    if settings.labels is None:
        return None
    values = {name.casefold(): value for value, name in names.items()}
    found = []
    for label in settings.labels:
        if isinstance(label, str) and label.casefold() not in values:
            raise ConfigError(
                f"no label is named {label!r}: known are {', '.join(names.values()) or 'no names'}. "
                "Give its number, or NUMBER=NAME"
            )
        found.append(values[label.casefold()] if isinstance(label, str) else label)
    return found


def _in_pixels(one: Grid, two: Grid) -> bool:
    return one.shape == two.shape and "px" in (one.unit, two.unit)


def _absent(measured: Measured, label: int, protocol: Protocol) -> Row:
    """What there is to say of a label that neither mask has."""
    nothing = np.zeros((1, 1), np.uint8)
    (row,) = measure_case(
        nothing, nothing, case=measured.case, spacing=(1, 1), unit=measured.unit, protocol=protocol,
        labels=[label],
    )  # fmt: skip
    return row
