"""Grids keep voxels where they are in the patient."""

from __future__ import annotations

import copy
import pickle

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samaritan.errors import GeometryError, GridMismatch, SamaritanError
from samaritan.geometry import Grid, orientation_matrix
from tests.strategies import ORIENTATIONS, centres, grids, make_grid


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("turn", [0.0, 0.3])
def test_orientation_agrees_with_nibabel(orientation, turn) -> None:
    grid = make_grid(orientation=orientation, turn=turn)
    assert grid.orientation == "".join(nib.aff2axcodes(grid.affine))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_reorient_there_and_back_is_identity(orientation) -> None:
    grid = make_grid(orientation="PSR", turn=0.25)
    there = grid.reorient(orientation)
    assert there.orientation == orientation
    assert there.reorient(orientation.lower()) == there
    assert there.reorient("PSR").same_as(grid, voxels=1e-9)


@given(grids(), st.sampled_from(ORIENTATIONS))
def test_reorient_visits_the_same_millimetres(grid, orientation) -> None:
    turned = grid.reorient(orientation)
    assert turned.orientation == orientation

    def ordered(one: Grid) -> np.ndarray:
        points = centres(one).reshape(-1, 3).round(6) + 0.0
        return points[np.lexsort(points.T)]

    assert np.allclose(ordered(turned), ordered(grid), atol=1e-5)
    assert sorted(turned.spacing_mm) == pytest.approx(sorted(grid.spacing_mm))


def test_reorient_is_settled_at_exactly_45_degrees() -> None:
    affine = np.eye(4)
    affine[:2, :2] = [[0.5**0.5, -(0.5**0.5)], [0.5**0.5, 0.5**0.5]]
    grid = Grid((3, 4, 5), affine)
    for orientation in ORIENTATIONS:
        order, flips = grid.steps_to(orientation)
        moved = grid.permute(order).flip(flips)
        letters = np.diag(orientation_matrix(orientation).T @ moved.direction)
        assert (letters > 0.5).all()  # each axis runs towards its letter


@given(grids(), st.permutations([0, 1, 2]))
def test_permute_keeps_millimetres(grid, order) -> None:
    assert np.allclose(centres(grid.permute(order)), centres(grid).transpose(*order, 3))


@given(grids(), st.sets(st.integers(-3, 2)))
def test_flip_keeps_millimetres(grid, axes) -> None:
    axes = {axis % 3 for axis in axes}
    assert np.allclose(centres(grid.flip(axes)), np.flip(centres(grid), tuple(axes)), atol=1e-8)
    assert grid.flip(axes).flip(axes).same_as(grid, voxels=1e-9)


