"""How far apart two surfaces are, in millimetres: HD95, Hausdorff, mean distance, surface Dice.

Distances are infinite if one mask is empty, and 0 if both are. Borders of the array are surface like any
other. Masks may have 2 or 3 axes; `spacing_mm` has one number for each, or one for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samaritan.errors import ConfigError, GeometryError
from samaritan.metrics import surfels
from samaritan.metrics.overlap import Array, Mask, as_masks

DENSE = 0.5
"""If more than this part of the voxels is surface, distances come from a transform of all voxels."""

Spacing = float | Sequence[float]


@dataclass(frozen=True, eq=False)
class Distances:
    """From every piece of each surface to the nearest piece of the other, in mm.

    Attributes:
        prediction: from the prediction's surface to the reference's.
        reference: from the reference's surface to the prediction's.
        prediction_sizes: area (length in 2D) of each piece, or None where all count alike.
        reference_sizes: the same of the reference.
    """

    prediction: Array
    reference: Array
    prediction_sizes: Array | None = None
    reference_sizes: Array | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no surface at all."""
        return not (self.prediction.size or self.reference.size)

    @property
    def one_missing(self) -> bool:
        """Whether exactly one of the surfaces is missing."""
        return bool(self.prediction.size) != bool(self.reference.size)

    def hausdorff(self, percentile: float = 100.0) -> float:
        """The larger of both directions' percentiles."""
        return self._settled(
            lambda: max(
                float(np.percentile(self.prediction, percentile)),
                float(np.percentile(self.reference, percentile)),
            )
        )

    def pooled(self, percentile: float) -> float:
        """The percentile of both directions together, as medpy has it."""
        return self._settled(
            lambda: float(np.percentile(np.hstack((self.prediction, self.reference)), percentile))
        )

    def mean(self) -> float:
        """The mean of both directions together."""
        return self._settled(
            lambda: float(np.hstack((self.prediction, self.reference)).mean(dtype=np.float64))
        )

    def within(self, tolerance_mm: float) -> float:
        """Part of both surfaces that is no further than this from the other."""
        if self.is_empty:
            return 1.0
        if self.one_missing:
            return 0.0
        near, all_of_it = 0.0, 0.0
        for distance, sizes in (
            (self.prediction, self.prediction_sizes),
            (self.reference, self.reference_sizes),
        ):
            weights = np.ones_like(distance) if sizes is None else sizes
            near += float(weights[distance <= tolerance_mm].sum())
            all_of_it += float(weights.sum())
        return near / all_of_it

    def _settled(self, measure: Any) -> float:
        if self.is_empty:
            return 0.0
        return float("inf") if self.one_missing else float(measure())


def hd95_mm(prediction: Array, reference: Array, *, spacing_mm: Spacing) -> float:
    """95 % Hausdorff distance: the larger of both directions' 95th percentiles, over surface voxels.

    Infinite if one mask is empty, 0 if both are. Equals MONAI's where that is finite.
    """
    return voxel_distances(prediction, reference, spacing_mm=spacing_mm).hausdorff(95.0)


def hd_mm(prediction: Array, reference: Array, *, spacing_mm: Spacing) -> float:
    """Hausdorff distance: the largest distance from one surface to the other."""
    return voxel_distances(prediction, reference, spacing_mm=spacing_mm).hausdorff()


def assd_mm(prediction: Array, reference: Array, *, spacing_mm: Spacing) -> float:
    """Average symmetric surface distance: the mean over the voxels of both surfaces."""
    return voxel_distances(prediction, reference, spacing_mm=spacing_mm).mean()


