"""DICOM slices in order: sorted along their normal, checked, and joined to one even lattice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from samaritan.errors import FileError, GeometryError
from samaritan.geometry import FloatArray, Grid
from samaritan.io.dicom_planes import Plane

UNEVEN_PART = 0.02
"""Slices may lie off an even lattice by this part of the spacing; more is a gap."""

NOTED_PART = 0.002
"""Unevenness beyond this part of the spacing is noted."""

_SAME_PLACE_MM = 1e-3
_SAME_DIRECTION = 1e-3
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Stack:
    """Planes in order: for each frame (time point, echo) the planes by slice, None where one is missing."""

    frames: list[list[Plane | None]]
    grid: Grid
    notes: tuple[str, ...]


def stack(found: Sequence[Plane], source: Path, *, allow_gaps: bool) -> Stack:
    """Order planes along their normal and check that they form one even lattice.

    Raises:
        FileError: if orientations, sizes or spacings are mixed, or slices are doubled or missing.
        GeometryError: if the lattice has no volume.
    """
    notes: list[str] = []
    kept = _without_copies(found, notes)
    kept = _one_orientation(kept, source, notes)
    _one_kind(kept, source)
    places = _by_place(kept, source)
    positions = np.array([place[0].position for place in places])
    slots, step = _lattice(positions, kept[0], source, notes, allow_gaps=allow_gaps)
    first = places[0][0]
    assert first.orientation is not None
    assert first.spacing is not None
    affine = np.eye(4)
    affine[:3, 0] = first.orientation[:3] * first.spacing[1]
    affine[:3, 1] = first.orientation[3:] * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    count = int(slots[-1]) + 1
    try:
        grid = Grid((first.shape[1], first.shape[0], count), _LPS_TO_RAS @ affine)
    except GeometryError as error:
        raise GeometryError(f"{source}: {error}") from error
    if grid.is_sheared:
        notes.append(
            "The slices are not stacked along their normal (gantry tilt): the grid is sheared, "
            "and kept exactly."
        )
    frames: list[list[Plane | None]] = []
    for n in range(len(places[0])):
        row: list[Plane | None] = [None] * count
        for slot, place in zip(slots.tolist(), places, strict=True):
            row[int(slot)] = place[n]
        frames.append(row)
    return Stack(frames, grid, tuple(notes))


def _without_copies(found: Sequence[Plane], notes: list[str]) -> list[Plane]:
    """Leave out copies of a file; the UID alone does not tell, because some tools make all UIDs equal."""
    unique: dict[tuple[Any, ...], Plane] = {}
    for plane in found:
        assert plane.position is not None
        unique.setdefault((plane.uid, plane.position.tobytes(), plane.order), plane)
    if len(unique) < len(found):
        notes.append(f"{len(found) - len(unique)} slices were there twice (same SOP instance).")
    return list(unique.values())


def _one_orientation(found: list[Plane], source: Path, notes: list[str]) -> list[Plane]:
    groups: list[list[Plane]] = []
    for plane in found:
        assert plane.orientation is not None
        for members in groups:
            reference = members[0].orientation
            assert reference is not None
            if np.abs(reference - plane.orientation).max() < _SAME_DIRECTION:
                members.append(plane)
                break
        else:
            groups.append([plane])
    if len(groups) == 1:
        return found
    images = [g for g in groups if not all(p.localizer for p in g)]
    if len(images) == 1:
        left_out = len(found) - len(images[0])
        notes.append(f"{left_out} localizer slices of another orientation were left out.")
        return images[0]
    told = ", ".join(
        f"{len(g)} with direction cosines {np.round(g[0].orientation, 3).tolist()}"  # type: ignore[arg-type]
        for g in groups[:6]
    )
    raise FileError(
        f"{source} mixes slices of {len(groups)} orientations ({told}), which are not one volume. "
        "Give a folder or files of one orientation"
    )


def _one_kind(found: list[Plane], source: Path) -> None:
    sizes = sorted({p.shape for p in found})
    if len(sizes) > 1:
        raise FileError(f"{source} mixes slices of different sizes (rows, columns): {sizes}")
    if any(p.spacing is None for p in found):
        raise FileError(f"{source}: slices have a position but no PixelSpacing")
    spacings = np.array([p.spacing for p in found])
    if np.ptp(spacings, axis=0).max() > 1e-3 * spacings.min():
        raise FileError(
            f"{source} mixes slices of different PixelSpacing: {np.unique(spacings, axis=0).tolist()}"
        )


def _by_place(found: list[Plane], source: Path) -> list[list[Plane]]:
    """Group slices that lie at one place, ascending along the normal; each group in order of time."""
    normal = found[0].normal
    heights = np.array([float(np.dot(p.position, normal)) for p in found])  # type: ignore[arg-type]
    places: list[list[Plane]] = []
    last = -np.inf
    for n in np.argsort(heights, kind="stable"):
        if heights[n] - last > _SAME_PLACE_MM:
            places.append([])
            last = heights[n]
        places[-1].append(found[n])
    counts = {len(place) for place in places}
    if len(counts) > 1:
        most = max(places, key=len)
        raise FileError(
            f"{source}: slices lie at {len(places)} positions, but not equally many at each "
            f"({min(counts)} to {max(counts)}; {max(counts)} at {_told(most[0].position)}). "
            "Several acquisitions seem to be mixed: give a folder with one of them"
        )
    return [sorted(place, key=lambda p: p.order) for place in places]


def _lattice(
    positions: FloatArray, plane: Plane, source: Path, notes: list[str], *, allow_gaps: bool
) -> tuple[FloatArray, FloatArray]:
    """Slot of each position on the lattice, and the step from slot to slot."""
    count = len(positions)
    if count == 1:
        if plane.thickness is None:
            notes.append("The thickness of the only slice is not stored; 1 mm is assumed.")
        return np.zeros(1), plane.normal * (plane.thickness or 1.0)
    slots = np.arange(count, dtype=float)
    gaps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    usual = float(np.median(gaps))
    step, off = _fit(positions, slots)
    if off > max(UNEVEN_PART * usual, _SAME_PLACE_MM):
        wide = [n for n in range(count - 1) if abs(gaps[n] - usual) > UNEVEN_PART * usual]
        told = "; ".join(
            f"{gaps[n]:.3g} mm from {_told(positions[n])} to {_told(positions[n + 1])}"
            for n in wide[:4]
        )
        more = f" and {len(wide) - 4} more" if len(wide) > 4 else ""
        slots = np.concatenate([[0], np.cumsum(np.maximum(np.rint(gaps / usual), 1))])
        step, off = _fit(positions, slots)
        whole = off <= max(UNEVEN_PART * usual, _SAME_PLACE_MM)
        missing = int(slots[-1]) + 1 - count
        if not (whole and allow_gaps):
            hint = (
                f"{missing} slices seem to be missing: find them, or pass allow_gaps=True to fill them with "
                "the lowest value"
                if whole
                else "The positions fit no even lattice, so this is not a regular volume"
            )
            raise FileError(
                f"{source}: the slices are not evenly spaced. The usual distance is {usual:.4g} mm, but: "
                f"{told}{more}. {hint}"
            )
        notes.append(f"{missing} missing slices were filled with the lowest value: {told}{more}.")
    if off > NOTED_PART * usual:
        notes.append(f"Slices lie up to {off:.2g} mm off the even lattice that is used.")
    return slots, step


def _fit(positions: FloatArray, slots: FloatArray) -> tuple[FloatArray, float]:
    """Step of the even lattice from the first to the last position, and how far the others lie off it."""
    step = (positions[-1] - positions[0]) / slots[-1]
    off = positions - (positions[0] + slots[:, None] * step)
    return step, float(np.linalg.norm(off, axis=1).max())


def _told(position: Any) -> str:
    return "(" + ", ".join(f"{v:.6g}" for v in position) + ")"
