"""Crops of volumes to train promptable 3D models on: one object each, binary on the fly.

An item is a pure function of (seed, epoch, turn, object): the same with any number of workers, and after
a run was stopped. The same `WindowPreprocess` makes the input here and in prediction.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from samaritan.data.manifest import Case, Manifest
from samaritan.data.sampling import Draw
from samaritan.data.volume_augment import VolumeAugment
from samaritan.data.volume_objects import Item, VolumeObjects, labelled_cases
from samaritan.data.volume_packing import Packed, Progress, Target, pack_volumes
from samaritan.errors import ConfigError
from samaritan.transforms import WindowPreprocess

Array = npt.NDArray[Any]
Triple = tuple[int, int, int]

Place = Literal["object", "voxel", "random", "mixed"]
"""Where a crop lies: its middle on that of the object's box, as published; on some voxel of the object, as
a click places it in prediction; anywhere as long as a voxel of the object is in it; any of these."""

PLACES = ("object", "voxel", "random", "mixed")


class CropDataset(VolumeObjects):
    """Windows of a model's size around the objects of volumes, one object for each item.

    Items: "image" (1, *size) float32; "masks" (1, *size) bool; "labels" (1), the place of its class in
    `names`; "valid" (1) bool; "index" of the object. Labels are binarised for the object that is asked for.

    In memory is, with `cache`, a crop and the box of its object; without, all volumes on the lattice.

    Args:
        manifest: of volumes with labels of any kind.
        chain: the model's preprocessing.
        place: where crops lie; see `Place`.
        channel: which channel of images that have several; None: one drawn for each turn.
        min_size: voxels of the model's lattice that an object needs. SAM-Med3D asks for 1000.
        min_volume_mm3: volume in the file that an object needs.
        normalise: give intensities of mean 0 and deviation 1; otherwise cut and scaled only.
        augment: changes image and mask together.
        seed: another seed draws otherwise.
        cache, workers, progress: see `samaritan.data.volume_packing.pack_volumes`.

    Attributes:
        cases: of each item.
        names: every class that occurs.
        skipped: objects that are smaller than that; they are left out, once and for all.

    Raises:
        ConfigError: if nothing is left, or the labels of a case have no name.
    """

    def __init__(
        self,
        manifest: Manifest,
        chain: WindowPreprocess,
        *,
        place: Place = "object",
        channel: int | None = None,
        min_size: int = 1,
        min_volume_mm3: float = 0.0,
        normalise: bool = True,
        augment: VolumeAugment | None = None,
        seed: int = 0,
        cache: Path | None = None,
        workers: int = 2,
        progress: Progress = lambda done, total: None,
    ) -> None:
        if place not in PLACES:
            raise ConfigError(f"place is one of {', '.join(PLACES)}, got {place!r}")
        labelled = labelled_cases(manifest)
        self.chain, self.place, self.channel, self.seed = chain, place, channel, seed
        self.normalise, self.augment = normalise, augment
        self.volumes = pack_volumes(
            labelled, chain, cache=cache, workers=workers, progress=progress
        )
        every = [(i, t) for i in range(len(labelled)) for t in self.volumes.targets(i)]
        self.objects = [
            (i, t) for i, t in every if t.voxels >= min_size and t.volume_mm3 >= min_volume_mm3
        ]
        self.skipped = len(every) - len(self.objects)
        if not self.objects:
            raise ConfigError(
                f"none of {len(every)} objects has {min_size} voxels of {chain.spacing_mm or 'its own'} mm "
                f"and {min_volume_mm3:g} mm3: ask for less"
            )
        self.cases: tuple[Case, ...] = tuple(labelled.cases[i] for i, _ in self.objects)
        self.names = tuple(sorted({t.structure.name for _, t in self.objects}))

    def __getitem__(self, key: int | Draw) -> Item:
        draw = self._draw(key)
        case, target = self.objects[draw.item]
        packed, rng = self.volumes[case], draw.generator(self.seed)
        channel = self._channel(packed, rng)
        start = self._start(packed, target, rng)
        image = self._image(packed, channel, start).numpy()
        plane = packed.planes[target.structure.file]
        mask = target.structure.mask(cut(plane, start, self.chain.size))
        if self.augment is not None:
            image, mask = self.augment(image, mask, rng)
        return self._item(image, mask, target.structure.name, draw)

    def _start(self, packed: Packed, target: Target, rng: np.random.Generator) -> Triple:
        """Say which voxel of the lattice is the first of the crop."""
        place, size = self.place, self.chain.size
        if place == "mixed":
            place = ("object", "voxel", "random")[int(rng.integers(3))]
        if place == "object":
            return around(target.start, target.stop, size)
        voxel = _some_voxel(packed, target, rng)
        before = [n // 2 if place == "voxel" else int(rng.integers(n)) for n in size]
        start = tuple(v - b for v, b in zip(voxel, before, strict=True))
        return inside(start, size, packed.planes.shape[1:])

    def _image(self, packed: Packed, channel: int, start: Triple) -> Tensor:
        """Cut, scale and normalise an image, as the chain does with a window of a volume."""
        size, chain = self.chain.size, self.chain
        raw = cut(packed.image[channel], start, size).astype(np.float32)
        known = packed.statistics[channel]
        values = chain.scaled(torch.from_numpy(raw), str(packed.meta.get("modality", "")), known)
        if chain.percentiles is not None:  # what lies outside is 0 after scaling
            ones = np.broadcast_to(np.ones((), np.float32), packed.image.shape[1:])
            values = values * torch.from_numpy(cut(ones, start, size))
        return chain.normalised(values, known)[0] if self.normalise else values


def around(start: Triple, stop: Triple, size: Triple) -> Triple:
    """First voxel of a crop whose middle is that of a box; it may lie outside.

    Source: torchio's CropOrPad around a mask, as SAM-Med3D uses it: half voxels go down.

    >>> around((2, 20, 30), (5, 24, 39), (16, 16, 16))
    (-5, 14, 26)
    """
    i, j, k = ((a + b - n) // 2 for a, b, n in zip(start, stop, size, strict=True))
    return i, j, k


def inside(start: tuple[int, ...], size: Triple, shape: tuple[int, ...]) -> Triple:
    """Move a crop so that it shows as much of the volume as it can, as in prediction."""
    spare = [total - n for total, n in zip(shape, size, strict=True)]
    i, j, k = (
        min(max(s, 0), free) if free >= 0 else free // 2
        for s, free in zip(start, spare, strict=True)
    )
    return i, j, k


def cut(array: Array, start: Triple, size: Triple) -> Array:
    """Cut a crop that may lie partly outside; what is outside is 0. A copy."""
    low = [max(s, 0) for s in start]
    high = [max(min(s + n, total), 0) for s, n, total in zip(start, size, array.shape, strict=True)]
    made = np.zeros(size, array.dtype)
    inner = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    if inner.size:
        made[
            tuple(slice(a - s, a - s + n) for a, s, n in zip(low, start, inner.shape, strict=True))
        ] = inner
    return made


def _some_voxel(packed: Packed, target: Target, rng: np.random.Generator) -> Triple:
    """Draw a voxel of an object evenly, looking at its box only."""
    box = tuple(slice(a, b) for a, b in zip(target.start, target.stop, strict=True))
    mask = target.structure.mask(packed.planes[target.structure.file][box])
    below = mask.sum(axis=(1, 2)).cumsum()
    rank = int(rng.integers(int(below[-1])))
    i = int(np.searchsorted(below, rank, side="right"))
    places = np.flatnonzero(mask[i])
    j, k = np.unravel_index(int(places[rank - (int(below[i - 1]) if i else 0)]), mask.shape[1:])
    first = target.start
    return first[0] + i, first[1] + int(j), first[2] + int(k)
