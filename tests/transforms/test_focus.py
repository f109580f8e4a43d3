from __future__ import annotations

import numpy as np
import pytest
import torch

from samaritan.geometry import Grid
from samaritan.transforms import FocusPreprocess, Preprocess
from samaritan.transforms.focus import SLOT, cut
from samaritan.volume import Volume

CHAIN = FocusPreprocess(size=(32, 32))


def picture(shape=(40, 60), channels=0):
    """A picture whose value at each pixel tells where it is."""
    rows, columns = np.meshgrid(np.arange(shape[0]), np.arange(shape[1]), indexing="ij")
    values = (2 * rows + 2 * columns).astype(np.uint8)[:, :, None]
    if channels:
        values = np.repeat(values[..., None], channels, axis=3)
    return Volume(values, Grid.pixels(shape))


def test_the_chain_is_restored_from_its_description():
    chain = FocusPreprocess(size=(48, 48), margin=1.7)
    assert Preprocess.from_dict(chain.to_dict()) == chain


def test_a_window_lies_where_its_grid_says():
    volume = picture()
    key = (2, 0, 4 * SLOT, 10 * SLOT, 16 * SLOT)
    grid = CHAIN.frame_grid(volume.grid, key)
    frame = CHAIN.frame(volume, key, CHAIN.statistics(volume))
    assert grid.shape == (32, 32, 1)
    corners = volume.grid.mm_to_index(grid.index_to_mm([[-0.5, -0.5, 0], [31.5, 31.5, 0]]))
    assert corners[:, :2] == pytest.approx(np.array([[3.5, 9.5], [19.5, 25.5]]))
    # the ramp stands out of the normalised window with one scale and shift everywhere
    index = np.array([[i, j, 0] for i in (4, 15, 27) for j in (5, 16, 26)], float)
    there = volume.grid.mm_to_index(grid.index_to_mm(index))
    expected = 2 * there[:, 0] + 2 * there[:, 1]
    found = frame.tensor[0, 0].numpy()[index[:, 0].astype(int), index[:, 1].astype(int)]
    slope, shift = np.polyfit(expected, found, 1)
    assert found == pytest.approx(slope * expected + shift, abs=0.03)


def test_a_window_without_a_place_is_the_whole_slice():
    volume = picture()
    frame = CHAIN.frame(volume, (2, 0), CHAIN.statistics(volume))
    whole = (2, 0, *CHAIN.whole(volume.grid, 2, 0))
    again = CHAIN.frame(volume, whole, CHAIN.statistics(volume))
    assert torch.equal(frame.tensor, again.tensor)
    assert frame.grid == again.grid


def test_pixels_of_a_window_are_square_in_millimetres():
    grid = Grid.from_spacing((20, 30, 4), (2.0, 1.0, 5.0), orientation="LPS")
    found = CHAIN.frame_grid(grid, (2, 1, 0, 0, 20 * SLOT))
    assert found.spacing_mm[0] == pytest.approx(found.spacing_mm[1], rel=0.03)
    assert found.spacing_mm[0] == pytest.approx(20 / 32, rel=0.03)


def test_windows_have_mean_nought_and_deviation_one_whatever_the_contrast():
    volume = picture()
    dull = Volume((volume.array // 3 + 60).astype(np.uint8), volume.grid)
    key = (2, 0, 0, 0, 30 * SLOT)
    for one in (volume, dull):
        tensor = CHAIN.frame(one, key, CHAIN.statistics(one)).tensor
        assert float(tensor.mean()) == pytest.approx(0, abs=1e-4)
        assert float(tensor.std()) == pytest.approx(1, abs=1e-2)


def test_what_lies_outside_the_picture_is_nought():
    volume = picture()
    key = (2, 0, -20 * SLOT, -20 * SLOT, 40 * SLOT)
    tensor = CHAIN.frame(volume, key, CHAIN.statistics(volume)).tensor
    assert bool((tensor[..., :15, :] == 0).all())
    assert bool((tensor[..., :15] == 0).all())
    assert bool((tensor[..., 18:, 18:] != 0).any())


def test_colours_stay_beside_each_other():
    volume = picture(channels=3)
    values = volume.array.copy()
    values[..., 0] = 255 - values[..., 0]
    tensor = CHAIN.frame(Volume(values, volume.grid), (2, 0), {"low": 0.0, "high": 255.0}).tensor
    assert tensor.shape == (1, 3, 32, 32)
    assert torch.equal(tensor[0, 1], tensor[0, 2])
    assert float((tensor[0, 0] - tensor[0, 1]).abs().max()) > 0.5


@pytest.mark.parametrize(
    "box", [[0, 0, 8, 8], [-6, -4, 10, 12], [20, 20, 28, 28], [3.5, 2.25, 9.5, 8.25]]
)
def test_what_is_cut_is_of_one_kind_and_told_apart_from_outside(box):
    pixels = np.full((12, 14, 2), 200, np.uint8)
    values, content = cut(pixels, box, (16, 16))
    assert values.shape == (16, 16, 2)
    assert values.dtype == np.uint8
    assert values[content > 0.999] == pytest.approx(200)
    assert values[content < 0.001] == pytest.approx(0)
    top, left = max(box[0], 0), max(box[1], 0)
    visible = max(min(box[2], 12) - top, 0) * max(min(box[3], 14) - left, 0)
    part = visible / ((box[2] - box[0]) * (box[3] - box[1]))
    assert float(content.mean()) == pytest.approx(part, abs=0.06)
