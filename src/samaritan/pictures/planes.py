"""Which voxels a picture shows: planes through a point, with letters, and prompts turned like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import GeometryError
from samaritan.geometry import Grid
from samaritan.prompts import Boxes, Points
from samaritan.volume import LabelMap, Volume

Array = npt.NDArray[Any]

DISPLAY = "LPI"
"""Columns run to the patient's left or back, rows to the back or feet: the radiological convention."""

LETTER_COSINE = 0.3
"""A second letter ("RA") is shown for axes that lean by more than about 17 degrees."""

CT_WINDOWS = {"soft tissue": (-160.0, 240.0), "lung": (-1350.0, 150.0)}
"""Windows for volumes in Hounsfield units, whose percentiles would show little but air and bone."""

_PLANES = (("axial", 2, 1, 0), ("coronal", 1, 2, 0), ("sagittal", 0, 2, 1))
_SAMPLES = 1_000_000


@dataclass(frozen=True, eq=False)
class Plane:
    """One plane of a volume, ready to be shown with row 0 at the top.

    Attributes:
        name: "axial", "coronal" or "sagittal", or the nearest of these.
        where: the slice in terms of the file, such as "k = 45".
        pixels: (rows, columns) or (rows, columns, rgb).
        labels: (rows, columns) of a label map, or None.
        sides: height and width of a pixel in mm.
        letters: left, right, top, bottom; empty for pictures without patient.
        axes: through, down and right, as axes of the turned volume.
        index: the slice, as an index of the turned volume.
    """

    name: str
    where: str
    pixels: Array
    labels: Array | None
    sides: tuple[float, float]
    letters: tuple[str, str, str, str]
    axes: tuple[int, int, int]
    index: int

    @property
    def size(self) -> tuple[float, float]:
        """Height and width in mm."""
        rows, columns = self.pixels.shape[:2]
        return rows * self.sides[0], columns * self.sides[1]


@dataclass(frozen=True, eq=False)
class Scene:
    """Planes, and prompts in indices of the turned volume."""

    planes: tuple[Plane, ...]
    points: Array
    point_labels: Array
    box_starts: Array
    box_stops: Array
    at: tuple[int, int, int]


def make_scene(
    volume: Volume,
    mask: LabelMap | None,
    points: Points | None,
    boxes: Boxes | None,
    at: Sequence[int] | None,
) -> Scene:
    """Choose the planes and bring everything into the display's orientation.

    Raises:
        GridMismatch: if the mask lies on another grid.
        GeometryError: if `at` lies outside.
    """
    if mask is not None:
        volume.grid.require_same(mask.grid, what="grids of image and mask")
    points = None if points is None else points.to_grid(volume.grid)
    boxes = None if boxes is None else boxes.to_grid(volume.grid)
    focus = _focus(volume, mask, points, boxes, at)
    turn = _Turn(volume.grid)
    centre = tuple(int(v) for v in np.rint(turn.points(np.array([focus], float))[0]))
    view = volume.reorient(DISPLAY)
    labels = None if mask is None else mask.reorient(DISPLAY)
    wanted = [p for p in _PLANES if view.shape[p[1]] == 1] if volume.is_flat else list(_PLANES)
    wanted.sort(key=lambda p: -(view.shape[p[2]] * view.shape[p[3]]))
    planes = [_plane(view, labels, turn, p, centre[p[1]]) for p in wanted]
    if volume.is_flat:
        planes = planes[:1]
    else:
        planes.sort(key=lambda p: p.name)
    low, high = np.zeros((0, 3)), np.zeros((0, 3))
    if boxes is not None:
        ends = turn.points(boxes.start - 0.5), turn.points(boxes.stop - 0.5)
        low, high = np.minimum(*ends), np.maximum(*ends)
    return Scene(
        tuple(planes),
        turn.points(points.coords) if points else np.zeros((0, 3)),
        points.labels if points else np.zeros(0, int),
        low,
        high,
        centre,  # type: ignore[arg-type]
    )


def as_shown(volume: Volume) -> Volume:
    """Choose what can be shown: colours as they are, else one channel, real and in native byte order."""
    if is_colour(volume):
        return volume
    volume = volume.channel(0)
    return volume.with_array(np.abs(volume.array)) if volume.dtype.kind == "c" else volume


def is_colour(volume: Volume) -> bool:
    """Whether the channels are red, green, blue and maybe alpha."""
    return volume.n_channels in (3, 4) and volume.dtype in (np.uint8, np.uint16)


