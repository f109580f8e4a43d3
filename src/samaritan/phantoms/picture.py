"""Flat phantoms: an ultrasound-like, an X-ray-like and a skin-like picture, each with its known mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.phantoms.body import NOTE, Phantom
from samaritan.volume import LabelMap, Volume

Array = npt.NDArray[Any]

_NAMES = {
    "ultrasound": {1: "lesion"},
    "xray": {1: "right lung", 2: "left lung"},
    "skin": {1: "lesion"},
    "shapes": {n: f"shape {n}" for n in range(1, 7)},
}


def phantom_picture(
    kind: Literal["ultrasound", "xray", "skin", "shapes"] = "ultrasound",
    *,
    shape: Sequence[int] = (256, 320),
    seed: int = 0,
) -> Phantom:
    """Compute a flat 8-bit picture with its mask, on `Grid.pixels`.

    Args:
        kind: "ultrasound" (speckle, one dark lesion with its shadow), "xray" (a chest, both lungs),
            "skin" (RGB, one mole) or "shapes" (RGB, no anatomy: up to six regions of any shape, brightness
            and texture, beside and inside each other).
        shape: rows and columns.
        seed: one seed, one picture.

    Raises:
        ConfigError: if `kind` is not known, or the shape is not two numbers of at least 16.

    >>> made = phantom_picture("skin", shape=(64, 80))
    >>> made.image.array.shape, made.labels.names
    ((64, 80, 1, 3), {1: 'lesion'})
    """
    if kind not in _NAMES:
        raise ConfigError(f"no phantom picture of kind {kind!r}; known: {', '.join(_NAMES)}")
    if len(shape) != 2 or min(shape) < 16:
        raise ConfigError(
            f"a phantom picture has rows and columns, 16 or more each, got {tuple(shape)}"
        )
    painters: dict[str, Callable[[Array, Array, np.random.Generator], tuple[Array, Array]]] = {
        "ultrasound": _ultrasound,
        "xray": _xray,
        "skin": _skin,
        "shapes": _shapes,
    }
    rng = np.random.default_rng([seed, 3])
    aspect = shape[1] / shape[0]
    row, column = np.meshgrid(
        np.linspace(-1, 1, shape[0]), np.linspace(-aspect, aspect, shape[1]), indexing="ij"
    )
    value, labels = painters[kind](row, column, rng)
    grid = Grid.pixels(shape)
    image = np.clip(np.rint(value * 255), 0, 255).astype(np.uint8)
    channels = ("R", "G", "B") if image.ndim == 3 else ()
    meta = {"source": "phantom", "modality": kind, "seed": seed}
    return Phantom(
        Volume(np.expand_dims(image, 2), grid, channels=channels, meta=meta, notes=(NOTE,)),
        LabelMap(labels[..., None], grid, meta=meta, notes=(NOTE,), names=_NAMES[kind]),
    )


def _blob(row: Array, column: Array, at: tuple[float, float], radius: float, rng: np.random.Generator,
          *, stretch: float = 1.0, rough: float = 0.12) -> Array:  # fmt: skip
    """Signed distance from a wavy ellipse, in half picture heights, negative inside."""
    down, right = row - at[0], (column - at[1]) / stretch
    angle = np.arctan2(down, right)
    edge = np.full_like(row, radius)
    for waves in (2, 3, 5):
        size = rough * radius / waves * rng.uniform(0.5, 1)
        edge += size * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    out: Array = np.hypot(down, right) - edge
    return out


def _inside(distance: Array, width: float) -> Array:
    """Soften an edge: 1 inside, 0 outside."""
    out: Array = np.clip(0.5 - distance / width, 0, 1)
    return out


def _ultrasound(row: Array, column: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Tissue layers under speckle, and a dark lesion that shadows what is below it."""
    from scipy import ndimage

    at = (float(rng.uniform(-0.15, 0.2)), float(rng.uniform(-0.35, 0.35)))
    radius = float(rng.uniform(0.25, 0.38))
    distance = _blob(row, column, at, radius, rng, stretch=1.3)
    wave = 0.05 * np.sin(3 * column + rng.uniform(0, 6))
    echo = (
        0.34 + 0.16 * np.sin(9 * (row + wave)) + 0.3 * np.exp(-(((row + wave + 0.8) / 0.05) ** 2))
    )
    below = _inside(np.abs(column - at[1]) - radius, 0.4) * _inside(at[0] - row, 0.3)
    echo *= 1 - 0.45 * below
    echo *= 1 - 0.8 * _inside(distance, 0.04)
    echo *= 1.15 - 0.3 * (row + 1) / 2
    speckle = np.hypot(
        *(ndimage.gaussian_filter(rng.normal(size=row.shape), (0.8, 1.4)) for _ in "ri")
    )
    return np.sqrt(np.maximum(echo, 0) * speckle / speckle.mean()) * 0.85, (distance < 0).astype(
        np.uint8
    )


