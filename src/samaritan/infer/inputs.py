"""What a person means by "these images": a file, a folder of any formats, or a manifest; as cases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from samaritan.data import load_manifest
from samaritan.data.manifest import Case, Group, Manifest, told
from samaritan.data.manifest_files import is_manifest
from samaritan.data.sources import SourceOptions, dicom, find_source
from samaritan.data.sources.names import SUFFIXES, stem_of
from samaritan.errors import ConfigError, FileError
from samaritan.io.detect import looks_like_dicom

IMAGE_SUFFIXES = (
    *(s for s in SUFFIXES if s not in (".seg.nrrd", ".dcm")),
    *(".hdr", ".hdr.gz", ".mnc", ".head", ".par", ".nii.bz2"),
)
"""Suffixes of files that each are an image. The voxels of .hdr, .mhd and the like are not listed again."""

MOST_CHANNELS = 8
"""Files of one case: more that are numbered from _0000 are frames, not channels as nnU-Net has them."""

_NUMBERED = re.compile(r"(.+)_(\d{4})")


def find_cases(path: str | Path, *, split: str | None = None) -> Manifest:
    """List the images at a path as cases, without opening them.

    - A manifest, .json or .csv: its cases.
    - An image, or a folder with one DICOM series: one case.
    - A folder: each image in it, each DICOM series in it or below it. Files that are all named like
      nnU-Net's, `CASE_0000`, `CASE_0001`, are the channels of cases.
    - Other data sets that `samaritan prepare` knows, such as a whole nnU-Net folder.

    Args:
        path: where the images are.
        split: take only this part of a manifest or data set.

    Raises:
        FileError: if there is nothing, two images have one name, or no case is in the part.
        ConfigError: telling every wrong field of a manifest.
    """
    where = Path(path).expanduser()
    if not where.exists():
        raise FileError(f"{where} does not exist. Check the path")
    found = _of_file(where) if where.is_file() else _of_folder(where)
    if split is None:
        return found
    parts = found.splits()
    if split not in parts:
        known = ", ".join(sorted(map(str, parts)))
        raise FileError(f"{where} has no case in part {split!r}. Its parts: {known}")
    return found.select(split=split)


def check_apart(source: str | Path, out: str | Path) -> None:
    """Refuse a folder for results that lies among the images.

    Raises:
        FileError: if it does.
    """
    folder, where = Path(source).expanduser().resolve(), Path(out).expanduser().resolve()
    if folder.is_dir() and where.is_relative_to(folder):
        raise FileError(
            f"{out} lies in {source}, where the images are: predictions would be taken for images the next "
            "time. Choose a folder elsewhere"
        )


def _of_file(path: Path) -> Manifest:
    if is_manifest(path) or path.suffix.lower() in (".json", ".csv"):
        return load_manifest(path, kind="manifest")
    stem = stem_of(path.name)
    numbered = _NUMBERED.fullmatch(stem)
    name = numbered[1] if numbered and numbered[2] == "0000" else stem
    return Manifest(path.parent, (Case(name, (path.name,)),), {"": Group()})


def _of_folder(folder: Path) -> Manifest:
    cases = [*_file_cases(folder), *_series_cases(folder)]
    if cases:
        _check_names(folder, cases)
        return Manifest(folder, tuple(sorted(cases, key=lambda case: case.id)), {"": Group()})
    try:
        find_source(folder)
    except FileError as error:
        raise FileError(
            f"{folder} holds no image that is known: neither files such as case.nii.gz or case.png, nor "
            "DICOM series, nor a data set that `samaritan prepare` knows"
        ) from error
    return load_manifest(folder)


def _file_cases(folder: Path) -> Iterator[Case]:
    """A case for each image file, or for the channels that belong together."""
    files = [
        p
        for p in sorted(folder.iterdir())
        if p.is_file() and p.name.lower().endswith(IMAGE_SUFFIXES) and not p.name.startswith(".")
    ]
    files = [p for p in files if not looks_like_dicom(p)]
    channels = _as_channels(files)
    if channels is None:
        return (Case(stem_of(p.name), (p.name,)) for p in files)
    return (Case(name, tuple(parts)) for name, parts in channels.items())


def _as_channels(files: Iterable[Path]) -> dict[str, list[str]] | None:
    """Group files as nnU-Net names them, if all of them are named so."""
    found: dict[str, list[str]] = {}
    for path in files:
        numbered = _NUMBERED.fullmatch(stem_of(path.name))
        if numbered is None:
            return None
        parts = found.setdefault(numbered[1], [])
        if int(numbered[2]) != len(parts) or len(parts) == MOST_CHANNELS:
            return None
        parts.append(path.name)
    return found


def _series_cases(folder: Path) -> Iterator[Case]:
    """A case for each DICOM series, whose folder is its name."""
    if not dicom.recognise(folder):
        return
    for case in dicom.manifest(folder, SourceOptions()):
        yield Case(case.id, case.images, modality=case.modality)


def _check_names(folder: Path, cases: Iterable[Case]) -> None:
    seen: dict[str, str] = {}
    problems = []
    for case in cases:
        first = seen.setdefault(case.id, case.images[0])
        if first != case.images[0]:
            problems.append(f"case {case.id!r}: {first} and {case.images[0]}")
    if problems:
        raise ConfigError(told(f"{folder} holds two images under one name", problems))
