"""Small 3D models look at one object at a time: masks lie on the grid of the volume."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from infer.test_focus import Oracle, bright, dice

from samaritan.errors import PromptError
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.transforms import CubePreprocess
from samaritan.volume import LabelMap

CODES = ["".join(c) for c in itertools.product("RL", "AP", "SI")] + ["SAR", "PIL", "ARS"]


@pytest.fixture
def predictor():
    return Predictor(Oracle((32, 32, 32)), CubePreprocess(size=(32, 32, 32)), device="cpu")


@pytest.mark.parametrize("code", CODES)
def test_a_box_gives_a_mask_on_the_grid_of_the_image(predictor, code):
    grid = Grid.from_spacing((40, 48, 30), (1.0, 1.5, 2.0), orientation=code)
    volume, mask = bright(grid, (18, 26, 14), (9, 10, 8))
    where = np.argwhere(mask)
    session = predictor.session(volume).box(where.min(axis=0), where.max(axis=0) + 1)
    assert session.mask.grid.same_as(grid)
    assert dice(session.mask.array > 0, mask) > 0.93


def test_a_sheared_and_turned_grid_is_no_obstacle(predictor):
    turned = np.array(
        [[0.9, -0.3, 0.1, 5], [0.35, 1.2, 0.0, -3], [0.0, 0.2, 1.8, 9], [0, 0, 0, 1.0]]
    )
    volume, mask = bright(Grid((36, 40, 24), turned), (17, 22, 12), (9, 10, 6))
    found = predictor.session(volume).click((17, 22, 12)).mask
    assert found.grid.same_as(volume.grid)
    assert dice(found.array > 0, mask) > 0.9


def test_a_small_object_in_a_large_volume_is_seen_closely(predictor):
    grid = Grid.from_spacing((160, 150, 140), (1, 1, 1))
    volume, mask = bright(grid, (120, 33, 70), (6, 5, 4))
    found = predictor.session(volume).click((120, 33, 70)).mask.array > 0
    assert dice(found, mask) > 0.93  # of the whole volume, a voxel of the input is 5 mm


def test_a_large_object_is_seen_whole(predictor):
    grid = Grid.from_spacing((80, 90, 70), (1, 1, 1))
    volume, mask = bright(grid, (40, 45, 35), (34, 38, 30))
    found = predictor.session(volume).click((40, 45, 35)).mask.array > 0
    assert dice(found, mask) > 0.94


def test_a_cube_is_kept_while_the_object_fits_in_it(predictor):
    volume, _ = bright(Grid.from_spacing((60, 60, 60), (1, 1, 1)), (30, 30, 30), (12, 10, 9))
    session = predictor.session(volume).box((18, 20, 21), (43, 41, 40))
    _ = session.mask
    encoded = predictor.model.encoded
    _ = session.click((30, 30, 30)).click((30, 24, 30)).mask
    assert predictor.model.encoded == encoded


def test_a_mask_to_start_from_is_looked_at_where_it_is(predictor):
    grid = Grid.from_spacing((60, 90, 50), (1, 1, 1))
    volume, mask = bright(grid, (20, 60, 25), (10, 12, 8))
    drawn = LabelMap(mask.astype(np.uint8), grid, names={1: "thing"})
    session = predictor.session(volume).start_from(drawn)
    assert (session.mask.array > 0).sum() == mask.sum()
    refined = session.refine(object="thing")
    assert dice(refined.mask.array > 0, mask) > 0.93


def test_several_objects_stand_beside_each_other(predictor):
    grid = Grid.from_spacing((60, 90, 50), (1, 1, 1))
    one, first = bright(grid, (20, 20, 25), (9, 9, 9))
    two, second = bright(grid, (40, 65, 25), (9, 9, 9))
    volume = replace(one, array=np.maximum(one.array, two.array))
    session = predictor.session(volume)
    for name, mask in (("a", first), ("b", second)):
        where = np.argwhere(mask)
        session = session.box(where.min(axis=0), where.max(axis=0) + 1, object=name)
    labels = session.mask
    assert labels.names == {1: "a", 2: "b"}
    assert dice(labels.array == 1, first) > 0.93
    assert dice(labels.array == 2, second) > 0.93


def test_there_must_be_a_mask_to_refine(predictor):
    grid = Grid.from_spacing((30, 30, 30), (1, 1, 1))
    volume, _ = bright(grid, (15, 15, 15), (5, 5, 5))
    empty = LabelMap(np.zeros(grid.shape, np.uint8), grid)
    with pytest.raises(PromptError):
        _ = predictor.session(volume).start_from(empty, object="x").refine(object="x").mask


def test_a_probability_covers_the_whole_cube(predictor):
    grid = Grid.from_spacing((40, 40, 40), (1, 1, 1))
    volume, mask = bright(grid, (20, 20, 20), (8, 8, 8))
    session = predictor.session(volume).click((20, 20, 20))
    probability = session.probability().array
    assert probability.shape == grid.shape
    assert dice(probability > 0.5, mask) > 0.93
