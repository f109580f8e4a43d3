"""Pictures of cases: the image, and on it the reference filled and the prediction outlined."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from samaritan.metrics.overlap import Array
from samaritan.pictures.marks import BOX, NEGATIVE, PALETTE, POSITIVE, halo, outline
from samaritan.pictures.planes import as_shown, choose_window, is_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from samaritan.geometry import Grid
    from samaritan.prompts import Boxes, Points
    from samaritan.volume import LabelMap, Volume

DPI = 96
"""Pixels per inch of pictures in reports."""

MARGIN = 0.22
"""How much is shown around the objects, as a part of their size."""

_PANEL = 3.1  # inches
_MOST_FILLED = 0.45
_BACK = "#101010"


def draw_case(
    prediction: LabelMap,
    reference: LabelMap,
    *,
    image: Volume | None = None,
    labels: Sequence[int] | None = None,
) -> bytes:
    """Draw the slice that shows most disagreement, cut to the objects, as a PNG.

    The left panel is the image alone (left out without one); on the right the reference is filled and
    the prediction outlined, each label in one colour.

    Args:
        prediction: label map.
        reference: label map on the same grid.
        image: what was segmented, on any grid.
        labels: those to show, in the order of their colours; by default all.
    """
    return draw_panels([Panel(prediction)], reference, image=image, labels=labels)


@dataclass(frozen=True, eq=False)
class Panel:
    """A prediction, and what was pointed at to get it.

    Attributes:
        prediction: label map.
        title: written into its upper left corner.
        points: clicks.
        boxes: boxes.
    """

    prediction: LabelMap
    title: str = ""
    points: Points | None = None
    boxes: Boxes | None = None


def draw_panels(
    panels: Sequence[Panel],
    reference: LabelMap,
    *,
    image: Volume | None = None,
    labels: Sequence[int] | None = None,
) -> bytes:
    """Draw several predictions of one case side by side, behind the image alone, as a PNG.

    The slice is the one where the last prediction differs most. With prompts it is the one with most of the
    reference, cut to it and to them, without what lies far off; clicks before or behind it are drawn thin.

    Args:
        panels: what to draw, on the grid of the reference.
        reference: filled in every panel.
        image: what was segmented, on any grid; its panel is left out without one.
        labels: those to show, in the order of their colours; by default all.
    """
    from matplotlib.figure import Figure

    maps = [reference, *(panel.prediction for panel in panels)]
    shown = (
        list(labels) if labels is not None else sorted({v for one in maps for v in one.labels()})
    )
    if image is not None:
        image = as_shown(image)
        if not image.grid.same_as(reference.grid):
            image = _moved(image, reference)
    prompted = any(panel.points is not None or panel.boxes is not None for panel in panels)
    nothing = np.zeros_like(reference.array)
    axis, index = _slice(nothing if prompted else maps[-1].array, reference.array)
    flats = [_turned(one.slice(axis, index)) for one in maps]
    marks = [_marks(panel, flats[0]) for panel in panels]
    touched = np.logical_or.reduce(
        [np.isin(f.array, shown) for f in flats[: 1 if prompted else None]]
    )
    for mark in marks:
        mark.touch(touched)
    rows, columns = _window(touched)
    cut = (rows, columns)
    ratio = flats[0].sides[0] / flats[0].sides[1]
    height, width = (rows.stop - rows.start) * ratio, columns.stop - columns.start
    scale = _PANEL / max(height, width)
    first = 0 if image is None else 1
    count = first + len(panels)
    across = count if count < 4 else (count + 1) // 2
    down = -(-count // across)
    figure = Figure(
        (across * width * scale + 0.05 * (across - 1), down * height * scale),
        dpi=DPI,
        facecolor=_BACK,
    )
    pixels, limits = None, (0.0, 1.0)
    if image is not None:
        pixels = _turned(image.slice(axis, index)).array[cut]
        limits = choose_window(image, None) if not is_colour(image) else limits
    for place in range(count):
        gap = 0.008 if count > 1 else 0
        left, top = place % across, place // across
        axes = figure.add_axes(
            (
                left / across,
                1 - (top + 1) / down + (gap if down > 1 else 0),
                1 / across - gap,
                1 / down - (gap if down > 1 else 0),
            )
        )
        axes.set_axis_off()
        axes.set_facecolor(_BACK)
        back = (
            np.zeros((*flats[0].array[cut].shape, 3), np.uint8) + 24
            if pixels is None
            else _pixels(pixels)
        )
        axes.imshow(back, cmap="gray", vmin=limits[0], vmax=limits[1], aspect=ratio)
        if place >= first:
            number = place - first
            one, two = flats[number + 1].array[cut], flats[0].array[cut]
            _draw_labels(axes, one, two, shown, ratio)
            marks[number].draw(axes, (columns.start, rows.start))
            _write_title(axes, panels[number].title)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(rows.stop - rows.start - 0.5, -0.5))
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def colour_of(position: int) -> str:
    """Colour of the label at this position."""
    return PALETTE[position % len(PALETTE)]


class _Flat:
    """A slice as rows and columns, turned as radiologists have it, with the sides of its pixels."""

    def __init__(self, array: Array, sides: tuple[float, float], grid: Grid) -> None:
        self.array, self.sides, self.grid = array, sides, grid

    def place(self, mm: Array) -> tuple[Array, Array]:
        """Columns and rows (n, 2) of places in mm, and how many slices they lie before or behind."""
        at = self.grid.mm_to_index(mm)
        through = self.grid.shape.index(1)
        right, down = (axis for axis in range(3) if axis != through)
        return at[:, [right, down]], at[:, through]


class _Marks:
    """Clicks and boxes in the pixels of a slice."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float, bool, bool]] = []
        self.boxes: list[tuple[float, float, float, float, bool]] = []

    def touch(self, inside: Array) -> None:
        """Mark what must be seen."""
        rows, columns = inside.shape
        for x, y, positive, _ in self.points:
            if not positive:
                continue
            inside[min(max(round(y), 0), rows - 1), min(max(round(x), 0), columns - 1)] = True
        for x, y, wide, high, _ in self.boxes:
            top, left = max(int(y + 0.5), 0), max(int(x + 0.5), 0)
            inside[top : int(y + high + 0.5), left : int(x + wide + 0.5)] = True

    def draw(self, axes: Axes, origin: tuple[int, int]) -> None:
        """Draw them into a panel that begins at `origin` (column, row)."""
        from matplotlib.patches import Rectangle

        for x, y, wide, high, here in self.boxes:
            axes.add_patch(
                Rectangle(
                    (x - origin[0], y - origin[1]),
                    wide,
                    high,
                    fill=False,
                    edgecolor=BOX,
                    linewidth=1.1,
                    linestyle="-" if here else (0, (4, 3)),
                    path_effects=halo(2.2, 0.6),
                    zorder=4,
                )
            )
        for x, y, positive, here in self.points:
            bold, thin = ("P", "+") if positive else ("X", "x")
            colour = POSITIVE if positive else NEGATIVE
            axes.plot(
                x - origin[0], y - origin[1], bold if here else thin, markersize=7 if here else 5,
                color=colour, markeredgecolor="white" if here else colour, markeredgewidth=0.8,
                linestyle="none", zorder=5,
            )  # fmt: skip


