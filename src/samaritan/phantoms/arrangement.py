"""Random objects beside, in and on each other, over a background of regions; each with its brightness.

Source of the idea: anatomy from noise (Hoffmann et al. 2022, SynthMorph, arXiv:2004.10282).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.phantoms import objects
from samaritan.phantoms.objects import Maker, Part, Space, ellipsoid

Array = npt.NDArray[Any]

TEXTURES = 4
"""How many fields each tissue mixes: fine grain, two coarser ones, and slow shading."""

_MAKERS: dict[str, tuple[Maker, float]] = {
    "ellipsoid": (ellipsoid, 0.25),
    "blob": (objects.blob, 0.27),
    "tube": (objects.tube, 0.2),
    "plate": (objects.plate, 0.14),
    "cluster": (objects.cluster, 0.14),
}
"""What one object may be, and how often."""

_CUT, _HOLLOW = 0.14, 0.14
"""How often an object is cut into parts that touch, or has a wall and a cavity."""


@dataclass(frozen=True, eq=False)
class Tissue:
    """What fills some voxels.

    Attributes:
        level: brightness, about 0 to 1.
        texture: (TEXTURES,) how much of each field it shows.
        name: what kind of object it is; None for background, which has no label.
    """

    level: float
    texture: Array
    name: str | None = None

    @property
    def roughness(self) -> float:
        """Standard deviation of the brightness."""
        return float(np.linalg.norm(self.texture))


@dataclass(eq=False)
class Arrangement:
    """Which tissue each voxel shows: objects are laid one over the other.

    Attributes:
        space: the voxels.
        rng: where the draws come from.
        tissue: index into `tissues`, one a voxel.
        tissues: what has been used so far.
    """

    space: Space
    rng: np.random.Generator
    tissue: Array = field(init=False)
    tissues: list[Tissue] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with a background of one to five regions, some of them objects, at times in air."""
        rng, size = self.rng, typical_mm(self.space)
        self.tissue = np.zeros(self.space.shape, np.int16)
        whole = (slice(0, None), slice(0, None), slice(0, None))
        everywhere = self.space.box(np.zeros(3), self.space.extent_mm)
        best = np.full(self.space.shape, -np.inf, np.float32)
        scale, objects = size * float(np.exp(rng.uniform(-2, -0.5))), rng.random() < 0.3
        count = int(rng.choice((1, 2, 3, 4, 5)))
        for number in range(count):
            height = self.space.field(everywhere, scale, rng) + np.float32(rng.uniform(-0.5, 0.5))
            higher = height > best
            self.tissue[higher] = number
            np.maximum(best, height, out=best)
            name = "region" if objects and number > 0 else None
            self.tissues.append(Tissue(rng.uniform(0.1, 1), _texture(rng), name))
        if rng.random() < 0.4:
            middle = self.space.extent_mm / 2
            body = ellipsoid(self.space, middle, size * float(rng.uniform(0.45, 0.75)), rng)
            outside = np.ones(self.space.shape, bool)
            outside[body.where] = ~body.inside
            self.tissue[whole][outside] = len(self.tissues)
            dark = float(rng.choice((0, 0, 0, rng.uniform(0, 1))))
            self.tissues.append(Tissue(dark, np.zeros(TEXTURES)))

    def fill(self, room: int) -> None:
        """Lay objects, large ones first, each with its parts and what lies in it, up to `room` labels."""
        rng, typical = self.rng, typical_mm(self.space)
        count = int(rng.integers(6, 20))
        sizes = np.sort(typical * np.exp(rng.uniform(-3.2, -1.0, count)))[::-1]
        for size in sizes:
            if sum(t.name is not None for t in self.tissues) + 8 > room:
                break
            centre = rng.uniform(0.04, 0.96, 3) * self.space.extent_mm
            chance = rng.random()
            if chance < _CUT:
                self._cut(centre, float(size))
            elif chance < _CUT + _HOLLOW:
                self._hollow(centre, float(size))
            else:
                self._one(centre, float(size))

    def _one(self, centre: Array, size: float) -> None:
        """Lay an object, at times with lesions in it."""
        names = list(_MAKERS)
        chances = np.array([often for _, often in _MAKERS.values()])
        name = str(self.rng.choice(names, p=chances / chances.sum()))
        part = _MAKERS[name][0](self.space, centre, size, self.rng)
        placed = self._lay(part, name)
        if name in ("ellipsoid", "blob") and self.rng.random() < 0.4:
            self._lesions(part, placed, size)

    def _lesions(self, host: Part, tissue: int, size: float) -> None:
        """Lay one to three lesions inside an object."""
        for _ in range(int(self.rng.choice((1, 1, 2, 3)))):
            filled = np.argwhere(self.tissue[host.where] == tissue)
            if len(filled) == 0:
                return
            index = filled[self.rng.integers(len(filled))] + [s.start for s in host.where]
            make = (ellipsoid, ellipsoid, objects.blob, objects.cluster)[int(self.rng.integers(4))]
            small = size * float(self.rng.uniform(0.12, 0.5))
            part = make(self.space, index * np.asarray(self.space.spacing_mm), small, self.rng)
            part.inside[...] &= self.tissue[part.where] == tissue
            self._lay(part, "lesion")

    def _cut(self, centre: Array, size: float) -> None:
        """Lay an object in two to four parts of nearly one brightness."""
        make = (ellipsoid, objects.blob, objects.tube, objects.plate)[int(self.rng.integers(4))]
        whole = make(self.space, centre, size, self.rng)
        shared = self._look(whole)
        for part in objects.pieces(self.space, whole, int(self.rng.integers(2, 5)), self.rng):
            apart = float(self.rng.uniform(0.03, 0.2)) + 0.5 * shared.roughness
            apart *= int(self.rng.choice((-1, 1)))
            own = shared.texture * self.rng.uniform(0.5, 1.5, TEXTURES)
            self._lay(part, "part", Tissue(shared.level + apart, own, "part"))

    def _hollow(self, centre: Array, size: float) -> None:
        """Lay a wall and a cavity; what fills it may have no label of its own."""
        outer, inner = objects.hollow(self.space, centre, size, self.rng)
        self._lay(outer, "wall")
        self._lay(inner, "cavity" if self.rng.random() < 0.75 else None)

    def _look(self, part: Part, name: str | None = None) -> Tissue:
        """Draw how an object looks beside what lies there: brighter, darker, or of another texture."""
        under = self.tissue[part.where][part.inside]
        host = self.tissues[int(np.bincount(under).argmax())] if under.size else self.tissues[0]
        texture = _texture(self.rng)
        if self.rng.random() < 0.12:
            apart, texture[:3] = 0.03, texture[:3] + self.rng.uniform(0.05, 0.15, 3)
        else:
            apart = float(np.exp(self.rng.uniform(-2.4, -0.5))) + 0.7 * host.roughness
        if self.rng.random() < 0.5:  # like its surroundings but for the brightness
            texture = host.texture
        up = self.rng.random() < 0.5
        if host.level - apart < 0.1 or host.level + apart > 1.1:
            up = host.level < 0.5
        return Tissue(host.level + (apart if up else -apart), texture, name)

    def _lay(self, part: Part, name: str | None, look: Tissue | None = None) -> int:
        """Lay an object over what is there; returns its tissue."""
        self.tissues.append(look or self._look(part, name))
        self.tissue[part.where][part.inside] = len(self.tissues) - 1
        return len(self.tissues) - 1


def typical_mm(space: Space) -> float:
    """How large the volume is: the middle one of its sides."""
    return float(np.median(space.extent_mm))


def _texture(rng: np.random.Generator) -> Array:
    """Draw how much of each field a tissue shows; many are nearly plain."""
    return rng.uniform(0, 1, TEXTURES) ** 2 * float(rng.choice((0.01, 0.04, 0.08, 0.15)))
