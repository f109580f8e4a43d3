"""Voxels and geometry stay together: what moves the one moves the other."""

from __future__ import annotations

import copy
import os
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samaritan.errors import GeometryError
from samaritan.geometry import Grid
from samaritan.volume import LabelMap, Volume, smallest_label_dtype
from tests.strategies import ORIENTATIONS, centres, grids, make_grid


def located(grid: Grid) -> Volume:
    """A volume whose three channels say where each voxel lies in mm."""
    return Volume(centres(grid), grid, channels=("x", "y", "z"))


def counted(grid: Grid, dtype=np.int16) -> Volume:
    """A volume whose voxels all differ."""
    return Volume(np.arange(1, grid.n_voxels + 1).reshape(grid.shape).astype(dtype), grid)


def knows_where_it_is(volume: Volume) -> bool:
    return np.allclose(volume.array, centres(volume.grid), atol=1e-6)


# -- views ---------------------------------------------------------------------------------------


@given(
    grids(), st.sampled_from(ORIENTATIONS), st.permutations([0, 1, 2]), st.sets(st.integers(-3, 2))
)
def test_turning_moves_voxels_with_their_grid(grid, orientation, order, axes) -> None:
    volume = located(grid)
    axes = {axis % 3 for axis in axes}
    for moved in (volume.reorient(orientation), volume.permute(order), volume.flip(axes)):
        assert knows_where_it_is(moved)
        assert moved.channels == ("x", "y", "z")
        assert np.shares_memory(moved.array, volume.array)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_reorient_there_and_back_is_identity(orientation) -> None:
    volume = counted(make_grid(orientation="IPR", turn=0.2))
    there = volume.reorient(orientation)
    back = there.reorient("IPR")
    assert there.grid.orientation == orientation
    assert np.array_equal(back.array, volume.array)
    assert back.grid.same_as(volume.grid, voxels=1e-9)


def test_negative_axes_never_reach_the_channels() -> None:
    volume = located(make_grid())
    assert knows_where_it_is(volume.flip([-1]))
    with pytest.raises(GeometryError, match="axes 0, 1 and 2"):
        volume.flip([3])


@given(grids(), st.tuples(*[st.integers(-4, 7)] * 3), st.tuples(*[st.integers(1, 6)] * 3))
def test_window_moves_voxels_with_their_grid(grid, start, shape) -> None:
    window = located(grid).window(start, shape, fill=-1e9)
    seen = window.array[..., 0] != -1e9
    assert window.shape == shape
    assert np.allclose(window.array[seen], centres(window.grid)[seen], atol=1e-6)
    index = np.moveaxis(np.indices(shape), 0, -1) + np.array(start)
    assert np.array_equal(seen, grid.contains(index))


def test_crop_is_a_view_and_pad_undoes_it() -> None:
    volume = counted(make_grid())
    inner = volume.crop((1, 1, 1), (3, 3, 4))
    assert np.shares_memory(inner.array, volume.array)
    padded = inner.pad((1, 1, 1), (0, 1, 1), fill=-7)
    assert padded.grid.same_as(volume.grid)
    assert np.array_equal(padded.array[1:3, 1:3, 1:4], volume.array[1:3, 1:3, 1:4])
    assert (padded.array[0] == -7).all()


def test_slice_stays_a_volume() -> None:
    volume = located(make_grid())
    thin = volume.slice(1, 2)
    assert thin.shape == (3, 1, 5)
    assert thin.is_flat
    assert not volume.is_flat
    assert knows_where_it_is(thin)
    with pytest.raises(GeometryError, match=r"slice 4 is outside axis 1 of shape \(3, 4, 5\)"):
        volume.slice(1, 4)
    with pytest.raises(GeometryError, match="slice -1"):
        volume.slice(1, -1)


@pytest.mark.parametrize("stop", [(4, 4, 5), (0, 4, 5), (3, 4, 6)])
def test_crop_outside_is_refused(stop) -> None:
    with pytest.raises(GeometryError, match="does not lie inside shape"):
        counted(make_grid()).crop((0, 0, 0), stop)


def test_fill_that_does_not_fit_the_type_is_refused() -> None:
    volume = counted(make_grid(), np.uint8)
    for fill in (-1000, 0.5, np.nan):
        with pytest.raises(GeometryError, match="uint8 cannot be filled"):
            volume.pad((1, 0, 0), (0, 0, 0), fill=fill)


