"""What a person points at stays on the same spot of the patient."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samaritan.errors import PromptError
from samaritan.geometry import Grid
from samaritan.prompts import Boxes, MaskPrompt, Points
from samaritan.volume import Volume
from tests.strategies import ORIENTATIONS, grids, make_grid

fractions = st.lists(st.tuples(*[st.floats(0, 0.99)] * 3), min_size=1, max_size=4)


@given(grids(), fractions, st.sampled_from(ORIENTATIONS), st.tuples(*[st.floats(0.2, 4)] * 3))
def test_click_survives_resampling(grid, inside, orientation, spacing) -> None:
    points = Points(np.array(inside) * grid.shape - 0.5, [1] * len(inside), grid)
    mm = grid.index_to_mm(points.coords)
    size = [
        max(1, round(n * s / t))
        for n, s, t in zip(grid.shape, grid.spacing_mm, spacing, strict=True)
    ]
    for other in (
        grid.reorient(orientation),
        grid.flip([1]),
        grid.permute((2, 0, 1)),
        grid.resize(size),
    ):
        moved = points.to_grid(other)
        assert np.allclose(other.index_to_mm(moved.coords), mm, atol=1e-5)
        assert np.array_equal(moved.labels, points.labels)
        assert np.allclose(moved.to_grid(grid).coords, points.coords, atol=1e-5)


def test_click_follows_its_voxel_through_flips() -> None:
    grid = make_grid()
    points = Points([(0, 1, 4)], [1], grid)
    assert points.to_grid(grid.flip([0, 2])).coords.tolist() == [pytest.approx([2, 1, 0])]
    assert points.to_grid(grid.permute((2, 0, 1))).coords.tolist() == [pytest.approx([4, 0, 1])]
    assert points.to_grid(grid.window((-2, -3, -4), (9, 9, 9))).coords.tolist() == [
        pytest.approx([2, 4, 8])
    ]


def test_millimetres_become_indices() -> None:
    grid = make_grid(turn=0.3)
    points = Points.from_mm(grid.index_to_mm([1, 2, 3]), 0, grid)
    assert np.allclose(points.coords, [[1, 2, 3]])
    assert points.labels.tolist() == [0]
    assert len(points) == 1


@pytest.mark.parametrize(
    ("shape", "full"), [((4, 5, 1), (2, 3, 0)), ((1, 4, 5), (0, 2, 3)), ((4, 1, 5), (2, 0, 3))]
)
def test_pairs_point_into_the_only_slice(shape, full) -> None:
    grid = Grid.from_spacing(shape)
    assert Points([(2, 3)], [1], grid).coords.tolist() == [list(full)]
    boxes = Boxes([(1, 2)], [(3, 4)], grid)
    thin = shape.index(1)
    assert (boxes.start[0, thin], boxes.stop[0, thin]) == (0, 1)


@pytest.mark.parametrize(
    ("coords", "labels", "text"),
    [
        ([(3, 0, 0)], [1], r"point \(3, 0, 0\) lies outside the image: .* \(2, 3, 4\)"),
        ([(-0.6, 0, 0)], [1], "lies outside"),
        ([(1, 1)], [1], r"needs three indices, got \[\[1, 1\]\]"),
        ([(1, 1, np.nan)], [1], "finite"),
        ([(1, 1, 1)], [2], "labels of 1 or 0"),
        ([(1, 1, 1)], [-1], "labels of 1 or 0"),
        ([(1, 1, 1)], [0.7], "labels of 1 or 0"),
        ([(1, 1, 1)], [1, 0], "1 points need as many labels"),
        ([], [], "three indices"),
    ],
)
def test_wrong_clicks_are_told(coords, labels, text) -> None:
    with pytest.raises(PromptError, match=text):
        Points(coords, labels, make_grid())


def test_a_pair_on_a_picture_is_explained() -> None:
    with pytest.raises(PromptError, match="or two, since the image is flat"):
        Points([(1,)], [1], Grid.pixels((4, 5)))


def test_click_that_leaves_the_other_grid_is_told() -> None:
    grid = make_grid()
    with pytest.raises(PromptError, match="outside"):
        Points([(0, 0, 0)], [1], grid).to_grid(grid.window((1, 1, 1), (2, 2, 2)))


@given(grids(min_side=2), st.data())
def test_box_holds_the_same_voxels_after_turning(grid, data) -> None:
    start = [data.draw(st.integers(0, n - 1)) for n in grid.shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, grid.shape, strict=True)]
    mask = Volume(np.zeros(grid.shape, bool), grid)
    mask.array[tuple(map(slice, start, stop))] = True
    boxes = Boxes([start], [stop], grid)
    for other in (mask.flip([0, 2]), mask.permute((1, 2, 0)), mask.reorient("PIR")):
        moved = boxes.to_grid(other.grid)
        held = np.zeros(other.shape, bool)
        held[
            tuple(
                map(slice, np.rint(moved.start[0]).astype(int), np.rint(moved.stop[0]).astype(int))
            )
        ] = True
        assert np.array_equal(held, other.array)
        assert np.allclose(moved.start, np.rint(moved.start), atol=1e-6)


def test_box_faces_survive_scaling() -> None:
    grid = Grid.from_spacing((4, 6, 8), (3, 2, 1))
    moved = Boxes([(1, 2, 3)], [(3, 4, 7)], grid).to_grid(grid.resample((1.5, 4, 0.5)))
    assert np.allclose(moved.start, [(2, 1, 6)])
    assert np.allclose(moved.stop, [(6, 2, 14)])


@given(grids(min_side=2, max_shear=0.0), st.floats(-0.5, 0.5))
def test_box_grows_to_hold_itself_on_a_turned_grid(grid, angle) -> None:
    middle = np.array(grid.shape) // 2
    boxes = Boxes([middle - 1], [middle + 1], grid)
    other = make_grid((60, 60, 60), (1, 1, 1), turn=angle, origin=grid.index_to_mm(middle) - 30)
    moved = boxes.to_grid(other)
    corner = other.mm_to_index(grid.index_to_mm(middle - 1.5))
    assert ((corner >= moved.start[0] - 0.5 - 1e-6) & (corner <= moved.stop[0] - 0.5 + 1e-6)).all()


def test_box_may_reach_out_of_the_image() -> None:
    assert len(Boxes([(-2, -2, -2)], [(1, 9, 9)], make_grid())) == 1


@pytest.mark.parametrize(
    ("start", "stop", "text"),
    [
        ((1, 1, 1), (2, 1, 2), "has no size: boxes are half-open"),
        ((2, 1, 1), (1, 2, 2), "has no size"),
        ((3, 0, 0), (4, 1, 1), r"lies outside the image, whose shape is \(3, 4, 5\)"),
        ((-2, 0, 0), (0, 1, 1), "lies outside"),
        ((0, 0), (1, 1), "three indices"),
        ((0, 0, np.inf), (1, 1, 1), "finite"),
    ],
)
def test_wrong_boxes_are_told(start, stop, text) -> None:
    with pytest.raises(PromptError, match=text):
        Boxes([start], [stop], make_grid())


def test_boxes_come_in_pairs_of_corners() -> None:
    with pytest.raises(PromptError, match="2 box starts, but 1 stops"):
        Boxes([(0, 0, 0), (1, 1, 1)], [(2, 2, 2)], make_grid())


def test_mask_prompt_moves_with_the_patient() -> None:
    grid = make_grid()
    array = np.zeros(grid.shape, np.uint8)
    array[1, 2, 3] = 5
    prompt = MaskPrompt(Volume(array, grid))
    moved = prompt.to_grid(grid.flip([0, 1]))
    assert moved.volume.dtype == bool
    assert np.argwhere(moved.volume.array).tolist() == [[1, 1, 3]]
    assert moved.grid == grid.flip([0, 1])
    assert prompt.to_grid(grid.resize((6, 8, 10))).volume.array.sum() == 8


def test_wrong_masks_are_told() -> None:
    grid = make_grid()
    with pytest.raises(PromptError, match="is empty"):
        MaskPrompt(Volume(np.zeros(grid.shape, bool), grid))
    with pytest.raises(PromptError, match="one channel"):
        MaskPrompt(Volume(np.ones((*grid.shape, 2), bool), grid))
