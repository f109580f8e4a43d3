"""How much two masks share: Dice, IoU, precision, recall, and how far their volumes are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import GeometryError

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """Voxels counted once, from which every overlap metric follows.

    Two empty masks agree: all parts of a whole are 1 and all errors 0. One empty mask shares nothing.

    Attributes:
        both: voxels in prediction and reference.
        prediction: voxels in the prediction.
        reference: voxels in the reference.

    >>> Overlap(both=2, prediction=3, reference=4).dice
    0.5714285714285714
    """

    both: int
    prediction: int
    reference: int

    @property
    def dice(self) -> float:
        """Twice the shared voxels over the sum of both masks."""
        return _part(2 * self.both, self.prediction + self.reference)

    @property
    def iou(self) -> float:
        """Shared voxels over those of either mask (Jaccard)."""
        return _part(self.both, self.prediction + self.reference - self.both)

    @property
    def precision(self) -> float:
        """Part of the prediction that is right; 0 if it is empty and the reference is not."""
        return self._part_of(self.prediction)

    @property
    def recall(self) -> float:
        """Part of the reference that was found; 0 if it is empty and the prediction is not."""
        return self._part_of(self.reference)

    @property
    def volume_error(self) -> int:
        """Voxels by which the prediction is too large; negative if it is too small."""
        return self.prediction - self.reference

    @property
    def relative_volume_error(self) -> float:
        """`volume_error` as a part of the reference; infinite if only the reference is empty."""
        if self.reference == 0:
            return math.inf if self.prediction else 0.0
        return self.volume_error / self.reference

    def _part_of(self, whole: int) -> float:
        if self.prediction == 0 and self.reference == 0:
            return 1.0
        return self.both / whole if whole else 0.0


def overlap(prediction: Array, reference: Array) -> Overlap:
    """Count the voxels of two masks.

    Raises:
        GeometryError: if the shapes differ.
    """
    one, two = as_masks(prediction, reference)
    return Overlap(
        int(np.count_nonzero(one & two)), int(np.count_nonzero(one)), int(np.count_nonzero(two))
    )


def dice(prediction: Array, reference: Array) -> float:
    """Dice coefficient: 1 is agreement; two empty masks agree.

    >>> dice(np.array([1, 1, 0]), np.array([1, 0, 0]))
    0.6666666666666666
    """
    return overlap(prediction, reference).dice


def iou(prediction: Array, reference: Array) -> float:
    """Intersection over union: 1 is agreement; two empty masks agree."""
    return overlap(prediction, reference).iou


def precision(prediction: Array, reference: Array) -> float:
    """Part of the prediction that is right."""
    return overlap(prediction, reference).precision


def recall(prediction: Array, reference: Array) -> float:
    """Part of the reference that was found (sensitivity)."""
    return overlap(prediction, reference).recall


def volume_error(prediction: Array, reference: Array, *, voxel_volume: float = 1.0) -> float:
    """Volume of the prediction less that of the reference, in the unit of `voxel_volume`."""
    return overlap(prediction, reference).volume_error * voxel_volume


def relative_volume_error(prediction: Array, reference: Array) -> float:
    """Volume error as a part of the reference's volume; infinite if only the reference is empty."""
    return overlap(prediction, reference).relative_volume_error


def as_masks(prediction: Array, reference: Array) -> tuple[Mask, Mask]:
    """Take two arrays as masks: what is not zero is inside.

    Raises:
        GeometryError: if the shapes differ.
    """
    one, two = np.asarray(prediction), np.asarray(reference)
    if one.shape != two.shape:
        raise GeometryError(
            f"masks of shapes {one.shape} and {two.shape} cannot be compared: expected one grid. "
            "Resample the prediction with volume.to_grid(reference.grid)"
        )
    return one.astype(bool, copy=False), two.astype(bool, copy=False)


def _part(shared: int, whole: int) -> float:
    return shared / whole if whole else 1.0