# -- resampling ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, ">i2", np.float16, np.float64, bool])
@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_same_lattice_is_copied_exactly(dtype, turn) -> None:
    volume = counted(make_grid(turn=turn, shear=0.1), dtype)
    rng = np.random.default_rng(0)
    for orientation in ORIENTATIONS[::5]:
        turned = volume.reorient(orientation)
        start, shape = rng.integers(-2, 3, 3).tolist(), rng.integers(1, 7, 3).tolist()
        expected = turned.window(start, shape)
        rounded = Grid(expected.shape, expected.grid.affine + 1e-7)
        got = volume.to_grid(rounded)
        assert got.dtype == volume.dtype
        assert np.array_equal(got.array, expected.array)
        assert got.grid == rounded


@settings(max_examples=60, deadline=None)
@given(grids(min_side=3), grids())
def test_linear_reproduces_a_linear_function_of_mm(source, target) -> None:
    # bring the target into the source's neighbourhood, keeping its own axes
    affine = target.affine.copy()
    affine[:3, 3] += source.index_to_mm((np.array(source.shape) - 1) / 2) - target.index_to_mm(
        (np.array(target.shape) - 1) / 2
    )
    target = Grid(target.shape, affine)
    moved = located(source).to_grid(target, interpolation="linear", fill=-1e6)
    index = source.mm_to_index(centres(target))
    between = ((index >= 0) & (index <= np.array(source.shape) - 1)).all(axis=-1)
    assert np.allclose(moved.array[between], centres(target)[between], atol=2e-3)
    margin = np.abs(index + 0.5).min(axis=-1) > 1e-6
    margin &= np.abs(index - np.array(source.shape) + 0.5).min(axis=-1) > 1e-6
    filled = (moved.array == -1e6).all(axis=-1)
    assert np.array_equal(filled[margin], ~source.contains(index)[margin])


