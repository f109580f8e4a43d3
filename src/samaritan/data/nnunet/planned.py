"""The folder of a planned data set: what was measured, decided and split, and its preprocessed cases.

It is laid out as nnU-Net lays out `nnUNet_preprocessed/Dataset###_Name`, and either's files are honoured:
plans, fingerprint and folds that lie there are kept, never made anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samaritan.data.manifest import Case
from samaritan.data.nnunet import fingerprint as prints
from samaritan.data.nnunet import splits
from samaritan.data.nnunet.cases import (
    StoredCase,
    forget_stopped,
    open_case,
    save_case,
    stored_ids,
    stored_key,
)
from samaritan.data.nnunet.labels import LabelSet
from samaritan.data.nnunet.planning import Budget, make_plans
from samaritan.data.nnunet.plans import PLANS_NAME, Configuration, Plans
from samaritan.data.nnunet.preprocessing import preprocess
from samaritan.data.nnunet.rawset import RawSet
from samaritan.data.nnunet.together import each
from samaritan.errors import ConfigError, CorruptFile, FileError
from samaritan.io.files import replacing

Progress = Callable[[str, int, int], None]

SOURCE = "source.json"
"""Where the raw folder lies, so that cases can be made when they are first asked for."""

_VERSION = 1


def _silent(what: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class PlannedSet:
    """A folder that `make` made, or nnU-Net.

    Attributes:
        folder: of the data set.
        content: of its dataset.json.
        plans: that are followed.
        raw: the images, if it is known where they lie.
    """

    folder: Path
    content: Mapping[str, Any]
    plans: Plans
    raw: RawSet | None = None

    @classmethod
    def open(cls, folder: Path, *, plans: str = PLANS_NAME) -> PlannedSet:
        """Open a planned folder.

        Args:
            folder: with dataset.json and the plans.
            plans: name of the plans.

        Raises:
            FileError: if something is missing or damaged.
        """
        file = folder / f"{plans}.json"
        if not file.is_file() or not (folder / "dataset.json").is_file():
            others = (
                ", ".join(p.stem for p in sorted(folder.glob("*lans*.json"))) or "no plans at all"
            )
            raise FileError(
                f"{folder} needs dataset.json and {plans}.json (it has {others}): "
                "make them with samaritan prepare plan"
            )
        content = _json(folder / "dataset.json")
        source = folder / SOURCE
        raw = None
        if source.is_file():
            where = Path(str(_json(source).get("raw", "")))
            patient = _json(source).get("patient")
            raw = RawSet.open(where, patient=patient) if where.is_dir() else None
        return cls(folder, content, Plans.read(file), raw)

    @property
    def labels(self) -> LabelSet:
        """What label values mean."""
        return LabelSet.from_json(self.content, str(self.folder / "dataset.json"))

    @property
    def folds(self) -> tuple[splits.Fold, ...]:
        """Read the folds; where nnU-Net has not made them yet, make those that it would."""
        file = self.folder / splits.FILE_NAME
        if file.is_file():
            return splits.read_folds(file)
        ids = (self.ids(self.plans.configuration(name)) for name in self.plans.names)
        return splits.make_folds(next((some for some in ids if some), ()))

    def cases_folder(self, configuration: Configuration) -> Path:
        """Name the folder of a configuration's preprocessed cases."""
        return self.folder / configuration.data_identifier

    def ids(self, configuration: Configuration) -> tuple[str, ...]:
        """List the cases: all that can be made, or else those that are there."""
        if self.raw is not None:
            return tuple(case.id for case in self.raw.cases)
        return stored_ids(self.cases_folder(configuration))

    def case(self, configuration: Configuration, case: str) -> StoredCase:
        """Open a preprocessed case, making it first if it is not there.

        Raises:
            FileError: if it is not there, and nor are its images.
        """
        folder = self.cases_folder(configuration)
        if self.raw is not None:
            self.make_case(configuration, case)
        return open_case(folder, case)

    def make_case(self, configuration: Configuration, case: str) -> bool:
        """Preprocess a case unless this was done; tell whether it had to be.

        Cases that nnU-Net left are taken as they are.
        """
        folder = self.cases_folder(configuration)
        if any((folder / f"{case}{s}").is_file() for s in (".b2nd", ".npz", ".pkl")):
            return False
        if self.raw is None:
            raise FileError(
                f"{folder} has no case {case!r}, and where its images lie is not known: "
                "run samaritan prepare plan with the raw folder"
            )
        found = self.raw.cases.select(ids=[case]).cases[0]
        key = _key(self, configuration, found)
        if stored_key(folder, case) == key:
            return False
        made = preprocess(self.raw.read(found), self.plans, configuration, self.labels)
        save_case(folder, case, made, key=key)
        return True

    def make_all(
        self, configuration: Configuration, *, workers: int = 2, progress: Progress = _silent
    ) -> int:
        """Preprocess every case that is not there yet; give how many that were.

        Raises:
            FileError: naming every case that cannot be; the others are done, and a second run goes on. A full
                disk stops it.
        """
        if self.raw is None:
            raise FileError(f"{self.folder} does not know where its images lie")
        forget_stopped(self.cases_folder(configuration))
        made = each(
            self.raw.cases.cases,
            lambda case: self.make_case(configuration, case.id),
            what="cases that could not be prepared; the others are done",
            workers=workers,
            progress=lambda done, total: progress(
                f"preprocessing {configuration.name}", done, total
            ),
        )
        return sum(made)


