"""Cubes around objects of volumes, to train small 3D models that look at one object at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from samaritan.data.manifest import Case, Manifest
from samaritan.data.sampling import Draw
from samaritan.data.volume_augment import VolumeAugment
from samaritan.data.volume_objects import Item, VolumeObjects, labelled_cases
from samaritan.data.volume_packing import Packed, Progress, Target, pack_volumes
from samaritan.errors import ConfigError
from samaritan.transforms import CubePreprocess
from samaritan.transforms.cubes import cut_cube

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

SPARE = 1.3
"""Side of what is cut out over the side of the cube, so that there is something to turn into it."""

PIECES = 32
"""At most so many connected parts of a structure are objects of their own: the largest."""

_ALONE = 0.9
"""A structure whose largest part holds more of it than this counts as one part."""

_BINARY = {"low": 0.0, "high": 1.0}


@dataclass(frozen=True)
class CubeLooks:
    """How cubes differ from the one that just holds the object."""

    close: tuple[float, float] = (1.15, 2.6)
    """Smallest and greatest side of a close cube, times the object's."""
    inside: float = 0.12
    """Part of cubes that show a part of the object only, so that it goes on beyond them."""
    wide: float = 0.25
    """Part of cubes that are wider than that: up to the whole volume."""
    smallest: float = 10.0
    """Voxels of the input that the object's longest side keeps in a wide cube."""
    off: float = 0.15
    """Greatest distance of the object from the middle, as a part of the cube."""
    turned: float = 0.6
    """Part of cubes that are turned, stretched and bent."""
    rotate: float = 20.0
    """Greatest rotation about each axis in degrees."""
    stretch: float = 0.1
    """Deviation of the logarithm of how much each axis is stretched."""
    bend: float = 0.03
    """Greatest local displacement, as a part of the cube; half of the turned cubes have one."""
    odd: float = 0.2
    """Part of cubes that may be mirrored and turned by quarters any way; others left and right alone."""


class Piece(NamedTuple):
    """One object: a structure, or a connected part of one."""

    case: int
    target: Target
    start: tuple[int, ...]
    """First voxel of its box."""
    mask: Mask | None
    """Itself in its box; None: all of the structure."""


