"""Headers of NRRD files, parsed by pynrrd and checked: sizes, types, axes, and the grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, GeometryError, TooLarge, UnsupportedFormat
from samaritan.geometry import FloatArray, Grid
from samaritan.io.files import (
    file_size,
    guard,
)

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
_SPACES = {
    "right-anterior-superior": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "ras": (1, 1, 1),
    "las": (-1, 1, 1),
    "lps": (-1, -1, 1),
}
_UNITS = {"mm": 1.0, "cm": 10.0, "m": 1000.0, "um": 1e-3, "µm": 1e-3, "micron": 1e-3}


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
