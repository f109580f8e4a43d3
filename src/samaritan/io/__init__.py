"""Files to volumes and back: `read`, `read_labels` and `write`.

Nothing is imported for a format until a file of it is met. What each format can hold, and what is
done about awkward geometry, is told in docs/geometry.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from samaritan.errors import FileError, SamaritanError, UnsupportedFormat
from samaritan.io.options import ComplexPart, Frame, Overlap, ReadOptions, SpacingOrder
from samaritan.io.values import finite

if TYPE_CHECKING:
    from samaritan.geometry import Grid
    from samaritan.volume import LabelMap, Volume

__all__ = ["WRITABLE", "check_writable", "finite", "read", "read_labels", "write"]

WRITABLE = (
    ".nii", ".nii.gz", ".hdr", ".img", ".nrrd", ".nhdr", ".seg.nrrd", ".mha", ".mhd", ".mgz", ".mgh",
    ".png", ".tif", ".tiff", ".bmp", ".npz", ".dcm",
)  # fmt: skip
"""Suffixes that `write` knows. `.dcm` writes a DICOM segmentation."""

_PICTURES = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".jpg": "JPEG"}
_PICTURES |= {".jpeg": "JPEG"}


def read(
    path: str | os.PathLike[str],
    *,
    frame: Frame = None,
    series: str | int | None = None,
    channel: int | str | None = None,
    complex_part: ComplexPart = None,
    overlap: Overlap = "refuse",
    allow_gaps: bool = False,
    spacing_order: SpacingOrder = "zyx",
    max_bytes: int | None = None,
) -> Volume:
    """Read an image with its geometry.

    The format is told by the contents first, then by the suffix; a folder is a DICOM series. A
    segmentation (`.seg.nrrd`, DICOM SEG) comes as a `LabelMap`. `volume.meta` says what the file says
    about itself (never about the patient); `volume.notes` says what was odd.

    Args:
        path: a file, or a folder of DICOM files.
        frame: which frame of a file that holds several, from 0; "all" makes them channels.
        series: which DICOM series of a folder: its UID, number or description.
        channel: take one channel, by position or name.
        complex_part: what to take of complex voxels: "magnitude", "real" or "imag".
        overlap: segments that overlap: "refuse", "merge" (the later wins) or "channels".
        allow_gaps: fill missing slices of a DICOM series with its lowest value, and note it.
        spacing_order: of .npz files, whose arrays are (z, y, x): most tell spacing so, some as x, y, z.
        max_bytes: most memory that the voxels may take; by default four fifths of what is available.

    Raises:
        FileError: and its kinds UnsupportedFormat, CorruptFile, TooLarge, UnsafeFile, naming the file.
        GeometryError: if the file's affine cannot be used.
    """
    options = ReadOptions(
        frame=frame,
        series=series,
        complex_part=complex_part,
        overlap=overlap,
        allow_gaps=allow_gaps,
        spacing_order=spacing_order,
        max_bytes=max_bytes,
    )
    volume = _read(Path(path), options)
    return volume if channel is None else volume.channel(_known(channel, volume, path))


def read_labels(
    path: str | os.PathLike[str],
    *,
    frame: Frame = None,
    series: str | int | None = None,
    overlap: Literal["refuse", "merge"] = "refuse",
    names: Mapping[int, str] | None = None,
    spacing_order: SpacingOrder = "zyx",
    max_bytes: int | None = None,
) -> LabelMap:
    """Read a segmentation as integers with names.

    Floating-point files are accepted if every value is a whole number. Names come from `.seg.nrrd`,
    DICOM SEG, a label table in a NIfTI header, or a file `NAME.labels.json` beside it, which holds
    `{"1": "liver", ...}`. Fractional DICOM segments count where they reach 0.5.

    Args:
        path: a file, or a folder of DICOM files.
        frame: which frame of a file that holds several, from 0.
        series: which DICOM series of a folder.
        overlap: segments that overlap: "refuse", or "merge" so that the later wins.
        names: names to use instead of those found.
        spacing_order: of .npz files, as in `read`.
        max_bytes: most memory that the voxels may take.

    Raises:
        FileError: also if a value is not a whole number, or negative.
    """
    from samaritan.io.labels import as_label_map

    options = ReadOptions(
        frame=frame,
        series=series,
        overlap=overlap,
        indices=True,
        spacing_order=spacing_order,
        max_bytes=max_bytes,
    )
    where = Path(path)
    found = as_label_map(_read(where, options), where)
    return found if names is None else replace(found, names=names)


def write(
    volume: Volume,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = True,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
) -> Path:
    """Write a volume in the format of the suffix, with its geometry or not at all.

    The file appears complete or not: it is written under another name in the same folder, its
    geometry is read back and compared, then it is renamed. Missing folders are made.

    Args:
        volume: a `Volume` or `LabelMap`.
        path: where; see `WRITABLE` for the suffixes.
        overwrite: whether a file that exists may be replaced.
        source: for `.dcm`: the DICOM series (folder or files) that was segmented.

    Returns:
        The path.

    Raises:
        GeometryError: if the format cannot hold the grid; the text names formats that can.
        UnsupportedFormat: if the format cannot hold the voxels, or is not known.
        FileError: if the folder cannot be written.

    >>> import tempfile, numpy as np
    >>> from samaritan import Grid, Volume
    >>> volume = Volume(np.zeros((3, 4, 5)), Grid.from_spacing((3, 4, 5), (1, 1, 2.5)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     read(write(volume, f"{folder}/scan.nii.gz")).grid
    Grid(3 x 4 x 5, 1 x 1 x 2.5 mm, RAS)
    """
    from samaritan.volume import Volume

    where = Path(path)
    if not isinstance(volume, Volume):
        raise FileError(
            f"{where}: only a Volume or LabelMap is written, got {type(volume).__name__}. "
            "An array has no geometry: make Volume(array, grid) first"
        )
    if where.exists() and (where.is_dir() or not overwrite):
        kind = "is a folder" if where.is_dir() else "exists already, and overwrite=False"
        raise FileError(f"{where} {kind}. Choose another name")
    _write(volume, where, source)
    return where


def check_writable(
    path: str | os.PathLike[str],
    grid: Grid,
    *,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
) -> None:
    """Refuse now what `write` would refuse later: for callers with long work in between.

    Args:
        path: where a label map will be written.
        grid: the grid that it will have.
        source: as in `write`.

    Raises:
        FileError: if the folder cannot be written, or the suffix is not known.
        GeometryError: if the format cannot hold the grid.
    """
    from tempfile import TemporaryDirectory

    import numpy as np

    from samaritan.volume import LabelMap

    where = Path(path).absolute()
    present = next(folder for folder in where.parents if folder.exists())
    if where.is_dir() or not present.is_dir() or not os.access(present, os.W_OK):
        reason = (
            "it is a folder" if where.is_dir() else f"{present} is not a folder that can be written"
        )
        raise FileError(f"{path} cannot be written: {reason}. Choose another place")
    if where.suffix.lower() == ".dcm":
        from samaritan.io import dicom_seg_write

        dicom_seg_write.check(where, grid, source)
        return
    corner = grid.window((0, 0, 0), [min(n, 2) for n in grid.shape])
    with TemporaryDirectory() as folder:
        try:
            _write(
                LabelMap(np.zeros(corner.shape, np.uint8), corner), Path(folder) / where.name, None
            )
        except SamaritanError as error:
            raise type(error)(str(error).replace(folder, str(where.parent))) from error


def _known(channel: int | str, volume: Volume, path: str | os.PathLike[str]) -> int | str:
    known = (
        channel in volume.channels if isinstance(channel, str) else 0 <= channel < volume.n_channels
    )
    if not known:
        raise FileError(
            f"{path} has no channel {channel!r}: it has {volume.n_channels} {volume.channels or ''}"
        )
    return channel


def _read(path: Path, options: ReadOptions) -> Volume:
    """Find the reader and call it."""
    from samaritan.io.detect import family

    found = family(path)
    if found == "nifti":
        from samaritan.io import nifti

        return nifti.read(path, options)
    if found == "nrrd":
        from samaritan.io import nrrd, nrrd_seg

        if nrrd_seg.is_segmentation(path):
            return nrrd_seg.read(path, options)
        return nrrd.read(path, options)
    if found == "metaimage":
        from samaritan.io import metaimage

        return metaimage.read(path, options)
    if found == "dicom":
        from samaritan.io import dicom

        return dicom.read(path, options)
    if found == "mgh":
        from samaritan.io import mgh

        return mgh.read(path, options)
    if found == "npz":
        from samaritan.io import npz

        return npz.read(path, options)
    if found in ("analyze", "minc", "afni", "parrec"):
        from samaritan.io import legacy

        return legacy.read(path, found, options)
    from samaritan.io import raster

    return raster.read(path, found, options)


def _write(
    volume: Volume,
    path: Path,
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None,
) -> None:
    """Find the writer and call it."""
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")):
        from samaritan.io import nifti_write

        nifti_write.write(volume, path)
    elif name.endswith(".seg.nrrd"):
        from samaritan.io import nrrd_seg

        nrrd_seg.write(volume, path)
    elif name.endswith((".nrrd", ".nhdr")):
        from samaritan.io import nrrd_write

        nrrd_write.write(volume, path)
    elif name.endswith((".mha", ".mhd")):
        from samaritan.io import metaimage_write

        metaimage_write.write(volume, path)
    elif name.endswith((".mgz", ".mgh")):
        from samaritan.io import mgh

        mgh.write(volume, path)
    elif path.suffix.lower() in _PICTURES:
        from samaritan.io import raster

        raster.write(volume, path, _PICTURES[path.suffix.lower()])
    elif name.endswith(".npz"):
        from samaritan.io import npz_write

        npz_write.write(volume, path)
    elif name.endswith(".dcm"):
        from samaritan.io import dicom_seg_write

        dicom_seg_write.write(volume, path, source)
    else:
        raise UnsupportedFormat(
            f"{path}: the suffix {path.suffix!r} is not one that is written. "
            f"Use one of {', '.join(WRITABLE)}"
        )
