"""Folders named by the part they hold: imagesTr beside labelsTr, imagesVal, imagesTs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from samaritan.data.manifest import Case, Group, Manifest
from samaritan.data.sources.names import patients_of
from samaritan.data.windows import modality_of

SETS = {"Tr": "train", "Val": "val", "Va": "val", "Ts": "test"}
"""What stands after "images" and "labels", and the part that it means."""


@dataclass(frozen=True)
class Set:
    """One folder of images and the folder of its labels."""

    name: str
    """A key of `SETS`."""
    images: Path
    labels: Path
    """May be missing: then no labels are known."""
    extra: str = ""
    """What stands after the name of the folder of images, such as "T1" of imagesTr_T1."""


def sets_of(folder: Path) -> list[Set]:
    """Find the sets that lie directly in a folder; none in one with a dataset.json, which is nnU-Net's."""
    if not folder.is_dir() or (folder / "dataset.json").is_file():
        return []
    found = []
    for path in folders_in(folder):
        match = re.fullmatch(rf"images({'|'.join(SETS)})(?:_(.+))?", path.name)
        if match:
            labels = folder / f"labels{match[1]}"
            found.append(Set(match[1], path, labels, match[2] or ""))
    return found


def folders_in(folder: Path) -> list[Path]:
    """List the folders in a folder, without hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def modality_in(name: str) -> str | None:
    """Tell the modality from the first word of a folder's name.

    >>> modality_in("ct_btcv"), modality_in("btcv")
    ('CT', None)
    """
    return modality_of([name.split("_")[0]])


def gathered(root: Path, cases: Iterable[Case], pattern: str | None) -> Manifest:
    """Make the manifest of cases whose ids are DATASET/NAME, and whose parts are keys of `SETS`.

    What is in Tr is decided to be the part "train" only where there is a Val. Of one data set the ids are
    the names alone. A name that is in several sets is one patient's, and told as a leak by `check`.
    """
    every = list(cases)
    decided = {case.group for case in every if SETS[str(case.split)] == "val"}
    groups: dict[str, Group] = {}
    whose: dict[tuple[str, str], str] = {}
    for group in sorted({case.group for case in every}):
        stems = {case.patient for case in every if case.group == group}
        told, note = patients_of(sorted(stems), pattern)
        whose |= {(group, stem): patient for stem, patient in told.items()}
        groups[group] = Group(note=note)
    made = []
    for case in every:
        part = SETS[str(case.split)]
        made.append(
            replace(
                case,
                id=case.id if len(groups) > 1 else case.id.removeprefix(f"{case.group}/"),
                patient=whose[case.group, case.patient],
                split=None if part == "train" and case.group not in decided else part,
            )
        )
    ids = Counter(case.id for case in made)
    named = [
        c if ids[c.id] == 1 else _of_set(c, str(e.split)) for c, e in zip(made, every, strict=True)
    ]
    return Manifest(root, tuple(named), groups)


def _of_set(case: Case, name: str) -> Case:
    """Put the set's name into the id of a case whose name is in several sets."""
    *before, last = case.id.split("/")
    return replace(case, id="/".join([*before, name, last]))
