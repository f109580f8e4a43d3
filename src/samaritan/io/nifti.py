"""NIfTI-1 and NIfTI-2, one file or a pair, plain or gzipped, read.

nibabel interprets the headers; the voxels are read here, once, into memory that the header has been
checked to need, or stay in the file until they are looked at. Which form wins, and what happens without
one, is told in docs/geometry.md.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, FileError, GeometryError, UnsupportedFormat
from samaritan.geometry import FloatArray, Grid
from samaritan.io.files import check_need, guard, is_gzip, read_head, read_voxels
from samaritan.io.mapping import can_map, map_voxels
from samaritan.io.options import ReadOptions
from samaritan.io.values import (
    choose_frame,
    color_channels,
    native,
    non_finite_note,
    real_part,
    rescale,
)
from samaritan.volume import Volume

Array = npt.NDArray[Any]

FORMS_DIFFER_MM = 0.1
"""sform and qform that put no corner further apart than this are the same."""

_UNITS = {1: ("metres", 1000.0), 3: ("micrometres", 0.001)}
_VECTOR_INTENTS = {1006, 1007, 2003, 2004}  # displacement, vector, RGB, RGBA
PIXELS = b"unit: px"
"""Start of the description field where the unit is the pixel."""

_EXTENSIONS = 1 << 20
_LABEL = re.compile(rb'<Label\b[^>]*?\bKey="(\d{1,9})"[^>]*>(?:<!\[CDATA\[)?([^<\]]{0,200})')


def is_nifti(head: bytes) -> bool:
    """Tell from the first 348 bytes of (unzipped) contents."""
    if len(head) < 348:
        return False
    one = head[344:348] in (b"n+1\0", b"ni1\0")
    return one or head[4:12] in (b"n+2\0\r\n\x1a\n", b"ni2\0\r\n\x1a\n")


def read(path: Path, options: ReadOptions) -> Volume:
    """Read a NIfTI image.

    Raises:
        CorruptFile, UnsupportedFormat, TooLarge, GeometryError: naming the file.
    """
    header_path, data_path = _pair(path)
    header = _header(header_path)
    shape, dtype = _shape(header, header_path), _dtype(header, header_path)
    grid, notes = _grid(header, shape, header_path)
    array, channels, frames, frame = _voxels(header, header_path, data_path, shape, dtype, options)
    slope, intercept = _scaling(header)
    array = rescale(array, slope, intercept)
    names = _label_table(header_path, header)
    meta: dict[str, Any] = {
        "source": str(path),
        "format": "NIfTI-2" if int(header["sizeof_hdr"]) == 540 else "NIfTI-1",
        "dtype": dtype.name if dtype.names is None else "".join(dtype.names),
        "slope": slope,
        "intercept": intercept,
        "qform_code": int(header["qform_code"]),
        "sform_code": int(header["sform_code"]),
        "frames": frames,
        "frame": frame,
    }
    if names:
        meta["label_names"] = names
    return Volume(array, grid, channels, meta, (*notes, *non_finite_note(array)))


def header_grid(path: Path) -> Grid:
    """Read only where the voxels lie, from the file that holds the header."""
    header = _header(path)
    return _grid(header, _shape(header, path), path)[0]


# -- reading the header --------------------------------------------------------------------------


def _pair(path: Path) -> tuple[Path, Path]:
    """Say which file holds the header and which the voxels."""
    match = re.fullmatch(r"(.+)\.(hdr|img)(\.gz)?", path.name, re.IGNORECASE)
    if not match or read_head(path, 348)[344:348] == b"n+1\0":
        return path, path
    found: dict[str, Path] = {}
    for file in path.parent.iterdir():
        other = re.fullmatch(r"(.+)\.(hdr|img)(\.gz)?", file.name, re.IGNORECASE)
        if other and other[1] == match[1]:
            found.setdefault(other[2].lower(), file)
    found[match[2].lower()] = path
    for part in ("hdr", "img"):
        if part not in found:
            raise FileError(
                f"{path} is half of a pair: {match[1]}.{part} is missing beside it. "
                "A .hdr holds the geometry, a .img the voxels; both are needed"
            )
    return found["hdr"], found["img"]


def _header(path: Path) -> Any:
    """Parse the header and nothing else."""
    import nibabel as nib

    head = read_head(path, 540)
    if not is_nifti(head):
        raise CorruptFile(f"{path} does not start with a complete NIfTI header")
    two = head[4:7] in (b"n+2", b"ni2")
    kind, length = (nib.Nifti2Header, 540) if two else (nib.Nifti1Header, 348)
    with guard(path):
        return kind(head[:length], check=False)


def _shape(header: Any, path: Path) -> tuple[int, ...]:
    dims = [int(n) for n in header["dim"]]
    if not 1 <= dims[0] <= 7 or any(n < 1 for n in dims[1 : dims[0] + 1]):
        raise CorruptFile(
            f"{path}: its header says dim = {dims}, expected 1 to 7 axes of at least one voxel each"
        )
    shape = (*dims[1 : dims[0] + 1], 1, 1, 1, 1)[: max(dims[0], 5)]
    if any(n > 1 for n in shape[5:]):
        raise UnsupportedFormat(
            f"{path} has axes {shape}: at most three axes of space, one of time and one of channels "
            "can be read"
        )
    return shape[:5]


def _dtype(header: Any, path: Path) -> np.dtype[Any]:
    code = int(header["datatype"])
    with guard(path):
        try:
            dtype: np.dtype[Any] = np.dtype(header.get_data_dtype())
        except KeyError as error:
            raise CorruptFile(
                f"{path}: its header says data type {code}, unknown to NIfTI"
            ) from error
    if dtype.itemsize == 0 or dtype.char in "gG" or code in (0, 1):
        raise UnsupportedFormat(f"{path}: voxels of NIfTI data type {code} cannot be read")
    return dtype


def _scaling(header: Any) -> tuple[float, float]:
    """Slope and intercept; (1, 0) where the header says nothing usable, as NIfTI has it."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if not math.isfinite(slope) or slope == 0:
        return 1.0, 0.0
    return slope, intercept if math.isfinite(intercept) else 0.0


