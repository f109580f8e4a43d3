"""Points at which masks are compared, and what logits and label maps hold there.

Points are (x, y) as parts of the slice, from edge to edge. Values between pixel centres are interpolated;
beyond the outermost centres they fade to 0, for logits and labels alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CANDIDATES = 2
"""How many candidates there are for each uncertain point."""

UNCERTAIN_PART = 0.75
"""Part of the points that are chosen for uncertainty; the others lie anywhere."""


def spread_points(
    sets: int, count: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Points anywhere (sets, count, 2)."""
    drawn = torch.rand(sets, count, 2, generator=generator, device=generator.device)
    return drawn.to(device)


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Values of maps (n, q, h, w) at points (n, p, 2): (n, q, p)."""
    grid = 2 * points[:, None] - 1
    return F.grid_sample(maps, grid, mode="bilinear", align_corners=False)[:, :, 0]


@torch.no_grad()
def uncertain_points(logits: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points for each mask, three quarters of them where its logits are near 0.

    Source: PointRend (Kirillov et al. 2020, arXiv:1912.08193), as in Mask2Former.

    Args:
        logits: (m, h, w).
        count: of points for each mask.
        generator: that draws candidates.

    Returns:
        (m, count, 2).
    """
    many = spread_points(len(logits), CANDIDATES * count, generator, logits.device)
    values = sample(logits[:, None], many)[:, 0]
    chosen = int(UNCERTAIN_PART * count)
    at = values.abs().topk(chosen, dim=1, largest=False).indices
    near = many.gather(1, at[..., None].expand(-1, -1, 2))
    others = spread_points(len(logits), count - chosen, generator, logits.device)
    return torch.cat([near, others], dim=1)


def neighbours(labels: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Labels of the four pixels around each point, and the weight of each: (n, p, 4) both.

    Args:
        labels: (n, h, w).
        points: (n, p, 2).
    """
    n, rows, columns = labels.shape
    place = points * points.new_tensor([columns, rows]) - 0.5
    low = place.floor()
    part = place - low
    flat, found, weights = labels.reshape(n, -1), [], []
    for right in (0, 1):
        for below in (0, 1):
            x, y = low[..., 0] + right, low[..., 1] + below
            inside = (x >= 0) & (x < columns) & (y >= 0) & (y < rows)
            at = y.clamp(0, rows - 1) * columns + x.clamp(0, columns - 1)
            found.append(flat.gather(1, at.long()))
            across = part[..., 0] if right else 1 - part[..., 0]
            down = part[..., 1] if below else 1 - part[..., 1]
            weights.append(across * down * inside)
    return torch.stack(found, dim=-1), torch.stack(weights, dim=-1)


def label_parts(labels: Tensor, points: Tensor, classes: int) -> Tensor:
    """How much of each class there is at points: what `sample` would give of masks (n, classes, p)."""
    found, weights = neighbours(labels, points)
    parts = weights.new_zeros(len(labels), classes, points.shape[1])
    for corner in range(4):
        parts.scatter_add_(1, found[:, None, :, corner], weights[:, None, :, corner])
    return parts


def class_part(labels: Tensor, points: Tensor, which: Tensor) -> Tensor:
    """How much of one class there is at points: (m, p), for labels (m, h, w) and classes (m)."""
    found, weights = neighbours(labels, points)
    return ((found == which[:, None, None]) * weights).sum(dim=-1)
