"""Random objects in a volume, of no anatomy: which voxels they fill.

Each maker is given where about and how large in millimetres, and draws the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.phantoms.fields import smooth_field, spline
from samaritan.phantoms.shapes import rotation

Array = npt.NDArray[Any]
Where = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Space:
    """The voxels to draw in; positions are index times spacing.

    Attributes:
        shape: voxels along each axis.
        spacing_mm: their sides.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]

    @property
    def extent_mm(self) -> Array:
        """How far the voxels reach along each axis."""
        return np.multiply(self.shape, self.spacing_mm)

    def box(self, low: Array, high: Array) -> Where:
        """Voxels between two corners in mm, at least one, cut at the border."""
        start = np.clip(np.floor(low / self.spacing_mm), 0, np.subtract(self.shape, 1)).astype(int)
        stop = np.clip(np.ceil(high / self.spacing_mm) + 1, start + 1, self.shape).astype(int)
        a, b, c = (slice(int(i), int(j)) for i, j in zip(start, stop, strict=True))
        return a, b, c

    def lines(self, where: Where, origin: Array) -> list[Array]:
        """Positions along each axis from `origin`, in mm, shaped to broadcast over the box."""
        return [
            (np.arange(s.start, s.stop, dtype=np.float32) * step - np.float32(o)).reshape(
                [-1 if axis == k else 1 for k in range(3)]
            )
            for axis, (s, step, o) in enumerate(zip(where, self.spacing_mm, origin, strict=True))
        ]

    def field(self, where: Where, scale_mm: float, rng: np.random.Generator) -> Array:
        """Draw a smooth field over a box."""
        return smooth_field([s.stop - s.start for s in where], self.spacing_mm, scale_mm, rng)


@dataclass(frozen=True, eq=False)
class Part:
    """The voxels of an object: a box, and which of its voxels."""

    where: Where
    inside: Array


Maker = Callable[[Space, Array, float, np.random.Generator], Part]


def ellipsoid(space: Space, centre: Array, size: float, rng: np.random.Generator) -> Part:
    """A turned ellipsoid, at times nearly a brick, its surface smooth to bumpy."""
    radii = size * np.exp(rng.normal(size=3) * rng.uniform(0, 0.5))
    power = int(rng.choice((2, 2, 2, 4, 8)))
    rough = float(rng.choice((0.0, rng.uniform(0, 0.15), rng.uniform(0.1, 0.3))))
    return _egg(space, centre, radii, rng, power=power, rough=rough)


def blob(space: Space, centre: Array, size: float, rng: np.random.Generator) -> Part:
    """The largest piece of a smooth field's high part near the centre: any form."""
    where = space.box(centre - 1.5 * size, centre + 1.5 * size)
    away = sum(line**2 for line in space.lines(where, centre)) / np.float32((1.1 * size) ** 2)
    field = space.field(where, size * float(rng.uniform(0.35, 0.9)), rng)
    return Part(where, _largest(field + rng.uniform(0.7, 1.3) > 1.6 * away))


def plate(space: Space, centre: Array, size: float, rng: np.random.Generator) -> Part:
    """A bent sheet of varying thickness."""
    where = space.box(centre - 1.4 * size, centre + 1.4 * size)
    u, v, w = _turned(space.lines(where, centre), rng)
    edge = float(rng.uniform(0.5, 1)) * v
    rim = u**2 + edge**2 < np.float32(size**2)
    w += np.float32(size * rng.uniform(0, 0.3)) * space.field(where, 0.9 * size, rng)
    half = size * float(np.exp(rng.uniform(-3, -1.2)))
    thick = np.exp(np.float32(0.35) * space.field(where, 0.5 * size, rng))
    thick *= np.float32(max(half, 0.6 * max(space.spacing_mm)))
    return Part(where, rim & (np.abs(w) < thick))


