"""Steps of a session are drawn side by side, each with its own mask and prompts, cut alike."""

from __future__ import annotations

import numpy as np
import pytest

from samaritan.errors import ConfigError, GridMismatch
from samaritan.geometry import Grid
from samaritan.phantoms import phantom_picture
from samaritan.pictures.steps import Step, draw_steps
from samaritan.prompts import Boxes, Points
from samaritan.volume import LabelMap, Volume
from tests.strategies import make_grid


def masks(grid: Grid, *sizes: int) -> list[LabelMap]:
    made = []
    for size in sizes:
        array = np.zeros(grid.shape, np.uint8)
        array[20 : 20 + size, 30 : 30 + size] = 1
        made.append(LabelMap(array, grid, names={1: "lesion"}))
    return made


def test_each_step_has_its_own_mask_prompts_and_words() -> None:
    image = phantom_picture("ultrasound", shape=(80, 100), seed=1).image
    one, two, truth = masks(image.grid, 6, 12, 10)
    points = Points([(25, 35, 0)], [0], image.grid)
    boxes = Boxes([(18, 28, 0)], [(34, 44, 1)], image.grid)
    steps = [
        Step(one, "1 box", "Dice 0.1", boxes=boxes),
        Step(two, "2 click", "Dice 0.2", points, boxes),
    ]
    figure = draw_steps(image, steps, reference=truth, note="a note")
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()
    for axes, size, clicks in ((first, 6, 0), (second, 12, 1)):
        (lines,) = (c for c in axes.collections if c.get_gid() == "outline 1")
        ends = np.concatenate(lines.get_segments())
        assert ends[:, 0].min() == 29.5
        assert ends[:, 0].max() == 29.5 + size
        assert sum(line.get_gid() == "point" for line in axes.lines) == clicks
        assert sum(patch.get_gid() == "box" for patch in axes.patches) == 1
    told = [text.get_text() for text in figure.texts]
    assert told == ["1 box", "Dice 0.1", "2 click", "Dice 0.2", "a note"]


@pytest.mark.parametrize("orientation", ["LPS", "PSR"])
def test_what_is_pointed_at_lies_inside_the_cut(orientation: str) -> None:
    grid = make_grid((40, 50, 9), (1.0, 1.5, 4.0), orientation)
    image = Volume(np.zeros(grid.shape, np.int16), grid)
    mask = LabelMap(np.zeros(grid.shape, np.uint8), grid)
    mask.array[10:14, 20:26, 4] = 1
    points = Points([(12, 22, 4), (30, 22, 4)], [1, 0], grid)
    (axes,) = draw_steps(image, [Step(mask, "one", points=points)]).axes
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    marks = [line for line in axes.lines if line.get_gid() == "point"]
    assert len(marks) == 2
    for mark in marks:
        assert left <= mark.get_xdata()[0] <= right
        assert top <= mark.get_ydata()[0] <= bottom


def test_empty_masks_show_the_whole_plane() -> None:
    image = phantom_picture("xray", shape=(40, 52)).image
    empty = LabelMap(np.zeros(image.shape, np.uint8), image.grid)
    (axes,) = draw_steps(image, [Step(empty, "nothing")]).axes
    assert axes.get_xlim() == (-0.5, 51.5)


def test_wrong_requests_are_told() -> None:
    image = phantom_picture("xray", shape=(40, 52)).image
    with pytest.raises(ConfigError, match="no steps"):
        draw_steps(image, [])
    other = LabelMap(np.zeros((20, 52, 1), np.uint8), Grid.pixels((20, 52)))
    with pytest.raises(GridMismatch):
        draw_steps(image, [Step(other, "elsewhere")])
