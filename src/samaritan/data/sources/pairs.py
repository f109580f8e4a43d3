"""Folders of pairs: images/NAME.png beside masks/NAME.png, or masks/NAME/ with a file for each object."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from samaritan.data.manifest import Case, Group, LabelKind, Manifest
from samaritan.data.sources.names import images_in, patients_of, relative, stem_of
from samaritan.errors import FileError, SamaritanError

if TYPE_CHECKING:
    from samaritan.data.sources import SourceOptions

IMAGES = ("images", "image", "imgs", "img")
"""Names of the folder of images."""

LABELS = ("masks", "labels", "mask", "label", "gt", "annotations", "segmentations")
"""Names of the folder of labels."""

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folders that name a part, and the part."""


def recognise(path: Path) -> bool:
    """Whether there is a folder of images beside one of labels, here or in train/, val/, test/."""
    return bool(_parts(path))


def manifest(path: Path, options: SourceOptions) -> Manifest:
    """Pair images and labels by name.

    A label file that no image has is an error; an image without labels is a case without labels.
    16-bit pictures are taken as maps of objects, pictures of 0 and 255 as masks (above zero).

    Raises:
        FileError: naming labels without an image, and names that occur twice.
    """
    found: list[Case] = []
    problems: list[str] = []
    for part, (images, labels) in _parts(path).items():
        found += _pairs(path, images, labels, SPLITS.get(part), problems)
    if problems:
        shown = "\n  ".join(problems[:20])
        raise FileError(f"{path}: images and labels do not pair:\n  {shown}")
    kind = options.label_kind or _kind(path, found)
    whose, note = patients_of([Path(c.id).name for c in found], options.patient)
    cases = [
        Case(
            c.id,
            c.images,
            c.labels,
            c.label_kind if c.label_kind == "masks" else kind,
            options.modality,
            whose[Path(c.id).name],
            path.name,
            c.split,
            c.objects,
        )
        for c in found
    ]
    return Manifest(path, tuple(cases), {path.name: Group(note=note)})


def _parts(path: Path) -> dict[str, tuple[Path, Path]]:
    """Find (images, labels) of the folder itself, or of its parts."""
    if not path.is_dir():
        return {}
    here = _two(path, "")
    if here:
        inner = {p.name: p for p in here[0].iterdir() if p.is_dir() and p.name.lower() in SPLITS}
        both = {name: (p, here[1] / name) for name, p in sorted(inner.items())}
        return both or {"": here}
    parts = [p for p in sorted(path.iterdir()) if p.is_dir() and p.name.lower() in SPLITS]
    return {p.name.lower(): two for p in parts if (two := _two(p, ""))}


def _two(folder: Path, part: str) -> tuple[Path, Path] | None:
    images = [folder / n / part for n in IMAGES if (folder / n / part).is_dir()]
    labels = [folder / n / part for n in LABELS if (folder / n / part).is_dir()]
    return (images[0], labels[0]) if images and labels else None


def _pairs(
    root: Path, images: Path, labels: Path, split: str | None, problems: list[str]
) -> list[Case]:
    drawn: dict[str, list[Path]] = {}
    for file in images_in(labels):
        stem = stem_of(file.name)
        for ending in ("_mask", "_label", "_seg", "_segmentation"):
            stem = stem.removesuffix(ending)
        if stem in drawn:
            problems.append(f"two label files for {stem!r}: {drawn[stem][0].name}, {file.name}")
        drawn[stem] = [file]
    several = {p.name for p in labels.iterdir() if p.is_dir()}
    cases = {}
    for file in images_in(images):
        stem = stem_of(file.name)
        name = f"{split}/{stem}" if split else stem
        if name in cases:
            problems.append(f"two images are called {name!r}: {file.name} is the second")
            continue
        masks = images_in(labels / stem) if stem in several else []
        files = masks or drawn.pop(stem, [])
        cases[name] = Case(
            name,
            (relative(file, root),),
            tuple(relative(f, root) for f in files),
            "masks" if masks else "map",
            split=split,
            objects=tuple(stem_of(f.name) for f in masks),
        )
    problems += [f"{relative(files[0], root)} has no image" for files in drawn.values()]
    return list(cases.values())


def _kind(root: Path, cases: list[Case]) -> LabelKind:
    """Look at the first label file only; `prepare check` looks at all."""
    from samaritan.io import read_labels

    first = next((c for c in cases if c.labels and c.label_kind == "map"), None)
    if first is None:
        return "map"
    try:
        drawn = read_labels(root / first.labels[0])
    except SamaritanError:
        return "map"
    if drawn.grid.unit == "px" and drawn.dtype == np.uint16:
        return "instances"
    return "masks" if drawn.labels() == [255] else "map"
