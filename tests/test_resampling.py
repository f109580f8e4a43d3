"""Resampling where axes run alike gives what the general way gives."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samaritan import resampling
from samaritan.resampling import aligned, resample

ORDERS = list(itertools.permutations(range(3)))


def made_step(order: tuple[int, ...], scale: tuple[float, ...], start: tuple[float, ...]):
    step = np.eye(4)
    step[:3, :3] = 0
    step[list(order), range(3)] = scale
    step[:3, 3] = start
    return step


def in_general(monkeypatch: pytest.MonkeyPatch, *args, **options) -> np.ndarray:
    with monkeypatch.context() as patched:
        patched.setattr(resampling, "aligned", lambda step, shape: None)
        return resample(*args, **options)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(ORDERS),
    st.tuples(*[st.floats(0.2, 3.0)] * 3),
    st.tuples(*[st.booleans()] * 3),
    st.tuples(*[st.floats(-4.0, 9.0)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.sampled_from([np.uint8, np.int16, np.float32, np.float64, np.bool_]),
)
def test_linear_agrees_with_the_general_way(order, scale, flips, start, shape, sides, dtype):
    scale = tuple(-s if flip else s for s, flip in zip(scale, flips, strict=True))
    step = made_step(order, scale, start)
    source = (np.random.default_rng(0).random(sides) * 200).astype(dtype)
    options = {"fill": -7.0, "dtype": np.dtype(np.float32)}
    assert aligned(step, shape) is not None
    got = resample(source, step, shape, **options)
    with pytest.MonkeyPatch.context() as patch:
        expected = in_general(patch, source, step, shape, **options)
    at = [step[s, 3] + step[s, a] * np.arange(shape[a]) for a, s in enumerate(order)]
    sure = [  # a centre on an outer face may fall to either side
        (np.abs(x + 0.5) > 1e-4) & (np.abs(x - sides[s] + 0.5) > 1e-4)
        for x, s in zip(at, order, strict=True)
    ]
    where = np.ix_(*sure)
    assert got.dtype == np.float32
    assert np.allclose(got[where], expected[where], atol=2e-3)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(ORDERS),
    st.tuples(*[st.floats(0.2, 3.0)] * 3),
    st.tuples(*[st.floats(-4.0, 9.0)] * 3),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.tuples(*[st.integers(1, 7)] * 3),
    st.sampled_from([np.uint8, ">i2", np.float16, np.bool_]),
)
def test_nearest_agrees_with_the_general_way(order, scale, start, shape, sides, dtype):
    step = made_step(order, scale, start)
    source = (np.arange(np.prod(sides)) % 5).reshape(sides).astype(dtype)
    options = {"fill": 1.0, "interpolation": "nearest"}
    got = resample(source, step, shape, **options)
    with pytest.MonkeyPatch.context() as patch:
        expected = in_general(patch, source, step, shape, **options)
    at = [step[s, 3] + step[s, a] * np.arange(shape[a]) for a, s in enumerate(order)]
    sure = [np.abs(x - np.floor(x) - 0.5) > 1e-4 for x in at]
    where = np.ix_(*sure)
    assert got.dtype == np.dtype(dtype)
    assert np.array_equal(got[where], expected[where])


def test_a_turned_lattice_takes_the_general_way() -> None:
    step = made_step((0, 1, 2), (1, 1, 1), (0, 0, 0))
    step[0, 1] = 1e-3
    assert aligned(step, (5, 5, 5)) is None
    assert aligned(step, (5, 1, 5)) == [0, 1, 2]  # of one slice nobody can tell
    step[0, 1] = 1e-9
    assert aligned(step, (5, 5, 5)) == [0, 1, 2]


def test_threads_and_single_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    source = np.random.default_rng(1).normal(size=(40, 50, 60)).astype(np.float32)
    step = made_step((2, 0, 1), (0.7, -0.45, 0.6), (-1.0, 38.0, 2.0))
    shape = (85, 90, 80)
    many = [resample(source, step, shape, interpolation=i, fill=3) for i in ("linear", "nearest")]
    monkeypatch.setattr(resampling, "_SLAB_VOXELS", 2**30)
    one = [resample(source, step, shape, interpolation=i, fill=3) for i in ("linear", "nearest")]
    assert all(np.array_equal(a, b) for a, b in zip(many, one, strict=True))


def test_a_source_that_reads_only_is_left_alone() -> None:
    source = np.broadcast_to(np.ones((), np.uint8), (4, 5, 6))
    moved = resample(source, made_step((0, 1, 2), (0.5,) * 3, (0.1,) * 3), (6, 6, 6))
    assert (moved == 1).all()
