"""DICOM slices as planes in space, read from the headers of single and multi-frame files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samaritan.geometry import FloatArray
from samaritan.io.dicom_files import frame_count
from samaritan.io.files import guard


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice: where it is stored, where it lies (LPS, as in the file), and how it is scaled."""

    path: Path
    frame: int
    shape: tuple[int, int]
    position: FloatArray | None
    orientation: FloatArray | None
    spacing: tuple[float, float] | None
    thickness: float | None
    slope: float
    intercept: float
    order: tuple[float, ...]
    uid: str
    localizer: bool

    @property
    def normal(self) -> FloatArray:
        """Unit vector across the slice."""
        assert self.orientation is not None
        return np.cross(self.orientation[:3], self.orientation[3:])


def planes(path: Path, dataset: Any) -> list[Plane]:
    """List the slices of a file: one, or one for each frame."""
    with guard(path, "read as DICOM"):
        if "PerFrameFunctionalGroupsSequence" in dataset:
            return [_functional(path, dataset, n) for n in range(frame_count(dataset))]
        return _plain(path, dataset)


def group(dataset: Any, frame: int, name: str) -> Any:
    """One item of the functional groups of a frame, its own or the shared one; None if absent."""
    own = dataset.get("PerFrameFunctionalGroupsSequence") or []
    for source in (own[frame : frame + 1], dataset.get("SharedFunctionalGroupsSequence") or []):
        if source and source[0].get(name):
            return source[0].get(name)[0]
    return None


def _many(values: Any) -> tuple[Any, ...]:
    """Values of an element that may hold none, one or several."""
    if values is None:
        return ()
    return (values,) if isinstance(values, str | int | float) else tuple(values)


def vector(values: Any, count: int, scale: float = 1.0) -> FloatArray | None:
    """Finite numbers of a DICOM element, or None if it is absent or has another length."""
    if values is None or isinstance(values, str | float | int) or len(values) != count:
        return None
    found = np.array([float(v) for v in values], np.float64) * scale
    return found if np.isfinite(found).all() else None


def number(value: Any, default: float) -> float:
    """A finite number of a DICOM element, or the default."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return default
    return found if np.isfinite(found) else default


def _functional(path: Path, dataset: Any, frame: int) -> Plane:
    def take(name: str, key: str) -> Any:
        item = group(dataset, frame, name)
        return None if item is None else item.get(key)

    measures = group(dataset, frame, "PixelMeasuresSequence")
    content = group(dataset, frame, "FrameContentSequence")
    rescale = "PixelValueTransformationSequence"
    order = () if content is None else (number(content.get("TemporalPositionIndex"), 0),)
    index = () if content is None else _many(content.get("DimensionIndexValues"))
    return Plane(
        path,
        frame,
        (int(dataset.Rows), int(dataset.Columns)),
        vector(take("PlanePositionSequence", "ImagePositionPatient"), 3),
        _unit_vectors(vector(take("PlaneOrientationSequence", "ImageOrientationPatient"), 6)),
        _spacing(None if measures is None else measures.get("PixelSpacing")),
        _thickness(measures),
        number(take(rescale, "RescaleSlope"), 1.0),
        number(take(rescale, "RescaleIntercept"), 0.0),
        (*order, *(number(v, 0) for v in index), float(frame)),
        f"{dataset.get('SOPInstanceUID', path)}#{frame}",
        localizer=False,
    )


def _plain(path: Path, dataset: Any) -> list[Plane]:
    position = vector(dataset.get("ImagePositionPatient"), 3)
    orientation = _unit_vectors(vector(dataset.get("ImageOrientationPatient"), 6))
    dose = dataset.get("DoseGridScaling")
    slope = number(dose if dose is not None else dataset.get("RescaleSlope"), 1.0)
    count = frame_count(dataset)
    offsets = vector(dataset.get("GridFrameOffsetVector"), count) if count > 1 else np.zeros(1)
    kind = [str(v).upper() for v in dataset.get("ImageType", []) or []]
    found = []
    for frame in range(count):
        where = None
        if position is not None and orientation is not None and offsets is not None:
            normal = np.cross(orientation[:3], orientation[3:])
            where = position + (offsets[frame] - offsets[0]) * normal
        found.append(
            Plane(
                path,
                frame,
                (int(dataset.Rows), int(dataset.Columns)),
                where,
                orientation if where is not None else None,
                _spacing(
                    _first(
                        dataset, "PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"
                    )
                ),
                _thickness(dataset),
                slope,
                number(dataset.get("RescaleIntercept"), 0.0) if dose is None else 0.0,
                _order(dataset, frame),
                f"{dataset.get('SOPInstanceUID', path)}#{frame}",
                localizer="LOCALIZER" in kind,
            )
        )
    return found


def _first(dataset: Any, *names: str) -> Any:
    return next((dataset.get(name) for name in names if dataset.get(name) is not None), None)


def _order(dataset: Any, frame: int) -> tuple[float, ...]:
    """What tells slices at one position apart: acquisition, time, echo, instance."""
    names = (
        "AcquisitionNumber",
        "TemporalPositionIdentifier",
        "TriggerTime",
        "EchoNumbers",
        "EchoTime",
        "AcquisitionTime",
        "InstanceNumber",
    )
    return (*(number(dataset.get(name), 0.0) for name in names), float(frame))


def _unit_vectors(orientation: FloatArray | None) -> FloatArray | None:
    """Normalise both direction cosines, which files round."""
    if orientation is None:
        return None
    lengths = np.linalg.norm(orientation.reshape(2, 3), axis=1)
    if not (np.abs(lengths - 1) < 0.1).all():
        return orientation
    unit: FloatArray = orientation.reshape(2, 3) / lengths[:, None]
    return unit.ravel()


def _spacing(values: Any) -> tuple[float, float] | None:
    found = vector(values, 2)
    return None if found is None or (found <= 0).any() else (float(found[0]), float(found[1]))


def _thickness(source: Any) -> float | None:
    if source is None:
        return None
    for name in ("SpacingBetweenSlices", "SliceThickness"):
        value = abs(number(source.get(name), 0.0))
        if value > 0:
            return value
    return None
