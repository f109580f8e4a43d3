"""The way back: what a network says of a preprocessed case, on the grid of its file.

Logits are resampled to the cropped image, the crop is put back, and axes return to their order, as nnU-Net
does. Linear resampling goes axis by axis, so it needs no more of the logits than the slices around
those that it makes: whoever predicts may hand over slices as they are finished, and no array of all classes
of a whole volume is ever made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from samaritan.data.nnunet.cropping import slices_of
from samaritan.data.nnunet.labels import LabelSet
from samaritan.data.nnunet.plans import Configuration, Plans
from samaritan.data.nnunet.preprocessing import Properties
from samaritan.data.nnunet.rawset import to_file
from samaritan.data.nnunet.resampling import Resampling, nearest_index, thick_axis
from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.volume import LabelMap, smallest_label_dtype

Array = npt.NDArray[Any]
Slab = tuple[int, Tensor]
"""First slice, and logits (heads, slices, rows, columns) of it and those that follow."""


@dataclass(frozen=True)
class WayBack:
    """From the grid that a network saw to the grid of the file.

    Attributes:
        plans: that were followed.
        configuration: one of them.
        labels: what heads mean.
        properties: of the case.
        shape: of the preprocessed image.
    """

    plans: Plans
    configuration: Configuration
    labels: LabelSet
    properties: Properties
    shape: tuple[int, ...]

    def label_map(self, slabs: Iterable[Slab], grid: Grid) -> LabelMap:
        """Label the file's grid from logits on the preprocessed one.

        Args:
            slabs: logits, slice after slice; each slice once.
            grid: of the file.
        """
        array = to_file(self.labels_from(slabs), grid)
        return LabelMap(array, grid, names=self.labels.titles())

    def labels_from(self, slabs: Iterable[Slab]) -> Array:
        """Label the file's voxels, axes k, j and i: the largest logit, or regions above one half."""
        cropped = np.zeros(self.properties.shape_after_cropping, self._dtype)
        for first, logits in self.resampled(slabs):
            cropped[first : first + logits.shape[1]] = decide(logits, self.labels).numpy()
        return self._uncropped(cropped)

    def probabilities_from(self, slabs: Iterable[Slab]) -> Array:
        """Give each head's probability at the file's voxels: (heads, k, j, i) float32, all in memory.

        Where the image was cropped away the background is certain, and no region is there.
        """
        before = self.properties.shape_before_cropping
        made = np.zeros((self.labels.heads, *before), np.float32)
        if not self.labels.has_regions:
            made[0] = 1
        inside = made[(slice(None), *slices_of(self.properties.box))]  # a view
        for first, logits in self.resampled(slabs):
            inside[:, first : first + logits.shape[1]] = probabilities(logits, self.labels).numpy()
        return made.transpose(0, *(a + 1 for a in self.plans.transpose_backward))

    def restored(self, array: Array) -> Array:
        """Take a label map on the preprocessed grid to the file's voxels, axes k, j and i."""
        own = self.properties.transposed_spacing(self.plans)
        spacing = self.configuration.spacing_for(own)
        resample = self.configuration.resampling["seg"]
        inner = resample(array[None], self.properties.shape_after_cropping, spacing, own)[0]
        return self._uncropped(np.maximum(inner, 0).astype(self._dtype))

    def resampled(self, slabs: Iterable[Slab]) -> Iterator[Slab]:
        """Yield logits on the cropped image, slice after slice, holding those that are still needed.

        Raises:
            ConfigError: if slices are missing, or the plans resample otherwise than linearly.
        """
        across, rows, columns = self._lines()
        waiting: dict[int, Tensor] = {}
        done, seen, total = 0, 0, len(across.below)
        for first, logits in slabs:
            if first != seen or logits.shape[0] != self.labels.heads:
                raise ConfigError(
                    f"logits of {logits.shape[0]} heads from slice {first} on were given; expected "
                    f"{self.labels.heads} heads from slice {seen} on"
                )
            for plane in logits.unbind(dim=1):
                waiting[seen] = columns.along(rows.along(plane.float().cpu(), 1), 2)
                seen += 1
                while done < total and across.above[done] < seen:
                    one, two = waiting[int(across.below[done])], waiting[int(across.above[done])]
                    share = float(across.share[done])
                    yield done, (torch.lerp(one, two, share) if share else one)[:, None]
                    done += 1
                keep = int(across.below[done]) if done < total else seen
                waiting = {z: plane for z, plane in waiting.items() if z >= keep}
        if seen != self.shape[0] or done < total:
            raise ConfigError(f"logits of {seen} slices were given; expected {self.shape[0]}")

    def _lines(self) -> tuple[_Line, _Line, _Line]:
        how: Resampling = self.configuration.resampling["probabilities"]
        if how.order not in (0, 1) or how.order_z not in (0, 1) or how.labels:
            raise ConfigError(
                f"{self.plans.where} resample probabilities with splines of order {how.order}; "
                "only 0 (nearest) and 1 (linear) are known here"
            )
        own = self.properties.transposed_spacing(self.plans)
        thick = thick_axis(self.configuration.spacing_for(own), own, how.separate)
        sizes = zip(self.shape, self.properties.shape_after_cropping, strict=True)
        across, rows, columns = (
            _Line.of(count, new, how.order_z if axis == thick else how.order)
            for axis, (count, new) in enumerate(sizes)
        )
        return across, rows, columns

    def _uncropped(self, cropped: Array) -> Array:
        whole = np.zeros(self.properties.shape_before_cropping, cropped.dtype)
        whole[slices_of(self.properties.box)] = cropped
        return whole.transpose(self.plans.transpose_backward)

    @property
    def _dtype(self) -> np.dtype[Any]:
        return smallest_label_dtype(max(self.labels.values))


