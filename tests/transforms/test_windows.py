"""The chain of 3D models: one object for training and inference, with the published variants' numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.transforms import (
    Preprocess,
    WindowPreprocess,
    neurosam3d_windows,
    sam_med3d_windows,
)
from samaritan.transforms.windows import pooled
from samaritan.volume import Volume

GRID = Grid.from_spacing((9, 10, 11), (1.0, 1.0, 1.0))


def noise(grid: Grid = GRID, seed: int = 0, **meta) -> Volume:
    array = 5 * np.random.RandomState(seed).standard_normal(grid.shape) + 3
    return Volume(array.astype(np.float32), grid, meta=meta)


def test_the_published_pooled_statistics_are_reproduced() -> None:
    """Values from SAM-Med3D's trainer (torchio's ZNormalization on the whole batch) and its inference."""
    x = 5 * np.random.RandomState(6).standard_normal((2, 8, 8, 8)) + 3
    batch = torch.from_numpy(x.astype(np.float32))
    assert float(pooled(batch).flatten()[0]) == pytest.approx(-1.055219, abs=1e-5)
    chain = WindowPreprocess(size=(8, 8, 8))
    alone = chain.window_statistics(batch[0])
    first = (float(batch.flatten()[0]) - alone["mean"]) / alone["std"]
    assert first == pytest.approx(-1.047901, abs=1e-5)


def test_ct_is_cut_and_mr_is_not() -> None:
    chain = sam_med3d_windows(8)
    hot = np.full(GRID.shape, 3000, np.int16)
    for modality, most in (("CT", 1000), ("ct", 1000), ("MR", 3000), (None, 3000)):
        meta = {} if modality is None else {"modality": modality}
        values, _ = chain.window_values(Volume(hot, GRID, meta=meta), (0, 0, 0))
        assert float(values.max()) == most
    always = WindowPreprocess(size=(8, 8, 8), clamp=(-1000.0, 1000.0))
    assert float(always.window_values(Volume(hot, GRID), (0, 0, 0))[0].max()) == 1000


def test_statistics_of_the_volume_are_the_same_in_every_window() -> None:
    image = noise()
    chain = WindowPreprocess(size=(4, 4, 4), spacing_mm=None, measure="volume")
    known = chain.statistics(image)
    positive = image.array[image.array > 0]
    assert known["mean"] == pytest.approx(float(positive.mean()), rel=1e-5)
    assert known["std"] == pytest.approx(float(positive.std(ddof=1)), rel=1e-5)
    for key in ((0, 0, 0), (3, 2, 5)):
        frame = chain.frame(image, key, known)
        assert frame.statistics == known
        again = chain.frame(image, key, {})
        assert torch.equal(frame.tensor, again.tensor)
    whole = WindowPreprocess(size=GRID.shape, spacing_mm=None)
    same = whole.frame(image, (0, 0, 0), {}).tensor
    assert torch.allclose(same[0, 0, :4, :4, :4], chain.frame(image, (0, 0, 0), {}).tensor[0, 0])


def test_native_spacing_leaves_voxels_as_they_are() -> None:
    grid = Grid.from_spacing((6, 7, 5), (0.7, 0.9, 4.0), orientation="LPS")
    image = noise(grid)
    chain = WindowPreprocess(size=(6, 7, 5), spacing_mm=None)
    values, found = chain.window_values(image, (0, 0, 0))
    assert found.same_as(grid.reorient("RAS"))
    assert np.array_equal(values.numpy(), image.reorient("RAS").array)


def test_neurosam3d_scales_percentiles_of_the_volume_and_pads_with_mid_grey() -> None:
    image = noise()
    chain = neurosam3d_windows(16)
    low, high = np.percentile(image.array, (0.05, 99.95))
    values, _ = chain.window_values(image, (-2, 0, 0))
    expected = np.clip((image.array - low) * 2 / (high - low) - 1, -1, 1)
    assert np.allclose(values[2:11, :10, :11].numpy(), expected, atol=1e-5)
    assert torch.count_nonzero(values[:2]) == torch.count_nonzero(values[11:]) == 0
    assert torch.count_nonzero(values[:, 10:]) == torch.count_nonzero(values[..., 11:]) == 0
    frame = chain.frame(image, (-2, 0, 0), chain.statistics(image))
    positive = values[values > 0]
    wanted = (values - positive.mean()) / positive.std()
    assert torch.allclose(frame.tensor[0, 0], wanted, atol=1e-5)
    assert chain.prompting.clicks == "all"


def test_whole_numbers_are_scaled_like_others() -> None:
    image = Volume(np.arange(990, dtype=np.int16).reshape(GRID.shape), GRID)
    floats = image.with_array(image.array.astype(np.float32))
    chain = neurosam3d_windows(16)
    one, two = (chain.frame(v, (-1, -1, -1), {}).tensor for v in (image, floats))
    assert torch.equal(one, two)


@pytest.mark.parametrize("array", [np.zeros(GRID.shape), np.full(GRID.shape, -7.0)])
@pytest.mark.parametrize(
    "chain",
    [sam_med3d_windows(8), neurosam3d_windows(16), WindowPreprocess((8, 8, 8), measure="volume")],
)
def test_images_of_one_value_stay_finite(array, chain) -> None:
    image = Volume(array, GRID)
    assert torch.isfinite(chain.frame(image, (0, 0, 0), chain.statistics(image)).tensor).all()


@pytest.mark.parametrize("chain", [sam_med3d_windows(8), neurosam3d_windows(16)])
def test_published_chains_survive_json(chain) -> None:
    assert Preprocess.from_dict(json.loads(json.dumps(chain.to_dict()))) == chain


def test_everything_wrong_with_a_chain_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"measure.*clamp.*percentiles"):
        WindowPreprocess(measure="all", clamp=(3.0, 1.0), percentiles=(5.0, 101.0))  # type: ignore[arg-type]
