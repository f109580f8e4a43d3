"""Read every case once and tell everything that is wrong, before anything is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np

from samaritan.data.manifest import Case, Manifest
from samaritan.data.reading import placed, read_image, read_label_file
from samaritan.errors import GridMismatch, SamaritanError
from samaritan.io.files import sha256_of
from samaritan.io.values import count_non_finite
from samaritan.volume import LabelMap, Volume

Progress = Callable[[int, int], None]

BREAKS: dict[str, str] = {
    "missing": "a file is not there",
    "unreadable": "a file cannot be read",
    "channels": "the number of channels differs from that of most cases of the data set",
    "other-grid": "labels do not lie on the image's grid",
    "unknown-label": "a label value has no name",
    "label-type": "labels are not whole numbers",
    "not-finite": "an image holds NaN or infinity",
    "empty-image": "every voxel of an image has one value",
    "leak": "a patient, or the same image, is in several parts",
}
"""Kinds of problems that break training."""

ODD: dict[str, str] = {
    "no-labels": "a case has no label file",
    "empty-label": "a label file holds background only",
    "never-drawn": "a label has a name but occurs in no case",
    "duplicate": "two cases have the same image",
    "blank-slice": "a slice of a volume shows nothing, and nothing is drawn on it",
}
"""Kinds of problems that may be meant."""


_BLANK = {"empty-image": "blank-slice"}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one case."""

    case: str
    """Id of the case, or the data set's name."""
    kind: str
    """A key of `BREAKS` or `ODD`."""
    text: str
    """What is wrong, with the values."""

    @property
    def breaks(self) -> bool:
        """Whether training should not start."""
        return self.kind in BREAKS


