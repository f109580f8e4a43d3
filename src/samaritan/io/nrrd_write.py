"""NRRD written: `.nrrd` in one file, `.nhdr` with its data beside it; `.seg.nrrd` for 3D Slicer."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.io.files import check_written, fortran_bytes, replacing
from samaritan.io.nrrd_header import read_layout
from samaritan.io.values import storable
from samaritan.volume import Volume

Array = npt.NDArray[Any]

GZIP_LEVEL = 3
_NAMES = {
    "int8": "int8",
    "uint8": "uint8",
    "int16": "int16",
    "uint16": "uint16",
    "int32": "int32",
    "uint32": "uint32",
    "int64": "int64",
    "uint64": "uint64",
    "float32": "float",
    "float64": "double",
}
_ABLE = "NIfTI (.nii.gz)"


def write(
    volume: Volume,
    path: Path,
    *,
    fields: Mapping[str, str] | None = None,
    channel_kind: str | None = None,
) -> None:
    """Write `.nrrd` (gzip inside), or `.nhdr` and `.raw.gz`. Every grid can be kept, sheared ones too.

    Args:
        volume: what to write.
        path: where.
        fields: more key-value pairs for the header.
        channel_kind: NRRD kind of the axis of channels; by default that of colours, or "vector".
    """
    array, kind = (
        storable(volume.array, _NAMES, path, "NRRD"),
        channel_kind or _channel_kind(volume),
    )
    more = dict(fields or {})
    if volume.grid.unit == "px":
        more["samaritan unit"] = "px"
    if array.ndim == 4:
        array = np.moveaxis(array, 3, 0)
    detached = path.name.lower().endswith(".nhdr")
    data = path.with_name(path.name[:-5] + ".raw.gz") if detached else None
    header = _header(volume, array, kind, data.name if data else None, more)
    if data is None:
        with replacing(path) as (new,):
            with new.open("wb") as file:
                file.write(header)
                file.writelines(_packed(array))
            check_written(read_layout(new).grid, volume.grid, path, _ABLE)
        return
    with replacing(data, path) as (new_data, new):
        new.write_bytes(header)
        with new_data.open("wb") as file:
            file.writelines(_packed(array))
        check_written(read_layout(new).grid, volume.grid, path, _ABLE)


def _channel_kind(volume: Volume) -> str:
    colors = {("R", "G", "B"): "RGB-color", ("R", "G", "B", "A"): "RGBA-color"}
    return colors.get(volume.channels, "vector")


def _header(
    volume: Volume, array: Array, kind: str, data_file: str | None, more: Mapping[str, str]
) -> bytes:
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.grid.affine
    vectors = [_vector(affine[:3, axis]) for axis in range(3)]
    kinds = ["domain"] * 3
    if array.ndim == 4:
        vectors, kinds = ["none", *vectors], [kind, *kinds]
    lines = [
        "NRRD0005",
        f"type: {_NAMES[array.dtype.name]}",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {' '.join(vectors)}",
        f"kinds: {' '.join(kinds)}",
        f"endian: {'little' if np.little_endian else 'big'}",
        "encoding: gzip",
        f"space origin: {_vector(affine[:3, 3])}",
    ]
    if data_file:
        lines.append(f"data file: {data_file}")
    lines += [f"{key}:={_one_line(value)}" for key, value in more.items()]
    return ("\n".join(lines) + "\n\n").encode("utf-8")


def _vector(values: Array) -> str:
    return "(" + ",".join(repr(float(v) + 0.0) for v in values) + ")"


def _one_line(value: str) -> str:
    return " ".join(value.split())


def _packed(array: Array) -> Iterator[bytes]:
    """Gzip the bytes, the first axis fastest, without a second copy of the array."""
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 31)
    native = array.dtype.newbyteorder("=")
    for piece in fortran_bytes(array if array.dtype == native else array.astype(native)):
        yield packer.compress(piece)
    yield packer.flush()
