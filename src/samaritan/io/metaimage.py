"""MetaImage read: `.mha` in one file, `.mhd` with its data beside it.

The header is a few lines of text, parsed and checked here, so that memory is bounded before anything
is read; tests compare the result with ITK's own reader.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, GeometryError, UnsupportedFormat
from samaritan.geometry import FloatArray, Grid
from samaritan.io.files import (
    Compression,
    file_size,
    guard,
    inside,
    read_text,
    read_voxels,
)
from samaritan.io.options import ReadOptions
from samaritan.io.values import choose_frame, native, non_finite_note
from samaritan.volume import Volume

Array = npt.NDArray[Any]

_HEADER_BYTES = 1 << 20
_TYPES = {
    "CHAR": "i1", "UCHAR": "u1", "SHORT": "i2", "USHORT": "u2", "INT": "i4", "UINT": "u4",
    "LONG": "i4", "ULONG": "u4", "LONG_LONG": "i8", "ULONG_LONG": "u8", "FLOAT": "f4", "DOUBLE": "f8",
}  # fmt: skip
_FROM_TO = {"R": "L", "L": "R", "A": "P", "P": "A", "I": "S", "S": "I"}
_TRUE = ("true", "1", "yes")


@dataclass(frozen=True)
class Layout:
    """What a header says, checked.

    Attributes:
        fields: the header, keys in lower case.
        sizes: length of each axis, the fastest first, without channels.
        channels: values of each voxel.
        dtype: type on disk.
        grid: where the voxels lie.
        data_start: first byte after the header.
        notes: what was odd.
    """

    fields: Mapping[str, str]
    sizes: tuple[int, ...]
    channels: int
    dtype: np.dtype[Any]
    grid: Grid
    data_start: int
    notes: tuple[str, ...]


def read(path: Path, options: ReadOptions) -> Volume:
    """Read an image.

    Raises:
        CorruptFile, UnsupportedFormat, TooLarge, GeometryError: naming the file.
    """
    layout = read_layout(path)
    frames = math.prod(layout.sizes[3:])
    frame = choose_frame(frames, options.frame, path)
    if frame is None and layout.channels > 1:
        raise UnsupportedFormat(
            f"{path}: frames of several channels are read one by one, with frame="
        )
    stored = native(_data(path, layout, options.max_bytes))
    array = stored.reshape(layout.channels, *layout.grid.shape, frames, order="F")
    chosen = (
        array[..., 0] if frames == 1 else array[0] if frame is None else array[..., frame].copy()
    )
    names: tuple[str, ...] = ()
    if frame is None and frames > 1:
        names = tuple(f"frame {n}" for n in range(frames))
    elif layout.channels == 1:
        chosen = chosen[0]
    else:
        chosen, names = np.moveaxis(chosen, 0, -1), _channel_names(layout)
    meta = {
        "source": str(path),
        "format": "MetaImage",
        "dtype": layout.dtype.name,
        "modality": layout.fields.get("modality", "").removeprefix("MET_MOD_"),
        "frames": frames,
        "frame": frame,
    }
    return Volume(chosen, layout.grid, names, meta, (*layout.notes, *non_finite_note(chosen)))


def read_layout(path: Path) -> Layout:
    """Read and check the header."""
    fields, data_start = _fields(path)
    with guard(path):
        dimensions = int(fields["ndims"])
        sizes = tuple(int(n) for n in fields["dimsize"].split())
        channels = int(fields.get("elementnumberofchannels", "1"))
    if len(sizes) != dimensions or not 2 <= dimensions <= 10 or min(sizes) < 1 or channels < 1:
        raise CorruptFile(
            f"{path}: its header says NDims {dimensions}, DimSize {list(sizes)} and {channels} channels, "
            "expected two or more axes and as many positive sizes"
        )
    name = fields.get("elementtype", "").upper().removeprefix("MET_").removesuffix("_ARRAY")
    if name not in _TYPES:
        raise UnsupportedFormat(f"{path}: voxels of type {name!r} cannot be read")
    big = _flag(fields, "elementbyteordermsb", "binarydatabyteordermsb")
    dtype = np.dtype((">" if big else "<") + _TYPES[name])
    notes: list[str] = []
    grid = _grid(fields, dimensions, sizes, path, notes)
    return Layout(fields, sizes, channels, dtype, grid, data_start, tuple(notes))


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Parse lines up to ElementDataFile; also the position of what follows."""
    file_size(path)
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while line := file.readline(_HEADER_BYTES):
            key, equals, value = line.decode("utf-8", "replace").partition("=")
            if not equals or file.tell() > _HEADER_BYTES:
                if line.strip():
                    break
                continue
            fields[key.strip().lower()] = value.strip()
            if key.strip().lower() == "elementdatafile":
                return fields, file.tell()
    raise CorruptFile(f"{path}: its header has no ElementDataFile")


