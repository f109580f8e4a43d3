"""NIfTI written: sform exact, qform its nearest rotation, voxels streamed without a second copy."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from samaritan.errors import UnsupportedFormat
from samaritan.geometry import Grid
from samaritan.io.files import WRITTEN_VOXELS, check_written, fortran_bytes, replacing
from samaritan.io.nifti import PIXELS, header_grid
from samaritan.volume import LabelMap, Volume

Array = npt.NDArray[Any]

GZIP_LEVEL = 3
"""Medical images shrink hardly more at higher levels, which take three times as long."""

_CARET = 30
_COLORS = {("R", "G", "B"): "RGB", ("R", "G", "B", "A"): "RGBA"}


def write(volume: Volume, path: Path) -> None:
    """Write `.nii`, `.nii.gz`, or a `.hdr` and `.img` pair.

    NIfTI-2 is chosen where a dimension exceeds 32767 or single precision would move the grid. For
    sheared grids the code of the qform is 0, because no rotation says where the voxels lie.
    """
    match = re.fullmatch(r"(.+)\.(hdr|img)(\.gz)?", path.name, re.IGNORECASE)
    array, colors = _stored(volume, path)
    header = _header(volume, array, colors, single=match is None)
    extension = b"\0\0\0\0" if match else _extension(volume)
    size = int(header["sizeof_hdr"])
    header["vox_offset"] = 0 if match else size + len(extension)
    start = header.binaryblock + extension
    able = "NRRD (.nrrd)"
    if match is None:
        with replacing(path) as (new,):
            with _opened(new) as file:
                file.write(start)
                for piece in _bytes(array, colors):
                    file.write(piece)
            check_written(header_grid(new), volume.grid, path, able)
        return
    gz = match[3] or ""
    data = path.with_name(f"{match[1]}.img{gz}")
    with replacing(data, path.with_name(f"{match[1]}.hdr{gz}")) as (new_data, new_header):
        with _opened(new_header) as file:
            file.write(start)
        with _opened(new_data) as file:
            for piece in _bytes(array, colors):
                file.write(piece)
        check_written(header_grid(new_header), volume.grid, path, able)


def _stored(volume: Volume, path: Path) -> tuple[Array, str]:
    """Array as it goes to disk, and "RGB" or "RGBA" if it is stored as colours."""
    array = volume.array
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype.kind not in "iuf" or array.dtype.itemsize > 8:
        raise UnsupportedFormat(f"{path}: NIfTI is not written with voxels of type {array.dtype}")
    colors = _COLORS.get(volume.channels, "") if array.dtype == np.uint8 else ""
    return array.astype(array.dtype.newbyteorder("="), copy=False), colors


def _header(volume: Volume, array: Array, colors: str, *, single: bool) -> Any:
    from nibabel.nifti1 import Nifti1Header, Nifti1PairHeader
    from nibabel.nifti2 import Nifti2Header, Nifti2PairHeader

    one = max(array.shape) <= 32767 and _fits_single_precision(volume.grid)
    kinds = {
        (True, True): Nifti1Header,
        (True, False): Nifti1PairHeader,
        (False, True): Nifti2Header,
        (False, False): Nifti2PairHeader,
    }
    header = kinds[one, single]()
    shape = array.shape[:3] if colors or array.ndim == 3 else (*array.shape[:3], 1, array.shape[3])
    header.set_data_shape(shape)
    header.set_data_dtype(colors or array.dtype.newbyteorder("="))
    header["scl_slope"], header["scl_inter"] = 1, 0
    header.set_sform(volume.grid.affine, code=1)
    header.set_qform(volume.grid.affine, code=0 if volume.grid.is_sheared else 1)
    if len(shape) == 5:
        header["intent_code"] = 1007
    if volume.grid.unit == "mm":
        header["xyzt_units"] = 2
    else:
        header["xyzt_units"], header["descrip"] = 0, PIXELS
    return header


def _fits_single_precision(grid: Grid) -> bool:
    rounded = np.asarray(grid.affine, np.float32)
    if not np.isfinite(rounded).all():
        return False
    return Grid(grid.shape, rounded.astype(np.float64)).same_as(grid, voxels=WRITTEN_VOXELS)


def _extension(volume: Volume) -> bytes:
    """Label names as a Caret label table, padded to 16 bytes; the flag alone if there are none."""
    names = volume.names if isinstance(volume, LabelMap) else {}
    if not names:
        return b"\0\0\0\0"
    content = _caret(names)
    content += b"\0" * (-(len(content) + 8) % 16)
    order = "little" if np.little_endian else "big"
    sizes = (len(content) + 8).to_bytes(4, order) + _CARET.to_bytes(4, order)  # type: ignore[arg-type]
    return b"\1\0\0\0" + sizes + content


def _caret(names: Mapping[int, str]) -> bytes:
    lines = []
    for key, name in sorted(names.items()):
        plain = name.translate({ord(c): " " for c in "<]"})
        lines.append(f'<Label Key="{key}" Alpha="1"><![CDATA[{plain}]]></Label>')
    table = "<LabelTable>" + "".join(lines) + "</LabelTable>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?><CaretExtension><VolumeInformation Index="0">'
        f"{table}</VolumeInformation></CaretExtension>"
    ).encode()


def _opened(path: Path) -> BinaryIO | gzip.GzipFile:
    if path.name.lower().endswith(".gz"):
        # no file name and no time in the stream: equal volumes give equal files
        return _Gzip(path)
    return path.open("wb")


class _Gzip(gzip.GzipFile):
    """A gzip file that owns its raw file and stores no name and no time."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("wb")
        super().__init__("", "wb", GZIP_LEVEL, fileobj=self._raw, mtime=0)

    def close(self) -> None:
        """Finish the stream and close the raw file."""
        super().close()
        self._raw.close()


def _bytes(array: Array, colors: str) -> Iterator[bytes]:
    if array.ndim == 3:
        yield from fortran_bytes(array)
    elif colors:
        yield from fortran_bytes(np.moveaxis(array, 3, 0))
    else:
        for channel in range(array.shape[3]):
            yield from fortran_bytes(array[..., channel])