def _grid(header: Any, shape: tuple[int, ...], path: Path) -> tuple[Grid, list[str]]:
    """Choose among sform, qform and nothing; see docs/geometry.md."""
    notes: list[str] = []
    with guard(path), np.errstate(all="ignore"):
        affine = _affine(header, shape, notes)
    code = int(header["xyzt_units"]) & 7
    if code in _UNITS:
        name, factor = _UNITS[code]
        affine = np.diag([factor, factor, factor, 1.0]) @ affine
        notes.append(f"The file measures in {name}; converted to millimetres.")
    if shape[2] == 1 and not affine[:3, 2].any():
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] = normal / (np.linalg.norm(normal) or 1)
        notes.append("The thickness of the only slice is not stored; 1 mm is assumed.")
    pixels = bytes(np.asarray(header["descrip"])).startswith(PIXELS)
    try:
        grid = Grid(shape[:3], affine, "px" if pixels else "mm")  # type: ignore[arg-type]
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    if grid.is_sheared:
        notes.append("The axes are sheared (not at right angles); the affine is kept exactly.")
    return grid, notes


def _affine(header: Any, shape: tuple[int, ...], notes: list[str]) -> FloatArray:
    sform, qform = int(header["sform_code"]), int(header["qform_code"])
    if sform > 0:
        affine = np.asarray(header.get_sform(), float)
        if qform > 0:
            notes.extend(_forms_differ(affine, header, shape))
        return affine
    if qform > 0:
        return np.asarray(header.get_qform(), float)
    notes.append(
        "No orientation is stored (qform and sform codes are 0): left and right are unknown. "
        "The spacing is used, first axis to the left, the origin at the centre."
    )
    return np.asarray(header.get_base_affine(), float)


