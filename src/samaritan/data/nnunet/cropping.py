"""The part of an image that is not zero: what fingerprints measure and preprocessing keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Box = tuple[tuple[int, int], ...]

OUTSIDE = -1
"""What label maps hold where the image is zero all around and nothing is drawn."""


def nonzero_box(image: Array) -> tuple[Array, Box]:
    """Find where any channel of (c, *grid) is not zero, holes filled, and the box of that.

    The box of an image that is zero everywhere is all of it, as nnU-Net has it.
    """
    from scipy import ndimage

    inside = image[0] != 0
    for channel in image[1:]:
        inside |= channel != 0
    filled = ndimage.binary_fill_holes(inside)
    return filled, box_of(filled)


def box_of(mask: Array) -> Box:
    """Find the first voxel of a mask along each axis, and one past the last."""
    box = []
    for axis in range(mask.ndim):
        line = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        box.append((int(line[0]), int(line[-1]) + 1) if len(line) else (0, mask.shape[axis]))
    return tuple(box)


def slices_of(box: Box) -> tuple[slice, ...]:
    """Give a box as an index."""
    return tuple(slice(a, b) for a, b in box)


def crop(image: Array, labels: Array | None) -> tuple[Array, Array, Box]:
    """Crop (c, *grid) and its labels to what is not zero.

    Returns:
        The image; labels, `OUTSIDE` where the image is zero and nothing is drawn (0 inside if there
        are none); and the box.
    """
    inside, box = nonzero_box(image)
    where = slices_of(box)
    inside = inside[where]
    if labels is None:
        drawn = np.where(inside, np.int8(0), np.int8(OUTSIDE))
    else:
        drawn = labels[where].astype(np.int16)
        drawn[(drawn == 0) & ~inside] = OUTSIDE
    return image[(slice(None), *where)], drawn, box
