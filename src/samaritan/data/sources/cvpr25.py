"""Volumes of the CVPR 2025 challenge on interactive 3D segmentation: .npz with imgs, gts and spacing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from samaritan.data.manifest import Case, Group, Manifest
from samaritan.data.sources.names import patients_of, relative
from samaritan.data.sources.sets import modality_in
from samaritan.io.npz import label_names
from samaritan.io.npz_arrays import array_names, holds

if TYPE_CHECKING:
    from samaritan.data.sources import SourceOptions

WINDOW = (0.0, 255.0)
"""Images are stored from black to white."""

_DEPTHS = ("*.npz", "*/*.npz", "*/*/*.npz")
_PARTS = ("train", "val", "test")


def recognise(path: Path) -> bool:
    """Whether a file, or the first .npz file at some depth of a folder, is one of the challenge's."""
    if path.is_file():
        return path.suffix == ".npz" and holds(path, "imgs")
    firsts = (next(path.glob(pattern), None) for pattern in _DEPTHS)
    return any(holds(first, "imgs", "gts") for first in firsts if first is not None) and any(
        holds(file, "imgs") for file in _files(path)
    )


def manifest(path: Path, options: SourceOptions) -> Manifest:
    """List every image, with the labels in its own file or in a file of the same name elsewhere.

    Folders called train, val and test are parts. The first word of a name tells the modality (CT_...).

    Raises:
        CorruptFile: naming the file that cannot be read.
    """
    root = path if path.is_dir() else path.parent
    held = {file: set(array_names(file)) for file in (_files(path) if path.is_dir() else [path])}
    images = [file for file, names in held.items() if "imgs" in names]
    apart = {f.name: f for f, names in held.items() if "gts" in names and "imgs" not in names}
    stems = Counter(file.stem for file in images)
    cases = []
    for file in images:
        ident = file.stem if stems[file.stem] == 1 else relative(file, root)[:-4]
        labels = file if "gts" in held[file] else apart.get(file.name)
        modality = options.modality or modality_in(file.stem) or modality_in(file.parent.name)
        part = next((p for p in relative(file, root).split("/")[:-1] if p in _PARTS), None)
        known = () if labels is None else (relative(labels, root),)
        kind = options.label_kind or "map"
        cases.append(
            Case(ident, (relative(file, root),), known, kind, modality, "", root.name, part)
        )
    patients, note = patients_of([case.id for case in cases], options.patient)
    named = tuple(replace(case, patient=patients[case.id]) for case in cases)
    about = f"{note} The files tell no orientation unless they hold an affine."
    names = _names([root / case.labels[0] for case in named if case.labels], held)
    return Manifest(root, named, {root.name: Group(names, window=WINDOW, note=about)})


def _names(files: Iterable[Path], held: Mapping[Path, set[str]]) -> dict[int, str]:
    """Names of labels, where every file tells them and all agree. Text prompts describe one case alone."""
    known: dict[int, str] = {}
    for file in dict.fromkeys(files):
        if "label_names" not in held[file]:
            return {}
        for value, name in label_names(file).items():
            if known.setdefault(value, name) != name:
                return {}
    return known


def _files(folder: Path) -> Iterator[Path]:
    for pattern in _DEPTHS:
        yield from sorted(folder.glob(pattern))
