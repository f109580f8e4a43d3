"""Cubes show what they should: values where they lie, averages where they shrink, nothing outside."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.transforms import CubePreprocess, Preprocess
from samaritan.transforms.cubes import cut_cube
from samaritan.transforms.focus import SLOT
from samaritan.volume import Volume

CODES = ["".join(c) for c in itertools.product("RL", "AP", "SI")] + ["SAR", "PIL", "ARS"]
WHOLE = {"low": 0.0, "high": 255.0}


def ramp(shape):
    """Values that are linear in the index."""
    i, j, k = np.indices(shape)
    return (3.0 * i + 2.0 * j + 1.0 * k).astype(np.float32)


def test_a_cut_of_whole_voxels_is_the_array_itself():
    array = np.random.default_rng(0).integers(0, 255, (7, 8, 9)).astype(np.uint8)
    values, content = cut_cube(array, (1, 2, 3), (5, 6, 7), (4, 4, 4), WHOLE)
    assert np.allclose(values, array[1:5, 2:6, 3:7], atol=1e-4)
    assert (content == 1).all()


@pytest.mark.parametrize("size", [(5, 6, 7), (12, 15, 18)])
def test_linear_values_stay_linear_however_they_are_resampled(size):
    array = ramp((20, 24, 28))
    low, high = np.array([4.0, 5.0, 6.0]), np.array([14.0, 17.0, 20.0])
    values, _ = cut_cube(array, low, high, size, WHOLE)
    at = [
        a + (np.arange(n) + 0.5) * (b - a) / n - 0.5
        for a, b, n in zip(low, high, size, strict=True)
    ]
    expected = 3 * at[0][:, None, None] + 2 * at[1][:, None] + at[2]
    assert np.allclose(values, expected, atol=1e-3)


def test_what_shrinks_is_averaged_not_skipped():
    stripes = np.zeros((40, 40, 40), np.float32)
    stripes[::2] = 200
    values, _ = cut_cube(stripes, (0, 0, 0), (40, 40, 40), (8, 8, 8), WHOLE)
    assert np.allclose(values[1:-1], 100, atol=12)


def test_slabs_make_no_difference(monkeypatch):
    array = np.random.default_rng(1).normal(100, 30, (31, 20, 25)).astype(np.float32)
    given = (-3.0, 2.0, 1.5), (29.0, 22.0, 20.0), (10, 11, 12), {"low": 20.0, "high": 180.0}
    whole = cut_cube(array, *given)[0]
    monkeypatch.setattr("samaritan.transforms.cubes.SLAB_VOXELS", 1500)
    assert np.allclose(cut_cube(array, *given)[0], whole, atol=1e-4)


def test_outside_is_told_and_intensities_are_cut():
    array = np.full((6, 6, 6), 500, np.int16)
    values, content = cut_cube(
        array, (-6, 0, 0), (6, 6, 6), (12, 6, 6), {"low": -100.0, "high": 300.0}
    )
    assert (content[:6] == 0).all()
    assert (content[6:] == 1).all()
    assert np.allclose(values[6:], 255)
    far, none = cut_cube(array, (20, 20, 20), (30, 30, 30), (4, 4, 4), WHOLE)
    assert not far.any()
    assert not none.any()


def test_nan_counts_as_black():
    array = np.full((4, 4, 4), 100, np.float32)
    array[1] = np.nan
    values, _ = cut_cube(array, (0, 0, 0), (4, 4, 4), (4, 4, 4), WHOLE)
    assert np.allclose(values[1], 0)
    assert np.allclose(values[2], 100)


@pytest.mark.parametrize("code", CODES)
def test_the_same_place_is_seen_whatever_the_orientation(code):
    grid = Grid.from_spacing((12, 14, 16), (1.0, 1.5, 2.0))
    array = np.random.default_rng(2).normal(100, 30, grid.shape).astype(np.float32)
    volume, chain = Volume(array, grid), CubePreprocess(size=(16, 16, 16))
    key = (2 * SLOT, 3 * SLOT, 4 * SLOT, 10 * SLOT)
    statistics = chain.statistics(volume)
    turned = volume.reorient(code)
    one, two = (chain.frame(v, key, statistics) for v in (volume, turned))
    assert torch.allclose(one.tensor, two.tensor, atol=1e-4)
    assert one.grid.same_as(two.grid)


def test_a_frame_lies_where_it_says():
    grid = Grid.from_spacing((30, 20, 10), (1.0, 1.5, 3.0))
    array = np.zeros(grid.shape, np.float32)
    array[20, 10, 5] = 1000
    chain = CubePreprocess(size=(24, 24, 24), percentiles=(0, 100))
    volume = Volume(array, grid)
    frame = chain.frame(
        volume, (10 * SLOT, 5 * SLOT, 5 * SLOT, 20 * SLOT), {"low": 0, "high": 1000}
    )
    brightest = np.unravel_index(int(frame.tensor.argmax()), (24, 24, 24))
    seen = frame.grid.index_to_mm(np.asarray(brightest, float))
    assert np.abs(seen - grid.index_to_mm(np.array([20.0, 10.0, 5.0]))).max() < 1.2


def test_the_whole_cube_holds_the_volume_in_its_middle():
    grid = Grid.from_spacing((30, 20, 10), (1.0, 1.5, 3.0))
    chain = CubePreprocess(size=(24, 24, 24))
    frame = chain.frame_grid(grid, ())
    ends = grid.index_to_mm(np.array([[-0.5] * 3, np.array(grid.shape) - 0.5]))
    seen = frame.mm_to_index(ends)
    assert (seen >= -0.5 - 1e-6).all()
    assert (seen <= 23.5 + 1e-6).all()
    assert np.allclose(seen.mean(axis=0), 11.5, atol=1e-6)


def test_normalising_ignores_what_is_outside():
    values, content = torch.rand(6, 6, 6) * 255, torch.ones(6, 6, 6)
    values[:3], content[:3] = 77.0, 0.0
    found = CubePreprocess.normalised(values, content)
    assert (found[:3] == 0).all()
    assert float(found[3:].mean()) == pytest.approx(0, abs=1e-5)
    assert float(found[3:].std(correction=0)) == pytest.approx(1, abs=1e-5)
    flat = CubePreprocess.normalised(torch.full((4, 4, 4), 9.0), torch.ones(4, 4, 4))
    assert (flat == 0).all()


def test_a_chain_is_stored_and_read():
    chain = CubePreprocess(size=(32, 32, 32), window=(-100.0, 300.0))
    assert Preprocess.from_dict(chain.to_dict()) == chain


def test_ranges_are_checked():
    with pytest.raises(ConfigError, match="ascending"):
        CubePreprocess(window=(5.0, 5.0))
    with pytest.raises(ConfigError, match="percentiles"):
        CubePreprocess(percentiles=(0.0, 101.0))


def test_several_channels_are_refused():
    grid = Grid.from_spacing((4, 4, 4), (1, 1, 1))
    with pytest.raises(ConfigError, match="2 channels"):
        CubePreprocess().statistics(Volume(np.zeros((4, 4, 4, 2), np.float32), grid))
