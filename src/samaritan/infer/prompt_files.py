"""Prompts for many cases from one CSV or JSON file, read so that every mistake in it is told at once."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from samaritan.errors import FileError
from samaritan.infer.session import FORMAT

Kind = Literal["point", "negative", "box", "mask"]

KINDS: tuple[str, ...] = get_args(Kind)
COLUMNS = ("case", "object", "kind", "i", "j", "k", "i1", "j1", "k1", "unit", "file")
"""Columns of a CSV; `x`, `y`, `z` and `x1`, `y1`, `z1` stand for millimetres."""

FIELDS = ("points", "labels", "box", "boxes", "mask", "unit")
"""What an object of a JSON file may hold."""

DEFAULT_OBJECT = "object"
_MOST_BYTES = 256 << 20
_UNITS = {"": False, "index": False, "indices": False, "voxel": False, "px": False, "mm": True}


@dataclass(frozen=True)
class Asked:
    """One prompt as it was written."""

    kind: Kind
    numbers: tuple[float, ...] = ()
    """Two or three of a point; twice as many of a box, start and stop."""
    mm: bool = False
    """Whether they are millimetres (RAS+) rather than array indices."""
    file: Path | None = None
    """Of a mask."""
    where: str = field(default="", compare=False)
    """Where it stands in the file, for messages."""


@dataclass(frozen=True)
class CasePrompts:
    """What is asked of one case: objects by name, or a saved session."""

    objects: Mapping[str, tuple[Asked, ...]] = field(default_factory=dict)
    session: Mapping[str, Any] | None = None
    where: str = field(default="", compare=False)

    def told(self) -> Any:
        """All of it in JSON types, to see whether it changed."""
        objects = {
            name: [
                [a.kind, a.numbers, a.mm, None if a.file is None else str(a.file)] for a in asked
            ]
            for name, asked in self.objects.items()
        }
        return [objects, None if self.session is None else dict(self.session)]


@dataclass(frozen=True)
class PromptFile:
    """What a file asks, and what is wrong with it so far.

    Attributes:
        path: the file.
        cases: by the names that stand in the file.
        alone: a saved session without the name of a case, for a single image.
        problems: everything that could not be understood, each with its place.
    """

    path: Path
    cases: Mapping[str, CasePrompts]
    alone: CasePrompts | None = None
    problems: tuple[str, ...] = ()


def read_prompts(path: str | Path, *, mm: bool = False) -> PromptFile:
    """Read a CSV or JSON file of prompts; mistakes are gathered in `problems`.

    Args:
        path: the file. docs/predict.md shows both kinds.
        mm: coordinates without a unit are millimetres.

    Raises:
        FileError: if the file cannot be read as text, or as JSON.
    """
    file = Path(path).expanduser()
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise FileError(f"{file} is too large to be a list of prompts")
        text = file.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise FileError(
            f"{file} cannot be read as text: {error}. Expected .csv or .json"
        ) from error
    if text.lstrip()[:1] in ("{", "["):
        return _Json(file, mm).read(text)
    return _Csv(file, mm).read(text)


class _Reader:
    """What both kinds of file share: cases and problems as they are found."""

    def __init__(self, file: Path, mm: bool) -> None:
        self.file, self.mm = file, mm
        self.cases: dict[str, dict[str, list[Asked]]] = {}
        self.sessions: dict[str, CasePrompts] = {}
        self.problems: list[str] = []
        self.places: dict[str, str] = {}

    def done(self, alone: CasePrompts | None = None) -> PromptFile:
        found = {
            case: CasePrompts({k: tuple(v) for k, v in objects.items()}, None, self.places[case])
            for case, objects in self.cases.items()
        }
        for case in found.keys() & self.sessions.keys():
            self.problems.append(f"{self.sessions[case].where}: case {case!r} stands there twice")
        if not (found or self.sessions or alone or self.problems):
            self.problems.append("it asks nothing: there is no case in it")
        return PromptFile(self.file, {**found, **self.sessions}, alone, tuple(self.problems))

    def add(self, case: str, name: str, asked: Asked) -> None:
        self.places.setdefault(case, asked.where)
        self.cases.setdefault(case, {}).setdefault(name, []).append(asked)

    def unit(self, text: Any, where: str, given: bool = False) -> bool:
        """Whether coordinates are millimetres; `given` if the names of their columns say so."""
        word = str(text or "").strip().lower()
        if word not in _UNITS or (given and word and not _UNITS[word]):
            meant = "x, y, z are mm" if given else "expected index or mm"
            self.problems.append(f"{where}: unit {text!r} is not known here; {meant}")
            return False
        return _UNITS[word] if word else (self.mm or given)

    def mask(self, text: Any, where: str) -> Asked | None:
        name = text.strip() if isinstance(text, str) else ""
        if not name:
            self.problems.append(f"{where}: a mask needs the name of a file, got {text!r}")
            return None
        path = self.file.parent / Path(name).expanduser()
        if not path.exists():
            self.problems.append(f"{where}: there is no file {path}")
            return None
        return Asked("mask", file=path, where=where)


class _Csv(_Reader):
    """A row for each prompt."""

    def read(self, text: str) -> PromptFile:
        first = text.splitlines()[0] if text else ""
        delimiter = ";" if first.count(";") > first.count(",") else ","
        table = csv.DictReader(text.splitlines(), delimiter=delimiter)
        columns = [str(name).strip().lower() for name in table.fieldnames or ()]
        if not self._columns(columns):
            return self.done()
        table.fieldnames = columns
        try:
            for row in table:
                self._row(row, f"line {table.line_num}")
        except csv.Error as error:
            self.problems.append(f"line {table.line_num}: {error}")
        return self.done()

    def _columns(self, columns: Sequence[str]) -> bool:
        known = {*COLUMNS, "x", "y", "z", "x1", "y1", "z1"}
        odd = [name for name in columns if name not in known]
        if odd or "case" not in columns or "kind" not in columns:
            self.problems.append(
                f"line 1: columns {', '.join(columns) or 'none'}: expected case and kind, and of "
                f"{', '.join(COLUMNS)} what is needed (x, y, z for millimetres)"
                + (f"; not known: {', '.join(odd)}" if odd else "")
            )
        elif {"i", "j", "k"} & set(columns) and {"x", "y", "z"} & set(columns):
            self.problems.append("line 1: give i, j, k (array indices) or x, y, z (mm), not both")
        else:
            return True
        return False

    def _row(self, row: Mapping[Any, Any], where: str) -> None:
        told = {str(k): (v or "").strip() for k, v in row.items() if isinstance(k, str)}
        case, kind = told.get("case", ""), told.get("kind", "").lower()
        if None in row:
            self.problems.append(f"{where}: more values than columns")
        elif not any(told.values()):
            return
        elif not case:
            self.problems.append(f"{where}: the case is missing")
        elif kind not in KINDS:
            self.problems.append(
                f"{where}: kind {told.get('kind')!r} is not known; expected one of {', '.join(KINDS)}"
            )
        else:
            asked = self._asked(kind, told, where)
            if asked is not None:
                self.add(case, told.get("object") or DEFAULT_OBJECT, asked)

    def _asked(self, kind: str, told: Mapping[str, str], where: str) -> Asked | None:
        if kind == "mask":
            return self.mask(told.get("file"), where)
        axes = "xyz" if "x" in told else "ijk"
        mm = self.unit(told.get("unit"), where, given=axes == "xyz")
        wanted = [*axes, *(f"{a}1" for a in axes)] if kind == "box" else list(axes)
        present = [name for name in wanted if told.get(name)]
        numbers = [_number(told[name]) for name in present]
        bad = [f"{n} = {told[n]!r}" for n, v in zip(present, numbers, strict=True) if v is None]
        if bad:
            self.problems.append(f"{where}: {', '.join(bad)} is no finite number")
            return None
        flat = [name for name in wanted if name[0] != axes[2]]
        if present not in (wanted, flat):
            self.problems.append(
                f"{where}: a {kind} needs {', '.join(wanted)} ({axes[2]} may be left out for pictures), "
                f"got {', '.join(present) or 'none'}"
            )
            return None
        return Asked(kind, tuple(v for v in numbers if v is not None), mm, where=where)  # type: ignore[arg-type]


class _Json(_Reader):
    """Objects of cases, or saved sessions."""

    def read(self, text: str) -> PromptFile:
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FileError(f"{self.file} is not JSON: {error}") from error
        if isinstance(content, dict) and content.get("format") == FORMAT:
            return self.done(CasePrompts({}, content, "the session"))
        for case, asked, where in self._entries(content):
            if _is_session(asked):
                if case in self.sessions:
                    self.problems.append(f"{where}: case {case!r} stands there twice")
                self.sessions[case] = CasePrompts({}, asked, where)
            elif not isinstance(asked, dict) or not asked:
                self.problems.append(f"{where}: expected objects by name, or a session")
            else:
                self.places.setdefault(case, where)
                self.cases.setdefault(case, {})
                for name, parts in asked.items():
                    self._object(case, str(name), parts, f"{where} / {name}")
        return self.done()

    def _entries(self, content: Any) -> Iterator[tuple[str, Any, str]]:
        if isinstance(content, dict):
            yield from ((str(case), asked, str(case)) for case, asked in content.items())
            return
        for number, entry in enumerate(content):
            case = entry.get("case") if isinstance(entry, dict) else None
            if not isinstance(case, str) or not case or not _is_session(entry):
                self.problems.append(
                    f'entry {number}: expected a saved session with "case", the name of its image'
                )
                continue
            yield case, {k: v for k, v in entry.items() if k != "case"}, f"entry {number}"

    def _object(self, case: str, name: str, parts: Any, where: str) -> None:
        if not isinstance(parts, dict) or not parts or set(parts) - set(FIELDS):
            got = ", ".join(map(str, parts)) if isinstance(parts, dict) else repr(parts)
            self.problems.append(
                f"{where}: expected an object with {', '.join(FIELDS)}, got {got or 'nothing'}"
            )
            return
        mm = self.unit(parts.get("unit"), where)
        found: list[Asked | None] = []
        if "mask" in parts:
            found.append(self.mask(parts["mask"], f"{where} / mask"))
        boxes = [parts["box"]] if "box" in parts else []
        boxes += parts["boxes"] if isinstance(parts.get("boxes"), list) else []
        found += [self._box(box, mm, f"{where} / box {n}") for n, box in enumerate(boxes)]
        found += self._points(parts, mm, where)
        for asked in found:
            if asked is not None:
                self.add(case, name, asked)

    def _box(self, box: Any, mm: bool, where: str) -> Asked | None:
        ends = [_numbers(end) for end in box] if isinstance(box, list) else []
        if len(ends) != 2 or not ends[0] or not ends[1] or len(ends[0]) != len(ends[1]):
            self.problems.append(
                f"{where}: expected [[i, j, k], [i, j, k]], the first voxel and one past the last, "
                f"got {box!r}"
            )
            return None
        return Asked("box", (*ends[0], *ends[1]), mm, where=where)

    def _points(self, parts: Mapping[str, Any], mm: bool, where: str) -> list[Asked | None]:
        points = parts.get("points", [])
        if not isinstance(points, list):
            self.problems.append(f"{where} / points: expected [[i, j, k], ...], got {points!r}")
            return []
        labels = parts.get("labels", [1] * len(points))
        if not isinstance(labels, list) or len(labels) != len(points):
            self.problems.append(
                f"{where}: {len(points)} points need as many labels of 1 or 0, got {labels!r}"
            )
            return []
        pairs = enumerate(zip(points, labels, strict=True))
        return [self._point(p, label, mm, f"{where} / point {n}") for n, (p, label) in pairs]

    def _point(self, point: Any, label: Any, mm: bool, where: str) -> Asked | None:
        numbers = _numbers(point)
        if not numbers:
            self.problems.append(f"{where}: expected two or three finite numbers, got {point!r}")
        elif isinstance(label, bool | int) and label in (0, 1):
            return Asked("point" if label else "negative", numbers, mm, where=where)
        else:
            self.problems.append(f"{where}: a label is 1 or 0, got {label!r}")
        return None


def _is_session(value: Any) -> bool:
    return isinstance(value, dict) and value.get("format") == FORMAT


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _numbers(values: Any) -> tuple[float, ...]:
    """Two or three finite numbers; nothing if they are not that."""
    if not isinstance(values, list) or len(values) not in (2, 3):
        return ()
    good = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    return tuple(map(float, values)) if good and all(map(math.isfinite, values)) else ()