def _turned(flat: Any) -> _Flat:
    """Turn a volume one voxel thick: columns to the patient's left or back, rows to the back or feet."""
    view = flat.reorient("LPI")
    through = view.shape.index(1)
    right, down = (axis for axis in range(3) if axis != through)
    spacing = view.grid.spacing_mm
    sides = (spacing[down], spacing[right])
    return _Flat(view.array.squeeze(through).swapaxes(0, 1), sides, view.grid)


def _marks(panel: Panel, flat: _Flat) -> _Marks:
    """Bring prompts to the pixels of a slice."""
    marks = _Marks()
    if panel.points is not None and len(panel.points):
        at, off = flat.place(panel.points.grid.index_to_mm(panel.points.coords))
        for (x, y), beside, label in zip(at, off, panel.points.labels, strict=True):
            marks.points.append((float(x), float(y), bool(label), abs(beside) < 0.5))
    if panel.boxes is not None:
        for low, high in zip(panel.boxes.start - 0.5, panel.boxes.stop - 0.5, strict=True):
            at, off = flat.place(panel.boxes.grid.index_to_mm(np.stack([low, high])))
            (x, y), (right, down) = at.min(axis=0), at.max(axis=0)
            here = bool(off.min() <= 0 <= off.max())
            marks.boxes.append((float(x), float(y), float(right - x), float(down - y), here))
    return marks


