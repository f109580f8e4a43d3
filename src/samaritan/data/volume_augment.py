"""Augmentation of crops of volumes: flips and turns of image and mask together, intensities of the image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_PLANES = ((0, 1), (1, 2), (0, 2))


@dataclass(frozen=True)
class VolumeAugment:
    """Change a normalised crop (i, j, k) and its mask; drawn once for both.

    SAM-Med3D has flips of 0.5 alone; NeuroSAM3D flips and turns of 0.3 and intensities of 0.5.
    """

    flips: float = 0.5
    """How often each axis is reversed."""
    turns: float = 0.0
    """How often the crop is turned in each of the three planes: a quarter turn if its sides are equal
    there, else a half turn."""
    intensity: float = 0.0
    """How often one of the changes of intensity is made."""

    def __call__(self, image: Image, mask: Mask, rng: np.random.Generator) -> tuple[Image, Mask]:
        """Take and give image and mask of one shape."""
        flipped = tuple(a for a in range(3) if rng.random() < self.flips)
        image, mask = np.flip(image, flipped), np.flip(mask, flipped)
        for plane in _PLANES:
            if rng.random() < self.turns:
                square = image.shape[plane[0]] == image.shape[plane[1]]
                times = int(rng.integers(1, 4)) if square else 2
                image, mask = np.rot90(image, times, plane), np.rot90(mask, times, plane)
        if rng.random() < self.intensity:
            image = _CHANGES[int(rng.integers(len(_CHANGES)))](image, rng)
        return np.ascontiguousarray(image, np.float32), np.ascontiguousarray(mask)


def _contrast(image: Image, rng: np.random.Generator) -> Any:
    """Raise intensities to a power between their ends."""
    low, high = float(image.min()), float(image.max())
    power = float(np.exp(rng.uniform(np.log(0.5), np.log(2.0))))
    span = max(high - low, 1e-6)
    return low + span * ((image - low) / span) ** power


def _noise(image: Image, rng: np.random.Generator) -> Any:
    return image + rng.normal(0, rng.uniform(0.02, 0.3), image.shape).astype(np.float32)


def _smooth(image: Image, rng: np.random.Generator) -> Any:
    from scipy import ndimage

    return ndimage.gaussian_filter(image, rng.uniform(0.3, 1.2))


def _sharpen(image: Image, rng: np.random.Generator) -> Any:
    from scipy import ndimage

    return image + rng.uniform(0.3, 1.0) * (image - ndimage.gaussian_filter(image, 1.0))


def _shift(image: Image, rng: np.random.Generator) -> Any:
    """Make it brighter or darker, stronger or weaker."""
    return image * rng.uniform(0.8, 1.25) + rng.uniform(-0.3, 0.3)


def _shade(image: Image, rng: np.random.Generator) -> Any:
    """Lay a slope over it, as coils of a scanner do."""
    slopes = rng.uniform(-0.3, 0.3, 3)
    axes = [slope * np.linspace(-1, 1, n) for slope, n in zip(slopes, image.shape, strict=True)]
    return image * (1 + axes[0][:, None, None] + axes[1][:, None] + axes[2])


_CHANGES: tuple[Callable[[Image, np.random.Generator], Any], ...] = (
    _contrast, _noise, _smooth, _sharpen, _shift, _shade,
)  # fmt: skip
