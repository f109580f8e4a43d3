"""Named conventions: what is measured, and what counts when something is empty.

The same masks score differently under different conventions, so every table states its own. "samaritan" is
ours; the others reproduce published evaluations, with what is odd about them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from samaritan.errors import ConfigError
from samaritan.metrics.overlap import Array, Mask, overlap
from samaritan.metrics.surface import surfel_distances, voxel_distances

Outcome = Literal["found", "missed", "false positive", "absent"]
"""`missed`: the prediction shares no voxel with an object that is there. `false positive`: the
reference has no such object. `absent`: neither has it."""

Unit = Literal["mm", "px"]

DEFAULT_TOLERANCE = 2.0
"""Tolerance of surface Dice, in mm (in pixels for pictures without physical size)."""

SAM_MED2D_EPSILON = 1e-7
"""What the published SAM-Med2D code adds to both sides of its fractions."""


@dataclass(frozen=True)
class Voxel:
    """The size of a voxel, or of a pixel.

    Attributes:
        spacing: its side along each axis of the mask.
        unit: of the sides: "mm", or "px" for pictures without physical size.
        volume: in mm3 (in px): with the thickness of a single slice, which `spacing` does not tell.
    """

    spacing: tuple[float, ...]
    unit: Unit = "mm"
    volume: float = 1.0


Measure = Callable[[Mask, Mask, Voxel], dict[str, float]]


@dataclass(frozen=True)
class Protocol:
    """A convention: measures, and which outcomes count in the means.

    Attributes:
        name: as in `--protocol`.
        explanation: what is stated above every table.
        counted: outcomes whose values enter the means.
        measure: (prediction, reference, voxel) -> values.
        tolerance: of surface Dice, where it has one.
        caution: what must stand beside every number, where a published test is kinder than practice.
    """

    name: str
    explanation: str
    counted: frozenset[Outcome]
    measure: Measure = field(repr=False)
    tolerance: float | None = None
    caution: str = ""

    @property
    def stated(self) -> str:
        """Its name, and what must stand beside it."""
        return f"{self.name}, {self.caution}" if self.caution else self.name


def get_protocol(name: str = "samaritan", *, tolerance: float | None = None) -> Protocol:
    """Make a protocol by name.

    Args:
        name: one of `PROTOCOLS`.
        tolerance: of surface Dice, in mm (px for pictures); only "samaritan" leaves the choice.

    Raises:
        ConfigError: if the name is not known, or the tolerance is fixed or no distance.

    >>> get_protocol("samed").measure(np.ones((1, 2, 2), bool), np.zeros((1, 2, 2), bool), Voxel((1, 1, 1)))
    {'dice': 1.0, 'hd95_voxels': 0.0}
    """
    if name not in PROTOCOLS:
        raise ConfigError(f"protocol {name!r} is not known: use one of {', '.join(PROTOCOLS)}")
    if tolerance is not None and name != "samaritan":
        raise ConfigError(
            f"protocol {name!r} fixes its own measures, so the tolerance {tolerance} has no place. "
            "Leave it away, or use protocol 'samaritan'"
        )
    if tolerance is not None and not (np.isfinite(tolerance) and tolerance >= 0):
        raise ConfigError(f"a tolerance is a distance of 0 or more, got {tolerance}")
    return PROTOCOLS[name](DEFAULT_TOLERANCE if tolerance is None else tolerance)


def _samaritan(tolerance: float) -> Protocol:
    def measure(prediction: Mask, reference: Mask, voxel: Voxel) -> dict[str, float]:
        counts, unit = overlap(prediction, reference), voxel.unit
        voxels = voxel_distances(prediction, reference, spacing_mm=voxel.spacing)
        pieces = surfel_distances(prediction, reference, spacing_mm=voxel.spacing)
        size, size_unit = (voxel.volume / 1000, "ml") if unit == "mm" else (voxel.volume, "px")
        return {
            "dice": counts.dice,
            "iou": counts.iou,
            "surface_dice": pieces.within(tolerance),
            f"hd95_{unit}": voxels.hausdorff(95.0),
            f"assd_{unit}": voxels.mean(),
            "precision": counts.precision,
            "recall": counts.recall,
            f"volume_error_{size_unit}": counts.volume_error * size,
            "relative_volume_error": counts.relative_volume_error,
        }

    explanation = (
        "Every object that either mask has counts. One that was missed has Dice 0 and infinite "
        "distance, and so has one that was invented; nothing is left out of a mean. Where both "
        "masks lack a label there is nothing to measure: such cases are listed as absent and do "
        "not enter the means. Distances are in millimetres (pixels for pictures without "
        "physical size): HD95 is the larger of both directions' 95th percentiles over surface "
        "voxels, ASSD the mean of both directions together; surface Dice measures surface "
        f"pieces below voxel size, with a tolerance of {tolerance:g} mm (or pixels). Volume "
        "errors are signed."
    )
    counted: frozenset[Outcome] = frozenset({"found", "missed", "false positive"})
    return Protocol("samaritan", explanation, counted, measure, tolerance)


def _samed(_: float) -> Protocol:
    def measure(prediction: Mask, reference: Mask, voxel: Voxel) -> dict[str, float]:
        del voxel
        if not reference.any() or not prediction.any():
            invented = bool(prediction.any())
            return {"dice": float(invented), "hd95_voxels": 0.0}
        distances = voxel_distances(prediction, reference, spacing_mm=1.0)
        return {
            "dice": overlap(prediction, reference).dice,
            "hd95_voxels": distances.pooled(95.0),
        }

    explanation = (
        "The convention of SAMed (hitachinsk/SAMed utils.py, inherited from TransUNet): Dice, "
        "and HD95 in voxels over both directions pooled. An organ that was invented scores Dice "
        "1 and HD95 0; one that was missed, or is in neither mask, scores Dice 0 and HD95 0, "
        "which is the best distance there is. Use it only to compare with published numbers."
    )
    counted: frozenset[Outcome] = frozenset({"found", "missed", "false positive", "absent"})
    return Protocol("samed", explanation, counted, measure)


def _sam_med2d(_: float) -> Protocol:
    def measure(prediction: Mask, reference: Mask, voxel: Voxel) -> dict[str, float]:
        del voxel
        scores = sam_med2d_scores(prediction[None], reference[None])
        return {key: round(float(value[0]), 4) for key, value in scores.items()}

    explanation = (
        "The convention of SAM-Med2D (OpenGVLab/SAM-Med2D metrics.py, test.py): IoU and Dice of "
        "each mask with 1e-7 added above and below, rounded to four decimals before averaging; "
        "two empty masks score 1."
    )
    counted: frozenset[Outcome] = frozenset({"found", "missed", "false positive", "absent"})
    return Protocol("sam_med2d", explanation, counted, measure)


def _sam_med3d(_: float) -> Protocol:
    def measure(prediction: Mask, reference: Mask, voxel: Voxel) -> dict[str, float]:
        distances = surfel_distances(prediction, reference, spacing_mm=voxel.spacing)
        return {
            "dice": overlap(prediction, reference).dice,
            "surface_dice": distances.within(1.0),
        }

    explanation = (
        "The convention of SAM-Med3D's evaluation: Dice, and surface Dice at 1 mm, of the "
        "labels that the reference has. Labels that were invented are not looked at."
    )
    return Protocol("sam_med3d", explanation, frozenset({"found", "missed"}), measure, 1.0)


def _cvpr25(_: float) -> Protocol:
    def measure(prediction: Mask, reference: Mask, voxel: Voxel) -> dict[str, float]:
        distances = surfel_distances(prediction, reference, spacing_mm=voxel.spacing)
        return {
            "dice": overlap(prediction, reference).dice,
            "surface_dice": distances.within(DEFAULT_TOLERANCE),
        }

    explanation = (
        "The convention of the CVPR 2025 challenge on interactive 3D segmentation: Dice (DSC) and surface "
        "Dice at 2 mm (NSD) of the labels that the reference has, after a box and after each of five clicks "
        "at the core of the largest error of each label, for all labels of a case at once. Areas under the "
        "curves are over the clicks alone, by the trapezoid rule, at most 4. Labels that were invented are "
        "not looked at."
    )
    return Protocol(
        "cvpr25", explanation, frozenset({"found", "missed"}), measure, DEFAULT_TOLERANCE
    )


PROTOCOLS: Mapping[str, Callable[[float], Protocol]] = {
    "samaritan": _samaritan,
    "samed": _samed,
    "sam_med2d": _sam_med2d,
    "sam_med3d": _sam_med3d,
    "cvpr25": _cvpr25,
}
"""Every named convention."""


def sam_med2d_scores(
    prediction: Array, reference: Array, *, logits: bool = False, compat: bool = False
) -> dict[str, Array]:
    """IoU and Dice of each sample of a batch, as SAM-Med2D's metrics.py computes them.

    Args:
        prediction: (b, ...): masks, or logits if `logits`.
        reference: (b, ...): masks.
        logits: whether the prediction is logits; they are masks where they exceed 0.
        compat: the published defect: logits are taken for probabilities, and compared with 0.5, if none in
            the batch is negative.

    Returns:
        "iou" and "dice", each (b,).
    """
    inside: Any = np.asarray(prediction)
    if logits:
        inside = inside > (0.5 if compat and inside.min() >= 0 else 0.0)
    one = np.asarray(inside, bool).reshape(len(inside), -1)
    two = (np.asarray(reference) > 0).reshape(len(inside), -1)
    both = (one & two).sum(axis=1)
    whole = one.sum(axis=1) + two.sum(axis=1)
    small = SAM_MED2D_EPSILON
    return {
        "iou": (both + small) / (whole - both + small),
        "dice": (2 * both + small) / (whole + small),
    }
