"""NRRD read: `.nrrd` and `.nhdr` through pynrrd's header parser; voxels read here, bounded.

Segmentations of 3D Slicer (`.seg.nrrd`) are NRRD files with more fields; see nrrd_seg.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, GeometryError, TooLarge, UnsupportedFormat
from samaritan.geometry import FloatArray, Grid
from samaritan.io.files import (
    Compression,
    check_need,
    file_size,
    guard,
    inside,
    pieces,
    read_voxels,
)
from samaritan.io.options import ReadOptions
from samaritan.io.values import choose_frame, native, non_finite_note
from samaritan.volume import Volume

Array = npt.NDArray[Any]

HEADER_BYTES = 4 << 20
"""A header is never longer: it is read before anything in the file is trusted."""

_TYPES = {
    "int8": "signed char, int8, int8_t",
    "uint8": "uchar, unsigned char, uint8, uint8_t",
    "int16": "short, short int, signed short, signed short int, int16, int16_t",
    "uint16": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "int32": "int, signed int, int32, int32_t",
    "uint32": "uint, unsigned int, uint32, uint32_t",
    "int64": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "uint64": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "float32": "float",
    "float64": "double",
}
_DTYPES = {name: kind for kind, names in _TYPES.items() for name in names.split(", ")}
_ENCODINGS: dict[str, Compression] = {"raw": None, "gzip": "gzip", "gz": "gzip"}
_ENCODINGS |= {"bzip2": "bzip2", "bz2": "bzip2"}
_SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "ras": (1, 1, 1),
    "las": (-1, 1, 1),
    "lps": (-1, -1, 1),
}
_UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3}
_CHANNEL_KINDS = {
    "vector", "covariant-vector", "point", "normal", "stub", "scalar", "complex", "2-vector",
    "3-color", "rgb-color", "hsv-color", "xyz-color", "4-color", "rgba-color", "3-vector",
    "3-gradient", "3-normal", "4-vector", "quaternion", "2d-symmetric-matrix", "2d-matrix",
    "3d-symmetric-matrix", "3d-matrix", "2d-masked-symmetric-matrix", "2d-masked-matrix",
    "3d-masked-symmetric-matrix", "3d-masked-matrix",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What a header says, checked.

    Attributes:
        fields: the header as pynrrd parses it.
        sizes: length of each axis on disk, the fastest first.
        dtype: type on disk.
        spatial: the axes of space, one to three.
        others: the axes that are not of space and hold more than one entry.
        kinds: kind of each axis, lower case.
        grid: where the voxels lie.
        data_start: first byte after the header.
        notes: what was odd.
    """

    fields: Mapping[str, Any]
    sizes: tuple[int, ...]
    dtype: np.dtype[Any]
    spatial: tuple[int, ...]
    others: tuple[int, ...]
    kinds: tuple[str, ...]
    grid: Grid
    data_start: int
    notes: tuple[str, ...]


def read(path: Path, options: ReadOptions) -> Volume:
    """Read an image.

    Raises:
        CorruptFile, UnsupportedFormat, TooLarge, GeometryError: naming the file.
    """
    layout = read_layout(path)
    array, channels, frames, frame = _arranged(path, layout, options)
    meta = {
        "source": str(path),
        "format": "NRRD",
        "dtype": layout.dtype.name,
        "encoding": str(layout.fields.get("encoding", "")),
        "frames": frames,
        "frame": frame,
    }
    return Volume(array, layout.grid, channels, meta, (*layout.notes, *non_finite_note(array)))


def read_layout(path: Path) -> Layout:
    """Read and check the header."""
    fields, data_start = _fields(path)
    sizes = _sizes(fields, path)
    kinds = _kinds(fields, len(sizes), path)
    notes: list[str] = []
    spatial = _spatial_axes(fields, sizes, kinds, path)
    others = tuple(a for a in range(len(sizes)) if a not in spatial and sizes[a] > 1)
    grid = _grid(fields, sizes, spatial, path, notes)
    return Layout(
        fields, sizes, _dtype(fields, path), spatial, others, kinds, grid, data_start, tuple(notes)
    )


