"""Draw planes, contours, markers and letters with matplotlib, without its global state."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from samaritan.pictures.layout import Layout, choose_layout
from samaritan.pictures.marks import (
    BOX,
    NEGATIVE,
    POSITIVE,
    all_labels,
    colour_of,
    draw_boxes,
    draw_contours,
    draw_letters,
    draw_points,
    draw_scale_bar,
)
from samaritan.pictures.planes import (
    Array,
    Plane,
    Scene,
    as_shown,
    choose_window,
    is_colour,
    make_scene,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from samaritan.prompts import Boxes, Points
    from samaritan.volume import LabelMap, Volume

DPI = 150
"""Pixels per inch, unless asked otherwise."""

MOST_NAMES = 20
"""The legend names this many objects at most."""

BACK, TEXT, DIM = "#101010", "#e8e8e8", "#9a9a9a"
"""Colours of the page, of text on it, and of small print."""


def draw(
    volume: Volume,
    *,
    mask: LabelMap | None = None,
    points: Points | None = None,
    boxes: Boxes | None = None,
    at: Sequence[int] | None = None,
    title: str | None = None,
    window: tuple[float, float] | None = None,
    crosshair: bool = False,
) -> Figure:
    """Draw three orthogonal planes, or the only slice of a flat image, with mask contours and prompts.

    Prompts that lie in a shown plane are drawn bold, others thin or dashed. All planes have one scale, in
    millimetres.

    Args:
        volume: the image; colours are shown as they are, of other channels the first.
        mask: on the image's grid; each label gets a contour and a name in the legend.
        points: clicks: green plus for positive, red cross for negative.
        boxes: outlined in white.
        at: array index that the planes go through; by default the first positive click, the centre of the
            first box, the slices that show most labels of the mask, or the centre.
        title: a line above.
        window: intensities that become black and white; see `choose_window` for the default.
        crosshair: whether to show where the planes cut each other.

    Returns:
        A figure that belongs to no window; give it to `save_picture`.

    Raises:
        GridMismatch: if the mask lies on another grid.
        GeometryError: if `at` lies outside the image.
    """
    from matplotlib.figure import Figure

    shown = as_shown(volume)
    scene = make_scene(shown, mask, points, boxes, at)
    entries = _entries(scene, mask)
    layout = choose_layout(
        [plane.size for plane in scene.planes], [text for text, _ in entries], title
    )
    figure = Figure(figsize=layout.size, dpi=DPI, facecolor=BACK)
    limits = window or (
        None if is_colour(shown) else choose_window(shown, at or own_index(volume, scene))
    )
    for plane, box in zip(scene.planes, layout.planes, strict=True):
        axes = figure.add_axes(layout.relative(box), label=plane.name)
        draw_plane(axes, plane, scene, limits)
        if len(scene.planes) > 1:
            axes.set_title(
                f"{plane.name}, {plane.where}", color=TEXT, fontsize=8, loc="left", pad=3
            )
        if crosshair and len(scene.planes) > 1:
            _draw_crosshair(axes, plane, scene)
        if volume.grid.unit == "mm" and plane is scene.planes[0]:
            draw_scale_bar(axes, plane, layout.scale)
    if title is not None:
        figure.text(
            0.5,
            1 - 0.17 / layout.size[1],
            title,
            color=TEXT,
            ha="center",
            va="center",
            fontsize=11,
        )
    _legend(figure, layout, entries)
    if layout.facts is not None:
        left, bottom, _, _ = layout.relative(layout.facts)
        figure.text(left, bottom, _facts(volume, limits), color=DIM, fontsize=8, va="bottom")
    return figure


def save_picture(figure: Figure, path: str | os.PathLike[str], *, dpi: int = DPI) -> Path:
    """Write a figure whole or not at all; the suffix (.png, .jpg, .pdf, .svg) says the format.

    Args:
        figure: from `draw`.
        path: where.
        dpi: pixels per inch; pages are up to about 10 inches wide.

    Raises:
        UnsupportedFormat: if matplotlib does not write such files.
        FileError: if the folder cannot be written.
    """
    from samaritan.errors import UnsupportedFormat
    from samaritan.io.files import replacing

    target = Path(path)
    known = figure.canvas.get_supported_filetypes()
    if target.suffix.lstrip(".").lower() not in known:
        raise UnsupportedFormat(
            f"{target}: pictures are not written as {target.suffix!r}. Use one of "
            + ", ".join(f".{name}" for name in sorted(known))
        )
    with replacing(target) as (temporary,):
        figure.savefig(temporary, format=target.suffix.lstrip(".").lower(), dpi=dpi)
    return target


def _facts(volume: Volume, limits: tuple[float, float] | None) -> str:
    """Say what the image is, in three lines."""
    grid = volume.grid
    shape = " x ".join(map(str, grid.shape))
    spacing = " x ".join(f"{side:.4g}" for side in grid.spacing_mm)
    kind = f"{grid.orientation}{', oblique' if grid.is_oblique else ''}"
    shown = "" if limits is None else f"\nblack to white: {limits[0]:.4g} to {limits[1]:.4g}"
    return f"{shape} voxels, {kind}\n{spacing} {grid.unit}{shown}"


def own_index(volume: Volume, scene: Scene) -> list[int]:
    """Array index that the planes go through, in the volume's own order."""
    turned = volume.grid.reorient("LPI")
    index = volume.grid.mm_to_index(turned.index_to_mm(scene.at))
    return [int(v) for v in np.rint(index)]


