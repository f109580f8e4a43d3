"""DICOM files opened safely, refused by name where they hold no image, and grouped into series."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samaritan.errors import CorruptFile, FileError, SamaritanError, TooLarge, UnsupportedFormat
from samaritan.io.files import file_size, guard

MOST_FILES = 200_000
"""A folder with more files than this is not searched."""

_DEFLATED = "1.2.840.10008.1.2.1.99"
_DEFLATED_BYTES = 1 << 30
SEGMENTATION = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Storage classes of segmentations: bits or fractions, and label maps."""


@dataclass
class Series:
    """The image files of one series, as found in a folder."""

    uid: str
    number: int | None
    description: str
    modality: str
    datasets: list[tuple[Path, Any]] = field(default_factory=list)

    @property
    def slices(self) -> int:
        """Number of frames in all files."""
        return sum(frame_count(dataset) for _, dataset in self.datasets)

    def told(self) -> str:
        """Say what it is, in a line."""
        number = "" if self.number is None else f"number {self.number}, "
        name = repr(self.description or "no description")
        return f"{number}{name}, {self.modality}, {self.slices} slices, UID {self.uid}"


def open_dataset(path: Path, *, pixels: bool = False) -> Any:
    """Parse a file, by default without its pixels.

    Raises:
        CorruptFile: if it cannot be parsed.
        TooLarge: if it is deflated and grows beyond a gigabyte.
    """
    import pydicom

    file_size(path)
    with guard(path, "read as DICOM"):
        with path.open("rb") as file:
            bare = file.read(132)[128:] != b"DICM"
        if not bare:
            _check_deflated(path)
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, force=bare)
        if not len(dataset):
            raise CorruptFile(f"{path} holds no DICOM elements")
        return dataset


def _check_deflated(path: Path) -> None:
    """Count what a deflated file grows to, because pydicom inflates it at once."""
    from pydicom.filereader import read_file_meta_info

    meta = read_file_meta_info(path)
    if str(meta.get("TransferSyntaxUID", "")) != _DEFLATED:
        return
    # preamble and "DICM" (132 bytes), the element that tells the group's length (12), the group
    start = 132 + 12 + int(meta["FileMetaInformationGroupLength"].value)
    with path.open("rb") as file:
        file.seek(start)
        inflater, total, rest = zlib.decompressobj(-15), 0, b""
        while not inflater.eof:
            rest = rest or file.read(1 << 20)
            if not rest:
                return
            total += len(inflater.decompress(rest, 1 << 20))
            rest = inflater.unconsumed_tail
            if total > _DEFLATED_BYTES:
                raise TooLarge(f"{path} is deflated and grows beyond {_DEFLATED_BYTES} bytes")


def frame_count(dataset: Any) -> int:
    """Number of frames, 1 for ordinary slices."""
    try:
        return max(int(dataset.get("NumberOfFrames", 1) or 1), 1)
    except (TypeError, ValueError):
        return 1


def sop_class(dataset: Any) -> str:
    """UID of the kind of object, or an empty string."""
    return str(dataset.get("SOPClassUID", "") or "")


def class_name(dataset: Any) -> str:
    """Name of the kind of object, for people."""
    from pydicom.uid import UID

    uid = sop_class(dataset)
    if uid == SEGMENTATION[1]:  # newer than pydicom's dictionary
        return "Label Map Segmentation Storage"
    return str(UID(uid).name) if uid else "DICOM object without a class"


def is_image(dataset: Any) -> bool:
    """Whether it has rows and columns, and is not a segmentation."""
    return (
        bool(dataset.get("Rows")) and bool(dataset.get("Columns")) and not is_segmentation(dataset)
    )


def is_segmentation(dataset: Any) -> bool:
    """Whether it is a DICOM SEG object."""
    return sop_class(dataset) in SEGMENTATION


def refuse_unless_image(dataset: Any, path: Path) -> None:
    """Raise `UnsupportedFormat`, naming what it is, unless it is an image that can lie on a grid."""
    if dataset.get("TotalPixelMatrixColumns"):
        raise UnsupportedFormat(
            f"{path} is a tiled microscopy image ({class_name(dataset)}), which is not read. "
            "Export the region of interest as TIFF or PNG"
        )
    if not is_image(dataset) and not is_segmentation(dataset):
        hint = {
            "RTSTRUCT": " Convert its contours to DICOM SEG or .seg.nrrd first, for example in 3D Slicer",
        }.get(str(dataset.get("Modality", "")), "")
        raise UnsupportedFormat(f"{path} holds no image: it is a {class_name(dataset)}.{hint}")
    if "MOSAIC" in [str(v).upper() for v in dataset.get("ImageType", []) or []]:
        raise UnsupportedFormat(
            f"{path} is a Siemens mosaic: many slices tiled into one picture. Convert it with dcm2niix"
        )


def scan(folder: Path) -> tuple[list[Series], list[tuple[Path, Any]], int]:
    """Search a folder and its subfolders.

    Returns:
        The image series; the segmentations; the number of other files, which were left out.

    Raises:
        FileError: if there are too many files.
    """
    series: dict[str, Series] = {}
    segmentations: list[tuple[Path, Any]] = []
    others = 0
    for path in _files(folder):
        dataset = _try_open(path)
        if dataset is None or not (is_image(dataset) or is_segmentation(dataset)):
            others += 1
        elif is_segmentation(dataset):
            segmentations.append((path, dataset))
        else:
            with guard(path, "read as DICOM"):
                uid = str(dataset.get("SeriesInstanceUID", "") or "unknown")
                found = series.setdefault(uid, _series(uid, dataset))
                found.datasets.append((path, dataset))
    ordered = sorted(series.values(), key=lambda s: (s.number is None, s.number or 0, s.uid))
    return ordered, segmentations, others


def _files(folder: Path) -> Iterable[Path]:
    found = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "DICOMDIR")
    if len(found) > MOST_FILES:
        raise FileError(f"{folder} holds {len(found)} files; give the folder of one study")
    return found


def _try_open(path: Path) -> Any:
    """Parse a file of a folder, or None if it is not DICOM."""
    from samaritan.io.detect import looks_like_dicom

    if not looks_like_dicom(path):
        return None
    try:
        return open_dataset(path)
    except SamaritanError:
        if path.suffix.lower() in (".dcm", ".ima"):
            raise
        return None


def _series(uid: str, dataset: Any) -> Series:
    number = dataset.get("SeriesNumber")
    return Series(
        uid,
        None if number in (None, "") else int(number),
        str(dataset.get("SeriesDescription", "") or ""),
        str(dataset.get("Modality", "") or ""),
    )


def choose_series(found: list[Series], wanted: str | int | None, folder: Path) -> Series:
    """Pick a series by UID, number or description.

    Raises:
        FileError: listing the series, if the choice is not one.
    """
    told = "".join(f"\n  - {s.told()}" for s in found)
    if wanted is None:
        if len(found) == 1:
            return found[0]
        raise FileError(
            f"{folder} holds {len(found)} series; pass series= with the UID, number or description "
            f"of one:{told}"
        )
    text = str(wanted).strip().lower()
    for key in (
        lambda s: s.uid.lower(),
        lambda s: "" if s.number is None else str(s.number),
        lambda s: s.description.lower(),
    ):
        matches = [s for s in found if key(s) == text]
        if len(matches) == 1:
            return matches[0]
        if matches:
            break
    problem = f"{len(matches)} series match" if matches else "no series matches"
    raise FileError(f"{folder}: {problem} series={wanted!r}. It holds:{told}")
