"""What is drawn upon a plane: contours, markers, boxes, letters and a scale bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from samaritan.pictures.planes import Array, Plane, Scene

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POSITIVE, NEGATIVE, BOX = "#21d04b", "#ff3b30", "#ffffff"
"""Colours of prompts. Shapes differ too: a plus, a cross, an outline."""

PALETTE = (
    "#ffd60a", "#22c3ff", "#ff6bd6", "#ff9326", "#a685ff", "#3df5c4", "#ffb3a7", "#7f9dff", "#d4ff4f",
    "#e0a6ff", "#00a6a6", "#c98b4b", "#f25f7a", "#9be8ff", "#b8c24a", "#ffffff",
)  # fmt: skip
"""Colours of objects in label order, again from the start after the last."""

MOST_FILLED = 0.3
"""Objects that take more than this part of some plane are outlined, but not tinted."""


def draw_contours(axes: Axes, labels: Array, scene: Scene, *, tint: bool = True) -> None:
    """Outline every label along the faces of its voxels, and tint the smaller ones if wanted."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgb

    known = all_labels(scene)
    shade = np.zeros((*labels.shape, 4), np.float32)
    for value in np.unique(labels[labels != 0]):
        colour = colour_of(known.index(int(value)))
        inside = labels == value
        if tint and not _is_large(int(value), scene):
            shade[inside] = (*to_rgb(colour), 0.13)
        lines = outline(inside)
        for width, ink, alpha, height in ((2.6, "black", 0.5, 3.0), (1.3, colour, 1.0, 3.1)):
            axes.add_collection(
                LineCollection(
                    list(lines), linewidths=width, colors=[ink], alpha=alpha, zorder=height,
                    capstyle="projecting", gid=f"outline {value}" if height > 3 else None,
                ),
                autolim=False,
            )  # fmt: skip
    axes.imshow(shade, interpolation="nearest", aspect=axes.get_aspect(), zorder=2)


def _is_large(value: int, scene: Scene) -> bool:
    """Whether a label takes so much of some plane that tinting it would only change the image."""
    planes = [plane.labels for plane in scene.planes if plane.labels is not None]
    return any(np.count_nonzero(p == value) > MOST_FILLED * p.size for p in planes)


def outline(inside: Array) -> Array:
    """(n, 2, 2): straight pieces (x, y) of the border between pixels inside and outside of a mask."""
    padded = np.pad(inside, 1).astype(np.int8)
    pieces = []
    for turned in (False, True):
        array = padded.T if turned else padded
        border = np.pad(array[1:] != array[:-1], ((0, 0), (1, 1))).astype(np.int8)
        steps = np.diff(border, axis=1)
        (row, start), (_, stop) = np.nonzero(steps == 1), np.nonzero(steps == -1)
        ends = np.stack([np.stack([start, row], -1), np.stack([stop, row], -1)], axis=1) - (
            1.5,
            0.5,
        )
        pieces.append(ends[..., ::-1] if turned else ends)
    joined: Array = np.concatenate(pieces)
    return joined


def draw_points(axes: Axes, plane: Plane, scene: Scene) -> None:
    """Mark the clicks: bold where they lie in the plane, thin where they lie before or behind it."""
    through, down, right = plane.axes
    for at, label in zip(scene.points, scene.point_labels, strict=True):
        here = round(float(at[through])) == plane.index
        colour = POSITIVE if label else NEGATIVE
        bold, thin = ("P", "+") if label else ("X", "x")
        axes.plot(
            at[right], at[down], bold if here else thin, markersize=9 if here else 6, color=colour,
            markeredgecolor="white" if here else colour, markeredgewidth=0.9 if here else 1.3,
            path_effects=None if here else halo(2.6, 0.6), linestyle="none", clip_on=False,
            zorder=6 if here else 5.5, gid="point",
        )  # fmt: skip


def draw_boxes(axes: Axes, plane: Plane, scene: Scene) -> None:
    """Outline the boxes: dashed where they do not reach the plane."""
    from matplotlib.patches import Rectangle

    through, down, right = plane.axes
    for low, high in zip(scene.box_starts, scene.box_stops, strict=True):
        here = low[through] <= plane.index <= high[through]
        size = high - low
        axes.add_patch(
            Rectangle(
                (low[right], low[down]),
                size[right],
                size[down],
                fill=False,
                edgecolor=BOX,
                linewidth=1.2 if here else 0.8,
                linestyle="-" if here else (0, (4, 3)),
                alpha=1 if here else 0.7,
                path_effects=halo(2.4, 0.6),
                zorder=5,
                gid="box",
            )
        )


def draw_letters(axes: Axes, plane: Plane) -> None:
    """Write at each edge where in the patient it is."""
    places = ((0, 0.5, 4, 0), (1, 0.5, -4, 0), (0.5, 1, 0, -4), (0.5, 0, 0, 4))
    sides = (("left", "center"), ("right", "center"), ("center", "top"), ("center", "bottom"))
    for letter, (x, y, dx, dy), (horizontal, vertical) in zip(
        plane.letters, places, sides, strict=True
    ):
        axes.annotate(
            letter, (x, y), (dx, dy), xycoords="axes fraction", textcoords="offset points", ha=horizontal,
            va=vertical, color="#ffcf70", fontsize=9, fontweight="bold", path_effects=halo(2, 0.8), zorder=7,
        )  # fmt: skip


def draw_scale_bar(axes: Axes, plane: Plane, scale: float) -> None:
    """A bar of a round length, at most a third of the plane."""
    width_mm = plane.size[1]
    if width_mm * scale < 1.2:
        return
    power = 10 ** np.floor(np.log10(width_mm / 3))
    length = max(n * power for n in (1, 2, 5) if n * power <= width_mm / 3)
    columns = length / plane.sides[1]
    rows = plane.pixels.shape[0]
    y, x = rows - 0.5 - 0.1 / scale / plane.sides[0], -0.5 + 0.1 / scale / plane.sides[1]
    axes.plot(
        [x, x + columns],
        [y, y],
        color="white",
        linewidth=2,
        solid_capstyle="butt",
        zorder=7,
        path_effects=halo(3.5, 0.7),
    )
    axes.annotate(
        f"{length:g} mm", (x + columns, y), (4, 0), textcoords="offset points", color="white", fontsize=7.5,
        va="center", path_effects=halo(2, 0.8), zorder=7,
    )  # fmt: skip


def colour_of(position: int) -> str:
    """Colour of the object at a position in the list of labels."""
    return PALETTE[position % len(PALETTE)]


def all_labels(scene: Scene) -> list[int]:
    """Labels that some plane shows, in order; colours follow it."""
    seen: set[int] = set()
    for plane in scene.planes:
        if plane.labels is not None:
            seen.update(int(v) for v in np.unique(plane.labels) if v != 0)
    return sorted(seen)


def halo(width: float, alpha: float) -> list[Any]:
    """A dark rim, so that lines and letters show on any background."""
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=width, foreground="black", alpha=alpha), Normal()]
