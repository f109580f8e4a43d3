"""Clicks and boxes are where they should be, repeat with their seed, and work in 2 and 3 dimensions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch

from samaritan import simulate

SHAPES = [(9, 13), (6, 7, 9)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(shape: tuple[int, ...], n: int = 6, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).normal(size=(n, *shape))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, *[1.0] * len(shape)))
    return torch.from_numpy(smooth > 0.1)


def one_box(shape: tuple[int, ...], start: tuple[int, ...], stop: tuple[int, ...]) -> torch.Tensor:
    mask = torch.zeros(1, *shape, dtype=torch.bool)
    mask[(0, *map(slice, start, stop))] = True
    return mask


@pytest.mark.parametrize(
    ("shape", "start", "stop"), [((9, 13), (2, 3), (5, 11)), ((6, 7, 9), (0, 2, 3), (1, 7, 8))]
)
def test_a_box_holds_its_mask_and_nothing_else(shape, start, stop) -> None:
    assert simulate.boxes_of(one_box(shape, start, stop)).tolist() == [[*start, *stop]]


def test_an_empty_mask_gets_the_whole_grid() -> None:
    empty = torch.zeros(1, 9, 13, dtype=torch.bool)
    assert simulate.boxes_of(empty).tolist() == [[0, 0, 9, 13]]


@pytest.mark.parametrize("shape", SHAPES)
def test_components_are_those_of_scipy(shape) -> None:
    masks = blobs(shape)
    full = np.ones((3,) * len(shape))
    for mask, found in zip(masks, simulate.components(masks), strict=True):
        theirs, count = scipy.ndimage.label(mask.numpy(), full)
        pairs = set(zip(theirs.ravel().tolist(), found.flatten().tolist(), strict=True))
        assert len(pairs) == count + 1 or (mask.all() and len(pairs) == count)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_largest_component_is_the_largest(shape) -> None:
    masks = blobs(shape, seed=1)
    for mask, found in zip(masks, simulate.largest_component(masks), strict=True):
        theirs, _ = scipy.ndimage.label(mask.numpy(), np.ones((3,) * len(shape)))
        sizes = np.bincount(theirs.ravel())[1:]
        assert int(found.sum()) == sizes.max()
        assert (mask | ~found).all()


def test_an_empty_mask_has_no_component() -> None:
    assert not simulate.largest_component(torch.zeros(2, 4, 5, dtype=torch.bool)).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_depth_is_the_chessboard_distance(shape) -> None:
    masks = blobs(shape)
    for mask, found in zip(masks, simulate.depth(masks), strict=True):
        padded = np.pad(mask.numpy(), 1)
        theirs = scipy.ndimage.distance_transform_cdt(padded, "chessboard")
        assert (theirs[(slice(1, -1),) * len(shape)] == found.numpy()).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_random_points_lie_on_the_mask_and_reach_all_of_it(shape) -> None:
    masks = blobs(shape, n=2)
    coords = simulate.random_points(masks, 3000, generator()).long()
    for mask, points in zip(masks, coords, strict=True):
        hit = torch.zeros_like(mask)
        hit[tuple(points.T)] = True
        assert (hit == mask).all()


def test_points_repeat_with_the_seed_and_differ_without_it() -> None:
    masks = blobs((9, 13))
    draws = [simulate.random_points(masks, 5, generator(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_a_core_point_of_a_bar_with_a_whisker_lies_in_the_bar() -> None:
    mask = one_box((15, 21), (4, 2), (11, 9))
    mask[0, 7, 9:20] = True
    coords = simulate.core_points(mask, 200, generator())
    assert (coords[..., 1] < 9).all()
    assert (coords[..., 1] > 2).all()


@pytest.mark.parametrize(("count", "inside"), [(1, 1), (2, 1), (3, 1), (5, 2), (9, 4)])
def test_first_points_are_on_and_off_the_object_as_published(count, inside) -> None:
    masks = blobs((9, 13))
    coords, labels = simulate.first_points(masks, count, generator())
    assert coords.shape == (6, count, 2)
    assert (labels.sum(dim=1) == inside).all()
    on = torch.stack([m[tuple(c.long().T)] for m, c in zip(masks, coords, strict=True)])
    assert (on == (labels == 1)).all()


def test_first_points_of_an_empty_mask_are_off_the_object() -> None:
    _, labels = simulate.first_points(torch.zeros(1, 5, 4, dtype=torch.bool), 3, generator())
    assert labels.tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("at_core", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_error_points_correct_errors(shape, at_core) -> None:
    reference, predicted = blobs(shape), blobs(shape, seed=5)
    coords, labels = simulate.error_points(predicted, reference, 4, generator(), at_core=at_core)
    for ours, true, points, told in zip(predicted, reference, coords, labels, strict=True):
        at = tuple(points.long().T)
        assert (ours[at] != true[at]).all()
        assert (true[at] == (told == 1)).all()


def test_nothing_wrong_gives_no_points() -> None:
    masks = blobs((9, 13))
    for at_core in (False, True):
        _, labels = simulate.error_points(masks, masks, 3, generator(), at_core=at_core)
        assert (labels == simulate.NO_POINT).all()


def test_a_core_error_point_lies_in_the_largest_error() -> None:
    reference = one_box((20, 30), (2, 2), (12, 14))
    predicted = torch.zeros_like(reference)
    predicted[0, 17, 25] = True
    coords, labels = simulate.error_points(predicted, reference, 50, generator(), at_core=True)
    assert (labels == 1).all()
    assert (coords[..., 0] < 12).all()


def test_published_noise_shifts_boxes_without_changing_their_size() -> None:
    box = torch.tensor([[10.0, 20.0, 40.0, 28.0]]).repeat(4000, 1)
    shift = simulate.shift_boxes(box, generator()) - box
    assert torch.equal(shift[:, :2], shift[:, 2:])
    assert set(shift[:, :2].flatten().tolist()) == set(range(-4, 4))  # half of 8 is 4


def test_published_noise_is_five_at_most_and_none_for_the_smallest() -> None:
    big = torch.tensor([[0.0, 0.0, 100.0, 100.0]]).repeat(4000, 1)
    assert set((simulate.shift_boxes(big, generator()) - big).flatten().tolist()) == set(
        range(-5, 5)
    )
    tiny = torch.tensor([[3.0, 4.0, 4.0, 9.0]])
    assert torch.equal(simulate.shift_boxes(tiny, generator()), tiny)


@pytest.mark.parametrize("shape", SHAPES)
def test_jitter_moves_faces_on_their_own_and_stays_on_the_grid(shape) -> None:
    box = torch.tensor([[*[1.0] * len(shape), *[float(s) for s in shape]]]).repeat(500, 1)
    moved = simulate.jitter_boxes(box, shape, generator(), part=0.4)
    start, stop = moved.chunk(2, dim=1)
    assert (start >= 0).all()
    assert (stop <= torch.tensor(shape)).all()
    assert (stop > start).all()
    assert len((stop - start).unique(dim=0)) > 5


@pytest.mark.parametrize("shape", [(3, 17, 23), (2, 9, 8, 7), (1, 5, 5)])
def test_processors_and_devices_find_the_same_components_and_depths(shape):
    masks = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    assert torch.equal(simulate._numbered_one_by_one(masks), simulate._numbered_together(masks))
    assert torch.equal(simulate._depth_one_by_one(masks), simulate._depth_together(masks))


@pytest.mark.parametrize("shape", [(13, 22), (10, 13, 15)])
def test_thick_points_lie_on_the_mask_where_most_of_it_is(shape) -> None:
    masks = one_box(shape, (1,) * len(shape), tuple(n - 4 for n in shape)).repeat(
        200, *[1] * len(shape)
    )
    masks[:, -1:] = True  # a thin plate beside a block
    coords = simulate.thick_points(masks, 2, generator())
    assert coords.shape == (200, 2, len(shape))
    index = coords.long().unbind(-1)
    assert bool(masks[(torch.arange(200)[:, None], *index)].all())
    assert float((coords[..., 0] < shape[0] - 3).float().mean()) > 0.95
    assert torch.equal(coords, simulate.thick_points(masks, 2, generator()))


def test_thick_points_of_nothing_are_anywhere() -> None:
    coords = simulate.thick_points(torch.zeros(3, 9, 13, dtype=torch.bool), 1, generator())
    assert bool(((coords >= 0) & (coords < torch.tensor([9, 13]))).all())
    lone = one_box((9, 13), (8, 12), (9, 13))
    assert simulate.thick_points(lone, 1, generator()).tolist() == [[[8.0, 12.0]]]
