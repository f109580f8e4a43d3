"""nnU-Net's augmentation of patches with label maps, in torch on the CPU, from a generator that is given.

Turns, scales, noise, blur, brightness, contrast, lost resolution, gamma and flips come as often and as far as
in nnU-Net 2.8.1. Its own package (batchgeneratorsv2) draws from numpy's and torch's global generators, so an
item could not be a function of its turn alone, and it brings scikit-learn and pandas; MONAI's transforms
differ in range and order. Hence these lines, which do no more than is drawn: two of three are only cropped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.data.nnunet.cropping import OUTSIDE
from samaritan.data.nnunet.moving import move, rotation
from samaritan.data.nnunet.resampling import ANISOTROPY

Rng = np.random.Generator


@dataclass(frozen=True)
class PatchAugment:
    """Change a patch (c, *grid) and its labels (*grid) as nnU-Net does; drawn once for both.

    Each field but the last says how often its change is made.
    """

    turn: float = 0.2
    """Turned: by up to 30 degrees around each axis, or anyhow within the slices of a flat patch."""
    scale: float = 0.2
    """Made 0.7 to 1.4 times as small."""
    noise: float = 0.1
    """Gaussian noise of a deviation of up to 0.1."""
    blur: float = 0.2
    """Half of the channels, with a deviation of 0.5 to 1 voxels along each axis."""
    brightness: float = 0.15
    """Multiplied by 0.75 to 1.25."""
    contrast: float = 0.15
    """Drawn away from the mean or towards it, within the range."""
    coarseness: float = 0.25
    """Half of the channels as if they had 0.5 to 1 times as many voxels."""
    inverted_gamma: float = 0.1
    """Raised to a power of 0.7 to 1.5 from the bright end, mean and deviation kept."""
    gamma: float = 0.3
    """The same from the dark end."""
    mirror: float = 0.5
    """Each axis reversed."""
    mirror_axes: tuple[int, ...] = (0, 1, 2)
    """Which axes may be; those of a flat patch are 0 and 1."""

    def read_size(self, patch: Sequence[int]) -> tuple[int, ...]:
        """Say how much must be read around a patch, so that it can be turned.

        Source: `get_patch_size`, with its range of scales (0.85 to 1.25) that is not the one drawn from.
        """
        if not self.turn and not self.scale:
            return tuple(patch)
        start = 1 if in_slices(patch) else 0
        sides = patch[start:]
        corner, angle = np.array(sides, float), math.radians(self._most_degrees(patch))
        angle = min(angle, math.pi / 2)
        reach = corner.copy()
        for one, two in ((1, 2), (2, 0), (0, 1)) if len(sides) == 3 else ((0, 1),):
            for a, b, sign in ((one, two, 1), (two, one, -1)):
                turned = math.cos(angle) * corner[a] + sign * math.sin(angle) * corner[b]
                reach[a] = max(reach[a], abs(turned))
        return (*patch[:start], *(int(n / 0.85) for n in reach))

    def __call__(
        self,
        image: Tensor,
        labels: Tensor,
        patch: Sequence[int],
        rng: Rng,
        masked: Sequence[bool] = (),
    ) -> tuple[Tensor, Tensor]:
        """Give a patch of the wanted size, and its labels.

        Args:
            image: (c, *read_size) float32; it may be changed.
            labels: (*read_size), `OUTSIDE` where nothing is.
            patch: the size that is wanted.
            rng: decides everything.
            masked: of each channel, whether it is zero outside the image.
        """
        image, labels = self._moved(image, labels, patch, rng)
        image = self._intensities(image, rng, in_slices(patch))
        axes = [a for a in self.mirror_axes if a < len(patch) and rng.random() < self.mirror]
        if axes:
            image, labels = image.flip([a + 1 for a in axes]), labels.flip(axes)
        for c, outside_zero in enumerate(masked):
            if outside_zero:
                image[c][labels == OUTSIDE] = 0
        return image, labels

    def _most_degrees(self, patch: Sequence[int]) -> float:
        if len(patch) == 2:
            return 15.0 if max(patch) / min(patch) > 1.5 else 180.0
        return 180.0 if in_slices(patch) else 30.0

    def _moved(
        self, image: Tensor, labels: Tensor, patch: Sequence[int], rng: Rng
    ) -> tuple[Tensor, Tensor]:
        turned, scaled = rng.random() < self.turn, rng.random() < self.scale
        if not turned and not scaled:
            where = tuple(
                slice(n // 2 - p // 2, n // 2 - p // 2 + p)
                for n, p in zip(labels.shape, patch, strict=True)
            )
            return image[(slice(None), *where)].clone(), labels[where].clone()
        most = math.radians(self._most_degrees(patch))
        dims = 2 if in_slices(patch) else len(patch)
        count = 3 if dims == 3 else 1
        angles = rng.uniform(-most, most, count) if turned else np.zeros(count)
        matrix = rotation(angles) * (rng.uniform(0.7, 1.4) if scaled else 1.0)
        return move(image, labels, patch, matrix)

    def _intensities(self, image: Tensor, rng: Rng, flat: bool) -> Tensor:
        channels = range(len(image))
        if rng.random() < self.noise:
            dice = torch.Generator().manual_seed(int(rng.integers(2**62)))
            image = image + torch.randn(image.shape, generator=dice) * rng.uniform(0, 0.1)
        if rng.random() < self.blur:
            for c in channels:
                if rng.random() < 0.5:
                    image[c] = blurred(image[c], rng.uniform(0.5, 1.0, image.ndim - 1))
        if rng.random() < self.brightness:
            for c in channels:
                image[c] *= _factor(rng, 0.75, 1.25)
        if rng.random() < self.contrast:
            for c in channels:
                _contrast(image[c], _factor(rng, 0.75, 1.25))
        if rng.random() < self.coarseness:
            for c in channels:
                if rng.random() < 0.5:
                    image[c] = coarsened(image[c], rng.uniform(0.5, 1.0), keep_first=flat)
        for often, sign in ((self.inverted_gamma, -1), (self.gamma, 1)):
            if rng.random() < often:
                for c in channels:
                    _gamma(image[c], _factor(rng, 0.7, 1.5), sign)
        return image


def in_slices(patch: Sequence[int]) -> bool:
    """Tell whether patches are so flat that slices are turned together, each within itself."""
    return len(patch) == 3 and max(patch) / patch[0] > ANISOTROPY


def blurred(
    image: Tensor, deviations: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]
) -> Tensor:
    """Blur along each axis with a Gaussian of its own; the image is reflected at its border."""
    for axis, deviation in enumerate(deviations):
        half = _taps(float(deviation)) // 2
        at = torch.arange(-half, half + 1)
        kernel = torch.exp(-0.5 * (at / float(deviation)) ** 2)
        weights: list[float] = (kernel / kernel.sum()).tolist()
        n = image.shape[axis]
        around = torch.arange(-half, n + half).abs()
        around = (n - 1 - (n - 1 - around).abs()).clamp(0, n - 1)
        padded = image.index_select(axis, around)
        mixed = padded.narrow(axis, 0, n) * weights[0]
        for tap in range(1, len(weights)):
            mixed.add_(padded.narrow(axis, tap, n), alpha=weights[tap])
        image = mixed
    return image


def coarsened(image: Tensor, scale: float, *, keep_first: bool) -> Tensor:
    """Take the nearest of fewer voxels, and interpolate between them linearly."""
    dims = image.ndim
    sizes = [
        n if keep_first and axis == 0 else max(round(n * scale), 1)
        for axis, n in enumerate(image.shape)
    ]
    few = F.interpolate(image[None, None], size=sizes, mode="nearest-exact")
    mode = {2: "bilinear", 3: "trilinear"}[dims]
    return F.interpolate(few, size=list(image.shape), mode=mode)[0, 0]


def _taps(deviation: float) -> int:
    """Count the taps of a kernel: the odd number next to six deviations and a half."""
    wanted = deviation * 6 + 0.5
    rounded = round(wanted)
    return rounded if rounded % 2 else rounded + (1 if wanted >= rounded else -1)


def _factor(rng: Rng, low: float, high: float) -> float:
    """Draw below 1 as often as above it."""
    return float(rng.uniform(low, 1.0) if rng.random() < 0.5 else rng.uniform(1.0, high))


def _mean_and_deviation(image: Tensor) -> tuple[float, float]:
    """Measure an image; numpy sums in one order, whatever the number of threads."""
    values = image.numpy()
    return float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else 0.0


def _contrast(image: Tensor, factor: float) -> None:
    mean, _ = _mean_and_deviation(image)
    low, high = torch.aminmax(image)
    image.sub_(mean).mul_(factor).add_(mean).clamp_(low, high)


def _gamma(image: Tensor, power: float, sign: int) -> None:
    image.mul_(sign)
    mean, deviation = _mean_and_deviation(image)
    low, high = (float(v) for v in torch.aminmax(image))
    span = high - low
    image.sub_(low).div_(max(span, 1e-7)).pow_(power).mul_(span).add_(low)
    new_mean, new_deviation = _mean_and_deviation(image)
    image.sub_(new_mean).mul_(deviation / max(new_deviation, 1e-7)).add_(mean).mul_(sign)
