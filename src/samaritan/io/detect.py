"""Which format a file has: by its contents first, then by its suffix."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

from samaritan.errors import FileError, UnsafeFile, UnsupportedFormat
from samaritan.io.files import file_size, guard, read_head
from samaritan.io.nifti import is_nifti
from samaritan.io.raster import picture_format

Family = Literal[
    "nifti", "nrrd", "metaimage", "mgh", "dicom", "PNG", "JPEG", "TIFF", "BMP",
    "analyze", "minc", "afni", "parrec", "npz",
]  # fmt: skip

READABLE = (
    "NIfTI (.nii, .nii.gz, .hdr/.img), NRRD (.nrrd, .nhdr, .seg.nrrd), MetaImage (.mha, .mhd), "
    "DICOM (files or a folder), MGH (.mgz, .mgh), MINC, AFNI, PAR/REC, Analyze, PNG, JPEG, TIFF, BMP, "
    "the CVPR 2025 challenge's .npz"
)


def family(path: Path) -> Family:
    """Name the family of readers for a file or folder.

    Raises:
        FileError: if there is no such file.
        UnsupportedFormat: if no reader knows it.
    """
    if path.is_dir():
        return "dicom"
    file_size(path)
    with guard(path):
        head = read_head(path, 600)
    found = _by_contents(head, path) or _by_suffix(path, head)
    if found:
        return found
    _refuse_known(head, path)
    raise UnsupportedFormat(f"{path}: its format is not known. Samaritan reads {READABLE}")


def _by_contents(head: bytes, path: Path) -> Family | None:
    if head.startswith(b"NRRD00"):
        return "nrrd"
    if head[128:132] == b"DICM":
        return "dicom"
    picture = picture_format(head)
    if picture:
        return picture  # type: ignore[return-value]
    if is_nifti(head):
        return "nifti"
    text = head[:300].lstrip().lower()
    if text.startswith((b"objecttype", b"ndims", b"comment")) and b"=" in text:
        return "metaimage"
    if head[:2] == b"PK" and path.suffix.lower() == ".npz":
        return "npz"
    if head[:4] in (b"CDF\x01", b"CDF\x02", b"\x89HDF") and path.suffix.lower() == ".mnc":
        return "minc"
    return None


def _by_suffix(path: Path, head: bytes) -> Family | None:
    name = path.name.lower().removesuffix(".gz").removesuffix(".bz2")
    if name.endswith((".mgz", ".mgh")):
        return "mgh"
    if name.endswith((".head", ".brik")):
        return "afni"
    if name.endswith((".par", ".rec")):
        return "parrec"
    if name.endswith((".hdr", ".img")):
        return _half_of_a_pair(path, head)
    if name.endswith(".nii"):
        return "nifti"
    if _is_bare_dicom(head):
        return "dicom"
    return None


def _half_of_a_pair(path: Path, head: bytes) -> Family | None:
    """A .hdr or .img without NIfTI magic: Analyze, or the voxels of a NIfTI pair."""
    name = path.name
    cut = -7 if name.lower().endswith(".gz") else -4
    for suffix in (".hdr", ".HDR", ".hdr.gz"):
        header = path.with_name(name[:cut] + suffix)
        if header.is_file():
            start = read_head(header, 600)
            return "nifti" if is_nifti(start) else "analyze" if _is_analyze(start) else None
    if name[cut:].lower().startswith(".hdr"):
        return "analyze" if _is_analyze(head) else None
    raise FileError(
        f"{path} is half of a pair: {name[:cut]}.hdr is missing beside it. The header holds the geometry"
    )


def _is_analyze(head: bytes) -> bool:
    return head[:4] in (struct.pack("<i", 348), struct.pack(">i", 348))


def _is_bare_dicom(head: bytes) -> bool:
    """DICOM without preamble: starts with an element of group 0002 or 0008, little endian."""
    if len(head) < 16 or head[:2] not in (b"\x08\x00", b"\x02\x00"):
        return False
    element = int.from_bytes(head[2:4], "little")
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    return element <= 0x0070 and (explicit or int.from_bytes(head[4:8], "little") < 256)


def _refuse_known(head: bytes, path: Path) -> None:
    """Name what is not an image, so that the next step is clear."""
    suffix = path.suffix.lower()
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") or suffix in (
        ".pkl",
        ".pickle",
        ".pt",
        ".pth",
    ):
        raise UnsafeFile(f"{path} is a pickle, which could execute code when read; it is not read")
    if head[:4] == b"PK\x03\x04":
        raise UnsupportedFormat(f"{path} is a zip archive. Unpack it first")
    if head[:6] == b"\x93NUMPY":
        raise UnsupportedFormat(
            f"{path} is a bare NumPy array, which has no geometry. "
            "Make a samaritan.Volume of the array and a samaritan.Grid"
        )
    if suffix in (".raw", ".zraw", ".bin", ".dat"):
        raise UnsupportedFormat(
            f"{path} holds raw voxels without a header. Read the header (.nhdr, .mhd, .hdr) instead"
        )


def looks_like_dicom(path: Path) -> bool:
    """Whether a file of a folder starts like DICOM, with or without preamble."""
    try:
        with path.open("rb") as file:
            head = file.read(200)
    except OSError:
        return False
    return head[128:132] == b"DICM" or _is_bare_dicom(head)
