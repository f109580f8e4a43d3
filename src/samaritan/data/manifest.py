"""The list of cases that everything else starts from: which files, whose, and in which part."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from samaritan.data.windows import Window
from samaritan.errors import ConfigError
from samaritan.io.files import sha256_of

LabelKind = Literal["map", "instances", "masks"]
"""A label map; a map of object numbers; or one file for each object, above zero where it is."""


@dataclass(frozen=True)
class Place:
    """Where a 2D picture was cut from a volume, so that a prediction can be put back."""

    volume: str
    """Id of the case that it was cut from."""
    axis: int
    """Array axis that the slice lies across."""
    index: int
    """Index of the slice along that axis."""
    shape: tuple[int, int, int]
    """Shape of the volume."""
    affine: tuple[tuple[float, float, float, float], ...]
    """Affine of the volume: array index to millimetres, RAS+."""


@dataclass(frozen=True)
class Case:
    """One image with its labels. Paths are relative to the manifest's root, with forward slashes."""

    id: str
    """Unique in the manifest."""
    images: tuple[str, ...]
    """A file for each channel, or one file with all of them."""
    labels: tuple[str, ...] = ()
    """One label map, or a file for each object; empty: no labels are known."""
    label_kind: LabelKind = "map"
    """What `labels` hold."""
    modality: str | None = None
    """CT, MR, US, XR, ...; see `samaritan.data.windows.MODALITIES`."""
    patient: str = ""
    """Whose it is; by default the case's own id. Parts are split by patient."""
    group: str = ""
    """Which data set it is of: a key of the manifest's `groups`."""
    split: str | None = None
    """Which part it is in: "train", "val", "test"; None: not decided."""
    objects: tuple[str, ...] = ()
    """What each file of `labels` shows, if it is one for each object."""
    place: Place | None = None
    """Where it was cut from, if it is a slice."""

    def __post_init__(self) -> None:
        if not self.patient:
            object.__setattr__(self, "patient", self.id)