class CubeDataset(VolumeObjects):
    """One object and a cube around it for each turn.

    Items: "image" (1, *size) float32; "masks" (1, *size) bool; "labels" (1), the place of its class in
    `names`; "valid" (1) bool; "index" of the object. Without augmentation the cube is the one that
    inference would place around a box: the same always.

    Args:
        manifest: of volumes with labels of any kind.
        chain: of the model.
        looks: how cubes differ; None: not at all.
        intensity: how often intensities change.
        objects: structures, their connected parts, or both where there are several.
        min_size: voxels of the volume that an object needs.
        channel: which channel of images that have several; None: one drawn for each turn.
        seed: another seed draws otherwise.
        cache, workers, progress: see `samaritan.data.volume_packing.pack_volumes`.

    Attributes:
        cases: of each item.
        names: every class that occurs.
        skipped: objects that are smaller than `min_size`.

    Raises:
        ConfigError: if nothing is left.
    """

    def __init__(
        self,
        manifest: Manifest,
        chain: CubePreprocess,
        *,
        looks: CubeLooks | None = None,
        intensity: float = 0.0,
        objects: Literal["labels", "components", "both"] = "both",
        min_size: int = 1,
        channel: int | None = None,
        seed: int = 0,
        cache: Path | None = None,
        workers: int = 2,
        progress: Progress = lambda done, total: None,
    ) -> None:
        labelled = labelled_cases(manifest)
        self.chain, self.looks, self.channel, self.seed = chain, looks, channel, seed
        self.change = VolumeAugment(flips=0, intensity=intensity) if intensity else None
        self.volumes = pack_volumes(
            labelled, chain, cache=cache, workers=workers, progress=progress
        )
        every = [
            piece
            for index in range(len(labelled))
            for piece in _pieces(index, self.volumes[index], objects)
        ]
        self.pieces = [piece for piece in every if _count(piece) >= min_size]
        self.skipped = len(every) - len(self.pieces)
        if not self.pieces:
            raise ConfigError(f"none of {len(every)} objects has {min_size} voxels: ask for less")
        self.cases: tuple[Case, ...] = tuple(labelled.cases[p.case] for p in self.pieces)
        self.names = tuple(sorted({p.target.structure.name for p in self.pieces}))

    def __getitem__(self, key: int | Draw) -> Item:
        draw = self._draw(key)
        piece = self.pieces[draw.item]
        packed, rng = self.volumes[piece.case], draw.generator(self.seed)
        image, mask = self._cube(packed, piece, rng)
        return self._item(image, mask, piece.target.structure.name, draw)

    def _cube(self, packed: Packed, piece: Piece, rng: np.random.Generator) -> tuple[Floats, Mask]:
        """Cut a cube, and change it as training does."""
        channel = self._channel(packed, rng)
        inside = mask_of(packed, piece)
        if self.looks is None:
            centre, side = _place(packed, piece, inside)
            side = max(side * self.chain.margin, _least(packed))
            planes = self._cut(packed, piece, inside, channel, centre, side, self.chain.size)
            return self._finished(planes)
        for _ in range(4):
            planes = self._look(packed, piece, inside, channel, rng, self.looks)
            if (planes[2] > 127).any():
                break
        else:
            still = replace(self.looks, inside=0.0, wide=0.0, off=0.0, turned=0.0)
            planes = self._look(packed, piece, inside, channel, rng, still)
        image, mask = self._finished(_mirrored(planes, rng, self.looks))
        if self.change is not None:
            content = (image != 0).astype(np.float32)
            image = self.change(image, mask, rng)[0] * (-1 if rng.random() < 0.1 else 1)
            spread = torch.from_numpy(np.ascontiguousarray(image)) * 50
            image = self.chain.normalised(spread, torch.from_numpy(content)).numpy()
        return image, mask

    def _look(
        self,
        packed: Packed,
        piece: Piece,
        inside: Mask,
        channel: int,
        rng: np.random.Generator,
        looks: CubeLooks,
    ) -> Floats:
        """Values, content and mask of a cube of some side and place, turned or not."""
        centre, side = _place(packed, piece, inside)
        if rng.random() < looks.inside:
            centre, side = _within(packed, piece, inside, side, rng)
        else:
            centre, side = _varied(packed, centre, side, self.chain.size[0], rng, looks)
        side = max(side, _least(packed))
        size = self.chain.size
        if rng.random() >= looks.turned:
            return self._cut(packed, piece, inside, channel, centre, side, size)
        large = tuple(round(n * SPARE) for n in size)
        planes = self._cut(packed, piece, inside, channel, centre, side * SPARE, large)
        return _turned(planes, size, rng, looks)

    def _cut(
        self,
        packed: Packed,
        piece: Piece,
        inside: Mask,
        channel: int,
        centre: Array,
        side: float,
        size: tuple[int, ...],
    ) -> Floats:
        """Values of 0..255, content of 0..1 and mask of 0..255 (3, *size)."""
        spacing = np.asarray(packed.meta["spacing_mm"])
        low, high = (centre - side / 2) / spacing, (centre + side / 2) / spacing
        image = packed.image[channel]
        values, content = cut_cube(image, low, high, size, packed.statistics[channel])
        first = np.asarray(piece.start) - 1  # a rim of nothing, since edge values go on
        mask, _ = cut_cube(np.pad(inside, 1), low - first, high - first, size, _BINARY)
        return np.stack([values, content, mask])

    def _finished(self, planes: Floats) -> tuple[Floats, Mask]:
        values, content, mask = planes
        image = self.chain.normalised(torch.from_numpy(values), torch.from_numpy(content))
        return image.numpy(), mask > 127


def mask_of(packed: Packed, piece: Piece) -> Mask:
    """An object in its box."""
    if piece.mask is not None:
        return piece.mask
    return piece.target.structure.mask(
        packed.planes[piece.target.structure.file][_box(piece.target)]
    )


def _pieces(case: int, packed: Packed, objects: str) -> Iterator[Piece]:
    from scipy import ndimage

    for target in packed.targets:
        whole = Piece(case, target, target.start, None)
        if objects == "labels":
            yield whole
            continue
        numbered, _ = ndimage.label(mask_of(packed, whole), np.ones((3, 3, 3)))
        sizes = np.bincount(numbered.ravel())[1:]
        several = sizes.max() < _ALONE * sizes.sum()
        if objects == "both" or not several:
            yield whole
        boxes = ndimage.find_objects(numbered) if several else []
        for number in np.argsort(-sizes)[: min(PIECES, len(boxes))] + 1:
            box = boxes[number - 1]
            start = tuple(a + b.start for a, b in zip(target.start, box, strict=True))
            yield Piece(case, target, start, numbered[box] == number)


