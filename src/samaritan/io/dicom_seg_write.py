"""DICOM SEG written through highdicom: a label map on the grid of the series that it segments."""

from __future__ import annotations

import colorsys
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from samaritan import optional
from samaritan._version import __version__
from samaritan.errors import FileError, GridMismatch, SamaritanError, UnsupportedFormat
from samaritan.geometry import Grid
from samaritan.io.dicom import grid_of, read_grid
from samaritan.io.dicom_files import open_dataset
from samaritan.io.files import check_written, replacing
from samaritan.io.options import ReadOptions
from samaritan.volume import LabelMap, Volume

Source = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def write(volume: Volume, path: Path, source: Source | None) -> None:
    """Write a binary DICOM segmentation, every slice of it, empty ones too.

    Args:
        volume: a `LabelMap` on the grid of the source series; its axes may be turned.
        path: where.
        source: the DICOM series that was segmented: a folder, a file, or files.

    Raises:
        FileError: if there is no source.
        GridMismatch: if the label map lies elsewhere.
        UnsupportedFormat: if it is not a label map, or is empty.
    """
    if not isinstance(volume, LabelMap):
        raise UnsupportedFormat(
            f"{path}: .dcm holds a segmentation, so a LabelMap is needed. Images are written as .nii.gz, "
            ".nrrd or .mha"
        )
    highdicom, grid, headers = _prepared(path, source)
    labels = volume.reorient(grid.orientation)
    _require_source_grid(labels.grid, grid, path)
    values = labels.labels()
    if not values:
        raise UnsupportedFormat(f"{path}: the label map is empty, and DICOM SEG needs a segment")
    array = np.moveaxis(_numbered(labels, values), (2, 1, 0), (0, 1, 2))  # (slice, row, column)
    with replacing(path) as (new,):
        try:
            with warnings.catch_warnings():  # highdicom warns about anonymised names of patients
                warnings.simplefilter("ignore", UserWarning)
                segmentation = _segmentation(highdicom, array, labels, values, headers)
                segmentation.save_as(new)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise UnsupportedFormat(
                f"{path}: highdicom could not make a segmentation of this series: {error}"
            ) from error
        from samaritan.io import dicom_seg

        written = dicom_seg.read(new, ReadOptions(overlap="refuse"))
        check_written(written.grid, grid, path, "NIfTI (.nii.gz) or NRRD (.seg.nrrd)")


def check(path: Path, grid: Grid, source: Source | None) -> None:
    """Refuse now what `write` would refuse later of a label map on `grid`."""
    _, own, _ = _prepared(path, source)
    _require_source_grid(grid.reorient(own.orientation), own, path)


def _prepared(path: Path, source: Source | None) -> tuple[Any, Grid, list[Any]]:
    """Get the package, and the grid and headers of the source, which must be fit to refer to."""
    if source is None:
        raise FileError(
            f"{path}: a DICOM segmentation refers to the series that was segmented. "
            "Pass source= with its folder or files"
        )
    highdicom = optional.require("highdicom", extra="dicom", purpose="write DICOM segmentations")
    grid, headers = _source(source)
    _check_references(headers, path)
    return highdicom, grid, headers


def _source(source: Source) -> tuple[Grid, list[Any]]:
    if isinstance(source, str | os.PathLike):
        grid, found = read_grid(Path(source))
    else:
        files = [Path(file) for file in source]
        if not files:
            raise FileError("source= is empty: pass the folder or files of the segmented series")
        grid, found = grid_of([(file, open_dataset(file)) for file in files], files[0].parent)
    return grid, [dataset for _, dataset in found]


def _check_references(headers: list[Any], path: Path) -> None:
    """A segmentation refers to its source by identifiers, which anonymisers may have removed."""
    for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        if not all(header.get(name) for header in headers):
            raise UnsupportedFormat(
                f"{path}: the source series has no {name} (anonymised away?), to which a DICOM segmentation "
                "must refer. Write .seg.nrrd or .nii.gz instead"
            )
    if len({str(header.SOPInstanceUID) for header in headers}) < len(headers):
        raise UnsupportedFormat(
            f"{path}: files of the source series share one SOPInstanceUID, so a DICOM segmentation cannot "
            "refer to them. Write .seg.nrrd or .nii.gz instead"
        )


def _require_source_grid(turned: Grid, grid: Grid, path: Path) -> None:
    """The lattice must be that of the source, once the axes are turned alike."""
    try:
        grid.require_same(turned, what="the source series and the label map")
    except SamaritanError as error:
        raise GridMismatch(f"{path}: {error}") from error


def _numbered(labels: LabelMap, values: list[int]) -> Any:
    """Segments are numbered from 1 without gaps, as DICOM wants it."""
    if values[-1] > 65535 or len(values) > 65535:
        raise UnsupportedFormat(f"DICOM SEG holds at most 65535 segments, not label {values[-1]}")
    numbers = np.zeros(values[-1] + 1, np.uint8 if len(values) < 256 else np.uint16)
    numbers[values] = np.arange(1, len(values) + 1)
    return numbers[labels.array]


def _segmentation(
    highdicom: Any, array: Any, labels: LabelMap, values: list[int], headers: list[Any]
) -> Any:
    from pydicom.sr.codedict import codes

    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="Samaritan", version=__version__, family=codes.DCM.ArtificialIntelligence
    )
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=n,
            segment_label=(labels.names.get(value, f"label {value}"))[:64],
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.AnatomicalStructure,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
            algorithm_identification=algorithm,
            display_color=_color(highdicom, n),
        )
        for n, value in enumerate(values, 1)
    ]
    return highdicom.seg.Segmentation(
        source_images=headers,
        pixel_array=np.ascontiguousarray(array),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=descriptions,
        series_instance_uid=highdicom.UID(),
        series_number=1000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="Samaritan",
        manufacturer_model_name="Samaritan",
        software_versions=__version__,
        device_serial_number="0",
        series_description="Segmentation",
        omit_empty_frames=False,
    )


def _color(highdicom: Any, number: int) -> Any:
    red, green, blue = colorsys.hsv_to_rgb((0.02 + number * 0.618034) % 1, 0.65, 0.9)
    return highdicom.color.CIELabColor.from_rgb(int(red * 255), int(green * 255), int(blue * 255))
