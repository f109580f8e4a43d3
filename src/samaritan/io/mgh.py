"""MGH and MGZ, FreeSurfer's format, read and written; nibabel interprets the header."""

from __future__ import annotations

import contextlib
import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, GeometryError, UnsupportedFormat
from samaritan.geometry import Grid
from samaritan.io.files import (
    check_written,
    fortran_bytes,
    guard,
    is_gzip,
    read_head,
    read_voxels,
    replacing,
)
from samaritan.io.options import ReadOptions
from samaritan.io.values import choose_frame, integer_dtype, native, non_finite_note
from samaritan.volume import Volume

Array = npt.NDArray[Any]

_DATA_START = 284
_HEADER = 90
_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_ABLE = "NIfTI (.nii.gz) or NRRD (.nrrd)"


def read(path: Path, options: ReadOptions) -> Volume:
    """Read an image.

    Raises:
        CorruptFile, UnsupportedFormat, TooLarge, GeometryError: naming the file.
    """
    header = _header(path)
    dims = [int(n) for n in header["dims"]]
    grid, notes = _grid(header, path)
    code = int(header["type"])
    if code not in _TYPES:
        raise UnsupportedFormat(f"{path}: voxels of MGH type {code} cannot be read")
    dtype, per_frame = np.dtype(_TYPES[code]), math.prod(dims[:3])
    frame = choose_frame(dims[3], options.frame, path)
    start = _DATA_START + (frame or 0) * per_frame * dtype.itemsize
    packed = is_gzip(path)
    values = read_voxels(
        path,
        dtype,
        per_frame * (dims[3] if frame is None else 1),
        offset=0 if packed else start,
        skip=start if packed else 0,
        compression="gzip" if packed else None,
        max_bytes=options.max_bytes,
        whole=dims[3] == 1,
    )
    array, names = native(values), ()
    if frame is None and dims[3] > 1:
        array = array.reshape(*grid.shape, dims[3], order="F")
        names = tuple(f"frame {n}" for n in range(dims[3]))  # type: ignore[assignment]
    else:
        array = array.reshape(grid.shape, order="F")
    meta = {
        "source": str(path),
        "format": "MGH",
        "dtype": dtype.name,
        "frames": dims[3],
        "frame": frame,
    }
    return Volume(array, grid, names, meta, (*notes, *non_finite_note(array)))


def _header(path: Path) -> Any:
    from nibabel.freesurfer.mghformat import MGHHeader

    head = read_head(path, _DATA_START)
    if len(head) < _DATA_START or int.from_bytes(head[:4], "big") != 1:
        raise CorruptFile(f"{path} does not start with a complete MGH header")
    with guard(path):
        header = MGHHeader(head[:_HEADER], check=False)
    dims = [int(n) for n in header["dims"]]
    if min(dims) < 1:
        raise CorruptFile(f"{path}: its header says dimensions {dims}, expected positive numbers")
    return header


def _grid(header: Any, path: Path) -> tuple[Grid, list[str]]:
    notes: list[str] = []
    if int(header["goodRASFlag"]) != 1:
        notes.append(
            "No orientation is stored (goodRASFlag is not 1): left and right are unknown; "
            "FreeSurfer's default, coronal slices, is used."
        )
        header = header.copy()
        header["delta"] = [1, 1, 1]
        header["Mdc"] = [[-1, 0, 0], [0, 0, -1], [0, 1, 0]]
        header["Pxyz_c"] = [0, 0, 0]
    with guard(path), np.errstate(all="ignore"):
        affine = np.asarray(header.get_affine(), float)
    try:
        grid = Grid(tuple(int(n) for n in header["dims"][:3]), affine)  # type: ignore[arg-type]
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    if grid.is_sheared:
        notes.append("The axes are sheared (not at right angles); the affine is kept exactly.")
    return grid, notes


def write(volume: Volume, path: Path) -> None:
    """Write `.mgh`, or `.mgz`, which is gzipped. Integers are widened to a type that MGH has.

    Raises:
        UnsupportedFormat: if no type of MGH holds the voxels exactly.
        GeometryError: if single precision cannot hold the grid.
    """
    from nibabel.freesurfer.mghformat import MGHHeader

    if volume.grid.unit != "mm":
        raise GeometryError(f"{path}: MGH holds volumes in mm, not pictures. Write .png or {_ABLE}")
    array, code = _stored(volume, path)
    header = MGHHeader()
    header.set_data_shape(array.shape if array.ndim == 4 else (*array.shape, 1))
    header["type"] = code
    header["goodRASFlag"] = 1
    grid = volume.grid
    header["delta"] = grid.spacing_mm
    header["Mdc"] = grid.direction.T
    header["Pxyz_c"] = grid.index_to_mm(np.asarray(grid.shape) / 2)
    start = header.binaryblock[:_HEADER].ljust(_DATA_START, b"\0")
    planes = [array] if array.ndim == 3 else list(np.moveaxis(array, 3, 0))
    with replacing(path) as (new,):
        with contextlib.ExitStack() as stack:
            file: Any = stack.enter_context(new.open("wb"))
            if path.suffix.lower() == ".mgz":
                file = stack.enter_context(gzip.GzipFile("", "wb", 3, fileobj=file, mtime=0))
            file.write(start)
            for plane in planes:
                for piece in fortran_bytes(plane.astype(_TYPES[code])):
                    file.write(piece)
        check_written(_grid(_header(new), path)[0], grid, path, _ABLE)


def _stored(volume: Volume, path: Path) -> tuple[Array, int]:
    array = volume.array
    codes = {np.dtype(kind).newbyteorder("="): code for code, kind in _TYPES.items()}
    if array.dtype in (np.bool_, np.float16):
        array = array.astype(np.uint8 if array.dtype == np.bool_ else np.float32)
    if array.dtype.kind in "iu" and array.dtype not in codes:
        kind = integer_dtype(int(array.min()), int(array.max()))
        array = array if kind not in codes else array.astype(kind)
    if array.dtype not in codes:
        raise UnsupportedFormat(
            f"{path}: MGH holds 8, 16 and 32-bit integers and float32, not {array.dtype}. Write {_ABLE}"
        )
    return array, codes[array.dtype]
