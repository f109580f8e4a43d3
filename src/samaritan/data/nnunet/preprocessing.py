"""What nnU-Net does to a case before a network sees it: transpose, crop, normalise, resample, in this order.

Source: `DefaultPreprocessor` of nnU-Net 2.8.1; arrays, boxes and the voxels drawn for oversampling are the
same. Only this order gives the same numbers: statistics are those of the cropped image, before resampling.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.data.nnunet.cropping import Box, crop
from samaritan.data.nnunet.labels import Key, LabelSet
from samaritan.data.nnunet.normalising import USES_MASK, normalise
from samaritan.data.nnunet.plans import Configuration, Plans
from samaritan.data.nnunet.rawset import RawCase
from samaritan.data.nnunet.resampling import new_shape
from samaritan.errors import ConfigError

Array = npt.NDArray[Any]
Places = Mapping[Key, npt.NDArray[np.int32]]

SEED = 1234
MOST_PLACES = 10_000
LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Properties:
    """What the way back needs to know of a case, and nnU-Net keeps of it.

    `spacing` is that of the file, axes k, j and i; shapes and box are after `Plans.transpose_forward`.
    """

    spacing: tuple[float, float, float]
    shape_before_cropping: tuple[int, ...]
    box: Box
    shape_after_cropping: tuple[int, ...]

    def transposed_spacing(self, plans: Plans) -> tuple[float, ...]:
        """Give the spacing in the order of the plans."""
        return tuple(self.spacing[a] for a in plans.transpose_forward)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as a network's patches are cut from it.

    Attributes:
        image: (c, *grid) float32.
        labels: (*grid) int8, or int16 if a label is above 127; -1 where the image is zero all around.
        properties: for the way back.
        places: label or region -> (n, 3) voxels of it, drawn once; empty if labels are not known.
    """

    image: Array
    labels: Array
    properties: Properties
    places: Places


def preprocess(
    raw: RawCase,
    plans: Plans,
    configuration: Configuration,
    labels: LabelSet | None = None,
) -> Prepared:
    """Bring a case to the voxels and intensities of a configuration.

    Args:
        raw: as the files hold it.
        plans: for the transposition and the intensities of the data set.
        configuration: one of the plans.
        labels: what label values mean, to draw places of each; None: draw none.

    Raises:
        ConfigError: if the plans have another number of channels.
    """
    count = len(configuration.normalization)
    if len(raw.image) != count:
        raise ConfigError(
            f"the image has {len(raw.image)} channels, but {plans.where} are for {count}: "
            f"{', '.join(configuration.normalization)}"
        )
    order = plans.transpose_forward
    image = raw.image.copy().transpose(0, *(a + 1 for a in order))
    drawn = None if raw.labels is None else raw.labels.transpose(order)
    before = image.shape[1:]
    image, seg, box = crop(image, drawn)
    found = Properties(raw.spacing, before, box, image.shape[1:])
    _normalise(image, seg, plans, configuration)
    own = found.transposed_spacing(plans)
    wanted = configuration.spacing_for(own)
    shape = new_shape(image.shape[1:], own, wanted)
    image = configuration.resampling["data"](image, shape, own, wanted)
    seg = configuration.resampling["seg"](seg[None], shape, own, wanted)[0]
    places = draw_places(seg, _sought(labels)) if labels and raw.labels is not None else {}
    kind = np.int16 if seg.max(initial=0) > 127 else np.int8
    return Prepared(np.ascontiguousarray(image), seg.astype(kind), found, places)


def _normalise(image: Array, seg: Array, plans: Plans, configuration: Configuration) -> None:
    known = plans.intensities
    for c, scheme in enumerate(configuration.normalization):
        masked = configuration.use_mask[c] and scheme in USES_MASK
        inside = seg >= 0 if masked else None
        intensities = known[c] if c < len(known) else {}
        image[c] = normalise(scheme, image[c], inside=inside, intensities=intensities)


def _sought(labels: LabelSet) -> tuple[Key, ...]:
    """Name what places are drawn for: the foreground and, with an ignored label, all that is decided."""
    decided: tuple[Key, ...] = () if labels.ignore is None else (labels.annotated,)
    return (*labels.foreground, *decided)


def draw_places(seg: Array, keys: Iterable[Key], *, seed: int = SEED) -> dict[Key, Array]:
    """Draw voxels of each label or region, for patches that must show it.

    Each gets all of its voxels up to `MOST_PLACES`, or 1 % of them if that is more, without replacement.

    Source: `_sample_foreground_locations` of nnU-Net 2.8.1, whose draws these are.
    """
    rng = np.random.RandomState(seed)  # nnU-Net's generator: another draws other voxels
    wanted = list(keys)
    flat = seg.ravel()
    every = {v for key in wanted for v in (key if isinstance(key, tuple) else (key,))}
    by_value = {v: np.flatnonzero(flat == v) for v in sorted(every)}
    found: dict[Key, Array] = {}
    for key in wanted:
        voxels = np.concatenate([by_value[v] for v in (key if isinstance(key, tuple) else (key,))])
        if not len(voxels):
            found[key] = np.zeros((0, seg.ndim), np.int32)
            continue
        count = max(min(MOST_PLACES, len(voxels)), int(np.ceil(len(voxels) * LEAST_SHARE)))
        chosen = voxels[rng.choice(len(voxels), count, replace=False)]
        found[key] = np.stack(np.unravel_index(chosen, seg.shape), axis=1).astype(np.int32)
    return found


def without_labels(raw: RawCase) -> RawCase:
    """Give a case as it is when it is to be predicted."""
    return replace(raw, labels=None)