def surface_dice(
    prediction: Array, reference: Array, *, spacing_mm: Spacing, tolerance_mm: float
) -> float:
    """Part of both surfaces that lies within a tolerance of the other (normalised surface Dice).

    Surfaces are measured in pieces smaller than voxels, see `samaritan.metrics.surfels`. 1 if both masks are
    empty, 0 if one is. Equals MONAI's with `use_subvoxels=True` and DeepMind's surface-distance.

    Raises:
        ConfigError: if the tolerance is negative or not finite.
    """
    if not (np.isfinite(tolerance_mm) and tolerance_mm >= 0):
        raise ConfigError(
            f"a tolerance is a distance of 0 mm or more, got {tolerance_mm}. Usual are 1 to 3 mm"
        )
    return surfel_distances(prediction, reference, spacing_mm=spacing_mm).within(tolerance_mm)


def voxel_distances(prediction: Array, reference: Array, *, spacing_mm: Spacing) -> Distances:
    """Distances between surface voxels: those that have a face to the outside.

    Raises:
        GeometryError: if shapes or spacing do not fit.
    """
    one, two, spacing = _cropped(prediction, reference, spacing_mm)
    border_one, border_two = border(one), border(two)
    return Distances(
        _nearest(border_one, border_two, spacing), _nearest(border_two, border_one, spacing)
    )


def surfel_distances(prediction: Array, reference: Array, *, spacing_mm: Spacing) -> Distances:
    """Distances between surface elements below voxel size, with their areas.

    Raises:
        GeometryError: if shapes or spacing do not fit.
    """
    one, two, spacing = _cropped(prediction, reference, spacing_mm)
    sizes = surfels.measures(spacing)
    codes_one, codes_two = (surfels.codes(np.pad(mask, 1)) for mask in (one, two))
    whole = len(sizes) - 1  # all neighbours inside; 0 is none
    pieces_one, pieces_two = ((c != 0) & (c != whole) for c in (codes_one, codes_two))
    return Distances(
        _nearest(pieces_one, pieces_two, spacing),
        _nearest(pieces_two, pieces_one, spacing),
        sizes[codes_one[pieces_one]],
        sizes[codes_two[pieces_two]],
    )


def border(mask: Mask) -> Mask:
    """Mark the voxels that have a face to the outside; what lies beyond the array is outside."""
    if not mask.size:
        return mask
    inner = mask.copy()
    for axis in range(mask.ndim):
        along, kept = np.moveaxis(mask, axis, 0), np.moveaxis(inner, axis, 0)
        kept[1:] &= along[:-1]
        kept[:-1] &= along[1:]
        kept[[0, -1]] = False
    return mask & ~inner


def _nearest(points: Mask, targets: Mask, spacing: tuple[float, ...]) -> Array:
    """Distance from each marked point to the nearest target."""
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    apart = points & ~targets  # where both meet, the distance is 0
    found = np.argwhere(apart) * np.asarray(spacing)
    wanted = np.argwhere(targets) * np.asarray(spacing)
    distance = np.zeros(np.count_nonzero(points))
    if not len(wanted):
        distance[:] = np.inf
    elif len(found) + len(wanted) > DENSE * points.size:
        distance = distance_transform_edt(~targets, sampling=spacing)[points]
    elif len(found):
        tree = cKDTree(wanted, leafsize=32, balanced_tree=False)
        distance[apart[points]] = tree.query(found)[0]
    return distance


def _cropped(
    prediction: Array, reference: Array, spacing_mm: Spacing
) -> tuple[Mask, Mask, tuple[float, ...]]:
    """Cut both masks to the box that holds them, and check the spacing."""
    one, two = as_masks(prediction, reference)
    spacing = np.asarray(spacing_mm, float)
    fits = spacing.shape in ((), (one.ndim,)) and bool((np.isfinite(spacing) & (spacing > 0)).all())
    if one.ndim not in (2, 3) or not fits:
        raise GeometryError(
            f"masks of shape {one.shape} with spacing {spacing_mm}: expected 2 or 3 axes, and one positive "
            "number in mm for each"
        )
    box = _box(one | two)
    return one[box], two[box], tuple(np.broadcast_to(spacing, one.ndim).tolist())


def _box(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds a mask; nothing of an empty one."""
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0))
    return tuple(box)
