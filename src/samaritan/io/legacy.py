"""Older formats that nibabel reads: MINC, AFNI, PAR/REC and Analyze. They are not written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from samaritan.errors import CorruptFile, FileError, GeometryError, UnsupportedFormat
from samaritan.geometry import Grid
from samaritan.io.files import DEFLATE_RATIO, check_need, file_size, guard, read_head
from samaritan.io.hdf5 import h5py_for
from samaritan.io.options import ReadOptions
from samaritan.io.values import choose_frame, native, non_finite_note
from samaritan.volume import Volume

_NAMES = {"analyze": "Analyze", "minc": "MINC", "afni": "AFNI", "parrec": "PAR/REC"}


def read(path: Path, family: str, options: ReadOptions) -> Volume:
    """Read an image of one of the older formats.

    Raises:
        CorruptFile, UnsupportedFormat, TooLarge, GeometryError: naming the file.
    """
    header_path = _header_file(path, family)
    if family == "minc" and read_head(header_path, 4) == b"\x89HDF":
        h5py_for("read MINC 2 files")
    with guard(path):
        image = _load(header_path, family)
    try:
        return _volume(image, path, family, options)
    finally:
        _close(image)


def _volume(image: Any, path: Path, family: str, options: ReadOptions) -> Volume:
    with guard(path):
        shape = tuple(int(n) for n in image.shape)
        affine = np.asarray(image.affine, float)
        dtype = np.dtype(image.get_data_dtype())
    shape = (*shape, 1, 1)[: max(len(shape), 3)]
    if min(shape) < 1 or any(n > 1 for n in shape[4:]):
        raise UnsupportedFormat(
            f"{path} has axes {shape}; three of space and one of time can be read"
        )
    _check_size(image, shape, dtype, path, options)
    grid, notes = _grid(shape, affine, family, path)
    frames = math.prod(shape[3:])
    frame = choose_frame(frames, options.frame, path)
    array = _array(image, path, frames, frame, dtype)
    names = tuple(f"frame {n}" for n in range(frames)) if array.ndim == 4 else ()
    meta = {
        "source": str(path),
        "format": _NAMES[family],
        "dtype": dtype.name,
        "frames": frames,
        "frame": frame,
    }
    return Volume(array, grid, names, meta, (*notes, *non_finite_note(array)))


def _header_file(path: Path, family: str) -> Path:
    """Say which file of a pair holds the header."""
    swaps = {
        "afni": ((".BRIK", ".HEAD"), (".brik", ".head")),
        "parrec": ((".REC", ".PAR"), (".rec", ".par")),
        "analyze": ((".img", ".hdr"), (".IMG", ".HDR")),
    }.get(family, ())
    for data, header in swaps:
        for suffix in (data, data + ".gz", data + ".bz2"):
            if path.name.endswith(suffix):
                found = path.with_name(path.name[: -len(suffix)] + header)
                if not found.is_file():
                    raise FileError(
                        f"{path} needs its header {found.name}, which is missing beside it"
                    )
                return found
    return path


def _load(path: Path, family: str) -> Any:
    """Open with the class of that family, so that nothing is guessed from the name."""
    import nibabel as nib

    if family == "minc":
        two = read_head(path, 4) == b"\x89HDF"
        return (nib.Minc2Image if two else nib.Minc1Image).from_filename(path)
    if family == "afni":
        from nibabel.brikhead import AFNIImage

        return AFNIImage.from_filename(path)
    if family == "parrec":
        from nibabel.parrec import PARRECImage

        return PARRECImage.from_filename(path, permit_truncated=False, strict_sort=True)
    return nib.Spm2AnalyzeImage.from_filename(path)


def _close(image: Any) -> None:
    """Close the file that nibabel's PAR/REC reader leaves open."""
    opened = getattr(image.dataobj, "file_like", None)
    if opened is not None and hasattr(opened, "close"):
        opened.close()


def _check_size(
    image: Any, shape: tuple[int, ...], dtype: np.dtype[Any], path: Path, options: ReadOptions
) -> None:
    stored = math.prod(shape) * max(dtype.itemsize, 1)
    names = [holder.filename for holder in image.file_map.values() if holder.filename]
    files = [Path(name) for name in names if Path(name).is_file()]
    if len(files) < len({*image.file_map}) and len(files) < len(names):
        missing = next(Path(name).name for name in names if not Path(name).is_file())
        raise FileError(f"{path} is half of a pair: {missing} is missing beside it")
    if stored > DEFLATE_RATIO * sum(file_size(file) for file in files):
        raise CorruptFile(
            f"{path}: its header promises {stored} bytes of voxels, which are not there"
        )
    check_need(path, math.prod(shape) * 8 + stored, options.max_bytes)


def _grid(shape: tuple[int, ...], affine: Any, family: str, path: Path) -> tuple[Grid, list[str]]:
    notes: list[str] = []
    if family == "analyze":
        notes.append(
            "Analyze stores no orientation: left and right are unknown. "
            "The first axis is taken to point left, as SPM has it."
        )
    try:
        grid = Grid(shape[:3], affine)  # type: ignore[arg-type]
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    if grid.is_sheared:
        notes.append("The axes are sheared (not at right angles); the affine is kept exactly.")
    return grid, notes


def _array(image: Any, path: Path, frames: int, frame: int | None, dtype: np.dtype[Any]) -> Any:
    with guard(path), np.errstate(all="ignore"):
        data = image.dataobj
        if frames > 1 and frame is not None:
            array = np.asarray(data[..., frame])
        else:
            array = np.asarray(data)
            array = array.reshape(*array.shape[:3], -1) if array.ndim > 3 else array
            array = array[..., 0] if array.ndim == 4 and array.shape[3] == 1 else array
        array = array.reshape((*array.shape, 1, 1)[: max(array.ndim, 3)])
        if array.dtype.kind not in "iufb":
            raise UnsupportedFormat(f"{path}: voxels of type {array.dtype} cannot be read")
        if array.dtype == np.float64 and dtype.itemsize <= 2:
            array = array.astype(np.float32)
        return native(np.array(array, order="K"))
