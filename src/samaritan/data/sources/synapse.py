"""Synapse as TransUNet and SAMed prepared it: .npz slices to train on, .npy.h5 volumes to test on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from samaritan.data.manifest import Case, Group, Manifest
from samaritan.data.sources.names import relative
from samaritan.data.windows import CT_WINDOWS, Window
from samaritan.errors import ConfigError

if TYPE_CHECKING:
    from samaritan.data.sources import SourceOptions

ORGANS = {
    1: "spleen",
    2: "right kidney",
    3: "left kidney",
    4: "gallbladder",
    5: "liver",
    6: "stomach",
    7: "aorta",
    8: "pancreas",
}
"""Labels of the prepared data."""

_SLICE = re.compile(r"(?P<case>.+)_slice(?P<index>\d+)\.npz")
_VOLUME = ".npy.h5"


def recognise(path: Path) -> bool:
    """Whether slices or volumes are there, directly or in subfolders one level down."""
    if not path.is_dir():
        return False
    return any(next(path.glob(p), None) for p in _GLOBS)


_GLOBS = ("*_slice*.npz", "*.npy.h5", "*/*_slice*.npz", "*/*.npy.h5")


def manifest(path: Path, options: SourceOptions) -> Manifest:
    """List slices (part "train") and volumes (part "test"), in the order of list files if there are any.

    `train.txt` and `test_vol.txt` are looked for beside the data and in `lists/` folders.

    Raises:
        ConfigError: naming stems of a list that have no file.
    """
    slices = {p.name.removesuffix(".npz"): p for g in _GLOBS[::2] for p in sorted(path.glob(g))}
    slices = {s: p for s, p in slices.items() if _SLICE.fullmatch(p.name)}
    volumes = {p.name.removesuffix(_VOLUME): p for g in _GLOBS[1::2] for p in sorted(path.glob(g))}
    cases: list[Case] = []
    for stem in _listed(path, "train.txt", slices):
        match = _SLICE.fullmatch(slices[stem].name)
        assert match is not None
        cases.append(_case(path, stem, slices[stem], match["case"], "train", options))
    for stem in _listed(path, "test_vol.txt", volumes):
        cases.append(_case(path, stem, volumes[stem], stem, "test", options))
    group = Group(
        ORGANS,
        ("CT",),
        window=(0.0, 1.0),
        volume_window=Window(*CT_WINDOWS["abdomen"]),
        note="Patients are told by the case's number.",
    )
    return Manifest(path, tuple(cases), {path.name: group})


def _case(
    root: Path, stem: str, file: Path, patient: str, split: str, options: SourceOptions
) -> Case:
    name = (relative(file, root),)
    modality = options.modality or "CT"
    return Case(stem, name, name, "map", modality, patient, root.name, split)


def _listed(path: Path, name: str, files: dict[str, Path]) -> list[str]:
    """Order stems as a list file does, if there is one; else by name."""
    lists = [*path.glob(name), *path.glob(f"lists/{name}"), *path.glob(f"lists/*/{name}")]
    if not lists:
        return sorted(files)
    lines = lists[0].read_text("utf-8").split()
    stems = [line.removesuffix(".npz").removesuffix(_VOLUME) for line in lines]
    missing = [s for s in stems if s not in files]
    if missing and files:
        raise ConfigError(
            f"{lists[0]} names {len(missing)} files that are not there, such as {missing[0]!r}"
        )
    return [s for s in stems if s in files]
