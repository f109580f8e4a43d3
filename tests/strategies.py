"""Grids drawn at random: all orientations, anisotropic, oblique, sheared. For hypothesis and for loops."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from samaritan.geometry import Grid

ORIENTATIONS = tuple(
    "".join(letters)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*axes)
)
"""All 48 ways in which three array axes can run along the patient's axes."""


def make_grid(
    shape=(3, 4, 5),
    spacing=(1.0, 0.7, 2.5),
    orientation="RAS",
    *,
    turn=0.0,
    shear=0.0,
    origin=(-11.0, 7.5, 30.0),
) -> Grid:
    """A grid turned by `turn` radians about a skew axis, its first axis sheared towards the second."""
    upright = Grid.from_spacing(shape, spacing, orientation=orientation, origin_mm=origin)
    affine = upright.affine.copy()
    affine[:3, :3] = rotation(turn) @ affine[:3, :3]
    affine[:3, 0] += shear * affine[:3, 1]
    return Grid(tuple(shape), affine)


def rotation(angle: float) -> np.ndarray:
    """Turn about the axis (1, 2, 3)."""
    x, y, z = np.array([1, 2, 3]) / np.sqrt(14)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


shapes = st.tuples(*[st.integers(1, 6)] * 3)
spacings = st.tuples(*[st.floats(0.2, 8)] * 3)


@st.composite
def grids(draw, *, max_turn: float = 0.6, max_shear: float = 0.3, min_side: int = 1) -> Grid:
    """Draw a grid of any orientation, anisotropic, maybe oblique, maybe sheared."""
    shape = tuple(max(n, min_side) for n in draw(shapes))
    turn = draw(st.sampled_from([0.0, 0.0, 0.1, 0.35, max_turn]))
    shear = draw(st.sampled_from([0.0, 0.0, max_shear]))
    origin = draw(st.tuples(*[st.floats(-200, 200)] * 3))
    return make_grid(
        shape,
        draw(spacings),
        draw(st.sampled_from(ORIENTATIONS)),
        turn=min(turn, max_turn),
        shear=shear,
        origin=origin,
    )


def centres(grid: Grid) -> np.ndarray:
    """(i, j, k, 3): where each voxel centre lies in mm."""
    return grid.index_to_mm(np.moveaxis(np.indices(grid.shape), 0, -1))
