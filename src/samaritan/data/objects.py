"""What can be pointed at in a picture: labels, their connected parts, numbered objects, or mask files.

All become planes of numbers, so that one warp moves them together with the image: an object is a number
on a plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Case
from samaritan.errors import ConfigError
from samaritan.volume import LabelMap

Array = npt.NDArray[Any]
Objects = Literal["labels", "components", "both"]
"""Whole labels, each connected part of a label, or both. Numbered objects and mask files stay as they are."""


class Drawn(NamedTuple):
    """One object: where it stands and what it is."""

    plane: int
    """Which plane it is drawn on."""
    value: int
    """Its number on this plane."""
    label: int
    """Its label value; of mask files the position among them, from 1; of numbered objects 1."""


def object_planes(
    case: Case, found: Sequence[LabelMap], how: Objects, ignore: int | None = None
) -> tuple[Array, tuple[Drawn, ...]]:
    """Draw the objects of a picture on planes.

    Args:
        case: says what the label files hold.
        found: its label files, one voxel thick along the third axis.
        how: what counts as an object of a label map.
        ignore: a label value that is no object.

    Returns:
        (planes, rows, columns) of unsigned integers, and the objects on them.
    """
    flat = [m.array[:, :, 0] for m in found]
    if not flat:
        raise ConfigError(f"case {case.id!r} has no labels: leave it out of training")
    if case.label_kind == "masks":
        return _pack_masks(flat)
    if case.label_kind == "instances":
        numbers, plane = np.unique(flat[0], return_inverse=True)
        plane = plane.reshape(flat[0].shape) + (0 if numbers[0] == 0 else 1)
        count = int(plane.max())
        return _planes([plane]), tuple(Drawn(0, i, 1) for i in range(1, count + 1))
    values = [int(v) for v in np.unique(flat[0]) if v not in (0, ignore)]
    whole = tuple(Drawn(0, v, v) for v in values)
    if how == "labels":
        return _planes([flat[0]]), whole
    parts, drawn = _components(flat[0], values, 0 if how == "components" else 1)
    if how == "components":
        return _planes([parts]), drawn
    lone = {v for v in values if sum(d.label == v for d in drawn) == 1}
    return _planes([flat[0], parts]), (*whole, *(d for d in drawn if d.label not in lone))


def _components(
    labels: Array, values: Sequence[int], plane: int
) -> tuple[Array, tuple[Drawn, ...]]:
    """Number the 8-connected parts of each label."""
    from scipy import ndimage

    numbers = np.zeros(labels.shape, np.uint32)
    drawn: list[Drawn] = []
    for value in values:
        parts, count = ndimage.label(labels == value, np.ones((3, 3), int))
        numbers[parts > 0] = parts[parts > 0] + len(drawn)
        drawn += [Drawn(plane, len(drawn) + i, value) for i in range(1, count + 1)]
    return numbers, tuple(drawn)


def _pack_masks(masks: Sequence[Array]) -> tuple[Array, tuple[Drawn, ...]]:
    """Draw masks on as few planes as keep overlapping ones apart, each on the first with room."""
    planes: list[Array] = []
    drawn: list[Drawn] = []
    for label, mask in enumerate(masks, 1):
        inside = mask > 0
        place = next((i for i, p in enumerate(planes) if not p[inside].any()), len(planes))
        if place == len(planes):
            planes.append(np.zeros(mask.shape, np.uint16))
        value = sum(d.plane == place for d in drawn) + 1
        planes[place][inside] = value
        if inside.any():
            drawn.append(Drawn(place, value, label))
    return _planes(planes), tuple(drawn)


def _planes(planes: Sequence[Array]) -> Array:
    stacked = np.stack(planes)
    return stacked.astype(np.uint8 if stacked.max(initial=0) < 256 else np.uint16)


def resize_planes(
    planes: Array, shape: tuple[int, int], drawn: Sequence[Drawn]
) -> tuple[Array, int]:
    """Resize by nearest neighbour, and keep objects that would vanish.

    An object that no pixel centre hits is painted over as many pixels as its area asks for, at least one,
    where it covers them most; it never takes a pixel from another object.

    Returns:
        (planes, rows, columns), and how many objects were saved so.
    """
    rows, columns = planes.shape[1:]
    if (rows, columns) == shape:
        return planes, 0
    i = ((np.arange(shape[0]) + 0.5) * rows / shape[0]).astype(int)
    j = ((np.arange(shape[1]) + 0.5) * columns / shape[1]).astype(int)
    small = np.ascontiguousarray(planes[:, i][:, :, j])
    saved = 0
    present = [set(np.unique(p).tolist()) for p in small]
    for one in drawn:
        if one.value not in present[one.plane]:
            saved += _paint(planes[one.plane], small[one.plane], one.value)
    return small, saved


def _paint(plane: Array, small: Array, value: int) -> int:
    where = np.argwhere(plane == value)
    scale = np.array(small.shape) / plane.shape
    hit = np.minimum(((where + 0.5) * scale).astype(int), np.array(small.shape) - 1)
    pixels, counts = np.unique(hit, axis=0, return_counts=True)
    free = small[pixels[:, 0], pixels[:, 1]] == 0
    order = np.argsort(-counts[free], kind="stable")
    wanted = max(1, round(len(where) * float(scale.prod())))
    chosen = pixels[free][order[:wanted]]
    small[chosen[:, 0], chosen[:, 1]] = value
    return int(len(chosen) > 0)