@given(grids(), st.tuples(*[st.integers(-4, 4)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
def test_window_keeps_millimetres(grid, start, shape) -> None:
    index = np.moveaxis(np.indices(shape), 0, -1)
    expected = grid.index_to_mm(index + np.array(start))
    assert np.allclose(centres(grid.window(start, shape)), expected)


@given(grids(), st.lists(st.tuples(*[st.floats(-50, 50)] * 3), min_size=1))
def test_index_and_mm_are_inverse(grid, index) -> None:
    assert np.allclose(grid.mm_to_index(grid.index_to_mm(index)), index, atol=1e-7)


@given(grids(), st.tuples(*[st.floats(0.2, 8)] * 3))
def test_resample_keeps_the_field_of_view(grid, spacing) -> None:
    new = grid.resample(spacing)
    first = new.index_to_mm((-0.5, -0.5, -0.5))
    assert np.allclose(first, grid.index_to_mm((-0.5, -0.5, -0.5)), atol=1e-6)
    extent = np.multiply(grid.shape, grid.spacing_mm)
    error = np.abs(np.multiply(new.shape, spacing) - extent)
    assert ((error <= 0.5 * np.array(spacing) + 1e-6) | (np.array(new.shape) == 1)).all()
    assert np.allclose(new.spacing_mm, spacing)
    assert np.allclose(new.direction, grid.direction)


@given(grids(), st.tuples(*[st.integers(1, 9)] * 3))
def test_resize_keeps_all_outer_faces(grid, shape) -> None:
    new = grid.resize(shape)
    assert new.shape == shape
    for corner in (np.zeros(3), np.ones(3)):
        old_mm = grid.index_to_mm(corner * grid.shape - 0.5)
        assert np.allclose(new.index_to_mm(corner * shape - 0.5), old_mm, atol=1e-6)


def test_resample_to_its_own_spacing_is_identity() -> None:
    grid = make_grid(turn=0.2)
    assert grid.resample(grid.spacing_mm).same_as(grid, voxels=1e-9)


def test_volume_of_a_voxel_counts_shear() -> None:
    assert make_grid().voxel_volume_mm3 == pytest.approx(1.0 * 0.7 * 2.5)
    assert make_grid(shear=0.5).voxel_volume_mm3 == pytest.approx(1.0 * 0.7 * 2.5)


def test_what_a_grid_is() -> None:
    assert not make_grid().is_oblique
    assert not make_grid(orientation="PSR").is_oblique
    assert make_grid(turn=0.01).is_oblique
    assert not make_grid(turn=0.4).is_sheared
    assert make_grid(shear=0.1).is_sheared
    assert make_grid().n_voxels == 60
    assert repr(make_grid()) == "Grid(3 x 4 x 5, 1 x 0.7 x 2.5 mm, RAS)"


def test_pixels_are_rows_down_and_columns_right() -> None:
    grid = Grid.pixels((4, 5))
    assert (grid.shape, grid.unit, grid.orientation) == ((4, 5, 1), "px", "PLS")
    assert grid.spacing_mm == (1, 1, 1)
    assert Grid.pixels((4, 5, 6)).shape == (4, 5, 6)


def test_contains_reaches_half_a_voxel_out() -> None:
    grid = make_grid()
    inside = grid.contains([[-0.5, 0, 0], [-0.51, 0, 0], [2.49, 3, 4], [2.5, 3, 4], [0, np.nan, 0]])
    assert inside.tolist() == [True, False, True, False, False]


@given(grids(min_side=2))
def test_same_as_allows_a_hundredth_of_a_voxel(grid) -> None:
    for part, same in ((0.005, True), (0.02, False)):
        affine = grid.affine.copy()
        affine[0, 3] += part * min(grid.spacing_mm)
        assert grid.same_as(Grid(grid.shape, affine)) == same
    assert grid.same_as(Grid(grid.shape, grid.affine.astype(np.float32)), voxels=0.01)


def test_same_as_sees_the_thickness_of_a_single_slice() -> None:
    thin, thick = (Grid.from_spacing((3, 4, 1), (1, 1, side)) for side in (2, 9))
    assert not thin.same_as(thick)
    assert not thin.same_as(thin.flip([2]))


def test_equal_grids_have_equal_hashes() -> None:
    grid = Grid.from_spacing((3, 4, 5))
    affine = grid.affine.copy()
    affine[affine == 0] = -0.0
    assert Grid(grid.shape, affine) == grid
    assert hash(Grid(grid.shape, affine)) == hash(grid)
    assert grid != grid.window((1, 0, 0), grid.shape)
    assert grid != "grid"


def test_grids_are_frozen_and_can_travel() -> None:
    grid = make_grid()
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 2
    given_affine = np.eye(4)
    made = Grid((3, 4, 5), given_affine)
    given_affine[0, 0] = 9
    assert made.affine[0, 0] == 1
    assert pickle.loads(pickle.dumps(grid)) == copy.deepcopy(grid) == grid


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (make_grid((3, 4, 6)), r"shape \(3, 4, 5\) vs \(3, 4, 6\)"),
        (make_grid(spacing=(1, 0.7, 3)), r"spacing \(1, 0.7, 2.5\) mm vs \(1, 0.7, 3\) mm"),
        (make_grid(orientation="LAS"), "orientation RAS vs LAS"),
        (make_grid(turn=0.05), "axis directions"),
        (make_grid(origin=(0, 0, 0)), r"origin \(-11, 7.5, 30\) mm vs \(0, 0, 0\) mm"),
    ],
)
def test_mismatch_names_what_differs(other, text) -> None:
    with pytest.raises(GridMismatch, match=text) as caught:
        make_grid().require_same(other, what="grids of image and label of case 'p07'")
    assert str(caught.value).startswith("grids of image and label of case 'p07' differ: ")
    assert "to_grid(other.grid)" in str(caught.value)
    assert isinstance(caught.value, SamaritanError)


def test_same_grids_pass() -> None:
    make_grid().require_same(make_grid())


def _matrix(**entries: float) -> np.ndarray:
    affine = np.eye(4)
    for place, value in entries.items():
        affine[int(place[1]), int(place[2])] = value
    return affine


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Grid((3, 4), np.eye(4)), "three axes"),  # type: ignore[arg-type]
        (lambda: Grid((3, 4, 0), np.eye(4)), "at least one voxel each"),
        (lambda: Grid((3, 4, 2.5), np.eye(4)), "at least one voxel each"),  # type: ignore[arg-type]
        (lambda: Grid((3, 4, float("nan")), np.eye(4)), "three axes"),  # type: ignore[arg-type]
        (lambda: Grid((3, 4, 5), np.eye(3)), r"finite \(4, 4\) matrix"),
        (lambda: Grid((3, 4, 5), _matrix(a11=np.nan)), "finite"),
        (lambda: Grid((3, 4, 5), _matrix(a11=np.inf)), "finite"),
        (lambda: Grid((3, 4, 5), _matrix(a30=1)), "last row"),
        (lambda: Grid((3, 4, 5), _matrix(a22=0)), "cannot be inverted"),
        (lambda: Grid((3, 4, 5), _matrix(a00=1, a10=1, a01=1)), "cannot be inverted"),
        (lambda: Grid.from_spacing((3, 4, 5), (1, -2, 3)), "three positive numbers"),
        (lambda: Grid.from_spacing((3, 4, 5), (1, 2)), "three positive numbers"),
        (lambda: Grid.from_spacing((3, 4, 5), orientation="RRS"), "one letter each"),
        (lambda: Grid.from_spacing((3, 4, 5), orientation="RASI"), "one letter each"),
        (lambda: Grid.from_spacing((3, 4, 5), orientation=""), "one letter each"),
        (lambda: make_grid().reorient("XYZ"), "one letter each"),
        (lambda: make_grid().permute((0, 0, 1)), "permutation"),
        (lambda: make_grid().flip([3]), "axes 0, 1 and 2"),
        (lambda: make_grid().resample(0), "positive"),
        (lambda: make_grid().resample((1, np.inf, 1)), "positive"),
    ],
)
def test_unusable_grids_are_refused_with_the_reason(make, text) -> None:
    with pytest.raises(GeometryError, match=text):
        make()
