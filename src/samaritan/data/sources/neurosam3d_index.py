"""NeuroSAM3D's index files: DATASET_Tr.json, a list of {image, label, class, volume, spacing}."""

from __future__ import annotations

import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from samaritan.data.manifest import Case, Group, Manifest, told
from samaritan.data.sources.names import stem_of
from samaritan.data.sources.sets import SETS, gathered, modality_in
from samaritan.errors import ConfigError, CorruptFile, FileError

if TYPE_CHECKING:
    from samaritan.data.sources import SourceOptions

_MOST_BYTES = 1 << 30
_PARTS = "|".join(SETS)
_KEYS = (b'"image"', b'"label"', b'"class"')


class _Row(NamedTuple):
    """One mask of the list."""

    image: str
    label: str
    name: str
    """Of the class."""


class _Place(NamedTuple):
    """What the path of an image tells."""

    dataset: str
    part: str
    extra: str
    stem: str


def recognise(path: Path) -> bool:
    """Whether a JSON file begins with a list of images, labels and classes."""
    if not path.is_file() or path.suffix.lower() != ".json":
        return False
    with path.open("rb") as file:
        start = file.read(8192).lstrip()
    return start.startswith(b"[") and all(key in start for key in _KEYS)


def manifest(path: Path, options: SourceOptions) -> Manifest:
    """List each image once, with a mask for each of its rows.

    Paths are relative to the file, or, as NeuroSAM3D writes them, to the folder that its program runs in:
    one above. Volumes are not taken from the list: masks are measured where a least volume is asked for.

    Raises:
        CorruptFile: if the file is no such list.
        ConfigError: telling every row that lacks something.
    """
    rows = _rows(path)
    root = _root(path, rows)
    masks: dict[str, dict[str, str]] = {}
    for row in rows:
        masks.setdefault(row.image, {})[row.label] = row.name
    places = {image: _place(image, path) for image in masks}
    alike = Counter(places.values())
    cases = []
    for image, drawn in sorted(masks.items()):
        place = places[image]
        name = place.stem if not place.extra else f"{place.stem}_{place.extra}"
        if alike[place] > 1:
            name = str(PurePosixPath(image).with_name(place.stem)).lstrip("/")
        cases.append(
            Case(
                f"{place.dataset}/{name}",
                (image,),
                tuple(drawn),
                "masks",
                options.modality or modality_in(place.extra) or modality_in(place.dataset),
                place.stem,
                place.dataset,
                place.part,
                tuple(drawn.values()),
            )
        )
    return gathered(root, cases, options.patient)


def of_sets(folder: Path, parts: Mapping[str, Iterable[str]], options: SourceOptions) -> Manifest:
    """Put index files together: each a name such as "AMOS_Tr", and the part that its cases are in.

    Raises:
        FileError: telling every list that is missing.
    """
    names = [(part, name) for part, listed in parts.items() for name in listed]
    missing = [f"{name}.json" for _, name in names if not (folder / f"{name}.json").is_file()]
    if missing or not names:
        raise FileError(told(f"{folder} lacks lists of images", missing or ["none was asked for"]))
    cases: list[Case] = []
    groups: dict[str, Group] = {}
    for part, name in names:
        one = manifest(folder / f"{name}.json", options)
        start = Path(os.path.relpath(one.root, folder)).as_posix()
        groups |= one.groups
        cases += [
            replace(
                case,
                id=f"{name}/{case.id}",
                split=part,
                images=tuple(posixpath.join(start, p) for p in case.images),
                labels=tuple(posixpath.join(start, p) for p in case.labels),
            )
            for case in one
        ]
    return Manifest(folder, tuple(cases), groups)


def _rows(path: Path) -> list[_Row]:
    if path.stat().st_size > _MOST_BYTES:
        raise CorruptFile(f"{path} is too large to be a list of images")
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is not valid JSON: {error}") from error
    rows, problems = [], []
    for number, one in enumerate(content if isinstance(content, list) else [content]):
        values = [one.get(key) if isinstance(one, dict) else None for key in ("image", "label")]
        name = one.get("class") if isinstance(one, dict) else None
        if not all(isinstance(v, str) and v for v in values) or name in (None, ""):
            problems.append(f"row {number} needs an image, a label and a class, got {one!r:.80}")
            continue
        image, label = (PurePosixPath(os.path.normpath(str(v))).as_posix() for v in values)
        rows.append(_Row(image, label, str(name)))
    if problems:
        raise ConfigError(told(f"{path} has wrong rows", problems))
    return rows


def _root(path: Path, rows: list[_Row]) -> Path:
    """Find the folder that paths are relative to: the nearest in which the first files are."""
    above = path.absolute().parents
    for row in rows[:20]:
        found = next((folder for folder in above if (folder / row.image).exists()), None)
        if found is not None:
            return found
    return path.parent


def _place(image: str, path: Path) -> _Place:
    """Tell data set and set by the folders of an image, or else by the name of the list."""
    file = PurePosixPath(image)
    listed = re.fullmatch(rf"(.+)_({_PARTS})", path.stem)
    dataset, part = (listed[1], listed[2]) if listed else (path.stem, "Tr")
    folder = re.fullmatch(rf"images({_PARTS})(?:_(.+))?", file.parent.name)
    if folder is None:
        return _Place(dataset, part, "", stem_of(file.name))
    above = file.parent.parent.name or dataset
    return _Place(above, folder[1], folder[2] or "", stem_of(file.name))
