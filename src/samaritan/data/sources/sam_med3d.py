"""SAM-Med3D's folders: TARGET/DATASET/imagesTr beside labelsTr, binary labels; M-SAM's have no TARGET."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from samaritan.data.manifest import Case, Manifest, told
from samaritan.data.sources.names import images_in, relative, stem_of
from samaritan.data.sources.pairs import SPLITS
from samaritan.data.sources.sets import SETS, Set, folders_in, gathered, modality_in, sets_of
from samaritan.errors import FileError

if TYPE_CHECKING:
    from samaritan.data.sources import SourceOptions


class _Found(NamedTuple):
    """One image in the folder of one target."""

    target: str
    dataset: str
    part: str
    image: Path
    label: Path | None


def recognise(path: Path) -> bool:
    """Whether labels lie directly in labelsTr (or Val, Ts) of this folder, or one or two below it."""
    return any(_holds_files(one) for _, _, one in _sets(path))


def manifest(path: Path, options: SourceOptions) -> Manifest:
    """Put the targets of one image together: a case with a mask for each.

    Published preparation copies the image into the folder of every target. Copies (of one name and
    size) become one case; other images of the same name stay cases of their own, of the same patient.
    Without a folder of the target, the object is called as the data set.

    Raises:
        FileError: naming labels without an image.
    """
    problems: list[str] = []
    same: dict[tuple[str, str, str, int], list[_Found]] = {}
    for target, dataset, one in _sets(path):
        for found in _pairs(path, target, dataset, one, problems):
            name = stem_of(found.image.name)
            key = (dataset, found.part, name, found.image.stat().st_size)
            same.setdefault(key, []).append(found)
    if problems:
        raise FileError(told(f"{path}: images and labels do not pair", problems))
    seen: set[tuple[str, str, str]] = set()
    cases = []
    for (dataset, part, name, _), copies in same.items():
        lone = (dataset, part, name) not in seen
        seen.add((dataset, part, name))
        drawn = [c for c in copies if c.label is not None]
        cases.append(
            Case(
                f"{dataset}/{name}" if lone else f"{dataset}/{copies[0].target}/{name}",
                (relative(copies[0].image, path),),
                tuple(relative(c.label, path) for c in drawn if c.label is not None),
                "masks",
                options.modality or modality_in(dataset),
                name,
                dataset,
                part,
                tuple(c.target for c in drawn),
            )
        )
    return gathered(path, sorted(cases, key=lambda c: c.id), options.patient)


def _sets(root: Path) -> Iterator[tuple[str, str, Set]]:
    """Yield (target, data set, set) of this folder, of those in it, and of those one deeper.

    M-SAM has all that in folders train/ and test/: what is in their imagesTr is in these parts.
    """
    name = root.resolve().name
    yield from ((name, name, one) for one in sets_of(root) if not one.extra)
    for child in folders_in(root):
        part = SPLITS.get(child.name.lower())
        if part is not None:
            moved = next(key for key, value in SETS.items() if value == part)
            for target, dataset, one in _sets(child):
                yield target, dataset, replace(one, name=moved) if one.name == "Tr" else one
            continue
        here = [one for one in sets_of(child) if not one.extra]
        yield from ((child.name, child.name, one) for one in here)
        if here or (child / "dataset.json").is_file():
            continue
        for inner in folders_in(child):
            yield from ((child.name, inner.name, one) for one in sets_of(inner) if not one.extra)


def _holds_files(one: Set) -> bool:
    return bool(images_in(one.labels))


def _pairs(
    root: Path, target: str, dataset: str, one: Set, problems: list[str]
) -> Iterator[_Found]:
    drawn = {stem_of(file.name): file for file in images_in(one.labels)}
    for image in images_in(one.images):
        yield _Found(target, dataset, one.name, image, drawn.pop(stem_of(image.name), None))
    problems += [f"{relative(file, root)} has no image" for file in drawn.values()]