def _write_title(axes: Axes, title: str) -> None:
    if title:
        axes.text(
            0.015, 0.985, title, transform=axes.transAxes, color="white", fontsize=8, va="top",
            path_effects=halo(2.2, 0.8), zorder=6,
        )  # fmt: skip


def _moved(image: Volume, reference: LabelMap) -> Volume:
    """Bring the image onto the reference's grid: as it is where only the unit differs."""
    if image.shape == reference.shape and "px" in (image.grid.unit, reference.grid.unit):
        return type(image)(image.array, reference.grid, image.channels)
    return image.to_grid(reference.grid)


def _slice(one: Array, two: Array) -> tuple[int, int]:
    """Axis and index of the slice to show: across the thickest voxels' axis, where most voxels differ."""
    shape = one.shape
    if 1 in shape:
        return shape.index(1), 0
    axis = int(np.argmin(shape))
    others = tuple(a for a in range(3) if a != axis)
    worst = (one != two).sum(axis=others)
    if not worst.any():
        worst = (two != 0).sum(axis=others)
    return axis, int(np.argmax(worst))


def _window(mask: Array) -> tuple[slice, slice]:
    """The box of the objects with a margin, not narrower than half as wide as long."""
    if not mask.any():
        return slice(0, mask.shape[0]), slice(0, mask.shape[1])
    ends = []
    for axis in (0, 1):
        inside = np.flatnonzero(mask.any(axis=1 - axis))
        ends.append((int(inside[0]), int(inside[-1]) + 1))
    longest = max(stop - start for start, stop in ends)
    box = []
    for (start, stop), size in zip(ends, mask.shape, strict=True):
        wish = max((stop - start) + 2 * MARGIN * longest, 0.75 * longest, 24)
        middle = (start + stop) / 2
        box.append(slice(max(int(middle - wish / 2), 0), min(int(middle + wish / 2) + 1, size)))
    return box[0], box[1]


def _draw_labels(axes: Axes, one: Array, two: Array, shown: list[int], ratio: float) -> None:
    """Fill the reference and outline the prediction."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    tint = np.zeros((*two.shape, 4), np.float32)
    for position, label in enumerate(shown):
        inside = two == label
        alpha = 0.45 if inside.sum() < _MOST_FILLED * inside.size else 0.3
        tint[inside] = (*to_rgb(colour_of(position)), alpha)
    axes.imshow(tint, interpolation="nearest", aspect=ratio, zorder=2)
    for position, label in enumerate(shown):
        lines = list(outline(one == label))
        for width, ink, alpha in ((2.8, "black", 0.6), (1.4, colour_of(position), 1.0)):
            axes.add_collection(
                LineCollection(
                    lines,
                    linewidths=width,
                    colors=[ink],
                    alpha=alpha,
                    zorder=3,
                    capstyle="projecting",
                ),
                autolim=False,
            )


def _pixels(pixels: Array) -> Array:
    if pixels.ndim == 3:
        return (
            pixels[..., :3] if pixels.dtype == np.uint8 else (pixels[..., :3] >> 8).astype(np.uint8)
        )
    return np.ma.masked_invalid(pixels.astype(np.float32, copy=False))
