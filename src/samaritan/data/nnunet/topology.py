"""How deep a U-Net may be for a patch of certain voxels, and how much memory its features would take.

Source: `network_topology.py` and `compute_conv_feature_map_size` behind nnU-Net 2.8.1's planner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SMALLEST = 4
"""No axis of the deepest features gets smaller than this."""

FIRST_FEATURES = 32
CONVOLUTIONS = 2


@dataclass(frozen=True)
class Topology:
    """Strides and kernels of a U-Net, and the patch that they divide evenly."""

    patch_size: tuple[int, ...]
    """Rounded up to what the strides divide."""
    strides: tuple[tuple[int, ...], ...]
    """Of each stage."""
    kernels: tuple[tuple[int, ...], ...]
    """Of each stage."""
    divisor: tuple[int, ...]
    """What the patch is a multiple of."""

    def features(self) -> tuple[int, ...]:
        """Say how many channels each stage has."""
        most = 512 if len(self.patch_size) == 2 else 320
        return tuple(min(most, FIRST_FEATURES * 2**s) for s in range(len(self.strides)))

    def feature_voxels(self, classes: int) -> int:
        """Count the numbers in all features of one patch on its way down and up."""
        size, sizes = list(self.patch_size), []
        for stride in self.strides:
            size = [n // s for n, s in zip(size, stride, strict=True)]
            sizes.append(math.prod(size))
        down = sum(CONVOLUTIONS * f * n for f, n in zip(self.features(), sizes, strict=True))
        up = sum(
            (CONVOLUTIONS + 1) * f * n for f, n in zip(self.features()[:-1], sizes, strict=False)
        )
        return down + up + classes * sizes[0]


def topology_for(spacing: Sequence[float], patch_size: Sequence[float]) -> Topology:
    """Halve axes for as long as they are large enough, the fine ones first.

    An axis is halved while it keeps `SMALLEST` voxels and its voxels are less than twice as long as the
    finest that can be halved; its kernel is 1 until they are less than twice the finest of all.
    """
    dims = len(spacing)
    sides, size = list(spacing), list(patch_size)
    kernel, pools = [1] * dims, [0] * dims
    strides, kernels = [(1,) * dims], []
    while axes := _to_halve(sides, size):
        kernel = [
            3 if k == 3 or s / min(sides) < 2 else 1 for k, s in zip(kernel, sides, strict=True)
        ]
        for axis in axes:
            pools[axis] += 1
            sides[axis] *= 2
            size[axis] = math.ceil(size[axis] / 2)
        strides.append(tuple(2 if a in axes else 1 for a in range(dims)))
        kernels.append(tuple(kernel))
    kernels.append((3,) * dims)
    divisor = tuple(2**p for p in pools)
    padded = tuple(int(-(-n // d) * d) for n, d in zip(patch_size, divisor, strict=True))
    return Topology(padded, tuple(strides), tuple(kernels), divisor)


def _to_halve(sides: Sequence[float], size: Sequence[float]) -> list[int]:
    large = [a for a, n in enumerate(size) if n >= 2 * SMALLEST]
    if not large:
        return []
    finest = min(sides[a] for a in large)
    axes = [a for a in large if sides[a] / finest < 2]
    if len(axes) == 1 and size[axes[0]] < 3 * SMALLEST:
        return []
    return axes