# -- header --------------------------------------------------------------------------------------


def _fields(path: Path) -> tuple[dict[str, Any], int]:
    """Parse the header; also the position of what follows it."""
    import nrrd

    file_size(path)
    lines, end = [], 0
    with path.open("rb") as file:
        while line := file.readline(HEADER_BYTES):
            end += len(line)
            if end > HEADER_BYTES:
                raise TooLarge(f"{path}: its header is longer than {HEADER_BYTES} bytes")
            if not line.strip(b"\r\n"):
                break
            lines.append(line.decode("utf-8", "replace"))
    with guard(path):
        fields = dict(nrrd.read_header(lines))
    return fields, end


def _sizes(fields: Mapping[str, Any], path: Path) -> tuple[int, ...]:
    with guard(path):
        sizes = tuple(int(n) for n in fields["sizes"])
        dimension = int(fields["dimension"])
    if len(sizes) != dimension or not 1 <= dimension <= 16 or min(sizes) < 1:
        raise CorruptFile(
            f"{path}: its header says dimension {dimension} and sizes {list(sizes)}, "
            "expected as many positive sizes"
        )
    return sizes


def _kinds(fields: Mapping[str, Any], count: int, path: Path) -> tuple[str, ...]:
    kinds = tuple(str(k).lower() for k in fields.get("kinds", ["???"] * count))
    if len(kinds) != count:
        raise CorruptFile(f"{path}: {len(kinds)} kinds for {count} axes")
    return kinds


def _dtype(fields: Mapping[str, Any], path: Path) -> np.dtype[Any]:
    name = " ".join(str(fields.get("type", "")).lower().split())
    if name not in _DTYPES:
        raise UnsupportedFormat(f"{path}: voxels of type {name!r} cannot be read")
    dtype: np.dtype[Any] = np.dtype(_DTYPES[name])
    endian = str(fields.get("endian", "")).lower()
    if dtype.itemsize > 1 and str(fields.get("encoding")).lower() not in ("ascii", "text", "txt"):
        if endian not in ("little", "big"):
            raise CorruptFile(f"{path}: its header does not say the byte order (endian)")
        dtype = dtype.newbyteorder("<" if endian == "little" else ">")
    return dtype


def _directions(
    fields: Mapping[str, Any], count: int, path: Path
) -> list[FloatArray | None] | None:
    """Direction vector of each axis, None for axes that are not of space; None if none are stored."""
    stored = fields.get("space directions")
    if stored is None:
        return None
    rows: list[FloatArray | None] = []
    with guard(path):
        for row in stored:
            vector = None if row is None else np.asarray(row, float).ravel()
            rows.append(None if vector is None or np.isnan(vector).all() else vector)
    if len(rows) != count:
        raise CorruptFile(f"{path}: {len(rows)} space directions for {count} axes")
    return rows


def _spatial_axes(
    fields: Mapping[str, Any], sizes: tuple[int, ...], kinds: tuple[str, ...], path: Path
) -> tuple[int, ...]:
    directions = _directions(fields, len(sizes), path)
    if directions is not None:
        spatial = tuple(a for a, vector in enumerate(directions) if vector is not None)
    else:
        plain = [a for a, kind in enumerate(kinds) if kind in ("domain", "space", "???", "none")]
        spatial = tuple(plain[:3])
    if not 2 <= len(spatial) <= 3:
        raise UnsupportedFormat(
            f"{path} has {len(spatial)} axes of space (sizes {list(sizes)}, kinds {list(kinds)}); "
            "an image needs two or three"
        )
    return spatial


