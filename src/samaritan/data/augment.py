"""Augmentation of pictures with what is drawn on them: drawn once, applied to both.

MONAI does the warping, blurring, noise and shading, and is imported when the first picture is changed.
Pictures are (rows, columns, 1 or 3) of 8 bits; planes are (m, rows, columns) of label values or object
numbers, and are never mixed. All randomness comes from the generator that is given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from samaritan.data.jitter import COLORS, GREYS
from samaritan.optional import monai

Array = npt.NDArray[Any]
Interpolation = Literal["linear", "nearest"]

_MODES: dict[Interpolation, str] = {"linear": "bilinear", "nearest": "nearest"}


def turned(pixels: Array, planes: Array, quarters: int, flip: int | None) -> tuple[Array, Array]:
    """Turn both by quarters of a circle, then flip along axis 0 (rows) or 1 (columns)."""
    pixels, planes = np.rot90(pixels, quarters, (0, 1)), np.rot90(planes, quarters, (1, 2))
    if flip is not None:
        pixels, planes = np.flip(pixels, flip), np.flip(planes, flip + 1)
    return np.ascontiguousarray(pixels), np.ascontiguousarray(planes)


@dataclass(frozen=True)
class SamedAugment:
    """SAMed's: half the pictures are turned by quarters and flipped, a quarter rotated, a quarter left.

    Source: hitachinsk/SAMed, datasets/dataset_synapse.py. There images are rotated by nearest neighbour,
    which roughens them; `image="nearest"` does so too.
    """

    image: Interpolation = "linear"
    """How the image is rotated; labels always by nearest neighbour."""

    def __call__(
        self, pixels: Array, planes: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Change one picture."""
        if rng.random() > 0.5:
            return turned(pixels, planes, int(rng.integers(4)), int(rng.integers(2)))
        if rng.random() > 0.5:
            angle = float(rng.integers(-20, 20))
            return warped(pixels, planes, rotate=angle, image=self.image)
        return pixels, planes


