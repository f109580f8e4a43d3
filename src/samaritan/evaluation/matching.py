"""Which prediction belongs to which reference: files of the same name, whatever their format."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from samaritan.errors import ConfigError, FileError
from samaritan.io import WRITABLE
from samaritan.metrics import Row

_SUFFIXES = tuple(sorted(WRITABLE, key=len, reverse=True))
_IMAGE_SUFFIXES = (*_SUFFIXES, ".jpg", ".jpeg")
_SHOWN = 5


@dataclass(frozen=True)
class Pair:
    """A case: its reference, and its prediction if there is one.

    Attributes:
        case: the file name without suffix.
        reference: file of the reference.
        prediction: file of the prediction; None counts as an empty mask.
        image: the image, for pictures.
    """

    case: str
    reference: Path
    prediction: Path | None
    image: Path | None = None


@dataclass(frozen=True)
class Matched:
    """What was found in two folders.

    Attributes:
        pairs: one for each reference, by name.
        extra: predictions without a reference: they are not measured.
    """

    pairs: tuple[Pair, ...]
    extra: tuple[Path, ...] = ()

    @property
    def missing(self) -> tuple[str, ...]:
        """Cases without a prediction."""
        return tuple(pair.case for pair in self.pairs if pair.prediction is None)

    def pairs_of(self, rows: Iterable[Row]) -> tuple[Pair, ...]:
        """Pairs of the cases that were measured."""
        cases = {row.case for row in rows}
        return tuple(pair for pair in self.pairs if pair.case in cases)


@dataclass(frozen=True)
class Group:
    """What is known of a case beside its masks.

    Attributes:
        group: the set that it belongs to.
        patient: whom it shows; cases of one patient are not independent.
    """

    group: str = ""
    patient: str = ""


def match(predictions: Path, references: Path, images: Path | None = None) -> Matched:
    """Match files by name, suffixes aside: `case_1.nii.gz` and `case_1.seg.nrrd` are one case.

    Args:
        predictions: a folder, or one file.
        references: a folder, or one file.
        images: a folder or one file: the same names, also with nnU-Net's `_0000`.

    Raises:
        FileError: if something is missing, two files have one name, or nothing matches.
    """
    for path in (predictions, references, *([images] if images else [])):
        if not path.exists():
            raise FileError(f"{path} does not exist. Check the path")
    if predictions.is_dir() != references.is_dir():
        raise FileError(
            f"{predictions} and {references}: one is a folder, the other a file. "
            "Give two folders, or two files"
        )
    if references.is_file():
        shown = images if images is None or images.is_file() else None
        pair = Pair(case_name(references), references, predictions, shown)
        if images is not None and shown is None:
            shown = _image(pair.case, _files(images, _IMAGE_SUFFIXES))
        return Matched((Pair(pair.case, references, predictions, shown),))
    wanted, found = _files(references, _SUFFIXES), _files(predictions, _SUFFIXES)
    pictures = _files(images, _IMAGE_SUFFIXES) if images and images.is_dir() else {}
    if not wanted:
        raise FileError(
            f"{references} holds no label files. Expected files such as case.nii.gz, case.seg.nrrd or "
            "case.png"
        )
    if not wanted.keys() & found.keys():
        raise FileError(
            f"no file in {predictions} has the name of a file in {references}: {_told(list(found))} beside "
            f"{_told(list(wanted))}. Name predictions like their references; the suffix may differ"
        )
    return Matched(
        tuple(
            Pair(case, path, found.get(case), _image(case, pictures))
            for case, path in wanted.items()
        ),
        tuple(path for case, path in found.items() if case not in wanted),
    )


def case_name(path: Path) -> str:
    """Name of a file without the suffix of its format.

    >>> case_name(Path("p07.v2.seg.nrrd"))
    'p07.v2'
    """
    suffix = next((s for s in _IMAGE_SUFFIXES if path.name.lower().endswith(s)), path.suffix)
    return path.name.removesuffix(path.name[len(path.name) - len(suffix) :]) or path.name


def read_groups(path: Path) -> dict[str, Group]:
    """Read a CSV with the columns `case`, `group` and perhaps `patient`.

    Raises:
        ConfigError: if a column is missing or a case stands twice.
        FileError: if it cannot be read.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read as text ({error}). Expected a CSV file") from error
    table = csv.DictReader(text.splitlines())
    columns = [name.strip().lower() for name in table.fieldnames or ()]
    if "case" not in columns or not {"group", "patient"} & set(columns):
        raise ConfigError(
            f"{path} has the columns {', '.join(columns) or 'none'}: expected `case`, and `group` or "
            "`patient`, in its first line"
        )
    groups: dict[str, Group] = {}
    for line in table:
        told = {str(k).strip().lower(): str(v or "").strip() for k, v in line.items()}
        case = case_name(Path(told["case"]))
        if case in groups:
            raise ConfigError(f"{path} names case {case!r} twice")
        groups[case] = Group(told.get("group", ""), told.get("patient", ""))
    return groups


def names_beside(references: Path) -> dict[int, str]:
    """Label names of an nnU-Net `dataset.json` in the folder of the references or above it."""
    folder = references if references.is_dir() else references.parent
    for file in (folder / "dataset.json", folder.parent / "dataset.json"):
        if file.is_file():
            try:
                labels = json.loads(file.read_text("utf-8"))["labels"]
                return {value: name for value, name in _both_ways(labels).items() if value != 0}
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return {}  # another kind of dataset.json: names are a courtesy
    return {}


def _both_ways(labels: Mapping[str, object]) -> dict[int, str]:
    """nnU-Net wrote value -> name first, and name -> value later."""
    named = {}
    for key, value in labels.items():
        if key.isdigit():
            named[int(key)] = str(value)
        elif isinstance(value, int):
            named[value] = key
    return named


def _files(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files of a folder by case, in order of their names."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        lower = path.name.lower()
        if not path.is_file() or lower.startswith(".") or not lower.endswith(suffixes):
            continue
        if lower.endswith(".img") and path.with_suffix(".hdr").exists():
            continue
        case = case_name(path)
        if case in found:
            raise FileError(
                f"{folder} holds two files for case {case!r}: {found[case].name} and {path.name}. "
                "Keep one"
            )
        found[case] = path
    return found


def _image(case: str, images: Mapping[str, Path]) -> Path | None:
    return images.get(case) or images.get(f"{case}_0000")


def _told(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return f"{shown}{', ...' if len(names) > _SHOWN else ''}" if names else "no files"