@dataclass(frozen=True)
class Group:
    """What the cases of one data set share."""

    labels: Mapping[int, str] = field(default_factory=dict)
    """Label value -> name, without the background; empty: not known."""
    channels: tuple[str, ...] = ()
    """A name for each channel."""
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Overlapping structures: name -> the label values that make it up."""
    ignore: int | None = None
    """Label value of voxels that nobody decided."""
    window: tuple[float, float] | None = None
    """Stored intensities that become 0 and 255; None: not known ahead."""
    note: str = ""
    """What a person should know, such as how patients were told apart."""
    volume_window: Window | None = None
    """Of slices: what became 0 and 255 of their volumes, for models to see others alike; None: not known."""


@dataclass(frozen=True)
class Manifest:
    """Cases and what is known of them.

    Attributes:
        root: the folder that the paths of the cases are relative to.
        cases: in a stable order.
        groups: data set -> what its cases share.

    Raises:
        ConfigError: telling every case that cannot be: ids that occur twice, no image, unknown groups.
    """

    root: Path
    cases: tuple[Case, ...]
    groups: Mapping[str, Group] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "cases", tuple(self.cases))
        groups = dict(self.groups) or {name: Group() for name in {c.group for c in self.cases}}
        object.__setattr__(self, "groups", MappingProxyType(groups))
        problems = list(_problems(self.cases, groups))
        if problems:
            raise ConfigError(told("the manifest cannot be used", problems))

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __repr__(self) -> str:
        return f"Manifest({len(self)} cases, {len(self.patients())} patients, {self.root})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "groups": dict(self.groups)}  # a read-only view cannot be pickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, groups=MappingProxyType(state["groups"]))

    # -- what is in it -----------------------------------------------------------------------------

    @property
    def names(self) -> Mapping[int, str]:
        """Label value -> name, if all cases are of one data set or of sets with the same labels.

        Raises:
            ConfigError: if their labels differ.
        """
        known = {tuple(sorted(g.labels.items())): g for g in self.groups.values()}
        if len(known) > 1:
            raise ConfigError(
                f"the data sets {', '.join(self.groups)} have different labels; "
                "choose one with manifest.select(group=...)"
            )
        return next(iter(known.values())).labels if known else {}

    def group_of(self, case: Case) -> Group:
        """Give what a case's data set shares."""
        return self.groups[case.group]

    def path(self, name: str) -> Path:
        """Find a file of a case."""
        return self.root / name

    def patients(self) -> dict[tuple[str, str], list[Case]]:
        """List the cases of each (data set, patient)."""
        found: dict[tuple[str, str], list[Case]] = {}
        for case in self.cases:
            found.setdefault((case.group, case.patient), []).append(case)
        return found

    def splits(self) -> dict[str | None, int]:
        """Count the cases of each part."""
        found: dict[str | None, int] = {}
        for case in self.cases:
            found[case.split] = found.get(case.split, 0) + 1
        return found

    def leaks(self) -> dict[tuple[str, str], list[str]]:
        """List the patients that are in several parts, with these."""
        parts = {
            who: sorted({c.split for c in cases if c.split})
            for who, cases in self.patients().items()
        }
        return {who: found for who, found in parts.items() if len(found) > 1}

    # -- others from it ----------------------------------------------------------------------------

    def select(
        self,
        *,
        split: str | None = None,
        group: str | None = None,
        modality: str | None = None,
        ids: Iterable[str] | None = None,
        where: Callable[[Case], bool] | None = None,
    ) -> Manifest:
        """Keep the cases that meet everything that is asked.

        Raises:
            ConfigError: if an id or data set is not known.
        """
        wanted = None if ids is None else set(ids)
        unknown = (wanted or set()) - {c.id for c in self.cases}
        if unknown or (group is not None and group not in self.groups):
            told_unknown = sorted(unknown)[:5] if unknown else group
            raise ConfigError(f"{told_unknown} is not in {self!r} of {', '.join(self.groups)}")
        kept = tuple(
            c
            for c in self.cases
            if (split is None or c.split == split)
            and (group is None or c.group == group)
            and (modality is None or c.modality == modality)
            and (wanted is None or c.id in wanted)
            and (where is None or where(c))
        )
        groups = {name: g for name, g in self.groups.items() if name in {c.group for c in kept}}
        return replace(self, cases=kept, groups=groups)

    def split(
        self, fractions: Mapping[str, float], *, seed: int = 0, again: bool = False
    ) -> Manifest:
        """Put patients, never parts of them, into parts; each data set by itself.

        Args:
            fractions: part -> its share of the patients, such as {"train": 0.8, "val": 0.2}.
            seed: another seed is another split.
            again: also split anew the patients whose part is decided already.
        """
        from samaritan.data.splitting import split_by_patient

        return split_by_patient(self, fractions, seed=seed, again=again)

    def folds(self, k: int, *, seed: int = 0) -> list[Manifest]:
        """Make k manifests; in each another k-th of the patients is "val" and the rest "train"."""
        from samaritan.data.splitting import folds_by_patient

        return folds_by_patient(self, k, seed=seed)

    def fingerprint(self, *, hashes: bool = False) -> str:
        """Sum up paths, sizes, labels and parts in one hexadecimal number, for run folders.

        Args:
            hashes: sum up the files' contents as well, which reads all of them.
        """
        lines: list[Any] = [sorted((n, sorted(g.labels.items())) for n, g in self.groups.items())]
        for case in sorted(self.cases, key=lambda c: c.id):
            files = [_file_facts(self.root / p, hashes) for p in (*case.images, *case.labels)]
            lines.append([case.id, case.images, case.labels, case.patient, case.split, files])
        return hashlib.sha256(json.dumps(lines).encode()).hexdigest()

    # -- files -------------------------------------------------------------------------------------

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write it as `.json` or `.csv`; paths are kept relative to the file."""
        from samaritan.data.manifest_files import write

        return write(self, Path(path))

    @staticmethod
    def read(path: str | os.PathLike[str]) -> Manifest:
        """Read what `write` wrote.

        Raises:
            FileError: if it cannot be read.
            ConfigError: telling every field that is wrong.
        """
        from samaritan.data.manifest_files import read

        return read(Path(path))


def told(what: str, problems: list[str], most: int = 20) -> str:
    """Put problems into one message, cut after `most` of them."""
    lines = problems[:most]
    if len(problems) > most:
        lines.append(f"... and {len(problems) - most} more")
    return f"{what} ({len(problems)} problem{'s' * (len(problems) > 1)}):\n  " + "\n  ".join(lines)


def _problems(cases: tuple[Case, ...], groups: Mapping[str, Group]) -> Iterator[str]:
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            yield f"case {case.id!r} occurs twice: ids must be unique"
        seen.add(case.id)
        if not case.id:
            yield "a case has an empty id"
        if not case.images:
            yield f"case {case.id!r} has no image"
        if case.group not in groups:
            yield f"case {case.id!r} is of data set {case.group!r}, which is not among {list(groups)}"
        if case.label_kind != "masks" and len(case.labels) > 1:
            yield (
                f"case {case.id!r} has {len(case.labels)} label files; "
                'only label_kind "masks" has more than one'
            )
        if case.objects and len(case.objects) != len(case.labels):
            yield f"case {case.id!r} names {len(case.objects)} objects in {len(case.labels)} files"


def _file_facts(path: Path, hashes: bool) -> list[Any]:
    if not path.exists():
        return [None]
    if path.is_dir():
        return [sorted((p.name, p.stat().st_size) for p in path.iterdir() if p.is_file())]
    return [path.stat().st_size, sha256_of(path) if hashes else None]