def _grid(
    fields: Mapping[str, Any],
    sizes: tuple[int, ...],
    spatial: tuple[int, ...],
    path: Path,
    notes: list[str],
) -> Grid:
    signs, factor = _space(fields, path, notes), _unit(fields, path, notes)
    directions = _directions(fields, len(sizes), path)
    affine = np.eye(4)
    with guard(path), np.errstate(all="ignore"):
        if directions is None:
            spacings = np.asarray(fields.get("spacings", np.ones(len(sizes))), float)
            for column, axis in enumerate(spatial):
                affine[column, column] = spacings[axis] if np.isfinite(spacings[axis]) else 1.0
        else:
            for column, axis in enumerate(spatial):
                vector = directions[axis]
                assert vector is not None
                affine[:3, column] = 0
                affine[: len(vector), column] = vector
        if len(spatial) == 2:
            normal = np.cross(affine[:3, 0], affine[:3, 1])
            affine[:3, 2] = normal / (np.linalg.norm(normal) or 1)
        affine[:3, 3] = _origin(fields, directions is not None, path, notes)
    affine = np.diag([*(factor * np.asarray(signs)), 1.0]) @ affine
    if len(spatial) == 2:
        affine[:3, 2] /= factor
    shape = [*(sizes[a] for a in spatial), 1][:3]
    try:
        unit = "px" if fields.get("samaritan unit") == "px" else "mm"
        grid = Grid(tuple(shape), affine, unit)  # type: ignore[arg-type]
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    if grid.is_sheared:
        notes.append("The axes are sheared (not at right angles); the affine is kept exactly.")
    return grid


def _space(fields: Mapping[str, Any], path: Path, notes: list[str]) -> tuple[int, int, int]:
    space = str(fields.get("space", "")).lower().removesuffix("-time").removesuffix("t")
    dimension = fields.get("space dimension", 3)
    if space in _SPACES:
        return _SPACES[space]
    if space and space not in ("scanner-xyz", "3d-right-handed", "3d-left-handed"):
        raise UnsupportedFormat(f"{path}: the space {space!r} cannot be read")
    if dimension not in (2, 3):
        raise UnsupportedFormat(f"{path}: a space of {dimension} dimensions cannot be read")
    said = f"The space is {space!r}, which" if space else "No space is stored, which"
    notes.append(
        f"{said} does not say where left and right are; taken as left-posterior-superior, as ITK does."
    )
    return _SPACES["lps"]


def _origin(fields: Mapping[str, Any], directed: bool, path: Path, notes: list[str]) -> FloatArray:
    origin = np.zeros(3)
    stored = fields.get("space origin")
    if stored is not None:
        values = np.asarray(stored, float).ravel()[:3]
        origin[: len(values)] = values
    elif directed:
        notes.append("No origin is stored; (0, 0, 0) is assumed.")
    return origin


def _unit(fields: Mapping[str, Any], path: Path, notes: list[str]) -> float:
    units = {str(u).strip().strip('"').lower() for u in fields.get("space units", [])} - {""}
    if not units or units == {"mm"}:
        return 1.0
    if len(units) > 1 or not units <= set(_UNITS):
        raise UnsupportedFormat(f"{path}: space units {sorted(units)} cannot be read; expected mm")
    unit = units.pop()
    notes.append(f"The file measures in {unit}; converted to millimetres.")
    return _UNITS[unit]


# -- voxels --------------------------------------------------------------------------------------


def _arranged(
    path: Path, layout: Layout, options: ReadOptions
) -> tuple[Array, tuple[str, ...], int, int | None]:
    """Array with the axes of space first, channel names, number of frames, the frame chosen."""
    if len(layout.others) > 1:
        raise UnsupportedFormat(
            f"{path} has axes of sizes {list(layout.sizes)} and kinds {list(layout.kinds)}: "
            "at most one axis beside those of space can be read"
        )
    stored = read_data(path, layout, options.max_bytes)
    order = (*layout.spatial, *layout.others)
    rest = [a for a in range(len(layout.sizes)) if a not in order]
    array = stored.transpose(*order, *rest).squeeze(tuple(range(len(order), stored.ndim)))
    if len(layout.spatial) == 2:
        array = array[:, :, None]
    if not layout.others:
        return array, (), 1, 0
    axis = layout.others[0]
    count, kind = layout.sizes[axis], layout.kinds[axis]
    if kind in _CHANNEL_KINDS and options.frame is None:
        letters = {"rgb-color": "RGB", "rgba-color": "RGBA", "3-color": "RGB"}.get(kind, "")
        return array, tuple(letters) or tuple(f"channel {n}" for n in range(count)), 1, 0
    frame = choose_frame(count, options.frame, path)
    if frame is None:
        return array, tuple(f"frame {n}" for n in range(count)), count, None
    return np.array(array[..., frame], order="K"), (), count, frame


