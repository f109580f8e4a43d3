"""DICOM SEG read: every frame is placed by its position, whether empty frames were stored or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, FileError, GeometryError, UnsupportedFormat
from samaritan.geometry import FloatArray, Grid
from samaritan.io.dicom_files import frame_count, open_dataset, refuse_unless_image
from samaritan.io.dicom_pixels import Pixels
from samaritan.io.dicom_planes import Plane, group, planes
from samaritan.io.dicom_stack import UNEVEN_PART
from samaritan.io.files import check_need, guard
from samaritan.io.options import ReadOptions
from samaritan.volume import LabelMap, Volume, smallest_label_dtype

Array = npt.NDArray[Any]

FRACTION = 0.5
"""A fractional segment is taken to be present from this part on."""


@dataclass(frozen=True)
class _Frame:
    number: int
    slot: int
    segment: int


def read(path: Path, options: ReadOptions) -> Volume:
    """Read a segmentation.

    Binary segments and label maps become a `LabelMap` whose values are the segment numbers. Fractional
    segments become one float32 channel each, from 0 to 1; `samaritan.read_labels` takes them from 0.5 on.

    Raises:
        FileError: if segments overlap and `options.overlap` does not say what to do.
        UnsupportedFormat: if it is tiled, as for microscopy.
    """
    dataset = open_dataset(path)
    refuse_unless_image(dataset, path)
    with guard(path, "read as DICOM"):
        kind = str(dataset.get("SegmentationType", "") or "")
        names = _names(dataset)
        found = planes(path, dataset)
        grid, slots, notes = _grid(dataset, found, path)
        frames = [
            _Frame(n, slot, _segment_number(dataset, n, path) if kind != "LABELMAP" else 0)
            for n, slot in enumerate(slots)
        ]
    check_need(path, grid.n_voxels * 2, options.max_bytes)
    meta = {
        "source": str(path),
        "format": "DICOM SEG",
        "modality": "SEG",
        "series_uid": str(dataset.get("SeriesInstanceUID", "") or ""),
        "frame_of_reference_uid": str(dataset.get("FrameOfReferenceUID", "") or ""),
        "segmentation_type": kind,
        "stored_frames": frame_count(dataset),
    }
    swap = _is_picture(found)
    pixels = Pixels(path)
    if kind == "LABELMAP":
        array = _label_map(dataset, pixels, frames, grid, swap, notes)
        return LabelMap(array, grid, (), meta, tuple(notes), names)
    if kind not in ("BINARY", "FRACTIONAL"):
        raise UnsupportedFormat(f"{path}: segmentations of type {kind!r} cannot be read")
    if (kind == "FRACTIONAL" and not options.indices) or options.overlap == "channels":
        return _channels(dataset, pixels, frames, grid, swap, kind, names, meta, notes, options)
    array = _merged(dataset, pixels, frames, grid, swap, kind, names, notes, options)
    return LabelMap(array, grid, (), meta, tuple(notes), names)


def _names(dataset: Any) -> dict[int, str]:
    found = {
        int(item.SegmentNumber): str(
            item.get("SegmentLabel", "") or f"segment {item.SegmentNumber}"
        )
        for item in dataset.get("SegmentSequence") or []
    }
    return {number: name for number, name in sorted(found.items()) if number > 0}


def _segment_number(dataset: Any, frame: int, path: Path) -> int:
    item = group(dataset, frame, "SegmentIdentificationSequence")
    if item is None:
        raise CorruptFile(f"{path}: frame {frame} does not say which segment it belongs to")
    return int(item.ReferencedSegmentNumber)


# -- where frames lie ----------------------------------------------------------------------------


def _is_picture(found: list[Plane]) -> bool:
    return all(p.position is None for p in found)


def _grid(dataset: Any, found: list[Plane], path: Path) -> tuple[Grid, list[int], list[str]]:
    """The grid that all frames lie on, and the slice that each one fills."""
    first = found[0]
    if _is_picture(found):
        grid = Grid.pixels(first.shape)
        note = "No position in the patient is stored: left and right are unknown. Axes are row, column."
        return grid, [0] * len(found), [note]
    if any(p.position is None or p.orientation is None or p.spacing is None for p in found):
        raise FileError(f"{path}: some frames have no position, orientation or pixel spacing")
    if any(np.abs(p.orientation - first.orientation).max() > 1e-3 for p in found):  # type: ignore[operator]
        raise FileError(f"{path} mixes frames of several orientations")
    normal = first.normal
    heights = np.array([float(np.dot(p.position, normal)) for p in found])  # type: ignore[arg-type]
    lowest = int(np.argmin(heights))
    origin = found[lowest].position
    assert origin is not None
    assert first.orientation is not None
    assert first.spacing is not None
    step = _step(dataset, found, heights, normal, path)
    length = float(np.dot(step, normal))
    exact = (heights - heights[lowest]) / length
    slots = np.rint(exact).astype(int)
    off = np.array([p.position for p in found]) - (origin + slots[:, None] * step)
    distance = float(np.linalg.norm(off, axis=1).max())
    if distance > max(UNEVEN_PART * length, 1e-2):
        raise FileError(
            f"{path}: frames lie up to {distance:.3g} mm off an even lattice of {length:.4g} mm steps"
        )
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, origin
    try:
        grid = Grid(
            (first.shape[1], first.shape[0], int(slots.max()) + 1),
            np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine,
        )
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    notes = []
    empty = grid.shape[2] - len(set(slots.tolist()))
    if empty:
        notes.append(f"{empty} of {grid.shape[2]} slices are not stored, so they are empty.")
    return grid, slots.tolist(), notes


def _step(
    dataset: Any, found: list[Plane], heights: FloatArray, normal: FloatArray, path: Path
) -> FloatArray:
    """Vector from slice to slice: the smallest distance between frames, or the stored spacing."""
    order = np.argsort(heights)
    gaps = np.diff(heights[order])
    apart = gaps > 1e-3
    measures = group(dataset, 0, "PixelMeasuresSequence")
    stored = abs(float((measures.get("SpacingBetweenSlices") if measures else None) or 0))
    if not apart.any():
        return normal * (stored or found[0].thickness or 1.0)
    smallest = float(gaps[apart].min())
    # frames may be omitted: then the stored spacing is a whole part of the smallest distance
    parts = smallest / stored if stored > 0 else 1.0
    use = max(round(parts), 1) if abs(parts - round(parts)) < UNEVEN_PART * max(parts, 1) else 1
    ends = [found[int(order[n])].position for n in (0, -1)]
    assert ends[0] is not None
    assert ends[1] is not None
    total = ends[1] - ends[0]
    count = max(round(float(np.dot(total, normal)) / (smallest / use)), 1)
    return np.asarray(total / count)


# -- voxels --------------------------------------------------------------------------------------


def _placed(pixels: Pixels, frames: list[_Frame], swap: bool) -> Iterator[tuple[_Frame, Array]]:
    """Each frame turned to (column, row), or (row, column) for pictures."""
    for frame in frames:
        array = pixels.frame(frame.number)
        yield frame, array if swap else array.T


def _label_map(
    dataset: Any, pixels: Pixels, frames: list[_Frame], grid: Grid, swap: bool, notes: list[str]
) -> Array:
    padding = dataset.get("PixelPaddingValue")
    known = {int(item.SegmentNumber) for item in dataset.get("SegmentSequence") or []}
    out: Array = np.zeros(grid.shape, np.uint16 if int(dataset.BitsAllocated) > 8 else np.uint8)
    for frame, array in _placed(pixels, frames, swap):
        if array.ndim != 2 or array.dtype.kind not in "ui":
            raise CorruptFile(f"{pixels.path}: a label map holds integers, got {array.dtype}")
        out[:, :, frame.slot] = array
    if padding is not None and int(padding) not in known:
        out[out == int(padding)] = 0
        notes.append(f"The padding value {int(padding)} was taken as background.")
    return out


def _fraction(dataset: Any, kind: str) -> float:
    return float(dataset.get("MaximumFractionalValue") or 255) if kind == "FRACTIONAL" else 1.0


def _channels(
    dataset: Any,
    pixels: Pixels,
    frames: list[_Frame],
    grid: Grid,
    swap: bool,
    kind: str,
    names: dict[int, str],
    meta: dict[str, Any],
    notes: list[str],
    options: ReadOptions,
) -> Volume:
    """One channel for each segment: boolean, or a fraction from 0 to 1."""
    dtype = np.dtype(np.float32 if kind == "FRACTIONAL" else np.bool_)
    numbers = sorted({*names, *(f.segment for f in frames)})
    check_need(pixels.path, grid.n_voxels * len(numbers) * dtype.itemsize, options.max_bytes)
    out: Array = np.zeros((*grid.shape, len(numbers)), dtype)
    for frame, array in _placed(pixels, frames, swap):
        target = out[:, :, frame.slot, numbers.index(frame.segment)]
        target[...] = array / _fraction(dataset, kind) if kind == "FRACTIONAL" else array != 0
    labels = tuple(names.get(n, f"segment {n}") for n in numbers)
    return Volume(out, grid, labels, meta, tuple(notes))


def _merged(
    dataset: Any,
    pixels: Pixels,
    frames: list[_Frame],
    grid: Grid,
    swap: bool,
    kind: str,
    names: dict[int, str],
    notes: list[str],
    options: ReadOptions,
) -> Array:
    """One label map; where segments overlap, the later one wins if that was asked for."""
    largest = max((f.segment for f in frames), default=0)
    out: Array = np.zeros(grid.shape, smallest_label_dtype(largest))
    hidden, covered = 0, set()
    least = FRACTION * _fraction(dataset, kind)
    ordered = sorted(frames, key=lambda f: (f.segment, f.slot))
    for frame, array in _placed(pixels, ordered, swap):
        mask = array >= least if kind == "FRACTIONAL" else array != 0
        target = out[:, :, frame.slot]
        below = target[mask]
        if below.any():
            hidden += int(np.count_nonzero(below))
            covered |= {(int(v), frame.segment) for v in np.unique(below) if v}
        target[mask] = frame.segment
    if hidden and options.overlap == "refuse":
        told = ", ".join(
            f"{names.get(b, b)} under {names.get(a, a)}" for b, a in sorted(covered)[:4]
        )
        raise FileError(
            f"{pixels.path}: segments overlap in {hidden} voxels ({told}), which one label map cannot hold. "
            'Pass overlap="merge" to let the later segment win, or read with overlap="channels"'
        )
    if hidden:
        notes.append(f"Segments overlap in {hidden} voxels; there the later segment was kept.")
    if kind == "FRACTIONAL":
        notes.append(f"Fractional segments count from {FRACTION} on.")
    return out
