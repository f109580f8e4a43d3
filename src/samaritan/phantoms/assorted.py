"""A volume of assorted objects without anatomy: every label an object, for models that learn any object."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.phantoms.arrangement import Arrangement, typical_mm
from samaritan.phantoms.fields import smooth_field
from samaritan.phantoms.objects import Space

Array = npt.NDArray[Any]

SMALLEST_VOXELS = 27
"""An object of which less is seen has no label."""

BRIGHT = 1000.0
"""The value in the image of brightness 1."""


def assorted(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    *,
    rng: np.random.Generator,
    noise: float | None = None,
) -> tuple[Array, Array, dict[int, str]]:
    """Draw a scene and an image of it.

    Returns the image (uint16, mostly 0 to `BRIGHT`), the labels (uint8), and a name for each label.
    """
    space = Space(shape, spacing_mm)
    scene = Arrangement(space, rng)
    scene.fill(255)
    labels, names = _labels(scene)
    contrast = float(rng.uniform(0.2, 0.6)) if rng.random() < 0.3 else 1.0
    value = _painted(scene, contrast)
    drawn = contrast * float(rng.uniform(0, 0.08) * rng.random())
    noise = drawn if noise is None else noise / BRIGHT
    value = _measured(value, space, noise, rng)
    value *= np.float32(BRIGHT)
    np.clip(np.rint(value, out=value), 0, np.iinfo(np.uint16).max, out=value)
    return value.astype(np.uint16), labels, names


def draw_spacing(rng: np.random.Generator) -> tuple[float, float, float]:
    """Draw voxel sides of 1 to 3 mm, in a third of the cases one unlike the other two."""
    sides = np.full(3, rng.uniform(1, 3))
    if rng.random() < 1 / 3:
        sides[rng.integers(3)] = rng.uniform(1, 3)
    a, b, c = (round(float(side), 2) for side in sides)
    return a, b, c


def _labels(scene: Arrangement) -> tuple[Array, dict[int, str]]:
    """Number the objects of which enough is seen."""
    seen = np.bincount(scene.tissue.ravel(), minlength=len(scene.tissues))
    table = np.zeros(len(scene.tissues), np.uint8)
    names = dict[int, str]()
    for index, (tissue, voxels) in enumerate(zip(scene.tissues, seen, strict=True)):
        if tissue.name is not None and voxels >= SMALLEST_VOXELS and len(names) < 255:
            number = len(names) + 1
            table[index] = number
            names[number] = f"{tissue.name} {number}"
    return table[scene.tissue], names


def _painted(scene: Arrangement, contrast: float) -> Array:
    """Fill each voxel with brightness and texture; with little contrast all is of nearly one brightness."""
    rng, space = scene.rng, scene.space
    levels = 0.5 + contrast * (np.array([tissue.level for tissue in scene.tissues]) - 0.5)
    textures = contrast * np.stack([tissue.texture for tissue in scene.tissues])
    value: Array = levels.astype(np.float32)[scene.tissue]
    voxel = float(np.mean(space.spacing_mm))
    scales = (0.0, voxel * rng.uniform(1.2, 3), voxel * rng.uniform(3, 8), typical_mm(space) / 3)
    for column, scale in zip(textures.T.astype(np.float32), scales, strict=True):
        grain = smooth_field(space.shape, space.spacing_mm, float(scale), rng)
        grain *= column[scene.tissue]
        value += grain
    return value


def _measured(value: Array, space: Space, noise: float, rng: np.random.Generator) -> Array:
    """Look at a scene as a scanner does: mixed edges, at times thick slices, uneven sensitivity, noise."""
    from scipy import ndimage

    value = ndimage.gaussian_filter(value, float(rng.uniform(0.35, 0.8)), truncate=2.5)
    thick = rng.random() < 0.25
    early = thick and rng.random() < 0.5
    if early:
        value = _noisy(value, noise, rng)
    if thick:
        value = _thick(value, int(rng.integers(3)), int(rng.integers(2, 6)))
    if rng.random() < 0.5:
        scale = typical_mm(space) * float(rng.uniform(0.4, 1.2))
        bias = smooth_field(space.shape, space.spacing_mm, scale, rng)
        value *= np.exp(np.float32(rng.uniform(0, 0.25)) * bias)
    return value if early else _noisy(value, noise, rng)


def _noisy(value: Array, noise: float, rng: np.random.Generator) -> Array:
    """Add normal or Rician noise."""
    rician = rng.random() < 0.5
    if noise == 0:
        return value
    value = value + np.float32(noise) * rng.standard_normal(value.shape, np.float32)
    if rician:
        imaginary = np.float32(noise) * rng.standard_normal(value.shape, np.float32)
        np.hypot(value, imaginary, out=value)
    return value


def _thick(value: Array, axis: int, voxels: int) -> Array:
    """Average slices of some voxels along an axis, and interpolate between them."""
    n = value.shape[axis]
    of = np.arange(n) // voxels
    count = int(of[-1]) + 1
    mean = (of == np.arange(count)[:, None]).astype(np.float32)
    mean /= mean.sum(axis=1, keepdims=True)
    middles = mean @ np.arange(n)
    between = np.stack([np.interp(np.arange(n), middles, row) for row in np.eye(count)], axis=1)
    seen = np.tensordot((between @ mean).astype(np.float32), value, (1, axis))
    return np.ascontiguousarray(np.moveaxis(seen, 0, axis))
