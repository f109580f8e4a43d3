"""Draw the steps of a session side by side: one object, cut to what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from samaritan.errors import ConfigError
from samaritan.pictures.drawing import BACK, DIM, DPI, TEXT, draw_plane, own_index
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

REFERENCE = "#22c3ff"
"""The known answer is filled with this colour."""

_MARGIN = 0.2
_SIDE, _GAP, _ABOVE, _BELOW, _NOTE = 2.55, 0.1, 0.3, 0.3, 0.26  # inches


@dataclass(frozen=True, eq=False)
class Step:
    """What was known after one step.

    Attributes:
        mask: the answer so far.
        title: what was done, above.
        caption: what came of it, below.
        points: all clicks so far.
        boxes: all boxes so far.
    """

    mask: LabelMap
    title: str
    caption: str = ""
    points: Points | None = None
    boxes: Boxes | None = None


def draw_steps(
    volume: Volume,
    steps: Sequence[Step],
    *,
    reference: LabelMap | None = None,
    note: str = "",
    window: tuple[float, float] | None = None,
) -> Figure:
    """Draw one plane of an image once for each step, with the mask outlined and the known answer filled.

    Args:
        volume: the image; of a volume the plane is the axial one, or the nearest to it.
        steps: what to draw, from left to right.
        reference: the known answer, on the image's grid.
        note: a line below all.
        window: intensities that become black and white; see `choose_window` for the default.

    Returns:
        A figure that belongs to no window; give it to `save_picture`.

    Raises:
        ConfigError: if there are no steps.
        GridMismatch: if a mask lies on another grid.
    """
    from matplotlib.figure import Figure

    if not steps:
        raise ConfigError("there are no steps to draw: give at least one Step")
    shown = as_shown(volume)
    first = make_scene(shown, reference or steps[0].mask, steps[0].points, steps[0].boxes, None)
    at = own_index(volume, first)
    scenes = [make_scene(shown, step.mask, step.points, step.boxes, at) for step in steps]
    truth = None if reference is None else make_scene(shown, reference, None, None, at)
    limits = window or (None if is_colour(shown) else choose_window(shown, at))
    rows, columns = _cut(scenes, truth)
    sides = scenes[0].planes[0].sides
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    tall = _SIDE * height * sides[0] / (width * sides[1])
    across = len(steps) * _SIDE + (len(steps) + 1) * _GAP
    down = _ABOVE + tall + _BELOW + (_NOTE if note else 0)
    figure = Figure(figsize=(across, down), dpi=DPI, facecolor=BACK)
    for place, (step, scene) in enumerate(zip(steps, scenes, strict=True)):
        left = _GAP + place * (_SIDE + _GAP)
        bottom = down - _ABOVE - tall
        box = (left / across, bottom / down, _SIDE / across, tall / down)
        axes = figure.add_axes(box, label=step.title)
        draw_plane(axes, scene.planes[0], scene, limits, tint=reference is None)
        if truth is not None:
            _fill(axes, truth.planes[0])
        axes.set(xlim=columns, ylim=rows[::-1])
        middle = (left + _SIDE / 2) / across
        for text, y, size in (
            (step.title, down - _ABOVE / 2, 9.5),
            (step.caption, bottom - 0.15, 9),
        ):
            figure.text(middle, y / down, text, color=TEXT, fontsize=size, ha="center", va="center")
    if note:
        figure.text(0.5, 0.11 / down, note, color=DIM, fontsize=8, ha="center", va="center")
    return figure


def _fill(axes: Axes, plane: Plane) -> None:
    from matplotlib.colors import to_rgb

    assert plane.labels is not None
    tint = np.zeros((*plane.labels.shape, 4), np.float32)
    tint[plane.labels != 0] = (*to_rgb(REFERENCE), 0.25)
    axes.imshow(tint, interpolation="nearest", aspect=axes.get_aspect(), zorder=1.5)


def _cut(
    scenes: Sequence[Scene], truth: Scene | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Rows and columns that hold everything drawn, with a margin, within the plane."""
    plane = scenes[0].planes[0]
    _, down, right = plane.axes
    places: list[Array] = []
    for scene in (*scenes, *(() if truth is None else (truth,))):
        labels = scene.planes[0].labels
        if labels is not None and labels.any():
            found = np.argwhere(labels)
            places += [found.min(axis=0)[None] - 0.5, found.max(axis=0)[None] + 0.5]
        places += [of[:, [down, right]] for of in (scene.points, scene.box_starts, scene.box_stops)]
    size = np.array(plane.pixels.shape[:2])
    every = np.concatenate(places) if places else np.zeros((0, 2))
    if not len(every):
        every = np.array([[0, 0], size - 1])
    low, high = every.min(axis=0), every.max(axis=0)
    wish = np.maximum((high - low) * (1 + 2 * _MARGIN), 0.7 * (high - low).max())
    low, high = (low + high - wish) / 2, (low + high + wish) / 2
    low, high = np.maximum(low, -0.5), np.minimum(high, size - 0.5)
    return (float(low[0]), float(high[0])), (float(low[1]), float(high[1]))
