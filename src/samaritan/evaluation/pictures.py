"""Pictures of cases: the image, and on it the reference filled and the prediction outlined."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from samaritan.metrics.overlap import Array
from samaritan.pictures.marks import PALETTE, outline
from samaritan.pictures.planes import as_shown, choose_window, is_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    from matplotlib.figure import Figure

    shown = (
        list(labels) if labels is not None else sorted({*prediction.labels(), *reference.labels()})
    )
    if image is not None:
        image = as_shown(image)
        if not image.grid.same_as(reference.grid):
            image = _moved(image, reference)
    axis, index = _slice(prediction.array, reference.array)
    one, two = (_turned(labels_of.slice(axis, index)) for labels_of in (prediction, reference))
    rows, columns = _window(np.isin(one.array, shown) | np.isin(two.array, shown))
    cut = (rows, columns)
    ratio = one.sides[0] / one.sides[1]
    height, width = (rows.stop - rows.start) * ratio, columns.stop - columns.start
    scale = _PANEL / max(height, width)
    panels = 1 if image is None else 2
    figure = Figure(
        (panels * width * scale + 0.05 * (panels - 1), height * scale), dpi=DPI, facecolor=_BACK
    )
    pixels, limits = None, (0.0, 1.0)
    if image is not None:
        pixels = _turned(image.slice(axis, index)).array[cut]
        limits = choose_window(image, None) if not is_colour(image) else limits
    for panel in range(panels):
        axes = figure.add_axes((panel / panels, 0, 1 / panels - (0.008 if panels > 1 else 0), 1))
        axes.set_axis_off()
        axes.set_facecolor(_BACK)
        back = (
            np.zeros((*one.array[cut].shape, 3), np.uint8) + 24
            if pixels is None
            else _pixels(pixels)
        )
        axes.imshow(back, cmap="gray", vmin=limits[0], vmax=limits[1], aspect=ratio)
        if panel == panels - 1:
            _draw_labels(axes, one.array[cut], two.array[cut], shown, ratio)
        axes.set(xlim=(-0.5, width - 0.5), ylim=(rows.stop - rows.start - 0.5, -0.5))
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def colour_of(position: int) -> str:
    """Colour of the label at this position."""
    return PALETTE[position % len(PALETTE)]


class _Flat:
    """A slice as rows and columns, turned as radiologists have it, with the sides of its pixels."""

    def __init__(self, array: Array, sides: tuple[float, float]) -> None:
        self.array, self.sides = array, sides


def _turned(flat: Any) -> _Flat:
    """Turn a volume one voxel thick: columns to the patient's left or back, rows to the back or feet."""
    view = flat.reorient("LPI")
    through = view.shape.index(1)
    right, down = (axis for axis in range(3) if axis != through)
    spacing = view.grid.spacing_mm
    return _Flat(view.array.squeeze(through).swapaxes(0, 1), (spacing[down], spacing[right]))


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