def draw_plane(
    axes: Axes,
    plane: Plane,
    scene: Scene,
    limits: tuple[float, float] | None,
    *,
    tint: bool = True,
) -> None:
    """Draw a plane with contours, prompts and letters; `limits` become black and white."""
    rows, columns = plane.pixels.shape[:2]
    low, high = limits or (None, None)
    axes.imshow(
        _pixels(plane.pixels),
        cmap="gray",
        vmin=low,
        vmax=high,
        aspect=plane.sides[0] / plane.sides[1],
    )
    axes.set(
        xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), xticks=[], yticks=[], facecolor="black"
    )
    for side in axes.spines.values():
        side.set_visible(False)
    if plane.labels is not None:
        draw_contours(axes, plane.labels, scene, tint=tint)
    draw_boxes(axes, plane, scene)
    draw_points(axes, plane, scene)
    draw_letters(axes, plane)


def _draw_crosshair(axes: Axes, plane: Plane, scene: Scene) -> None:
    """Show where the other planes cut this one."""
    _, down, right = plane.axes
    for line, where in ((axes.axvline, scene.at[right]), (axes.axhline, scene.at[down])):
        line(where, color="#5ab0ff", linewidth=0.6, alpha=0.7)


def _pixels(pixels: Array) -> Array:
    """Bring pixels to a type that matplotlib shows as it should."""
    if pixels.ndim == 3:
        return (
            pixels[..., :3] if pixels.dtype == np.uint8 else (pixels[..., :3] >> 8).astype(np.uint8)
        )
    return np.ma.masked_invalid(pixels.astype(np.float32, copy=False))


def _entries(scene: Scene, mask: LabelMap | None) -> list[tuple[str, Any]]:
    """List what the legend says: objects that are seen, and prompts."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    entries: list[tuple[str, Any]] = []
    labels = all_labels(scene)
    names = {} if mask is None else mask.names
    for position, value in enumerate(labels[:MOST_NAMES]):
        colour = colour_of(position)
        entries.append(
            (names.get(value, f"label {value}"), Patch(facecolor=colour + "50", edgecolor=colour))
        )
    if len(labels) > MOST_NAMES:
        entries.append((f"and {len(labels) - MOST_NAMES} more", Patch(alpha=0)))
    if mask is not None and not labels:
        empty = not mask.array.any()
        entries.append(
            ("the mask is empty" if empty else "no mask in these planes", Patch(alpha=0))
        )
    for label, text, marker, colour in (
        (1, "belongs to it", "P", POSITIVE),
        (0, "does not", "X", NEGATIVE),
    ):
        if (scene.point_labels == label).any():
            handle = Line2D(
                [],
                [],
                marker=marker,
                color=colour,
                markeredgecolor="white",
                markersize=8,
                linestyle="none",
            )
            entries.append((text, handle))
    if len(scene.box_starts):
        entries.append(("box", Patch(facecolor="none", edgecolor=BOX)))
    return entries


def _legend(figure: Figure, layout: Layout, entries: list[tuple[str, Any]]) -> None:
    if not entries:
        return
    axes = figure.add_axes(layout.relative(layout.legend), label="legend")
    axes.set_axis_off()
    axes.legend(
        [handle for _, handle in entries], [text for text, _ in entries], loc="upper left", frameon=False,
        labelcolor=TEXT, fontsize=9, ncols=layout.legend_columns, borderpad=0, borderaxespad=0,
        handlelength=1.4, columnspacing=1.2,
    )  # fmt: skip