@dataclass(frozen=True)
class CaseFacts:
    """What was found in one case."""

    case: str
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    dtype: str = ""
    channels: int = 0
    labels: tuple[int, ...] = ()
    content: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Report:
    """What was found in all cases."""

    facts: tuple[CaseFacts, ...]
    problems: tuple[Problem, ...]
    labels: dict[str, dict[int, int]] = field(default_factory=dict)
    """Data set -> label value -> number of cases that hold it."""

    @property
    def ok(self) -> bool:
        """Whether nothing breaks training."""
        return not any(p.breaks for p in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """Give plain values for JSON."""
        rows = [asdict(p) | {"breaks": p.breaks} for p in self.problems]
        return {"ok": self.ok, "cases": len(self.facts), "problems": rows, "labels": self.labels}


def check(
    manifest: Manifest, *, workers: int = 2, progress: Progress = lambda done, total: None
) -> Report:
    """Read every file of every case once and gather all problems; nothing is raised for them."""
    facts: list[CaseFacts] = []
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for done, one in enumerate(pool.map(lambda c: _look(manifest, c), manifest.cases)):
            facts.append(one)
            progress(done + 1, len(manifest))
    problems = [p for one in facts for p in one.problems]
    problems += _channel_counts(manifest, facts)
    problems += _leaks(manifest, facts)
    counts = _label_counts(manifest, facts)
    for group, known in manifest.groups.items():
        for value, name in known.labels.items():
            drawn = any(c.group == group and c.labels for c in manifest.cases)
            if drawn and not counts[group].get(value) and value != known.ignore:
                text = f"label {value} ({name}) occurs in no case"
                problems.append(Problem(group, "never-drawn", text))
    return Report(tuple(facts), tuple(problems), counts)


def _look(manifest: Manifest, case: Case) -> CaseFacts:
    problems: list[Problem] = []

    def add(kind: str, text: str) -> None:
        problems.append(Problem(case.id, kind, text))

    present = [name for name in case.images if manifest.path(name).exists()]
    for name in (*case.images, *case.labels):
        if not manifest.path(name).exists():
            add("missing", f"{name} is missing")
    volumes: list[tuple[str, Volume]] = []
    for name in present:
        try:
            volumes.append((name, placed(case, read_image(manifest.path(name)))))
        except GridMismatch as error:
            add("other-grid", str(error))
        except SamaritanError as error:
            add("unreadable", str(error))
    for name, volume in volumes:
        _look_at_image(name, volume, add)
    for name, volume in volumes[1:]:
        _same_grid(volumes[0][0], volumes[0][1], name, volume, "channels", add)
    labels = _look_at_labels(manifest, case, volumes, add)
    if case.place is not None and not labels:  # scanners end volumes so: nothing leaks by it
        problems = [replace(p, kind=_BLANK.get(p.kind, p.kind)) for p in problems]
    whole = len(present) == len(case.images) and all(p.kind != "blank-slice" for p in problems)
    content = _content(manifest, present) if whole else ""
    first = volumes[0][1] if volumes else None
    return CaseFacts(
        case.id,
        first.shape if first else (),
        first.grid.spacing_mm if first else (),
        str(first.dtype) if first else "",
        sum(v.n_channels for _, v in volumes) if len(volumes) == len(case.images) else 0,
        tuple(sorted(labels)),
        content,
        tuple(problems),
    )


def _look_at_image(name: str, volume: Volume, add: Callable[[str, str], None]) -> None:
    bad = count_non_finite(volume.array)
    if bad:
        add("not-finite", f"{name} holds {bad} values that are NaN or infinite")
    elif volume.dtype.kind == "c":
        add("unreadable", f"{name} holds complex numbers")
    elif volume.array.min() == volume.array.max():
        add("empty-image", f"every voxel of {name} is {volume.array.flat[0]}")


def _look_at_labels(
    manifest: Manifest,
    case: Case,
    volumes: list[tuple[str, Volume]],
    add: Callable[[str, str], None],
) -> set[int]:
    if not case.labels:
        add("no-labels", "no label file")
    group = manifest.group_of(case)
    known = set(group.labels) | ({group.ignore} if group.ignore is not None else set())
    seen: set[int] = set()
    for name in case.labels:
        if not manifest.path(name).exists():
            continue
        drawn = _read_labels(manifest, case, name, add)
        if drawn is None:
            continue
        if volumes:
            _same_grid(volumes[0][0], volumes[0][1], name, drawn, "labels and image", add)
        values = drawn.labels()
        if not values:
            add("empty-label", f"{name} holds background only")
        if case.label_kind == "masks" and len(values) > 1:
            add(
                "label-type",
                f"{name} should be the mask of one object, but holds values {values[:8]}",
            )
        odd = [v for v in values if v not in known]
        if case.label_kind == "map" and known and odd:
            add("unknown-label", f"{name} holds {odd[:8]}; known are {sorted(known)}")
        if case.label_kind == "map" and not known and len(values) > 64:
            text = f"{name} holds {len(values)} values: if they number objects, say so"
            add("unknown-label", f'{text} (label_kind "instances")')
        seen.update(values if case.label_kind == "map" else [1] * bool(values))
    return seen


def _read_labels(
    manifest: Manifest, case: Case, name: str, add: Callable[[str, str], None]
) -> LabelMap | None:
    try:
        return placed(case, read_label_file(manifest.path(name)))
    except GridMismatch as error:
        add("other-grid", str(error))
    except SamaritanError as error:
        whole = "whole number" in str(error) or "negative" in str(error) or "channels" in str(error)
        add("label-type" if whole else "unreadable", str(error))
    return None


def _same_grid(
    first: str, one: Volume, second: str, other: Volume, what: str, add: Callable[[str, str], None]
) -> None:
    try:
        one.grid.require_same(other.grid, what=f"grids of {what}, {first} and {second},")
    except GridMismatch as error:
        add("other-grid", str(error))


def _content(manifest: Manifest, names: list[str]) -> str:
    paths = [manifest.path(name) for name in names]
    files = [p for path in paths for p in (sorted(path.iterdir()) if path.is_dir() else [path])]
    return "+".join(sha256_of(p) for p in files if p.is_file())


def _channel_counts(manifest: Manifest, facts: list[CaseFacts]) -> Iterator[Problem]:
    """Compare each case with what its data set promises, or with most of its cases."""
    for group, known in manifest.groups.items():
        counts = [
            (f.case, f.channels)
            for c, f in zip(manifest.cases, facts, strict=True)
            if c.group == group and f.channels
        ]
        if not counts:
            continue
        usual = len(known.channels) or int(np.bincount([n for _, n in counts]).argmax())
        # pictures may be grey or coloured; volumes may not
        for case, count in counts:
            picture = usual in (1, 2, 3, 4) and not known.channels and count in (1, 2, 3, 4)
            if count != usual and not picture:
                text = f"{count} channels, expected {usual} {known.channels or ''}".rstrip()
                yield Problem(case, "channels", text)


def _leaks(manifest: Manifest, facts: list[CaseFacts]) -> Iterator[Problem]:
    for (group, patient), parts in manifest.leaks().items():
        text = f"patient {patient!r} of {group!r} is in {' and '.join(parts)}"
        yield Problem(patient, "leak", text)
    same: dict[str, list[Case]] = {}
    for case, one in zip(manifest.cases, facts, strict=True):
        if one.content:
            same.setdefault(one.content, []).append(case)
    for cases in same.values():
        for first, second in combinations(cases[:10], 2):
            parts = sorted({c.split for c in (first, second) if c.split})
            text = f"{first.id} and {second.id} have the same image"
            if len(parts) > 1:
                yield Problem(second.id, "leak", f"{text}, in {' and '.join(parts)}")
            else:
                yield Problem(second.id, "duplicate", text)


def _label_counts(manifest: Manifest, facts: list[CaseFacts]) -> dict[str, dict[int, int]]:
    counts: dict[str, dict[int, int]] = {group: {} for group in manifest.groups}
    for case, one in zip(manifest.cases, facts, strict=True):
        for value in one.labels:
            counts[case.group][value] = counts[case.group].get(value, 0) + 1
    return {group: dict(sorted(found.items())) for group, found in counts.items()}
