"""SAMed's own way from a slice to the input: spline zooms, with corners on corners and no smoothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def zoomed(plane: Array, size: tuple[int, int], *, order: int) -> Array:
    """Zoom (rows, columns, ...) to a size by splines; as it is if it has that size.

    Order 3 overshoots at edges, and takes single pixels where it shrinks; order 0 is for labels.

    Source: hitachinsk/SAMed, datasets/dataset_synapse.py.
    """
    if plane.shape[:2] == size:
        return plane
    from scipy import ndimage

    factors = [new / old for new, old in zip(size, plane.shape, strict=False)]
    found: Array = ndimage.zoom(plane, [*factors, *[1.0] * (plane.ndim - 2)], order=order)
    return found


def cubic(pixels: Array, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Zoom pixels (rows, columns, c) by cubic splines, beyond 0 and 255 where they overshoot."""
    return np.asarray(zoomed(pixels.astype(np.float32), size, order=3), np.float32)


def nearest(planes: Array, size: tuple[int, int]) -> Array:
    """Zoom planes (m, rows, columns) of labels by nearest neighbours."""
    return np.stack([zoomed(plane, size, order=0) for plane in planes])
