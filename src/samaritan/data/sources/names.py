"""What file names tell: suffixes, pairs of image and label, and whose image it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from samaritan.errors import ConfigError

SUFFIXES = (
    ".nii.gz", ".seg.nrrd", ".npy.h5", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh",
    ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".npz", ".dcm",
)  # fmt: skip
"""Suffixes of images and labels, the longer first."""

PATIENTS: dict[str, str] = {
    "ACDC frames": r"(patient\d+)_frame\d+",
    "CURVAS slices": r"(\d+)_\d+_rater\d+",
    "BUS-BRA sides": r"(?:\d+-)?(?:benign_|malignant_|bus_)(\d+)-[a-z]",
    "HC18 visits": r"(\d+)_\d*HC",
    "BraTS scans": r"(.*_pat\d+)_\d+",
    "Synapse slices": r"(case\d+)_slice\d+",
}
"""Published ways of naming -> how the patient stands in the id. One is used if it fits all ids."""


def stem_of(name: str) -> str:
    """Take the suffix off a file name.

    >>> stem_of("a.b.nii.gz"), stem_of("x_0000.png")
    ('a.b', 'x_0000')
    """
    low = name.lower()
    suffix = next((s for s in SUFFIXES if low.endswith(s)), Path(name).suffix)
    return name[: len(name) - len(suffix)] if suffix else name


def images_in(folder: Path) -> list[Path]:
    """List the files of a folder that look like images, by name."""
    if not folder.is_dir():
        return []
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and p.name.lower().endswith(SUFFIXES) and not p.name.startswith(".")
    )


def relative(path: Path, root: Path) -> str:
    """Name a file relative to the root, with forward slashes."""
    return path.relative_to(root).as_posix()


def patients_of(ids: Iterable[str], pattern: str | None) -> tuple[dict[str, str], str]:
    """Tell whose each case is, and in a sentence how that was told.

    Args:
        ids: of all cases of a data set.
        pattern: a regular expression whose first group is the patient; None: one of `PATIENTS`, if
            it fits all ids, else each case is a patient of its own.

    Raises:
        ConfigError: if the pattern is wrong, or does not fit an id.
    """
    every = list(ids)
    if pattern is not None:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise ConfigError(
                f"the patient pattern {pattern!r} is no regular expression: {error}"
            ) from error
        if compiled.groups < 1:
            raise ConfigError(
                f"the patient pattern {pattern!r} needs a group, such as '(\\d+)_.*', for the patient"
            )
        found = {i: compiled.match(i) for i in every}
        odd = [i for i, match in found.items() if match is None]
        if odd:
            raise ConfigError(
                f"the patient pattern {pattern!r} does not fit {len(odd)} of {len(every)} cases, "
                f"such as {odd[0]!r}"
            )
        return {i: m.group(1) for i, m in found.items() if m}, f"Patients are told by {pattern!r}."
    for what, known in PATIENTS.items():
        matches = {i: re.fullmatch(known, i) for i in every}
        if every and all(matches.values()):
            note = f"Patients are told by the way {what} are named: {known!r}."
            return {i: m.group(1) for i, m in matches.items() if m}, note
    return {i: i for i in every}, "Each case is taken as a patient of its own."