def test_edge_value_continues_for_half_a_voxel() -> None:
    source = Volume(np.array([10.0, 20, 30]).reshape(3, 1, 1), Grid.from_spacing((3, 1, 1)))
    fine = Grid.from_spacing((20, 1, 1), (0.25, 1, 1), origin_mm=(-1.1, 0, 0))
    moved = source.to_grid(fine, fill=-5).array.ravel()
    expected = [
        -5 if not -0.5 <= x < 2.5 else 10 + 10 * min(max(x, 0), 2)
        for x in -1.1 + 0.25 * np.arange(20)
    ]
    assert np.allclose(moved, expected, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(grids(min_side=2), st.tuples(*[st.floats(0.3, 3)] * 3))
def test_nearest_takes_the_voxel_that_holds_the_centre(grid, spacing) -> None:
    labels = LabelMap(np.arange(grid.n_voxels, dtype=np.int32).reshape(grid.shape), grid)
    target = grid.resample(spacing)
    moved = labels.to_grid(target, fill=999)
    index = grid.mm_to_index(centres(target))
    clear = (np.abs(index - np.floor(index) - 0.5) > 1e-4).all(axis=-1)
    inside = grid.contains(index)
    near = np.rint(index[clear & inside]).astype(int)
    assert moved.dtype == np.int32
    assert np.array_equal(moved.array[clear & inside], labels.array[tuple(near.T)])
    assert (moved.array[clear & ~inside] == 999).all()


@pytest.mark.parametrize(
    "dtype", [bool, np.uint8, np.uint16, ">i2", np.int32, np.float16, np.float64]
)
@pytest.mark.parametrize("interpolation", ["nearest", "linear"])
def test_every_type_can_be_resampled(dtype, interpolation) -> None:
    volume = Volume((np.indices((3, 4, 5)).sum(axis=0) % 2).astype(dtype), make_grid())
    moved = volume.to_grid(make_grid(turn=0.2), interpolation=interpolation)
    assert moved.dtype == (np.float32 if interpolation == "linear" else dtype)
    assert 0 <= float(moved.array.min()) <= float(moved.array.max()) <= 1


def test_threads_and_single_agree(monkeypatch) -> None:
    rng = np.random.default_rng(1)
    volume = Volume(rng.normal(size=(70, 66, 60)).astype(np.float32), make_grid((70, 66, 60)))
    target = make_grid((80, 71, 64), (0.9, 0.65, 2.4), turn=0.1)
    many = [volume.to_grid(target, interpolation=i, fill=3) for i in ("linear", "nearest")]
    assert target.n_voxels >= 2**18
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    monkeypatch.setattr("samaritan.resampling.ThreadPoolExecutor", None)
    monkeypatch.setattr("samaritan.resampling.itertools.pairwise", lambda edges: [(0, edges[-1])])
    one = [volume.to_grid(target, interpolation=i, fill=3) for i in ("linear", "nearest")]
    for a, b in zip(many, one, strict=True):
        assert np.abs(a.array - b.array).max() < 1e-5


def test_resampling_keeps_what_is_known_about_it() -> None:
    volume = Volume(np.ones((3, 4, 5)), make_grid(), meta={"modality": "CT"}, notes=("odd",))
    moved = volume.to_grid(make_grid(turn=0.2))
    assert (moved.meta["modality"], moved.notes) == ("CT", ("odd",))


# -- what it is ----------------------------------------------------------------------------------


def test_array_and_grid_must_agree() -> None:
    with pytest.raises(GeometryError, match=r"shape \(3, 4, 6\) does not lie on a grid of shape"):
        Volume(np.zeros((3, 4, 6)), make_grid())
    with pytest.raises(GeometryError, match=r"expected \(i, j, k\)"):
        Volume(np.zeros((3, 4)), make_grid())
    with pytest.raises(GeometryError, match="3 channels, but names"):
        Volume(np.zeros((3, 4, 5, 3)), make_grid(), channels=("a", "b"))


def test_channels_have_names() -> None:
    volume = Volume(np.arange(180).reshape(3, 4, 5, 3), make_grid(), channels=("r", "g", "b"))
    assert volume.n_channels == 3
    assert np.array_equal(volume.channel("g").array, volume.array[..., 1])
    assert np.array_equal(volume.channel(2).array, volume.channel(-1).array)
    assert volume.channel("g").channel(0).n_channels == 1
    assert Volume(volume.array, make_grid()).channels == ("channel 0", "channel 1", "channel 2")
    for wrong in ("x", 3):
        with pytest.raises(GeometryError, match="known: r, g, b"):
            volume.channel(wrong)


def test_volumes_can_travel_between_processes() -> None:
    volume = Volume(np.ones((3, 4, 5)), make_grid(), meta={"modality": "CT"}, notes=("odd",))
    labels = LabelMap(np.ones((3, 4, 5), np.uint8), make_grid(), names={1: "liver"})
    for one in (volume, labels):
        for other in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
            assert type(other) is type(one)
            assert other.grid == one.grid
            assert np.array_equal(other.array, one.array)
            assert dict(other.meta) == dict(one.meta)
            with pytest.raises(TypeError):
                other.meta["new"] = 1  # type: ignore[index]
    assert pickle.loads(pickle.dumps(labels)).names == {1: "liver"}


def test_with_array_keeps_the_grid() -> None:
    volume = located(make_grid())
    assert volume.with_array(np.zeros((3, 4, 5))).channels == ()
    assert volume.with_array(volume.array * 2).channels == ("x", "y", "z")
    with pytest.raises(GeometryError):
        volume.with_array(np.zeros((3, 4, 6)))


# -- labels --------------------------------------------------------------------------------------


def test_label_maps_hold_integers_with_names() -> None:
    array = np.zeros((3, 4, 5), np.int16)
    array[0], array[1] = 2, 300
    labels = LabelMap(array, make_grid(), names={2: "liver", 300: "lesion"})
    assert labels.labels() == [2, 300]
    assert np.array_equal(labels.mask("liver").array, array == 2)
    assert np.array_equal(labels.mask(300).array, array == 300)
    assert labels.mask(300).dtype == bool
    with pytest.raises(GeometryError, match=r"known: \['lesion', 'liver'\]"):
        labels.mask("spleen")


def test_boolean_masks_become_label_maps() -> None:
    labels = LabelMap(np.ones((3, 4, 5), bool), make_grid())
    assert labels.dtype == np.uint8
    assert labels.labels() == [1]


@pytest.mark.parametrize("array", [np.zeros((3, 4, 5)), np.zeros((3, 4, 5, 2), int)])
def test_label_maps_refuse_what_is_no_label(array) -> None:
    with pytest.raises(GeometryError, match="3D array of integers"):
        LabelMap(array, make_grid())


def test_labels_are_never_mixed() -> None:
    labels = LabelMap(np.array([0, 9]).reshape(2, 1, 1), Grid.from_spacing((2, 1, 1)))
    moved = labels.to_grid(labels.grid.resample(0.1))
    assert set(moved.labels()) == {9}
    assert isinstance(moved, LabelMap)
    with pytest.raises(GeometryError, match="cannot be mixed"):
        labels.to_grid(labels.grid, interpolation="linear")


@pytest.mark.parametrize(
    ("largest", "dtype"), [(255, "u1"), (256, "u2"), (65535, "u2"), (65536, "u4")]
)
def test_smallest_label_type(largest, dtype) -> None:
    assert smallest_label_dtype(largest) == np.dtype(dtype)
