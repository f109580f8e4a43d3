"""The losses of matched proposals: classes, masks, masks that became prompts, boxes."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, distributed

from samaritan.set_losses.boxes import box_l1, giou
from samaritan.set_losses.matching import match
from samaritan.set_losses.points import class_part, sample, uncertain_points
from samaritan.set_losses.sets import Found, SetWeights, Targets


class SetLosses(NamedTuple):
    """Losses of a batch."""

    total: Tensor
    """Weighted sum."""
    parts: dict[str, Tensor]
    """Each term by name, before its weight."""
    matched: Tensor
    """(n, q): the class of each proposal, or -1."""


def set_losses(
    found: Found,
    targets: Targets,
    weights: SetWeights,
    generator: torch.Generator,
    *,
    double_sigmoid: bool = False,
    matched: Tensor | None = None,
) -> SetLosses:
    """Match proposals with classes, and judge them by what they stand for.

    Masks and boxes are judged where they stand for a class, as a sum over the number of classes in all
    slices (a mean over processes); classes of all proposals. Masks are compared at points where they are
    uncertain, above all.

    Source: MaskSAM (Xie et al., ICCV 2025, arXiv:2403.14103), from a description of its program;
    Mask2Former (Cheng et al. 2022, arXiv:2112.01527).

    Args:
        found: proposals.
        targets: what is there.
        weights: of the terms.
        generator: that draws points.
        double_sigmoid: take probabilities of auxiliary masks for logits (see `Quirks.double_sigmoid`).
        matched: classes of proposals, if they are known.
    """
    if double_sigmoid:
        found = found._replace(aux_logits=found.aux_logits.float().sigmoid())
    if matched is None:
        matched = match(found, targets, weights, generator)
    count = _targets_of_all(targets.present)
    pairs = (matched >= 0).nonzero()
    slices, queries = pairs[:, 0], pairs[:, 1]
    which = matched[slices, queries]
    labels = targets.labels[slices]
    parts = {"class": class_loss(found.class_logits, matched, no_object=weights.no_object)}
    for name, logits in (("mask", found.mask_logits), ("aux", found.aux_logits)):
        terms = point_losses(logits[slices, queries], labels, which, weights.points, generator)
        parts[f"{name}_ce"], parts[f"{name}_dice"] = (term.sum() / count for term in terms)
    ours, theirs = found.boxes.float()[slices, queries], targets.boxes[slices, which]
    parts["box"] = box_l1(ours, theirs).sum() / count
    parts["giou"] = (1 - giou(ours, theirs)).sum() / count
    return SetLosses(_weighted(parts, weights), parts, matched)


def class_loss(logits: Tensor, matched: Tensor, *, no_object: float) -> Tensor:
    """Cross-entropy of classes; "no object", the last, counts less.

    Args:
        logits: (n, q, classes + 1).
        matched: (n, q), -1 for no object.
        no_object: how much it counts.
    """
    last = logits.shape[-1] - 1
    importance = logits.new_ones(last + 1, dtype=torch.float32)
    importance[last] = no_object
    target = torch.where(matched < 0, last, matched)
    return F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), importance)


def point_losses(
    logits: Tensor, labels: Tensor, which: Tensor, count: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice loss of each mask (m) at points of its own.

    Args:
        logits: (m, h, w).
        labels: (m, h, w).
        which: the class of each mask (m).
        count: of points.
        generator: that draws them.
    """
    values = logits.float()
    points = uncertain_points(values, count, generator)
    with torch.no_grad():
        target = class_part(labels, points, which)
    return mask_losses(sample(values[:, None], points)[:, 0], target)


def mask_losses(values: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and Dice loss (1 above and below) of logits (m, p) at points, each mask by itself."""
    ce = F.binary_cross_entropy_with_logits(values, target, reduction="none").mean(dim=-1)
    probs = values.sigmoid()
    both, whole = (probs * target).sum(-1), probs.sum(-1) + target.sum(-1)
    return ce, 1 - (2 * both + 1) / (whole + 1)


def _weighted(parts: dict[str, Tensor], weights: SetWeights) -> Tensor:
    return (
        weights.classes * parts["class"]
        + weights.mask * parts["mask_ce"]
        + weights.dice * parts["mask_dice"]
        + weights.aux_mask * parts["aux_ce"]
        + weights.aux_dice * parts["aux_dice"]
        + weights.box * parts["box"]
        + weights.giou * parts["giou"]
    )


def _targets_of_all(present: Tensor) -> Tensor:
    """How many targets there are, a mean over processes; at least 1."""
    count = present.sum().float()
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(count)
        count = count / distributed.get_world_size()
    return count.clamp(min=1)
