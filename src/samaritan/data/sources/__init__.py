"""Folders and lists of the common kinds, made into manifests without opening the images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from samaritan.data.manifest import LabelKind, Manifest
from samaritan.data.manifest_files import is_manifest, merged
from samaritan.data.sources import (
    cvpr25,
    dicom,
    neurosam3d,
    neurosam3d_index,
    nnunet,
    pairs,
    sam_med2d,
    sam_med3d,
    synapse,
)
from samaritan.data.sources.patients import with_patients
from samaritan.errors import ConfigError, FileError

__all__ = ["KINDS", "SourceOptions", "find_source", "load_manifest"]


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say that a folder does not."""

    modality: str | None = None
    """The modality of all images, if the source does not say it or is wrong."""
    patient: str | None = None
    """A regular expression on case ids; its first group is the patient."""
    label_kind: LabelKind | None = None
    """What label files hold, if it should not be told from the first of them."""


def _manifest_file(path: Path) -> Path:
    """The manifest itself; of a folder of prepared slices the one that lies in it."""
    return path / "manifest.json" if path.is_dir() else path


def _read_manifest(path: Path, options: SourceOptions) -> Manifest:
    return Manifest.read(_manifest_file(path))


_Found = tuple[Callable[[Path], bool], Callable[[Path, SourceOptions], Manifest]]

KINDS: dict[str, _Found] = {
    "manifest": (lambda path: is_manifest(_manifest_file(path)), _read_manifest),
    "nnunet": (nnunet.recognise, nnunet.manifest),
    "sam_med3d": (sam_med3d.recognise, sam_med3d.manifest),
    "neurosam3d": (neurosam3d.recognise, neurosam3d.manifest),
    "neurosam3d_index": (neurosam3d_index.recognise, neurosam3d_index.manifest),
    "sam_med2d": (sam_med2d.recognise, sam_med2d.manifest),
    "cvpr25": (cvpr25.recognise, cvpr25.manifest),
    "synapse": (synapse.recognise, synapse.manifest),
    "pairs": (pairs.recognise, pairs.manifest),
    "dicom": (dicom.recognise, dicom.manifest),
}
"""Kind of source -> how to know it, and how to make its manifest; the first that fits is taken."""


def find_source(path: str | os.PathLike[str]) -> str:
    """Tell which kind of source lies at a path: a key of `KINDS`, or "collection".

    A collection is a folder whose subfolders are sources.

    Raises:
        FileError: if there is nothing, or nothing known.
    """
    where = Path(path)
    if not where.exists():
        raise FileError(f"{where} does not exist")
    kind = _kind(where)
    if kind is not None:
        return kind
    if where.is_dir() and any(_kind(p) for p in _members(where)):
        return "collection"
    raise FileError(
        f"{where} is no data set that is known here. Known are: a manifest (.json, .csv) or a folder "
        "with manifest.json; an nnU-Net folder with dataset.json; SAM-Med3D's TARGET/DATASET/imagesTr and "
        "labelsTr; NeuroSAM3D's imagesTr and labelsTr/CLASS, or its index DATASET_Tr.json; images/ beside "
        "masks/ or labels/ with the same names; SAM-Med2D's image2label_train.json and label2image_test.json;"
        " the CVPR 2025 challenge's .npz volumes; Synapse .npz slices and .npy.h5 volumes; "
        "folders of DICOM series; a folder of such folders"
    )


def load_manifest(
    path: str | os.PathLike[str], options: SourceOptions | None = None, *, kind: str | None = None
) -> Manifest:
    """Make the manifest of whatever lies at a path.

    Args:
        path: see `find_source`.
        options: what the source does not say itself.
        kind: take it as this kind of source, instead of finding out.

    Raises:
        FileError: if the source is not known or damaged.
        ConfigError: telling every wrong field of a manifest or dataset.json.
    """
    where, options = Path(path), options or SourceOptions()
    found = kind or find_source(where)
    if found == "collection":
        members = {p.name: p for p in _members(where) if _kind(p)}
        return merged({name: load_manifest(p, options) for name, p in members.items()}, where)
    if found not in KINDS:
        raise ConfigError(f"{found!r} is no kind of source; known: {', '.join(KINDS)}")
    made = KINDS[found][1](where, options)
    if not made.cases:
        raise FileError(f"{where} holds no case: it looks like {found}, but no image was found")
    return made if options.patient or found == "manifest" else with_patients(made)


def _kind(path: Path) -> str | None:
    return next((kind for kind, (knows, _) in KINDS.items() if knows(path)), None)


def _members(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
