"""NRRD read: `.nrrd` and `.nhdr`, every usual encoding, the voxels read once and bounded.

Segmentations of 3D Slicer (`.seg.nrrd`) are NRRD files with more fields; see nrrd_seg.py.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, UnsupportedFormat
from samaritan.io.files import (
    Compression,
    check_need,
    file_size,
    guard,
    inside,
    pieces,
    read_text,
    read_voxels,
)
from samaritan.io.nrrd_header import HEADER_BYTES, Layout, read_layout
from samaritan.io.options import ReadOptions
from samaritan.io.values import choose_frame, native, non_finite_note
from samaritan.volume import Volume

Array = npt.NDArray[Any]

_ENCODINGS: dict[str, Compression] = {"raw": None, "gzip": "gzip", "gz": "gzip"}
_ENCODINGS |= {"bzip2": "bzip2", "bz2": "bzip2"}
_CHANNEL_KINDS = {
    "vector", "covariant-vector", "point", "normal", "stub", "scalar", "complex", "2-vector",
    "3-color", "rgb-color", "hsv-color", "xyz-color", "4-color", "rgba-color", "3-vector",
    "3-gradient", "3-normal", "4-vector", "quaternion", "2d-symmetric-matrix", "2d-matrix",
    "3d-symmetric-matrix", "3d-matrix", "2d-masked-symmetric-matrix", "2d-masked-matrix",
    "3d-masked-symmetric-matrix", "3d-masked-matrix",
}  # fmt: skip


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
        values = read_text(data, offset, count, layout.dtype, max_bytes)
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
