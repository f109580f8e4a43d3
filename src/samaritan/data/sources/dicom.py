"""Trees of DICOM: each folder that holds images is a series. Labels are not looked for."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samaritan.data.manifest import Case, Group, Manifest

if TYPE_CHECKING:
    from samaritan.data.sources import SourceOptions

_IMAGES = ("CT", "MR", "PT", "NM", "US", "CR", "DX", "MG", "XA", "OP")
_FOLDERS = 20_000


def recognise(path: Path) -> bool:
    """Whether a DICOM file lies in the folder or below it."""
    return path.is_dir() and next(_series(path, first=True), None) is not None


def manifest(path: Path, options: SourceOptions) -> Manifest:
    """Make a case of each folder whose first DICOM file is an image; PatientID says whose it is."""
    cases = []
    for folder, head in _series(path):
        modality = {"CR": "XR", "DX": "XR", "MG": "XR", "XA": "XR"}.get(
            head.Modality, head.Modality
        )
        name = folder.relative_to(path).as_posix()
        cases.append(
            Case(
                name if name != "." else path.name,
                (name,),
                modality=options.modality or modality,
                patient=_whose(head) or name,
                group=path.name,
            )
        )
    note = (
        "Patients are told by a hash of the DICOM attribute PatientID. No labels were looked for."
    )
    return Manifest(path, tuple(cases), {path.name: Group(note=note)})


def _whose(head: Any) -> str:
    """Tell patients apart without writing down who they are."""
    number = str(head.get("PatientID", ""))
    return hashlib.sha256(number.encode()).hexdigest()[:12] if number else ""


def _series(path: Path, first: bool = False) -> Any:
    """Yield (folder, header) for each folder whose first DICOM file is an image."""
    for count, (name, folders, files) in enumerate(os.walk(path)):
        folders.sort()
        if count > _FOLDERS or (first and count > 20):
            return
        head = next((h for f in sorted(files)[:5] if (h := _header(Path(name) / f))), None)
        if head is not None and head.get("Modality") in _IMAGES:
            yield Path(name), head


def _header(path: Path) -> Any:
    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            return None
    import pydicom

    try:
        return pydicom.dcmread(
            path, stop_before_pixels=True, specific_tags=["Modality", "PatientID"]
        )
    except Exception:  # noqa: BLE001  # a damaged header is told when the series is read
        return None