def choose_window(volume: Volume, at: Sequence[int] | None = None) -> tuple[float, float]:
    """Choose the intensities that become black and white.

    Volumes that look like CT (signed, with much air near -1000) get a window for soft tissue, or for lung if
    the voxels about `at` are lung. All others get their percentiles 0.5 and 99.5, without NaN and infinity.
    """
    step = max(1, int((volume.grid.n_voxels / _SAMPLES) ** (1 / 3)))
    sample = volume.array[tuple(slice(None, None, min(step, n)) for n in volume.shape)]
    values = sample[np.isfinite(sample)].astype(np.float64)
    if not values.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(values, (0.5, 99.5)))
    if low < -850 and values.min() > -4096 and 30 < high < 4096:
        around = tuple(slice(max(i - 2, 0), i + 3) for i in at or [n // 2 for n in volume.shape])
        level = float(np.median(volume.array[around]))
        return CT_WINDOWS["lung" if -980 < level < -350 else "soft tissue"]
    if low == high:
        low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low - 0.5, low + 0.5)


class _Turn:
    """Takes indices of a grid to indices of the grid turned for display, without rounding."""

    def __init__(self, grid: Grid) -> None:
        self.shape = grid.shape
        self.order, self.flips = grid.steps_to(DISPLAY)

    def points(self, index: Array) -> Array:
        turned: Array = index[:, list(self.order)].astype(float)
        for axis in self.flips:
            turned[:, axis] = self.shape[self.order[axis]] - 1 - turned[:, axis]
        return turned

    def told(self, axis: int, index: int) -> str:
        """Say where a slice is in the file."""
        own = self.order[axis]
        at = self.shape[own] - 1 - index if axis in self.flips else index
        return f"{'ijk'[own]} = {at}"


def _focus(
    volume: Volume,
    mask: LabelMap | None,
    points: Points | None,
    boxes: Boxes | None,
    at: Sequence[int] | None,
) -> list[int]:
    """Choose the voxel that the planes go through."""
    last = np.asarray(volume.shape) - 1
    if at is not None:
        if len(at) != 3 or not volume.grid.contains(np.asarray(at, float)):
            raise GeometryError(
                f"planes through {tuple(at)} do not meet the image, whose shape is {volume.shape}"
            )
        chosen = np.asarray(at, float)
    elif points is not None and len(points):
        chosen = points.coords[int(np.argmax(points.labels))]
    elif boxes is not None and len(boxes):
        chosen = (boxes.start[0] + boxes.stop[0] - 1) / 2
    elif mask is not None and mask.array.any():
        chosen = _fullest(mask)
    else:
        chosen = last / 2
    return [int(v) for v in np.clip(np.rint(chosen), 0, last)]


def _fullest(mask: LabelMap) -> Array:
    """Find the slices that show most labels, and of these the most of them, one for each axis."""
    step = max(1, int((mask.grid.n_voxels / _SAMPLES) ** (1 / 3)))
    array = mask.array[::step, ::step, ::step]
    if not array.any():
        step, array = 1, mask.array
    chosen = []
    for axis in range(3):
        best, at = (0, 0), 0
        for index, part in enumerate(np.moveaxis(array, axis, 0)):
            seen = (len(np.unique(part[part != 0])), int(np.count_nonzero(part)))
            best, at = (seen, index) if seen > best else (best, at)
        chosen.append(at * step)
    return np.array(chosen, float)


def _plane(
    view: Volume, labels: LabelMap | None, turn: _Turn, plane: tuple[str, int, int, int], index: int
) -> Plane:
    name, through, down, right = plane
    cut: list[Any] = [slice(None)] * 3
    cut[through] = index
    swap = down > right  # the remaining axes are in ascending order

    def flat(array: Array) -> Array:
        taken: Array = array[tuple(cut)]
        return taken.swapaxes(0, 1) if swap else taken

    spacing = view.grid.spacing_mm
    return Plane(
        name,
        turn.told(through, index),
        flat(view.array),
        None if labels is None else flat(labels.array),
        (spacing[down], spacing[right]),
        _letters(view.grid, down, right) if view.grid.unit == "mm" else ("", "", "", ""),
        (through, down, right),
        index,
    )


def _letters(grid: Grid, down: int, right: int) -> tuple[str, str, str, str]:
    def told(direction: Array) -> str:
        pairs = ("LR", "PA", "IS")
        order = np.argsort(-np.abs(direction))
        leaning = [a for a in order if abs(direction[a]) > LETTER_COSINE]
        return "".join(pairs[a][int(direction[a] > 0)] for a in leaning[:2])

    to_right, to_bottom = grid.direction[:, right], grid.direction[:, down]
    return told(-to_right), told(to_right), told(-to_bottom), told(to_bottom)
