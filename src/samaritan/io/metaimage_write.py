"""MetaImage written: `.mha` in one file, `.mhd` with `.zraw` beside it, both compressed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import GeometryError
from samaritan.io.files import check_written, fortran_bytes, replacing
from samaritan.io.metaimage import lps, read_layout
from samaritan.io.values import storable
from samaritan.volume import Volume

Array = npt.NDArray[Any]

_NAMES = {
    "int8": "CHAR",
    "uint8": "UCHAR",
    "int16": "SHORT",
    "uint16": "USHORT",
    "int32": "INT",
    "uint32": "UINT",
    "int64": "LONG_LONG",
    "uint64": "ULONG_LONG",
    "float32": "FLOAT",
    "float64": "DOUBLE",
}
_ABLE = "NIfTI (.nii.gz) or NRRD (.nrrd)"
_LEVEL = 3


def write(volume: Volume, path: Path) -> None:
    """Write a MetaImage.

    Raises:
        GeometryError: if the grid is sheared: ITK takes the matrix for a rotation.
    """
    if volume.grid.is_sheared:
        raise GeometryError(
            f"{path}: MetaImage cannot hold sheared axes ({volume.grid!r}). Write {_ABLE} instead"
        )
    array = _stored(volume, path)
    if array.ndim == 4:
        array = np.moveaxis(array, 3, 0)
    if path.name.lower().endswith(".mha"):
        with replacing(path) as (new,):
            with new.open("wb") as file:
                # the size of the compressed data stands in the header: room is left, and filled in at the end
                start = file.write(_header(volume, array, 0, "LOCAL"))
                file.writelines(_packed(array))
                size = file.tell() - start
                file.seek(0)
                file.write(_header(volume, array, size, "LOCAL"))
            check_written(read_layout(new).grid, volume.grid, path, _ABLE)
        return
    data = path.with_suffix(".zraw")
    with replacing(data, path) as (new_data, new):
        with new_data.open("wb") as file:
            file.writelines(_packed(array))
        new.write_bytes(_header(volume, array, new_data.stat().st_size, data.name))
        check_written(read_layout(new).grid, volume.grid, path, _ABLE)


def _stored(volume: Volume, path: Path) -> Array:
    array = storable(volume.array, _NAMES, path, "MetaImage")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def _header(volume: Volume, array: Array, size: int, data_file: str) -> bytes:
    direction, origin = lps(volume.grid)
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = True",
        f"CompressedDataSize = {size:<20d}",
        f"TransformMatrix = {_told(direction.T.ravel())}",
        f"Offset = {_told(origin)}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_told(volume.grid.spacing_mm)}",
        f"DimSize = {' '.join(map(str, volume.shape))}",
    ]
    if volume.grid.unit == "px":
        lines.append("SamaritanUnit = px")
    if array.ndim == 4:
        lines.append(f"ElementNumberOfChannels = {array.shape[0]}")
        names = [" ".join(name.replace("|", " ").split()) for name in volume.channels]
        lines.append(f"SamaritanChannels = {'|'.join(names)}")
    lines += [f"ElementType = MET_{_NAMES[array.dtype.name]}", f"ElementDataFile = {data_file}"]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _told(values: Any) -> str:
    return " ".join(repr(float(v) + 0.0) for v in values)


def _packed(array: Array) -> Iterator[bytes]:
    packer = zlib.compressobj(_LEVEL)
    for piece in fortran_bytes(array):
        yield packer.compress(piece)
    yield packer.flush()
