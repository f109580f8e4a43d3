"""NeuroSAM3D's folders: DATASET/imagesTr beside labelsTr/CLASS, a binary label of the same name in each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from samaritan.data.manifest import Case, Manifest, told
from samaritan.data.sources.names import images_in, relative, stem_of
from samaritan.data.sources.sets import Set, folders_in, gathered, modality_in, sets_of
from samaritan.errors import FileError

if TYPE_CHECKING:
    from samaritan.data.sources import SourceOptions


def recognise(path: Path) -> bool:
    """Whether labels lie in folders in labelsTr (or Val, Ts) of this folder or of those in it."""
    return any(images_in(drawn) for _, one in _sets(path) for drawn in folders_in(one.labels))


def manifest(path: Path, options: SourceOptions) -> Manifest:
    """List images with a mask for each class that is drawn in them.

    Folders such as imagesTr_T1 hold further images; the classes of those end alike: labelsTr/liver_T1.

    Raises:
        FileError: naming labels without an image.
    """
    problems: list[str] = []
    cases = [
        case
        for dataset, one in _sets(path)
        for case in _cases(path, dataset, one, options, problems)
    ]
    if problems:
        raise FileError(told(f"{path}: images and labels do not pair", problems))
    return gathered(path, cases, options.patient)


def _sets(root: Path) -> Iterator[tuple[str, Set]]:
    yield from ((root.resolve().name, one) for one in sets_of(root))
    for child in folders_in(root):
        yield from ((child.name, one) for one in sets_of(child))


def _cases(
    root: Path, dataset: str, one: Set, options: SourceOptions, problems: list[str]
) -> Iterator[Case]:
    classes = _classes(one)
    drawn = {name: {stem_of(f.name): f for f in images_in(d)} for name, d in classes.items()}
    for image in images_in(one.images):
        stem = stem_of(image.name)
        own = {name: files.pop(stem) for name, files in drawn.items() if stem in files}
        name = f"{stem}_{one.extra}" if one.extra else stem
        yield Case(
            f"{dataset}/{name}",
            (relative(image, root),),
            tuple(relative(file, root) for file in own.values()),
            "masks",
            options.modality or modality_in(one.extra) or modality_in(dataset),
            stem,
            dataset,
            one.name,
            tuple(own),
        )
    left = [file for files in drawn.values() for file in files.values()]
    problems += [f"{relative(file, root)} has no image" for file in left]


def _classes(one: Set) -> dict[str, Path]:
    """Name the folders of the classes of a set, without what they share with its images."""
    others = {s.extra for s in sets_of(one.images.parent) if s.name == one.name} - {one.extra}
    found = {}
    for folder in folders_in(one.labels):
        if one.extra:
            if folder.name.endswith(f"_{one.extra}"):
                found[folder.name.removesuffix(f"_{one.extra}")] = folder
        elif not any(other and folder.name.endswith(f"_{other}") for other in others):
            found[folder.name] = folder
    return found