def tube(space: Space, centre: Array, size: float, rng: np.random.Generator) -> Part:
    """A bent tube of varying radius, at times with branches."""
    radius = size * float(np.exp(rng.uniform(-2.6, -1.1)))
    path, radii = _walk(centre, 2.5 * size, radius, rng)
    paths, widths = [path], [radii]
    for _ in range(int(rng.choice((0, 0, 0, 1, 3)))):
        start = int(rng.integers(len(path) // 5, len(path)))
        branch, thin = _walk(path[start], 1.5 * size, float(radii[start]) * 0.7, rng)
        paths.append(branch)
        widths.append(thin)
    return _balls(space, np.concatenate(paths), np.concatenate(widths))


def cluster(space: Space, centre: Array, size: float, rng: np.random.Generator) -> Part:
    """Several small lesions that are one object."""
    count = int(rng.integers(3, 13))
    centres = centre + rng.normal(size=(count, 3)) * 0.8 * size
    radii = np.maximum(size * np.exp(rng.uniform(-2.4, -0.9, count)), 1.1 * max(space.spacing_mm))
    reach = 1.8 * radii[:, None]
    where = space.box((centres - reach).min(axis=0), (centres + reach).max(axis=0))
    inside = np.zeros([s.stop - s.start for s in where], bool)
    offset = [s.start for s in where]
    for at, radius in zip(centres, radii, strict=True):
        if (at < 0).any() or (at > space.extent_mm).any():
            continue
        one = _egg(space, at, radius * rng.uniform(0.7, 1.3, 3), rng, rough=0.15)
        inside[_within(one.where, offset)] |= one.inside
    return Part(where, inside)


def hollow(space: Space, centre: Array, size: float, rng: np.random.Generator) -> tuple[Part, Part]:
    """An organ with a wall, and the cavity in it, which at times breaks through."""
    radii = size * np.exp(rng.normal(size=3) * 0.25)
    state = rng.integers(2**32)
    rough = float(rng.uniform(0, 0.2))
    outer = _egg(space, centre, radii, np.random.default_rng(state), rough=rough)
    shrink = float(rng.uniform(0.45, 0.88))
    moved = centre + rng.uniform(-1, 1, 3) * (1 - shrink) * radii * 0.6
    # the same draws turn both alike
    inner = _egg(space, moved, shrink * radii, np.random.default_rng(state), rough=rough)
    return outer, inner


def pieces(space: Space, part: Part, count: int, rng: np.random.Generator) -> list[Part]:
    """Cut an object into up to `count` that touch, along bent surfaces."""
    size = float(
        np.linalg.norm([n * s for n, s in zip(part.inside.shape, space.spacing_mm, strict=True)])
    )
    filled = np.argwhere(part.inside)
    if len(filled) == 0:
        return [part]
    lines = space.lines(part.where, np.zeros(3))
    bend = 0.1 * size * space.field(part.where, 0.3 * size, rng)
    best = np.full(part.inside.shape, np.inf, np.float32)
    owner = np.zeros(part.inside.shape, np.uint8)
    for number in range(count):
        index = filled[rng.integers(len(filled))] + [s.start for s in part.where]
        at = index * np.asarray(space.spacing_mm)
        away = np.sqrt(sum((line - np.float32(o)) ** 2 for line, o in zip(lines, at, strict=True)))
        away += bend * np.float32(rng.uniform(-1, 1))
        nearer = away < best
        owner[nearer] = number
        np.minimum(best, away, out=best)
    return [Part(part.where, part.inside & (owner == n)) for n in range(count)]


def _egg(space: Space, centre: Array, radii: Array, rng: np.random.Generator, *,
         power: int = 2, rough: float = 0.0) -> Part:  # fmt: skip
    """A turned ellipsoid with a bumpy surface; higher powers have corners."""
    reach = (1 + 2 * rough) * float(max(radii)) * (1 if power == 2 else 1.5)
    where = space.box(centre - reach, centre + reach)
    total: Any = np.float32(0)
    for line, radius in zip(_turned(space.lines(where, centre), rng), radii, strict=True):
        line *= np.float32(1 / radius)
        for _ in range(power.bit_length() - 1):
            line *= line
        total = total + line
    if rough == 0:
        return Part(where, total < 1)
    bump = space.field(where, float(np.mean(radii)) * float(rng.uniform(0.3, 0.9)), rng)
    return Part(where, total < np.maximum(1 + np.float32(rough) * bump, np.float32(0.1)) ** power)


def _turned(lines: Sequence[Array], rng: np.random.Generator) -> list[Array]:
    """Coordinates along three random axes at right angles."""
    alpha, beta, gamma = rng.uniform(0, 360, 3)
    turn = rotation((float(alpha), float(beta), float(gamma))).astype(np.float32)
    return [row[0] * lines[0] + row[1] * lines[1] + row[2] * lines[2] for row in turn]


def _walk(
    start: Array, length: float, radius: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """A smooth path that begins at `start`, its points closer than a radius; and a radius at each."""
    knots = int(rng.integers(5, 9))
    steps = rng.normal(size=3) * 0.8 + rng.normal(size=(knots, 3)) * rng.uniform(0.2, 1)
    steps *= length / knots / np.linalg.norm(steps, axis=1, keepdims=True)
    count = min(max(int(2.5 * length / radius), 8), 400)
    along = np.linspace(0, knots - 3, count)
    path = spline(np.cumsum(steps, axis=0), along)
    radii = radius * np.exp(spline(rng.normal(size=knots) * rng.uniform(0.05, 0.5), along))
    return path - path[0] + start, radii


def _balls(space: Space, points: Array, radii: Array) -> Part:
    """Balls about points, and the voxels of the points themselves."""
    points, radii = (
        values[
            ((points > -radii[:, None]) & (points < space.extent_mm + radii[:, None])).all(axis=1)
        ]
        for values in (points, radii)
    )
    if len(points) == 0:
        return Part(space.box(np.zeros(3), np.zeros(3)), np.zeros((1, 1, 1), bool))
    reach = radii[:, None]
    where = space.box((points - reach).min(axis=0), (points + reach).max(axis=0))
    inside = np.zeros([s.stop - s.start for s in where], bool)
    offset = [s.start for s in where]
    for at, radius in zip(points, radii, strict=True):
        box = space.box(at - radius, at + radius)
        away = sum(line**2 for line in space.lines(box, at))
        inside[_within(box, offset)] |= away < np.float32(radius**2)
    nearest = np.rint(points / space.spacing_mm).astype(int)
    nearest = nearest[((nearest >= 0) & (nearest < space.shape)).all(axis=1)] - offset
    inside[tuple(nearest.T)] = True
    return Part(where, inside)


def _within(where: Where, offset: Sequence[int]) -> Where:
    """A box as seen from a larger box that begins at `offset`."""
    a, b, c = (slice(s.start - o, s.stop - o) for s, o in zip(where, offset, strict=True))
    return a, b, c


def _largest(inside: Array) -> Array:
    """The largest connected piece."""
    from scipy import ndimage

    pieces_of, count = ndimage.label(inside)
    if count < 2:
        return inside
    out: Array = pieces_of == 1 + np.argmax(np.bincount(pieces_of.ravel())[1:])
    return out