def make(
    raw: RawSet,
    folder: Path,
    *,
    plans: Path | None = None,
    spacing: Sequence[float] | None = None,
    memory_gb: float = 8.0,
    by_patient: bool = False,
    patient: str | None = None,
    workers: int = 2,
    progress: Progress = _silent,
) -> PlannedSet:
    """Measure, plan and split a data set, keeping what lies in the folder already.

    Args:
        raw: the raw folder.
        folder: for what is found out.
        plans: a plans file to follow instead of making one.
        spacing: of axes k, j and i, to plan for.
        memory_gb: of the accelerator that is planned for.
        by_patient: keep the scans of a patient in one part of each fold.
        patient: what told patients apart, if it was said.
        workers: cases at a time.
        progress: called with (what, done, total).

    Raises:
        ConfigError: if the folder is of another data set, or plans were asked for and others are there.
        FileError: naming the cases that cannot be used.
    """
    _same_set(raw, folder / "dataset.json")
    _write_json(folder / SOURCE, {"raw": str(raw.cases.root.resolve()), "patient": patient})
    file = (
        folder / f"{PLANS_NAME}.json"
        if plans is None
        else folder / f"{Plans.read(plans).name}.json"
    )
    if plans is not None:
        _follow(Plans.read(plans), file)
    elif not file.is_file() or spacing is not None or memory_gb != Budget().memory_gb:
        measured = _fingerprint(raw, folder / prints.FILE_NAME, workers, progress)
        budget = Budget(memory_gb=memory_gb)
        _follow(make_plans(raw, measured, budget=budget, spacing=spacing), file)
    if not (folder / splits.FILE_NAME).is_file():
        splits.write_folds(_folds(raw, by_patient), folder / splits.FILE_NAME)
    elif by_patient and shared_patients(raw, splits.read_folds(folder / splits.FILE_NAME)):
        raise ConfigError(
            f"{folder / splits.FILE_NAME} has folds with a patient in both parts: choose another folder, "
            "or remove that file to split by patient"
        )
    made = PlannedSet(folder, raw.content, Plans.read(file), raw)
    _ = made.folds  # so that what is wrong with them is told now
    return made


def _fingerprint(raw: RawSet, file: Path, workers: int, progress: Progress) -> prints.Fingerprint:
    if file.is_file():
        found = prints.Fingerprint.read(file)
        if len(found.spacings) == len(raw.cases):
            return found
    found = prints.take_fingerprint(
        raw, workers=workers, progress=lambda done, total: progress("measuring", done, total)
    )
    found.write(file)
    return found


def _folds(raw: RawSet, by_patient: bool) -> tuple[splits.Fold, ...]:
    """Take the folds that lie beside the images, or make nnU-Net's; fewer where there are few cases."""
    beside = raw.cases.root / splits.FILE_NAME
    if beside.is_file():
        return splits.read_folds(beside)
    ids = [case.id for case in raw.cases]
    patients = {case.id: case.patient for case in raw.cases} if by_patient else None
    units = len(set(patients.values())) if patients else len(ids)
    return splits.make_folds(ids, patients=patients, count=max(min(splits.FOLDS, units), 2))


def shared_patients(raw: RawSet, folds: Sequence[splits.Fold]) -> int:
    """Count the patients with scans in both parts of a fold, in the fold where these are most."""
    whose = {case.id: case.patient for case in raw.cases}
    parts = [[{whose.get(c, c) for c in part} for part in (f.train, f.val)] for f in folds]
    return max((len(train & val) for train, val in parts), default=0)


def _same_set(raw: RawSet, file: Path) -> None:
    if file.is_file():
        there = _json(file)
        changed = [k for k in ("labels", "channel_names") if there.get(k) != raw.content.get(k)]
        if changed:
            raise ConfigError(
                f"{file} has other {' and '.join(changed)} than {raw.cases.root}: is the folder of another "
                "data set? Choose another one, or remove it to plan anew"
            )
        return
    _write_json(file, raw.content)


def _follow(given: Plans, file: Path) -> None:
    if file.is_file() and Plans.read(file).content != given.content:
        raise ConfigError(
            f"{file} differs from the plans that were asked for: choose another folder, or remove it"
        )
    for name in given.names:
        given.configuration(name)  # so that what is wrong is told now
    if not file.is_file():
        given.write(file)


def _key(planned: PlannedSet, configuration: Configuration, case: Case) -> str:
    """Sum up what a preprocessed case depends on: its files, the plans and the labels."""
    assert planned.raw is not None
    own = configuration
    facts: list[Any] = [
        _VERSION, own.spacing, own.normalization, own.use_mask, planned.plans.transpose_forward,
        [dict(i) for i in planned.plans.intensities], sorted(map(str, own.resampling.items())),
        planned.content["labels"],
    ]  # fmt: skip
    for name in (*case.images, *case.labels):
        path = planned.raw.cases.path(name)
        if not path.exists():
            raise FileError(f"{path} is missing")
        stat = path.stat()
        facts.append([name, stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CorruptFile(f"{path} must hold an object")
    return content


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with replacing(path) as (new,):
        new.write_text(json.dumps(content, indent=4), "utf-8")