def _flag(fields: Mapping[str, str], *names: str) -> bool:
    return any(fields.get(name, "").lower() in _TRUE for name in names)


def _numbers(fields: Mapping[str, str], names: tuple[str, ...], count: int, path: Path) -> Any:
    for name in names:
        if name in fields:
            with guard(path):
                values = np.array([float(v) for v in fields[name].split()])
            if values.size != count:
                raise CorruptFile(f"{path}: {name} holds {values.size} numbers, expected {count}")
            return values
    return None


def _grid(
    fields: Mapping[str, str], n: int, sizes: tuple[int, ...], path: Path, notes: list[str]
) -> Grid:
    spacing = _numbers(fields, ("elementspacing", "elementsize"), n, path)
    matrix = _numbers(fields, ("transformmatrix", "rotation", "orientation"), n * n, path)
    origin = _numbers(fields, ("offset", "origin", "position"), n, path)
    if spacing is None:
        notes.append("No spacing is stored; 1 mm is assumed.")
    used = min(n, 3)
    affine = np.eye(4)
    directions = np.eye(n) if matrix is None else matrix.reshape(n, n).T
    with np.errstate(all="ignore"):
        affine[:used, :used] = (directions * (1.0 if spacing is None else spacing))[:used, :used]
    if origin is not None:
        affine[:used, 3] = origin[:used]
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS to RAS
    try:
        unit = "px" if fields.get("samaritanunit") == "px" else "mm"
        grid = Grid((*sizes[:3], 1)[:3], affine, unit)  # type: ignore[arg-type]
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    if grid.is_sheared:
        notes.append("The axes are sheared (not at right angles); the affine is kept exactly.")
    _compare_letters(fields.get("anatomicalorientation", ""), grid, notes, n)
    return grid


def _compare_letters(letters: str, grid: Grid, notes: list[str], n: int) -> None:
    """Note where AnatomicalOrientation ("RAI": from right, ...) contradicts the matrix, which wins."""
    if n != 3 or len(letters) != 3 or not set(letters) <= set(_FROM_TO):
        return
    said = "".join(_FROM_TO[letter] for letter in letters)
    if said != grid.orientation:
        notes.append(
            f"AnatomicalOrientation says {said}, TransformMatrix {grid.orientation}; the matrix is used."
        )


def _channel_names(layout: Layout) -> tuple[str, ...]:
    stored = layout.fields.get("samaritanchannels", "").split("|")
    if len(stored) == layout.channels:
        return tuple(stored)
    colors = {3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}.get(layout.channels)
    if colors and layout.dtype == np.uint8:
        return colors
    return tuple(f"channel {n}" for n in range(layout.channels))


def _data(path: Path, layout: Layout, max_bytes: int | None) -> Array:
    fields, count = layout.fields, math.prod(layout.sizes) * layout.channels
    name = fields["elementdatafile"]
    if name.upper().split()[:1] == ["LIST"] or "%" in name:
        raise UnsupportedFormat(
            f"{path}: data spread over several files ({name!r}) cannot be read; join them into one"
        )
    local = name.upper() == "LOCAL"
    file = path if local else inside(path.parent, name, path)
    offset = layout.data_start if local else 0
    if not _flag({"binarydata": "True", **fields}, "binarydata"):
        return read_text(file, offset, count, layout.dtype, max_bytes)
    packing: Compression = "zlib" if _flag(fields, "compresseddata") else None
    with guard(path):
        skip = int(fields.get("headersize", "0"))
    if skip == -1 and packing is None:
        offset = file_size(file) - count * layout.dtype.itemsize
    elif skip > 0:
        offset += skip
    return read_voxels(
        file, layout.dtype, count, offset=offset, compression=packing, max_bytes=max_bytes
    )


def lps(grid: Grid) -> tuple[FloatArray, FloatArray]:
    """Direction matrix (columns) and origin of a grid in LPS, as ITK writes them."""
    flip = np.diag([-1.0, -1.0, 1.0])
    return flip @ grid.direction, flip @ np.asarray(grid.origin_mm)
