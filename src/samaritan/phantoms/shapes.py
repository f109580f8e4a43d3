"""Shapes in millimetres in the patient, each of which tells how far a point is from its surface.

Distances are signed (negative inside), exact enough near the surface to soften it by a voxel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Triple = tuple[float, float, float]
Bounds = tuple[Array, Array]

FAR_MM = 1e4
"""What stands for infinity in bounds."""


class Shape(Protocol):
    """Anything with a signed distance and bounds."""

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm from the surface, negative inside."""

    def bounds(self) -> Bounds:
        """Lowest and highest corner in mm of an upright box that holds the shape."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid, or with an infinite radius a straight tube along that axis.

    Attributes:
        centre_mm: its centre.
        radii_mm: half axes; `FAR_MM` or more along z makes a tube.
        turn_degrees: rotations about x, then y, then z.
    """

    centre_mm: Triple
    radii_mm: Triple
    turn_degrees: Triple = (0.0, 0.0, 0.0)

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm, to first order exact at the surface."""
        turn = rotation(self.turn_degrees).T.astype(np.float32)
        x, y, z = (c - np.float32(m) for c, m in zip((x, y, z), self.centre_mm, strict=True))
        length = np.zeros_like(x)
        slope = np.zeros_like(x)
        for row, radius in zip(turn, self.radii_mm, strict=True):
            if radius >= FAR_MM:
                continue
            along = _weighted(row, x, y, z)
            along *= np.float32(1 / radius)
            along *= along
            length += along
            along *= np.float32(1 / radius**2)
            slope += along
        np.sqrt(length, out=length)
        np.sqrt(slope, out=slope)
        flat = np.float32(1 / max(self.radii_mm))
        slope /= np.maximum(length, np.float32(1e-3))
        np.maximum(slope, flat, out=slope)
        length -= 1
        length /= slope
        return length

    def bounds(self) -> Bounds:
        """The box around it."""
        turned = rotation(self.turn_degrees) * np.asarray(self.radii_mm)
        reach = np.linalg.norm(turned, axis=1)
        centre = np.asarray(self.centre_mm)
        return centre - reach, centre + reach


@dataclass(frozen=True)
class Layers:
    """Parallel layers, one above the other: discs of a spine, ribs of a chest.

    Attributes:
        period_mm: from one layer to the next along z.
        half_mm: half the thickness of a layer.
        slant: how much the layers descend per mm towards the front.
    """

    period_mm: float
    half_mm: float
    slant: float = 0.0

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm from the nearest layer's faces."""
        height = z + np.float32(self.slant) * y
        phase = np.abs(np.mod(height, np.float32(self.period_mm)) - self.period_mm / 2)
        out: Array = (phase - np.float32(self.half_mm)) / np.float32(np.hypot(1, self.slant))
        return out

    def bounds(self) -> Bounds:
        """No bounds."""
        return np.full(3, -FAR_MM), np.full(3, FAR_MM)


@dataclass(frozen=True)
class Solid:
    """The union of some shapes, within all of some others and outside of further ones."""

    parts: tuple[Shape, ...]
    within: tuple[Shape, ...] = ()
    without: tuple[Shape, ...] = ()

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm (at corners a lower bound)."""
        out = self.parts[0].distance(x, y, z)
        for part in self.parts[1:]:
            np.minimum(out, part.distance(x, y, z), out=out)
        for shape in self.within:
            np.maximum(out, shape.distance(x, y, z), out=out)
        for shape in self.without:
            np.maximum(out, -shape.distance(x, y, z), out=out)
        return out

    def bounds(self) -> Bounds:
        """The box around the parts, cut by the boxes of what they lie within."""
        low = np.min([part.bounds()[0] for part in self.parts], axis=0)
        high = np.max([part.bounds()[1] for part in self.parts], axis=0)
        for shape in self.within:
            inner = shape.bounds()
            low, high = np.maximum(low, inner[0]), np.minimum(high, inner[1])
        return low, high


@dataclass(frozen=True)
class Waves:
    """A smooth random field: a sum of plane waves in patient space, one vector of amplitudes each.

    On any affine grid a plane wave is a product over the array axes, so sampling is a matrix product.

    Attributes:
        vectors: (m, 3) wave vectors in radians per mm.
        phases: (m,) radians.
        amplitudes: (m, c) one column for each component of the field.
    """

    vectors: Array = field(repr=False)
    phases: Array = field(repr=False)
    amplitudes: Array = field(repr=False)

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        n: int,
        *,
        wavelength_mm: tuple[float, float],
        amplitude: float,
        components: int = 1,
    ) -> Waves:
        """Draw `n` waves whose sum never exceeds `amplitude` (as a vector)."""
        directions = rng.normal(size=(n, 3))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = rng.uniform(*wavelength_mm, size=(n, 1))
        sizes = rng.normal(size=(n, components))
        sizes *= amplitude / np.linalg.norm(sizes, axis=1).sum()
        return cls(2 * np.pi * directions / lengths, rng.uniform(0, 2 * np.pi, n), sizes)

    def at(self, mm: npt.ArrayLike) -> Array:
        """Evaluate at points (..., 3) in mm: (..., c)."""
        out: Array = np.sin(np.asarray(mm, float) @ self.vectors.T + self.phases) @ self.amplitudes
        return out

    def on_lines(self, left: Array, right: Array, component: int) -> Array:
        """Evaluate one component at every sum of a `left` (n, 3) and a `right` (m, 3) point: (n, m)."""
        one = left @ self.vectors.T + self.phases
        two = right @ self.vectors.T
        size = self.amplitudes[:, component]
        columns = np.hstack([np.sin(one), np.cos(one)]).astype(np.float32)
        rows = np.hstack([np.cos(two) * size, np.sin(two) * size]).astype(np.float32)
        out: Array = columns @ rows.T
        return out


def rotation(degrees: Triple) -> Array:
    """(3, 3): turn about x, then y, then z."""
    out = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one, two = (axis + 1) % 3, (axis + 2) % 3
        turn = np.eye(3)
        turn[one, one] = turn[two, two] = np.cos(angle)
        turn[one, two], turn[two, one] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    return out


def _weighted(row: Array, x: Array, y: Array, z: Array) -> Array:
    """Project on a direction, skipping axes that do not matter."""
    out = np.zeros_like(x)
    for weight, values in zip(row, (x, y, z), strict=True):
        if abs(weight) == 1:
            alone: Array = weight * values
            return alone
        if weight != 0:
            out += weight * values
    return out