def _forms_differ(sform: FloatArray, header: Any, shape: tuple[int, ...]) -> list[str]:
    try:
        qform = np.asarray(header.get_qform(), float)
        ends = Grid(shape[:3], np.eye(4)).corners()  # type: ignore[arg-type]
        apart = ends @ (sform - qform)[:3, :3].T + (sform - qform)[:3, 3]
        distance = float(np.linalg.norm(apart, axis=1).max())
    except (ValueError, GeometryError, ArithmeticError, np.linalg.LinAlgError):
        return ["The qform is not usable; the sform is used."]
    if not distance > FORMS_DIFFER_MM:
        return []
    return [f"sform and qform differ by up to {distance:.3g} mm; the sform is used."]


# -- reading the voxels --------------------------------------------------------------------------


def _voxels(
    header: Any,
    header_path: Path,
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    options: ReadOptions,
) -> tuple[Array, tuple[str, ...], int, int | None]:
    """Array, channel names, number of frames, and the frame that was read."""
    frames, channels = shape[3], shape[4]
    vector = int(header["intent_code"]) in _VECTOR_INTENTS
    if vector and channels == 1 and frames > 1 and options.frame is None and dtype.names is None:
        frames, channels = 1, frames  # vectors along the fourth axis, as some tools write them
    if frames > 1 and channels > 1 and options.frame == "all":
        raise UnsupportedFormat(
            f"{path} holds {frames} frames of {channels} channels: pick one frame with frame=0 to "
            f"frame={frames - 1}"
        )
    frame = choose_frame(frames, options.frame, path)
    per_frame = math.prod(shape[:3])
    offset = _offset(header, header_path, path)
    wanted = _wanted(frame, frames, channels, per_frame, dtype)
    parts = [
        _values(path, dtype, count, offset + start, options, whole=frames == 1)
        for start, count in wanted
    ]
    flat = native(parts[0] if len(parts) == 1 else np.concatenate(parts))
    last = flat.size // per_frame
    array = real_part(flat, options.complex_part, path).reshape(*shape[:3], last, order="F")
    if last == 1:
        array, names = color_channels(array[..., 0])
        return array, names, frames, frame
    if dtype.names:
        raise UnsupportedFormat(f"{path}: several colour frames at once cannot be read; pick one")
    what = "frame" if channels == 1 else "channel"
    return array, tuple(f"{what} {n}" for n in range(last)), frames, frame


def _values(
    path: Path, dtype: np.dtype[Any], count: int, start: int, options: ReadOptions, *, whole: bool
) -> Array:
    """Values from byte `start` of the contents on: left in the file where that is possible."""
    if can_map(path, dtype, count, start):
        check_need(path, count * dtype.itemsize, options.max_bytes)
        return map_voxels(path, dtype, count, start)
    packed = is_gzip(path)
    return read_voxels(
        path,
        dtype,
        count,
        offset=0 if packed else start,
        skip=start if packed else 0,
        compression="gzip" if packed else None,
        max_bytes=options.max_bytes,
        whole=whole,
    )


def _wanted(
    frame: int | None, frames: int, channels: int, per_frame: int, dtype: np.dtype[Any]
) -> list[tuple[int, int]]:
    """Where the wanted values lie: (first byte, number of values) of each run."""
    size = per_frame * dtype.itemsize
    if frame is None or frames == 1:
        return [(0, per_frame * frames * channels)]
    return [((c * frames + frame) * size, per_frame) for c in range(channels)]


def _offset(header: Any, header_path: Path, path: Path) -> int:
    offset = float(header["vox_offset"])
    least = 0 if header_path != path else (544 if int(header["sizeof_hdr"]) == 540 else 352)
    if not math.isfinite(offset) or offset < 0 or offset > 2**53:
        raise CorruptFile(f"{path}: its header puts the voxels at byte {offset}")
    if offset < least:  # 0 means "directly after the header"
        return least
    return int(offset)


def _label_table(path: Path, header: Any) -> dict[int, str]:
    """Label names from a Caret label table in a header extension, as TotalSegmentator writes them."""
    size, offset = int(header["sizeof_hdr"]), float(header["vox_offset"])
    if not size + 8 < offset <= _EXTENSIONS:
        return {}
    block = read_head(path, int(offset))[size + 4 :]
    found = {int(key): name.decode("utf-8", "replace") for key, name in _LABEL.findall(block)}
    return {key: name for key, name in found.items() if key}
