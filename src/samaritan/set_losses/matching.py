"""Which proposal stands for which class of a slice: the assignment of least cost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.errors import ConfigError
from samaritan.set_losses.boxes import box_l1, giou
from samaritan.set_losses.points import label_parts, sample, spread_points
from samaritan.set_losses.sets import Found, SetWeights, Targets

UNKNOWN_COST = 100.0
"""What a cost that is no number counts as."""


@torch.no_grad()
def match(
    found: Found,
    targets: Targets,
    weights: SetWeights,
    generator: torch.Generator,
    *,
    points: Tensor | None = None,
) -> Tensor:
    """The class of each proposal (n, q), or -1 for those that stand for none.

    Args:
        found: proposals.
        targets: what is there.
        weights: of the terms of the cost.
        generator: that draws the points at which masks are compared.
        points: (n, p, 2), to be compared at these points instead.
    """
    if weights.by_class:
        return matched_by_class(targets, queries=found.boxes.shape[1])
    if points is None:
        n = len(found.boxes)
        points = spread_points(n, weights.points, generator, found.boxes.device)
    table = costs(found, targets, weights, points).cpu().numpy()
    present = targets.present.cpu().numpy()
    rows = [
        _assign(cost[:, there], np.flatnonzero(there))
        for cost, there in zip(table, present, strict=True)
    ]
    return torch.from_numpy(np.stack(rows)).to(found.boxes.device)


def matched_by_class(targets: Targets, *, queries: int) -> Tensor:
    """Query n stands for class n wherever that is, further ones for none: (n, q).

    Source: MaskFormer (Cheng et al. 2021, arXiv:2107.06278), "fixed matching".

    Raises:
        ConfigError: if there are fewer queries than classes.
    """
    n, classes = targets.present.shape
    if queries < classes:
        raise ConfigError(
            f"matching by class needs a query for each of {classes} classes, background included, and the "
            f"model has {queries}: create it with queries={classes}, or match by cost"
        )
    which = torch.arange(classes, device=targets.present.device).expand(n, -1)
    return F.pad(torch.where(targets.present, which, -1), (0, queries - classes), value=-1)


@torch.no_grad()
def costs(found: Found, targets: Targets, weights: SetWeights, points: Tensor) -> Tensor:
    """What it costs to let a proposal stand for a class (n, q, classes), those that are absent included."""
    classes = targets.present.shape[1]
    parts = label_parts(targets.labels, points, classes)
    total = -weights.classes * found.class_logits.float().softmax(dim=-1)[..., :classes]
    for logits, mask, dice in (
        (found.mask_logits, weights.mask, weights.dice),
        (found.aux_logits, weights.aux_mask, weights.aux_dice),
    ):
        values = sample(logits.float(), points)
        total = total + mask * cross_entropy_table(values, parts) + dice * dice_table(values, parts)
    ours, theirs = found.boxes.float()[:, :, None], targets.boxes[:, None]
    return total + weights.box * box_l1(ours, theirs) - weights.giou * giou(ours, theirs)


def cross_entropy_table(logits: Tensor, parts: Tensor) -> Tensor:
    """Cross-entropy of each mask (n, q, p) with each target (n, c, p), a mean over points: (n, q, c)."""
    inside, outside = F.softplus(-logits), F.softplus(logits)
    summed = inside @ parts.mT + outside @ (1 - parts).mT
    return summed / logits.shape[-1]


def dice_table(logits: Tensor, parts: Tensor) -> Tensor:
    """One minus soft Dice of each mask with each target, with 1 above and below: (n, q, c)."""
    probs = logits.sigmoid()
    both = probs @ parts.mT
    whole = probs.sum(-1)[:, :, None] + parts.sum(-1)[:, None]
    return 1 - (2 * both + 1) / (whole + 1)


def _assign(cost: npt.NDArray[np.float32], classes: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """Classes of the proposals of one slice."""
    from scipy.optimize import linear_sum_assignment  # importing it changes filters of warnings

    row = np.full(len(cost), -1, np.int64)
    if cost.size and not np.isnan(cost).all():
        ours, theirs = linear_sum_assignment(np.nan_to_num(cost, nan=UNKNOWN_COST))
        row[ours] = classes[theirs]
    return row
