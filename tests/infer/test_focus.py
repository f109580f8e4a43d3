"""Small models look at one object at a time: masks lie where they should, whatever window they come from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from infer.oracle import BrightnessOracle
from torch import Tensor

from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.infer.focus import _Scene
from samaritan.transforms import FocusPreprocess
from samaritan.transforms.focus import SLOT
from samaritan.volume import LabelMap, Volume

CODES = ["".join(c) for c in itertools.product("RL", "AP", "SI")] + ["SAR", "PIL", "ARS"]


class Oracle(BrightnessOracle):
    """What is brighter than the middle of its own window; equally sure of everything."""

    def _decode(self, **given):
        logits, quality = super()._decode(**given)
        return logits, torch.ones_like(quality)

    def _encode(self, x: Tensor) -> Tensor:
        self.encoded += 1
        return x[:, :1] - (x.max() + x.min()) / 2


@pytest.fixture
def predictor():
    return Predictor(Oracle((32, 32), channels=3), FocusPreprocess(size=(32, 32)), device="cpu")


def bright(grid, centre, radii):
    """A bright ellipsoid, in array indices."""
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    mask = (((index - centre) / np.asarray(radii)) ** 2).sum(axis=-1) <= 1
    return Volume(np.where(mask, 200, 20).astype(np.int16), grid), mask


def dice(a, b):
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("code", CODES)
def test_a_box_gives_a_mask_on_the_grid_of_the_image(predictor, code):
    grid = Grid.from_spacing((40, 48, 44), (1.0, 1.5, 2.0), orientation=code)
    volume, mask = bright(grid, (18, 26, 20), (9, 10, 8))
    session = predictor.session(volume)
    axis = session.image.axis
    start, stop = [0, 0, 0], [0, 0, 0]
    index = (18, 26, 20)[axis]
    flat = np.take(mask, index, axis=axis)
    where = np.argwhere(flat)
    others = [a for a in range(3) if a != axis]
    for a, low, high in zip(others, where.min(axis=0), where.max(axis=0) + 1, strict=True):
        start[a], stop[a] = int(low), int(high)
    start[axis], stop[axis] = index, index + 1
    found = session.box(start, stop).mask
    assert found.grid.same_as(grid)
    assert dice(np.take(found.array > 0, index, axis=axis), flat) > 0.93
    assert int((found.array > 0).sum()) == int((np.take(found.array, index, axis=axis) > 0).sum())


def test_a_small_object_in_a_large_picture_is_seen_closely(predictor):
    volume, mask = bright(Grid.pixels((400, 600)), (120, 333, 0), (13, 9, 1))
    found = predictor.session(volume).click((120, 333)).mask.array > 0
    assert dice(found, mask) > 0.95  # the whole picture has 19 pixels to one of the input


def test_a_large_object_is_seen_whole(predictor):
    volume, mask = bright(Grid.pixels((120, 160)), (60, 80, 0), (50, 70, 1))
    found = predictor.session(volume).click((60, 80)).mask.array > 0
    assert dice(found, mask) > 0.95


def test_a_window_is_kept_while_the_object_fits_in_it(predictor):
    volume, _ = bright(Grid.pixels((100, 100)), (50, 50, 0), (20, 15, 1))
    session = predictor.session(volume).box((30, 35), (71, 66))
    _ = session.mask
    encoded = predictor.model.encoded
    session = session.click((50, 50)).click((34, 50))
    _ = session.mask
    assert predictor.model.encoded == encoded


def test_a_click_outside_moves_the_window_and_keeps_what_was_known(predictor):
    volume, _ = bright(Grid.pixels((100, 200)), (50, 50, 0), (20, 15, 1))
    session = predictor.session(volume).box((30, 35), (71, 66)).click((50, 150))
    _ = session.mask
    shown = predictor.model.prompts[-1]["masks"][0, 0]
    ((_, _, top, left, side),) = session._state("object").frames
    assert left / SLOT < 35
    assert (left + side) / SLOT > 150
    rows, columns = np.indices((32, 32))
    down = (top + (rows + 0.5) * side / 32) / SLOT - 0.5
    right = (left + (columns + 0.5) * side / 32) / SLOT - 0.5
    inside = ((down - 50) / 20) ** 2 + ((right - 50) / 15) ** 2
    drawn = shown.numpy() > 0
    assert drawn[inside < 0.7].all()
    assert not drawn[inside > 1.6].any()


def test_what_is_carried_to_the_same_window_stays_as_it_is(predictor):
    volume, _ = bright(Grid.pixels((100, 100)), (50, 50, 0), (20, 15, 1))
    image = predictor.open(volume)
    plane = _Scene(image, (2, 0))
    key = (2, 0, 20 * SLOT, 20 * SLOT, 60 * SLOT)
    logits = torch.linspace(-5, 5, 32 * 32).reshape(32, 32)
    assert torch.allclose(plane.carried(key, logits, key), logits, atol=1e-4)


def test_a_mask_to_start_from_is_looked_at_where_it_is(predictor):
    grid = Grid.pixels((100, 160))
    volume, mask = bright(grid, (30, 120, 0), (14, 18, 1))
    drawn = LabelMap(mask.astype(np.uint8), grid, names={1: "thing"})
    session = predictor.session(volume).start_from(drawn).refine(object="thing")
    assert dice(session.mask.array > 0, mask) > 0.9
    ((_, _, top, left, side),) = session._state("thing").frames
    assert side / SLOT == pytest.approx(37 * 1.5, abs=1)
    assert (top + side / 2) / SLOT == pytest.approx(30.5, abs=1)
    assert (left + side / 2) / SLOT == pytest.approx(120.5, abs=1)


def test_growing_stops_at_the_whole_picture(predictor):
    grid = Grid.pixels((90, 100))
    rows = np.arange(90)[:, None, None]
    volume = Volume(
        np.where(rows < 45, 200, 20).astype(np.int16) + np.zeros(grid.shape, np.int16), grid
    )
    found = predictor.session(volume).click((20, 50)).mask.array[:, :, 0] > 0
    assert dice(found, np.broadcast_to(rows[:, :, 0] < 45, found.shape)) > 0.9
