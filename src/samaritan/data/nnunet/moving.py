"""Turn and scale patches with their labels, sampling each voxel once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.data.nnunet.cropping import OUTSIDE


def rotation(angles: Sequence[float] | np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    """Turn by one angle in a plane, or by three around axes 0, 1 and 2 after one another."""
    if len(angles) == 1:
        c, s = math.cos(angles[0]), math.sin(angles[0])
        return torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    made = torch.eye(3, dtype=torch.float64)
    for axis, sign, angle in zip(range(3), (1, -1, 1), angles, strict=True):
        one, two = (a for a in range(3) if a != axis)
        turn = torch.eye(3, dtype=torch.float64)
        turn[one, one] = turn[two, two] = math.cos(angle)
        turn[one, two], turn[two, one] = -sign * math.sin(angle), sign * math.sin(angle)
        made = turn @ made
    return made


def move(
    image: Tensor, labels: Tensor, patch: Sequence[int], matrix: Tensor
) -> tuple[Tensor, Tensor]:
    """Sample a patch around the middle: voxel x of it lies at matrix times x, both from the middle.

    With a matrix of two axes the slices of a volume are moved together. Images are sampled linearly, zero
    outside; labels take the one with the largest share, `OUTSIDE` outside, the lower one if shares are equal.

    Args:
        image: (c, *grid) float32.
        labels: (*grid) of whole numbers.
        patch: the size that is wanted.
        matrix: (2, 2) or (3, 3).
    """
    dims = len(matrix)
    size, out = tuple(labels.shape[-dims:]), tuple(patch[-dims:])
    scales = [torch.diag(torch.tensor(n, dtype=torch.float64) / 2) for n in (size, out)]
    theta = torch.zeros(1, dims, dims + 1)
    between = scales[0].inverse() @ matrix @ scales[1]
    theta[0, :, :dims] = between.flip(0, 1).float()  # grid_sample names the last axis first
    grid = F.affine_grid(theta, [1, 1, *out], align_corners=False)
    flat = image.reshape(1, -1, *size)
    moved = F.grid_sample(flat, grid, mode="bilinear", align_corners=False)
    places = _places(matrix, size, out)
    return moved.reshape(*image.shape[:-dims], *out), _sample_labels(labels, places, out)


def _places(matrix: Tensor, size: Sequence[int], out: Sequence[int]) -> list[Tensor]:
    """Say where each voxel of the patch lies in what was read: a flat coordinate for each axis."""
    lines = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in out]
    found = []
    for axis, n in enumerate(size):
        total = torch.tensor((n - 1) / 2)
        for other, line in enumerate(lines):
            shape = [-1 if a == other else 1 for a in range(len(out))]
            total = total + float(matrix[axis, other]) * line.reshape(shape)
        found.append(total.expand(tuple(out)).reshape(-1))
    return found


def _sample_labels(labels: Tensor, places: Sequence[Tensor], out: Sequence[int]) -> Tensor:
    """Give each place the label with the largest share of its corners.

    Labels of corners are looked up, not interpolated one by one; shares matter only where they differ.
    """
    dims = len(places)
    planes = labels.shape[:-dims]
    padded = F.pad(labels.reshape(-1, *labels.shape[-dims:]), (1, 1) * dims, value=OUTSIDE)
    sizes = padded.shape[1:]
    flat = padded.reshape(len(padded), -1)
    low, share = [], []
    for place, n in zip(places, sizes, strict=True):
        at = (place + 1).clamp(0, n - 1)
        below = at.floor().clamp(max=n - 2)
        low.append(below.long())
        share.append(at - below)
    steps = [math.prod(sizes[a + 1 :]) for a in range(dims)]
    first = sum(b * s for b, s in zip(low, steps, strict=True))
    assert isinstance(first, Tensor)
    corners = list(itertools.product((0, 1), repeat=dims))
    seen = [
        flat.index_select(1, first + sum(c * s for c, s in zip(corner, steps, strict=True)))
        for corner in corners
    ]
    won = seen[0]
    mixed = torch.zeros_like(won, dtype=torch.bool)
    for one in seen[1:]:
        mixed |= one != won
    plane, spot = torch.nonzero(mixed, as_tuple=True)
    if len(spot):
        weights = [
            torch.stack(
                [s[spot] if up else 1 - s[spot] for s, up in zip(share, corner, strict=True)]
            ).prod(0)
            for corner in corners
        ]
        won[plane, spot] = _largest([one[plane, spot] for one in seen], weights)
    return won.reshape(*planes, *out)


def _largest(labels: Sequence[Tensor], weights: Sequence[Tensor]) -> Tensor:
    """Choose the label whose corners weigh most; the lower one of those that weigh the same."""
    won, best = labels[0], torch.full_like(weights[0], -1)
    for label in labels:
        total = torch.zeros_like(best)
        for other, weight in zip(labels, weights, strict=True):
            total += weight * (other == label)
        better = (total > best) | ((total == best) & (label < won))
        won, best = torch.where(better, label, won), torch.maximum(best, total)
    return won