def _xray(row: Array, column: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """A chest from the front: the patient's right lung is on the left of the picture."""
    labels = np.zeros(row.shape, np.uint8)
    body = 1.15 * (1 - (np.abs(column) / 1.35) ** 6) - 0.1 * row
    value = 0.7 * np.clip(body, 0, 1)
    for label, side in ((1, -1), (2, 1)):
        at = (float(rng.uniform(-0.12, -0.04)), side * float(rng.uniform(0.42, 0.46)))
        lung = _blob(row, column, at, 0.66, rng, stretch=0.46, rough=0.05)
        lung = np.maximum(lung, row - 0.45 - 0.15 * np.cos(4 * (column - at[1])))
        labels[lung < 0] = label
        value -= 0.5 * _inside(lung, 0.06)
    ribs = np.sin(22 * (row + 0.35 * column**2) + rng.uniform(0, 6))
    value += 0.09 * _inside(0.55 - ribs, 0.4) * (np.abs(column) < 1.05)
    value += 0.3 * _inside(np.abs(column) - 0.09, 0.12)
    heart = _blob(row, column, (0.3, 0.13), 0.3, rng, stretch=1.1, rough=0.05)
    value += 0.28 * _inside(heart, 0.08)
    labels[heart < 0] = 0
    return value + rng.normal(scale=0.015, size=row.shape), labels


def _skin(row: Array, column: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Skin with a mole, under uneven light."""
    from scipy import ndimage

    at = (float(rng.uniform(-0.2, 0.2)), float(rng.uniform(-0.25, 0.25)))
    distance = _blob(row, column, at, float(rng.uniform(0.3, 0.5)), rng, stretch=1.15, rough=0.25)
    tone = np.array([0.86, 0.66, 0.56]) + rng.uniform(-0.04, 0.04, 3)
    mole = np.array([0.42, 0.25, 0.19]) + rng.uniform(-0.05, 0.05, 3)
    part = _inside(distance, 0.07)[..., None]
    grain = ndimage.gaussian_filter(rng.normal(size=row.shape), 1.5)[..., None] * 0.06
    light = 1 - 0.22 * (row**2 + column**2)[..., None] / 2
    return (tone + part * (mole - tone) + grain) * light, (distance < 0).astype(np.uint8)


def _shapes(row: Array, column: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Regions where one of several smooth random fields is the highest, and blobs laid over them.

    Source of the idea: anatomy from noise (Hoffmann et al. 2022, SynthMorph, arXiv:2004.10282).
    """
    labels = _regions(row.shape, rng)
    for label in rng.permutation(np.arange(1, 7))[: rng.integers(0, 4)]:
        at = (float(rng.uniform(-0.7, 0.7)), float(rng.uniform(-0.7, 0.7)))
        radius, stretch = float(np.exp(rng.uniform(-2.6, -0.7))), float(np.exp(rng.normal() / 3))
        rough = float(rng.uniform(0, 0.6))
        outer = _blob(row, column, at, radius, rng, stretch=stretch, rough=rough)
        labels[outer < 0] = label
        if rng.random() < 0.5:  # a wall about something: a ring, or a crescent
            off = rng.uniform(-0.25, 0.25, 2) * radius
            inner = (at[0] + float(off[0]), at[1] + float(off[1]))
            size = radius * float(rng.uniform(0.4, 0.85))
            core = _blob(row, column, inner, size, rng, stretch=stretch, rough=rough / 2)
            labels[core < 0] = int(rng.integers(0, 7))
    return _painted(labels, rng), labels


def _regions(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Label the higher parts of smooth random fields; of most pictures about half stays background."""
    from scipy import ndimage

    count, width = int(rng.integers(1, 7)), min(shape) * float(np.exp(rng.uniform(-3.2, -1.6)))
    best = np.full(shape, rng.uniform(0.3, 1.3))
    labels = np.zeros(shape, np.uint8)
    for label in range(1, count + 1):
        field = ndimage.gaussian_filter(rng.normal(size=shape), width, mode="wrap")
        field /= field.std() + 1e-9
        labels[field > best] = label
        best = np.maximum(best, field)
    return labels


def _painted(labels: Array, rng: np.random.Generator) -> Array:
    """Give each region a colour and a texture, then shade, blur and roughen the picture."""
    from scipy import ndimage

    value = np.zeros((*labels.shape, 3))
    common = rng.uniform(0, 1)
    for label in range(7):
        grain = rng.normal(size=labels.shape)
        grain = ndimage.gaussian_filter(grain, float(rng.uniform(0, 3)))
        grain *= rng.uniform(0, 0.12) / (grain.std() + 1e-9)
        grey = rng.uniform(0, 1)
        colour = common * grey + (1 - common) * rng.uniform(0, 1, 3)
        inside = labels == label
        value[inside] = colour + grain[inside][:, None]
    light = ndimage.gaussian_filter(rng.normal(size=labels.shape), min(labels.shape) / 4)
    value *= (1 + rng.uniform(0, 0.3) * light / (np.abs(light).max() + 1e-9))[..., None]
    soft = float(rng.uniform(0, 1.8))
    value = ndimage.gaussian_filter(value, (soft, soft, 0))
    out: Array = value + rng.normal(scale=rng.uniform(0, 0.06), size=value.shape)
    return out
