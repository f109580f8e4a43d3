"""Where slices lie in their volume, and how predictions on them are put back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Place
from samaritan.errors import GeometryError
from samaritan.geometry import Grid
from samaritan.volume import LabelMap, Volume


def place_of(volume: str, grid: Grid, axis: int, index: int) -> Place:
    """Note where a slice is cut from."""
    affine = tuple(tuple(float(v) for v in row) for row in grid.affine)
    return Place(volume, axis, index, grid.shape, affine)  # type: ignore[arg-type]


def volume_grid(place: Place) -> Grid:
    """Give the grid of the volume that a slice was cut from."""
    return Grid(place.shape, np.asarray(place.affine))


def slice_grid(place: Place) -> Grid:
    """Give the grid of a slice as it is looked at: rows, columns, one voxel thick."""
    from samaritan.transforms.preprocess import display_codes

    grid = volume_grid(place)
    start, shape = [0, 0, 0], list(grid.shape)
    start[place.axis], shape[place.axis] = place.index, 1
    return grid.window(start, shape).reorient(display_codes(grid, place.axis))


def put_back(pictures: Iterable[tuple[Place, npt.NDArray[Any]]]) -> LabelMap:
    """Put label pictures of one volume's slices together on the volume's own grid.

    Args:
        pictures: (place, labels of shape (rows, columns)); slices that are not given stay 0.

    Raises:
        GeometryError: if there is none, the slices are of several volumes, or a size is wrong.
    """
    found = list(pictures)
    volumes = {(place.volume, place.shape, place.affine) for place, _ in found}
    if len(volumes) != 1:
        raise GeometryError(
            f"expected slices of one volume, got {sorted(v[0] for v in volumes) or 'none'}"
        )
    grid = volume_grid(found[0][0])
    dtype = np.result_type(*(array.dtype for _, array in found))
    whole = np.zeros(grid.shape, dtype)
    for place, array in found:
        shown = Volume(array[:, :, None], slice_grid(place))
        start, shape = [0, 0, 0], list(grid.shape)
        start[place.axis], shape[place.axis] = place.index, 1
        flat = shown.to_grid(grid.window(start, shape), interpolation="nearest")
        where = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
        whole[where] = flat.array
    return LabelMap(whole, grid)
