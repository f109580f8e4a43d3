"""An automatic label map, then corrected: a click mends what it points at, and all else stays."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from infer.test_focus import Oracle, bright

from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.infer.repairing import part_of
from samaritan.transforms import CubePreprocess
from samaritan.volume import LabelMap, Volume

NAMES = {2: "liver", 3: "spleen", 7: "kidney"}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor(Oracle((32, 32, 32)), CubePreprocess(size=(32, 32, 32)), device="cpu")


@pytest.fixture(scope="module", params=["LPS", "ASR"])
def scene(request) -> tuple[Volume, LabelMap, np.ndarray]:
    """A bright ball called liver whose map lacks a bite and has a growth; a spleen touches it."""
    grid = Grid.from_spacing((48, 48, 32), (1.0, 1.0, 1.5), orientation=request.param)
    volume, ball = bright(grid, (20, 24, 16), (10, 10, 8))
    i, j, k = np.indices(grid.shape)
    bite = (abs(i - 20) < 5) & (abs(j - 24) < 5) & (abs(k - 16) < 4)
    growth = (i > 32) & (i < 40) & (abs(j - 24) < 4) & (abs(k - 16) < 4)
    array = np.where(ball & ~bite, 2, 0).astype(np.uint8)
    array[growth] = 2
    array[(i < 14) & ball] = 3  # where the image says liver as well
    array[42:46, 40:46, 20:26] = 3
    return volume, LabelMap(array, grid, names=NAMES), ball


def test_values_and_names_are_those_of_the_map(predictor, scene) -> None:
    volume, drawn, _ = scene
    session = predictor.session(volume).start_from(drawn)
    assert session.objects == ("liver", "spleen")
    assert np.array_equal(session.mask.array, drawn.array)
    assert session.mask.names == NAMES
    missed = session.box((2, 2, 2), (8, 8, 8), object="kidney")
    assert missed.mask.names == NAMES
    other = session.box((2, 2, 2), (8, 8, 8), object="cyst")
    assert other.mask.names == {**NAMES, 8: "cyst"}


def test_a_click_adds_the_part_that_it_points_at(predictor, scene) -> None:
    volume, drawn, ball = scene
    session = predictor.session(volume).start_from(drawn)
    mended = session.click((20, 24, 16), object="liver").mask.array
    changed = mended != drawn.array
    assert mended[20, 24, 16] == 2
    assert (mended[changed] == 2).all()
    assert not drawn.array[changed].any()
    hole = ball & (drawn.array == 0)
    assert (changed & hole).sum() > 0.9 * hole.sum()
    assert (changed & ~ball).sum() < 0.05 * changed.sum()


def test_a_click_removes_the_part_that_it_points_at(predictor, scene) -> None:
    volume, drawn, ball = scene
    session = predictor.session(volume).start_from(drawn)
    mended = session.click((36, 24, 16), positive=False, object="liver").mask.array
    changed = mended != drawn.array
    growth = (drawn.array == 2) & ~ball
    assert not mended[changed].any()
    assert (changed & growth).sum() > 0.85 * growth.sum()
    assert np.array_equal(mended == 3, drawn.array == 3)


def test_another_structure_yields_only_where_a_click_lies_in_it(predictor, scene) -> None:
    volume, drawn, ball = scene
    session = predictor.session(volume).start_from(drawn)
    kept = session.click((20, 24, 16), object="liver").mask.array
    assert np.array_equal(kept == 3, drawn.array == 3)
    wrong = ball & (drawn.array == 3)
    moved = session.click((12, 24, 16), object="liver").mask.array
    assert (moved[wrong] == 2).mean() > 0.9
    assert np.array_equal(moved[40:] == 3, drawn.array[40:] == 3)


def test_a_click_that_agrees_changes_nothing(predictor, scene) -> None:
    volume, drawn, _ = scene
    session = predictor.session(volume).start_from(drawn).click((27, 24, 16), object="liver")
    assert np.array_equal(session.mask.array, drawn.array)


def test_what_is_mended_can_be_undone_saved_and_replayed(predictor, scene) -> None:
    volume, drawn, _ = scene
    session = predictor.session(volume).start_from(drawn).click((20, 24, 16), object="liver")
    assert np.array_equal(session.undo().mask.array, drawn.array)
    saved = json.loads(json.dumps(session.to_dict()))
    again = predictor.session(volume).replay(saved)
    assert again.log == session.log
    assert np.array_equal(again.mask.array, session.mask.array)
    assert again.mask.names == NAMES
    for event in saved["events"]:  # as saved before values were kept
        event.pop("label", None)
        event.pop("names", None)
    older = predictor.session(volume).replay(saved)
    assert older.mask.names == {1: "liver", 2: "spleen"}


def test_the_probability_changes_where_the_mask_does(predictor, scene) -> None:
    volume, drawn, _ = scene
    session = predictor.session(volume).start_from(drawn).click((20, 24, 16), object="liver")
    changed = session.mask.array != drawn.array
    probability = session.probability("liver").array
    assert probability[changed].min() > 0.5
    assert np.array_equal(probability[~changed], (drawn.array == 2)[~changed].astype(np.float32))


def test_a_box_draws_the_whole_object_anew(predictor, scene) -> None:
    volume, drawn, ball = scene
    where = np.argwhere(ball)
    session = predictor.session(volume).start_from(replace(drawn, array=drawn.array // 2 * 2))
    redrawn = session.box(where.min(axis=0), where.max(axis=0) + 1, object="liver").mask.array
    assert ((redrawn == 2) & ball).sum() > 0.9 * ball.sum()


def test_a_part_ends_at_bridges_and_leaves_skins_alone() -> None:
    differs = np.zeros((20, 12, 12), bool)
    differs[2:8, 3:9, 3:9] = True
    differs[8:12, 5, 5] = True  # a bridge
    differs[12:18, 3:9, 3:9] = True
    differs[2:18, 2, 2] = True  # a skin that touches both
    part = part_of(differs, (5, 6, 6), (1, 1, 1))
    assert part[3:7, 4:8, 4:8].all()
    assert not part[10:].any()
    assert part.sum() <= 6**3 + 4
    assert not part_of(differs, (0, 0, 0), (1, 1, 1)).any()