@dataclass(frozen=True)
class Geometry:
    """Flips, quarter turns, and a warp: rotation, scale, shear and shift."""

    flip: float = 0.5
    """Probability of each flip."""
    quarters: float = 0.5
    """Probability of a turn by 90, 180 or 270 degrees."""
    warp: float = 0.5
    """Probability of the warp."""
    rotate: float = 25.0
    """Greatest rotation in degrees."""
    scale: tuple[float, float] = (0.75, 1.35)
    """Smallest and greatest size of things, times their own."""
    shear: float = 0.1
    """Greatest shear."""
    shift: float = 0.1
    """Greatest shift, as a part of the side."""
    image: Interpolation = "linear"
    """How the image is warped; labels always by nearest neighbour."""

    def __call__(
        self, pixels: Array, planes: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Change one picture."""
        for axis in (0, 1):
            if rng.random() < self.flip:
                pixels, planes = turned(pixels, planes, 0, axis)
        if rng.random() < self.quarters:
            pixels, planes = turned(pixels, planes, int(rng.integers(1, 4)), None)
        if rng.random() < self.warp:
            low, high = np.log(self.scale)
            shear, shift = rng.uniform(-self.shear, self.shear, 2), rng.uniform(-1, 1, 2)
            pixels, planes = warped(
                pixels,
                planes,
                rotate=float(rng.uniform(-self.rotate, self.rotate)),
                scale=float(np.exp(rng.uniform(low, high))),
                shear=(float(shear[0]), float(shear[1])),
                shift=(float(shift[0] * self.shift), float(shift[1] * self.shift)),
                image=self.image,
            )
        return pixels, planes


@dataclass(frozen=True)
class Intensity:
    """Heavy changes of grey and colour, so that a model carries to other machines and modalities.

    One after the other, each if it is drawn: window, gamma, contrast, inversion, shading, blur, loss
    of resolution, noise, and holes; for pictures in colour first gains, order and loss of colours.
    """

    strength: float = 1.0
    """Times every probability."""

    def __call__(
        self, pixels: Array, planes: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Change the image; planes stay as they are."""
        values = pixels.transpose(2, 0, 1).astype(np.float32)
        steps = [*(COLORS if len(values) == 3 else ()), *GREYS]
        for chance, change in steps:
            if rng.random() < chance * self.strength:
                values = change(values, rng)
        for chance, name in _MONAI:
            if rng.random() < chance * self.strength:
                values = _changed(name, values, rng)
        out = np.rint(np.clip(np.nan_to_num(values), 0, 255)).astype(np.uint8)
        return np.ascontiguousarray(out.transpose(1, 2, 0)), planes


@dataclass(frozen=True)
class Chain:
    """One augmentation after the other."""

    steps: tuple[Callable[[Array, Array, np.random.Generator], tuple[Array, Array]], ...]
    """In the order in which they are applied."""

    def __call__(
        self, pixels: Array, planes: Array, rng: np.random.Generator
    ) -> tuple[Array, Array]:
        """Change one picture."""
        for step in self.steps:
            pixels, planes = step(pixels, planes, rng)
        return pixels, planes


def heavy() -> Chain:
    """The augmentation of the compact model that ships: `Geometry`, then `Intensity`."""
    return Chain((Geometry(), Intensity()))


def upright() -> Chain:
    """Warps and changes of grey without flips and turns: for organs that are told apart by their side."""
    warp = Geometry(flip=0, quarters=0, warp=0.8, rotate=15, scale=(0.85, 1.2))
    return Chain((warp, Intensity(strength=0.5)))


# -- MONAI -------------------------------------------------------------------------------------------

_MONAI = (
    (0.2, "RandBiasField"),
    (0.15, "RandGaussianSmooth"),
    (0.2, "RandSimulateLowResolution"),
    (0.25, "RandGaussianNoise"),
    (0.15, "RandCoarseDropout"),
)
"""Probability and name of MONAI's transforms, in their order."""

_SETTINGS: dict[str, dict[str, Any]] = {
    "RandBiasField": {"degree": 3, "coeff_range": (0.0, 0.25)},
    "RandGaussianSmooth": {"sigma_x": (0.3, 1.6), "sigma_y": (0.3, 1.6)},
    "RandSimulateLowResolution": {"zoom_range": (0.3, 0.9), "upsample_mode": "bilinear"},
    "RandGaussianNoise": {"mean": 0.0, "std": 22.0},
    "RandCoarseDropout": {"holes": 1, "max_holes": 5, "spatial_size": 8, "max_spatial_size": 48},
}


@cache
def _transform(name: str) -> Any:
    """Make one of MONAI's transforms once in each process."""
    transforms = monai("transforms", purpose="augment training images")
    if name == "Affine":
        return transforms.Affine
    return getattr(transforms, name)(prob=1.0, **_SETTINGS[name])


def _changed(name: str, values: Array, rng: np.random.Generator) -> Array:
    """Apply one of MONAI's transforms to (c, rows, columns), seeded by the generator."""
    transform = _transform(name)
    transform.set_random_state(seed=int(rng.integers(2**31)))
    smallest = min(values.shape[1:])
    if name == "RandCoarseDropout" and smallest <= _SETTINGS[name]["max_spatial_size"]:
        return values  # holes would be larger than the picture
    changed = transform(torch.from_numpy(np.ascontiguousarray(values)))
    return np.asarray(torch.as_tensor(changed).numpy(), np.float32)


def warped(
    pixels: Array,
    planes: Array,
    *,
    rotate: float = 0.0,
    scale: float = 1.0,
    shear: tuple[float, float] = (0.0, 0.0),
    shift: tuple[float, float] = (0.0, 0.0),
    image: Interpolation = "linear",
) -> tuple[Array, Array]:
    """Warp both about the centre; what comes from outside is 0.

    Args:
        pixels: (rows, columns, c).
        planes: (m, rows, columns).
        rotate: degrees.
        scale: 2 makes things twice as large.
        shear: along rows and columns.
        shift: as parts of the sides.
        image: how pixels are interpolated; planes always by nearest neighbour.
    """
    sides = np.array(pixels.shape[:2])
    settings = {
        "rotate_params": float(np.deg2rad(rotate)),
        "scale_params": (1 / scale, 1 / scale),
        "shear_params": shear,
        "translate_params": tuple(float(v) for v in -sides * np.array(shift)),
        "padding_mode": "zeros",
        "image_only": True,
    }
    warp = _transform("Affine")(**settings)

    def moved(values: Array, how: Interpolation) -> Array:
        tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
        return np.asarray(torch.as_tensor(warp(tensor, mode=_MODES[how])).numpy())

    values = np.rint(moved(pixels.transpose(2, 0, 1), image))
    new = np.clip(values, 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return np.ascontiguousarray(new), np.rint(moved(planes, "nearest")).astype(planes.dtype)
