"""DICOM images: a folder or a file becomes a volume, its slices placed by their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, FileError, UnsupportedFormat
from samaritan.geometry import Grid
from samaritan.io import dicom_files
from samaritan.io.dicom_files import Series, choose_series, open_dataset, scan
from samaritan.io.dicom_pixels import Pixels
from samaritan.io.dicom_planes import Plane, planes
from samaritan.io.dicom_stack import stack
from samaritan.io.files import check_need, guard
from samaritan.io.options import ReadOptions
from samaritan.io.values import choose_frame, native, non_finite_note, rescale
from samaritan.volume import Volume

Array = npt.NDArray[Any]


def read(path: Path, options: ReadOptions) -> Volume:
    """Read a DICOM file, or a series in a folder and its subfolders.

    Raises:
        FileError: if the folder holds several series, or slices that are not one even volume.
        UnsupportedFormat: if it holds no image; the text names what it is.
    """
    # pydicom parses an element when it is first looked at, so damage can show anywhere below
    with guard(path, "read as DICOM"):
        return _read(path, options)


def _read(path: Path, options: ReadOptions) -> Volume:
    notes: list[str] = []
    if path.is_dir():
        found, segmentations, others = scan(path)
        if not found and len(segmentations) == 1:
            return _read(segmentations[0][0], options)
        if not found:
            what = f"{len(segmentations)} segmentations" if segmentations else "no DICOM image"
            raise UnsupportedFormat(
                f"{path} holds {what} ({others} other files). Give the folder of a series, or a file"
            )
        series = choose_series(found, options.series, path)
        left = others + len(segmentations)
        if left:
            notes.append(f"{left} files of the folder are not slices and were left out.")
    else:
        dataset = open_dataset(path)
        dicom_files.refuse_unless_image(dataset, path)
        if dicom_files.is_segmentation(dataset):
            from samaritan.io import dicom_seg

            return dicom_seg.read(path, options)
        series = Series("", None, "", "", [(path, dataset)])
    for file, dataset in series.datasets:
        dicom_files.refuse_unless_image(dataset, file)
    volume = _volume(series, path, options)
    return replace(volume, notes=(*notes, *volume.notes))


def read_grid(path: Path, series: str | int | None = None) -> tuple[Grid, list[tuple[Path, Any]]]:
    """Where the slices of a series lie, and its headers in slice order; no pixels are read.

    Raises:
        FileError: if the folder holds several series, or slices that are not one even volume.
    """
    if path.is_dir():
        datasets = choose_series(scan(path)[0], series, path).datasets
    else:
        datasets = [(path, open_dataset(path))]
    return grid_of(datasets, path)


def grid_of(
    datasets: Sequence[tuple[Path, Any]], source: Path
) -> tuple[Grid, list[tuple[Path, Any]]]:
    """The same for headers that are already open."""
    found = [plane for file, dataset in datasets for plane in planes(file, dataset)]
    if any(p.position is None or p.orientation is None for p in found):
        raise FileError(f"{source}: slices without a position in the patient have no grid in mm")
    result = stack(found, source, allow_gaps=False)
    headers = dict(datasets)
    files = list(dict.fromkeys(p.path for p in result.frames[0] if p is not None))
    return result.grid, [(file, headers[file]) for file in files]


def _volume(series: Series, source: Path, options: ReadOptions) -> Volume:
    found = [plane for file, dataset in series.datasets for plane in planes(file, dataset)]
    if not found:
        raise CorruptFile(f"{source} holds no frames")
    placed = [p for p in found if p.position is not None and p.orientation is not None]
    first = series.datasets[0][1]
    if not placed:
        return _picture(found, first, source, options)
    if len(placed) < len(found):
        raise FileError(
            f"{source}: {len(found) - len(placed)} of {len(found)} slices have no position in the patient"
        )
    result = stack(placed, source, allow_gaps=options.allow_gaps)
    count = len(result.frames)
    frame = choose_frame(
        count, options.frame, source, "frames (time points or echoes) at each position"
    )
    wanted = result.frames if frame is None else [result.frames[frame]]
    arrays, notes, samples = [], list(result.notes), 1
    for row in wanted:
        array = _load(row, first, source, options, len(wanted), notes)
        samples = array.shape[3] if array.ndim == 4 else 1
        arrays.append(array)
    if len(arrays) > 1 and samples > 1:
        raise UnsupportedFormat(f"{source}: colour frames are read one by one, with frame=")
    array = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=-1)
    names = _channels(samples) if len(arrays) == 1 else tuple(f"frame {n}" for n in range(count))
    if not source.is_dir() and len(found) == 1:
        notes.append("This is one slice; give the folder to read the volume of its series.")
    meta = _meta(first, source, count, frame)
    return Volume(array, result.grid, names, meta, tuple(dict.fromkeys(notes)))


def _picture(found: list[Plane], dataset: Any, source: Path, options: ReadOptions) -> Volume:
    """An image without a place in the patient: array (row, column), pixel size if it is stored."""
    found = sorted(found, key=lambda p: p.order)
    count = len(found)
    frame = choose_frame(count, options.frame, source, "pictures without a position in the patient")
    if frame is None:
        raise UnsupportedFormat(
            f"{source}: pictures without a position are read one by one, with frame="
        )
    plane = found[frame]
    notes = [
        "No position in the patient is stored: left and right are unknown. Axes are row, column."
    ]
    array = _load([plane], dataset, source, options, 1, notes)
    array = np.moveaxis(array, 0, 1)
    grid = Grid.pixels(array.shape[:3])
    if plane.spacing is not None:
        spacing = (plane.spacing[0], plane.spacing[1], 1.0)
        grid = Grid.from_spacing(array.shape[:3], spacing, orientation=grid.orientation)
    names = _channels(array.shape[3] if array.ndim == 4 else 1)
    return Volume(array, grid, names, _meta(dataset, source, count, frame), tuple(notes))


def _load(
    row: Sequence[Plane | None],
    dataset: Any,
    source: Path,
    options: ReadOptions,
    rows: int,
    notes: list[str],
) -> Array:
    """Decode and scale the slices of one frame: (column, row, slice[, sample])."""
    first = next(p for p in row if p is not None)
    samples = int(dataset.get("SamplesPerPixel", 1) or 1)
    with guard(source, "read as DICOM"):
        size = len(row) * first.shape[0] * first.shape[1] * samples
        check_need(
            source,
            rows * size * max(int(dataset.get("BitsAllocated", 16) or 16), 8) // 8,
            options.max_bytes,
        )
    out: Array | None = None
    scales: set[tuple[float, float]] = set()
    opened: Pixels | None = None
    for k, plane in enumerate(row):
        if plane is None:
            continue
        if opened is None or opened.path != plane.path:
            opened = Pixels(plane.path)
        pixels = opened.frame(plane.frame)
        notes.extend(note for note in opened.notes if note not in notes)
        scale = (1.0, 0.0) if opened.scaled else (plane.slope, plane.intercept)
        if pixels.shape[:2] != first.shape:
            raise CorruptFile(f"{plane.path}: decoded to {pixels.shape}, expected {first.shape}")
        if out is None:
            out = np.zeros((len(row), *pixels.shape), pixels.dtype)
        if pixels.shape != out.shape[1:]:
            raise FileError(f"{source} mixes grey and colour slices")
        scales.add(scale)
        if len(scales) > 1 and out.dtype != np.float32:
            out = _as_float(out, k, next(iter(scales - {scale})))
        if len(scales) > 1:
            pixels = pixels.astype(np.float32) * np.float32(scale[0]) + np.float32(scale[1])
        elif np.can_cast(out.dtype, pixels.dtype) and out.dtype != pixels.dtype:
            out = out.astype(pixels.dtype)
        elif not np.can_cast(pixels.dtype, out.dtype):
            out = out.astype(np.promote_types(out.dtype, pixels.dtype))
        out[k] = pixels
    assert out is not None
    return _finish(out, row, scales, dataset, notes)


def _as_float(out: Array, filled: int, scale: tuple[float, float]) -> Array:
    """Slices differ in scaling: go over to scaled values, those already there included."""
    scaled = out.astype(np.float32)
    scaled[:filled] = scaled[:filled] * np.float32(scale[0]) + np.float32(scale[1])
    return scaled


def _finish(
    out: Array,
    row: Sequence[Plane | None],
    scales: set[tuple[float, float]],
    dataset: Any,
    notes: list[str],
) -> Array:
    array = native(out)
    order = (2, 1, 0) if array.ndim == 3 else (2, 1, 0, 3)
    array = array.transpose(order)
    if len(scales) == 1:
        array = rescale(array, *next(iter(scales)))
    else:
        notes.append("The slices are scaled differently (slope, intercept); each by its own.")
    missing = [k for k, plane in enumerate(row) if plane is None]
    if missing:
        there = [k for k, plane in enumerate(row) if plane is not None]
        array[:, :, missing] = min(array[:, :, k].min() for k in there)
    photometric = str(dataset.get("PhotometricInterpretation", ""))
    if photometric == "MONOCHROME1":
        notes.append(
            "MONOCHROME1: high values are meant to look dark. Values are kept as they are."
        )
    padding = dataset.get("PixelPaddingValue")
    if padding is not None:
        notes.append(f"Pixels of stored value {padding} are padding outside the image.")
    notes.extend(non_finite_note(array))
    return array


def _channels(samples: int) -> tuple[str, ...]:
    return {1: (), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}.get(
        samples, tuple(f"channel {n}" for n in range(samples))
    )


def _meta(dataset: Any, source: Path, frames: int, frame: int | None) -> dict[str, Any]:
    """Facts about the image; nothing about the patient."""

    def text(name: str) -> str:
        return str(dataset.get(name, "") or "")

    with guard(source, "read as DICOM"):
        number = dataset.get("SeriesNumber")
        return {
            "source": str(source),
            "format": "DICOM",
            "modality": text("Modality"),
            "series_uid": text("SeriesInstanceUID"),
            "series_number": None if number in (None, "") else int(number),
            "frame_of_reference_uid": text("FrameOfReferenceUID"),
            "sop_class": dicom_files.class_name(dataset),
            "dtype": f"{text('BitsStored')} of {text('BitsAllocated')} bits",
            "slope": str(dataset.get("RescaleSlope", "")),
            "intercept": str(dataset.get("RescaleIntercept", "")),
            "photometric": text("PhotometricInterpretation"),
            "frames": frames,
            "frame": frame,
        }
