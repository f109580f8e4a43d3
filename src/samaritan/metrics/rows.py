"""One row of results: what was measured of one label in one case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from samaritan.metrics.overlap import Array, Mask, as_masks
from samaritan.metrics.protocols import Outcome, Protocol, Unit, Voxel

Box = tuple[slice, ...]


@dataclass(frozen=True)
class Row:
    """What was measured of one label in one case, under one prompt.

    Attributes:
        case: name of the case.
        label: value in the label map.
        name: what the label means.
        outcome: found, missed, false positive or absent.
        counted: whether the protocol counts it in means.
        values: metric -> number.
        group: a set that the case belongs to.
        patient: what is drawn as one when confidence intervals are estimated; by default the case.
        prompt: kind of prompt, such as "box" or "points", where a model was prompted.
        clicks: number of points given, where that was varied.
    """

    case: str
    label: int
    name: str
    outcome: Outcome
    counted: bool
    values: Mapping[str, float]
    group: str = ""
    patient: str = ""
    prompt: str = ""
    clicks: int | None = None

    @property
    def cluster(self) -> str:
        """What is resampled as one."""
        return self.patient or self.case


def measure_case(
    prediction: Array,
    reference: Array,
    *,
    case: str,
    spacing: Sequence[float],
    protocol: Protocol,
    unit: Unit = "mm",
    labels: Sequence[int] | None = None,
    names: Mapping[int, str] | None = None,
    **about: Any,
) -> list[Row]:
    """Measure every label of one case.

    Args:
        prediction: label map of 2 or 3 axes; 0 is background.
        reference: label map on the same grid.
        case: its name.
        spacing: voxel side along each axis, in `unit`.
        protocol: the convention.
        unit: "mm", or "px" for pictures without physical size.
        labels: values to measure; by default those that either map has.
        names: label value -> name.
        about: more fields of `Row`: group, patient, prompt, clicks.

    Raises:
        GeometryError: if the shapes differ.

    >>> from samaritan.metrics import get_protocol
    >>> row, = measure_case(np.eye(3, dtype=int), np.eye(3, dtype=int), case="a", spacing=(1, 1),
    ...                     protocol=get_protocol())
    >>> row.outcome, row.values["dice"]
    ('found', 1.0)
    """
    as_masks(prediction, reference)
    voxel = Voxel(tuple(spacing), unit, math.prod(spacing))
    if prediction.ndim == 3 and 1 in prediction.shape:  # a slice: its faces are no surface
        flat = prediction.shape.index(1)
        prediction, reference = prediction.squeeze(flat), reference.squeeze(flat)
        sides = tuple(side for axis, side in enumerate(spacing) if axis != flat)
        voxel = replace(voxel, spacing=sides)
    boxes_one, boxes_two = _boxes(prediction), _boxes(reference)
    wanted = sorted(boxes_one.keys() | boxes_two.keys()) if labels is None else labels
    rows = []
    for label in wanted:
        box = _union(boxes_one.get(label), boxes_two.get(label), prediction.ndim)
        outcome, values = _measure(
            prediction[box] == label, reference[box] == label, voxel, protocol
        )
        name = (names or {}).get(label, f"label {label}")
        row = Row(case, label, name, outcome, outcome in protocol.counted, values)
        rows.append(replace(row, **about))
    return rows


def _measure(
    one: Mask, two: Mask, voxel: Voxel, protocol: Protocol
) -> tuple[Outcome, dict[str, float]]:
    outcome: Outcome = "found"
    if not two.any():
        outcome = "false positive" if one.any() else "absent"
    elif not (one & two).any():
        outcome = "missed"
    return outcome, protocol.measure(one, two, voxel)


def _boxes(labels: Array) -> dict[int, Box]:
    """Find the box of every label, in one pass."""
    from scipy.ndimage import find_objects

    values = labels.astype(np.uint8) if labels.dtype == np.bool_ else labels
    if values.size and int(values.max()) > np.iinfo(np.uint16).max:
        known, where = np.unique(values, return_inverse=True)
        ranked = where.reshape(values.shape) + (known[0] != 0)
        found = dict(enumerate(find_objects(ranked), start=1))
        known = known[known != 0]
        return {int(known[rank - 1]): box for rank, box in found.items() if box is not None}
    boxes = enumerate(find_objects(values), start=1)
    return {label: box for label, box in boxes if box is not None}


def _union(one: Box | None, two: Box | None, ndim: int) -> Box:
    """The box that holds both; one voxel if there is neither."""
    if one is None or two is None:
        return one or two or (slice(0, 1),) * ndim
    return tuple(
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, two, strict=True)
    )