def decide(logits: Float[Tensor, "heads k j i"], labels: LabelSet) -> Tensor:
    """Label voxels: the value of the largest logit, or the last region in order that is above one half."""
    if labels.region_order is None:
        values = torch.tensor(labels.values)
        return values[
            logits.max(dim=0).indices
        ]  # torch's argmax over a first axis is 30 times slower
    found = torch.zeros(logits.shape[1:], dtype=torch.int64)
    for head, value in enumerate(labels.region_order):
        found[logits[head].sigmoid() > 0.5] = value
    return found


def probabilities(logits: Float[Tensor, "heads k j i"], labels: LabelSet) -> Tensor:
    """Turn logits into probabilities: classes exclude each other, regions do not."""
    return logits.sigmoid() if labels.has_regions else logits.softmax(dim=0)


def slabs_of(logits: Float[Tensor, "heads k j i"] | Array, size: int = 8) -> Iterator[Slab]:
    """Hand over logits that are in memory, some slices at a time."""
    whole = torch.as_tensor(logits)
    for start in range(0, whole.shape[1], size):
        yield start, whole[:, start : start + size]


@dataclass(frozen=True, eq=False)
class _Line:
    """Linear interpolation along one axis: for each new voxel two old ones, and the share of the second."""

    below: Tensor
    above: Tensor
    share: Tensor
    same: bool

    @classmethod
    def of(cls, count: int, new: int, order: int) -> _Line:
        """From `count` voxels to `new` over the same length; the edge goes on outside."""
        if order == 0:
            nearest = torch.from_numpy(nearest_index(count, new))
            return cls(nearest, nearest, torch.zeros(new), count == new)
        at = count / new * (torch.arange(new, dtype=torch.float64) + 0.5) - 0.5
        at = at.clamp(0, count - 1)
        below = at.floor().long()
        share = (at - below).float()
        above = torch.where(share > 0, below + 1, below)
        return cls(below, above, share, count == new)

    def along(self, array: Tensor, dim: int) -> Tensor:
        """Interpolate an array along one of its axes."""
        if self.same:
            return array
        one = array.index_select(dim, self.below)
        if not self.share.any():
            return one
        shape = [-1 if d == dim else 1 for d in range(array.ndim)]
        return torch.lerp(one, array.index_select(dim, self.above), self.share.reshape(shape))
