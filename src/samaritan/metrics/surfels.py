"""How much surface passes between neighbouring voxels: small pieces (surfels) with area, below voxel size.

A surfel sits at the corner where 2 x 2 x 2 voxels (2 x 2 pixels) meet. Which of them are inside tells how the
surface runs there, as marching cubes would draw it with vertices half-way along the edges. Source: the
convention of DeepMind's surface-distance (Nikolov et al., 2018, arXiv:1809.04430), also that of MONAI's
`use_subvoxels`; the 256 cases are made here from 14 by symmetry.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_PIECES: dict[int, list[tuple[int, int, int]]] = {
    0: [],
    1: [(1, 1, 1)],
    3: [(2, 2, 0)] * 2,
    6: [(1, 1, 1)] * 2,
    7: [(1, 1, 1), (2, 2, 2), (4, 0, 0)],
    15: [(4, 0, 0)] * 2,
    22: [(1, 1, 1)] * 3,
    23: [(1, 1, 1)] * 2 + [(2, 2, 2)] * 2,
    24: [(1, 1, 1)] * 2,
    25: [(0, 2, 2)] * 2 + [(1, 1, 1)],
    27: [(0, 2, 2), (1, 1, 1), (2, 0, 2), (3, 3, 3)],
    30: [(1, 1, 1)] * 2 + [(2, 2, 2), (4, 0, 0)],
    60: [(2, 2, 0)] * 4,
    105: [(1, 1, 1)] * 4,
}
"""The triangles of 14 neighbourhoods: each a normal whose length is its area, in eighths of a voxel face.

The neighbourhood's number has a bit for each voxel, the first voxel's highest. All others follow by turning,
mirroring, and exchanging inside and outside.
"""


def codes(mask: Array) -> npt.NDArray[np.uint8]:
    """Number the neighbourhood at every corner of a mask that is empty all around.

    Args:
        mask: 2 or 3 axes; its outermost voxels are taken as they are, so pad it.

    Returns:
        One less along each axis. 0 is outside, the largest number (15 or 255) is inside, all else surface.
    """
    inside = mask.astype(np.uint8)
    shape = [n - 1 for n in mask.shape]
    found = np.zeros(shape, np.uint8)
    bit = 2**mask.ndim
    for start in itertools.product((0, 1), repeat=mask.ndim):
        bit -= 1
        corner = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
        found |= inside[corner] << np.uint8(bit)
    return found


def measures(spacing: Sequence[float]) -> npt.NDArray[np.float64]:
    """Area (3D) or length (2D) of the surface in each neighbourhood, for voxels of this size."""
    if len(spacing) == 2:
        return _lengths(*spacing)
    one, two, three = spacing
    faces = np.array([two * three, one * three, one * two])
    areas: Array = np.linalg.norm(_normals() * faces, axis=-1).sum(axis=-1)
    return areas


def _lengths(first: float, second: float) -> npt.NDArray[np.float64]:
    """A line along an axis, a line across one corner, or two of those."""
    across = 0.5 * math.hypot(first, second)
    lengths = np.full(16, across)
    lengths[[0b0000, 0b1111]] = 0
    lengths[[0b0011, 0b1100]] = second
    lengths[[0b0101, 0b1010]] = first
    lengths[[0b0110, 0b1001]] = 2 * across
    return lengths


@functools.cache
def _normals() -> npt.NDArray[np.float64]:
    """(256, 4, 3): normals of up to four triangles in each neighbourhood, without signs."""
    table = np.zeros((256, 4, 3))
    weights = 2 ** np.arange(7, -1, -1)
    for seed, pieces in _PIECES.items():
        voxels = np.array([seed >> bit & 1 for bit in range(7, -1, -1)]).reshape(2, 2, 2)
        for order in itertools.permutations(range(3)):
            turned = np.array(pieces, float).reshape(-1, 3)[:, order] / 8
            for steps in itertools.product((1, -1), repeat=3):
                moved = voxels.transpose(order)[tuple(slice(None, None, s) for s in steps)]
                code = int(moved.ravel() @ weights)
                for same in (code, 255 - code):
                    table[same, : len(turned)] = turned
    return table