def read_data(path: Path, layout: Layout, max_bytes: int | None) -> Array:
    """Read the voxels as they lie on disk: shape `layout.sizes`, the first axis fastest."""
    fields = layout.fields
    encoding = str(fields.get("encoding", "")).lower()
    count = math.prod(layout.sizes)
    data, offset = _data_file(path, fields, layout.data_start)
    with guard(path):
        lines = int(fields.get("line skip", fields.get("lineskip", 0)) or 0)
        skip = int(fields.get("byte skip", fields.get("byteskip", 0)) or 0)
    if lines < 0 or skip < -1:
        raise CorruptFile(f"{path}: line skip {lines} and byte skip {skip} cannot be followed")
    offset = _skip_lines(data, offset, lines)
    if encoding in ("ascii", "text", "txt"):
        values = _text(data, offset, count, layout.dtype, max_bytes)
    elif encoding in _ENCODINGS:
        packing = _ENCODINGS[encoding]
        need = count * layout.dtype.itemsize
        if skip == -1:
            check_need(path, need, max_bytes)
            skip = _length(data, offset, packing) - need
        values = read_voxels(
            data,
            layout.dtype,
            count,
            offset=offset if packing or skip < 0 else offset + skip,
            skip=skip if packing or skip < 0 else 0,
            compression=packing,
            max_bytes=max_bytes,
            exact=packing is not None,
        )
    else:
        raise UnsupportedFormat(f"{path}: data encoded as {encoding!r} cannot be read")
    return native(values).reshape(layout.sizes, order="F")


def _data_file(path: Path, fields: Mapping[str, Any], data_start: int) -> tuple[Path, int]:
    name = fields.get("data file", fields.get("datafile"))
    if name is None:
        return path, data_start
    if str(name).split()[:1] == ["LIST"] or "%" in str(name):
        raise UnsupportedFormat(
            f"{path}: data spread over several files ({name!r}) cannot be read; join them into one"
        )
    return inside(path.parent, str(name), path), 0


def _skip_lines(path: Path, offset: int, lines: int) -> int:
    if lines == 0:
        return offset
    with path.open("rb") as file:
        file.seek(offset)
        for _ in range(lines):
            line = file.readline(HEADER_BYTES)
            if not line.endswith(b"\n"):
                raise CorruptFile(f"{path} ends before the {lines} lines that are to be skipped")
        return file.tell()


def _length(path: Path, offset: int, packing: Compression) -> int:
    """Bytes after `offset`, decompressed."""
    if packing is None:
        return file_size(path) - offset
    with path.open("rb") as file, guard(path):
        file.seek(offset)
        return sum(len(piece) for piece in pieces(file, packing))


def _text(
    path: Path, offset: int, count: int, dtype: np.dtype[Any], max_bytes: int | None
) -> Array:
    size = file_size(path) - offset
    if count > size:
        raise CorruptFile(
            f"{path}: {count} values are promised, but only {size} characters are there"
        )
    check_need(path, size * 4 + count * dtype.itemsize, max_bytes)
    with path.open("rb") as file, guard(path):
        file.seek(offset)
        words = file.read(size).decode("ascii").split()
        numbers = [float(w) for w in words] if dtype.kind == "f" else [int(w) for w in words]
        values = np.array(numbers, dtype)
    if values.size != count:
        raise CorruptFile(f"{path}: {count} values are promised, {values.size} are there")
    return values