def _count(piece: Piece) -> int:
    return piece.target.voxels if piece.mask is None else int(piece.mask.sum())


def _box(target: Target) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(target.start, target.stop, strict=True))


def _place(packed: Packed, piece: Piece, inside: Mask) -> tuple[Array, float]:
    """The middle of an object and its longest side, in mm from the volume's first corner."""
    spacing = np.asarray(packed.meta["spacing_mm"])
    sides = np.asarray(inside.shape) * spacing
    return np.asarray(piece.start) * spacing + sides / 2, float(sides.max())


def _least(packed: Packed) -> float:
    """The smallest side of a cube in mm: eight of the finest voxels."""
    return 8 * float(min(packed.meta["spacing_mm"]))


def _within(
    packed: Packed, piece: Piece, inside: Mask, side: float, rng: np.random.Generator
) -> tuple[Array, float]:
    """A cube about some voxel of the object, smaller than the object is long."""
    spacing = np.asarray(packed.meta["spacing_mm"])
    places = np.flatnonzero(inside)
    voxel = np.unravel_index(int(places[rng.integers(len(places))]), inside.shape)
    centre = (np.asarray(piece.start) + np.asarray(voxel) + 0.5) * spacing
    return centre, side * float(rng.uniform(0.35, 1.1))


def _varied(
    packed: Packed,
    centre: Array,
    side: float,
    size: int,
    rng: np.random.Generator,
    looks: CubeLooks,
) -> tuple[Array, float]:
    """Another cube that shows the object: closer or wider, and off its middle."""
    volume = np.asarray(packed.image.shape[1:]) * np.asarray(packed.meta["spacing_mm"])
    low, high = looks.close
    widest = min(float(volume.max()), side * size / looks.smallest)
    if rng.random() < looks.wide and widest > side * high:
        low, high = high, widest / side
    made = side * math.exp(rng.uniform(math.log(low), math.log(high)))
    most = max(looks.off * made, (made - side) / 2)
    return centre + rng.uniform(-most, most, 3), made


def _turned(
    planes: Floats, size: tuple[int, ...], rng: np.random.Generator, looks: CubeLooks
) -> Floats:
    """Turn, stretch and bend the middle of (3, *spare) into (3, *size)."""
    turn = _rotation(np.radians(rng.uniform(-looks.rotate, looks.rotate, 3)))
    turn = turn @ np.diag(np.exp(rng.normal(size=3) * looks.stretch)) / SPARE
    theta = torch.tensor(np.hstack([turn, np.zeros((3, 1))]), dtype=torch.float32)[None]
    grid = F.affine_grid(theta, [1, 1, *size], align_corners=False)
    if rng.random() < 0.5:
        knots = torch.from_numpy(rng.uniform(-1, 1, (1, 3, 5, 5, 5)).astype(np.float32))
        bent = F.interpolate(knots, list(size), mode="trilinear", align_corners=True)
        grid = grid + bent.movedim(1, -1) * (2 * looks.bend * float(rng.random()))
    values = torch.from_numpy(planes)[None]
    found = F.grid_sample(values, grid, mode="bilinear", align_corners=False)
    turned: Floats = found[0].numpy()
    return turned


def _rotation(angles: Array) -> Array:
    """Rotations about the three axes, one after the other."""
    made = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        one = np.eye(3)
        one[a, a] = one[b, b] = math.cos(angle)
        one[a, b], one[b, a] = -math.sin(angle), math.sin(angle)
        made = made @ one
    return made


def _mirrored(planes: Floats, rng: np.random.Generator, looks: CubeLooks) -> Floats:
    """Mirror left and right, and now and then everything any way."""
    odd = rng.random() < looks.odd
    axes = [axis for axis in range(3) if rng.random() < 0.5 and (odd or axis == 0)]
    planes = np.flip(planes, tuple(axis + 1 for axis in axes))
    if odd:
        order = rng.permutation(3)
        planes = planes.transpose(0, *(order + 1))
    return np.ascontiguousarray(planes)
