"""How far boxes are apart: corner by corner, and as areas."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-6
"""Added below both fractions, as published: of boxes without area, too."""


def box_l1(a: Tensor, b: Tensor) -> Tensor:
    """Sum over the four numbers of their distance; shapes (..., 4) are broadcast."""
    return (a - b).abs().sum(dim=-1)


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU of boxes (x1, y1, x2, y2): that of areas, less the empty part of their hull.

    Shapes (..., 4) are broadcast. Source: Rezatofighi et al. 2019, arXiv:1902.09630.

    >>> round(float(giou(torch.tensor([0, 0, 0.4, 0.4]), torch.tensor([0.2, 0.2, 0.6, 0.6]))), 5)
    -0.07936
    """
    both = _area(torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:]))
    hull = _area(torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:]))
    either = _area(a[..., :2], a[..., 2:]) + _area(b[..., :2], b[..., 2:]) - both
    return both / (either + EPSILON) - (hull - either) / (hull + EPSILON)


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(dim=-1)
