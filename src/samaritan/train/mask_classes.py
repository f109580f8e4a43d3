"""The step of mask classification: slices of volumes, masks with classes, matched with label maps."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.errors import ConfigError
from samaritan.losses import multiclass_dice_loss
from samaritan.models.mask_classes import MaskClassOutput
from samaritan.models.prompt_generator import boxes_of
from samaritan.models.sam import Sam
from samaritan.set_losses import Found, SetWeights, Targets, set_losses
from samaritan.train.steps import Batch, Step, StepLoss, mean_dice


def mask_classes_step(
    weights: SetWeights | None = None, *, cross_entropy: float = 0.0, dice: float = 0.0
) -> Step:
    """The step for `MaskSam`: one update a batch of "image" (b c t h w) and "label" (b t h w).

    Pixels of labels below 0, where nobody decided, count as background, as published.

    Args:
        weights: of matched terms; MaskSAM's for ACDC unless told.
        cross_entropy: weight of the cross-entropy of class scores at every voxel, which is not in MaskSAM:
            it needs no matching, so every pixel teaches from the first step.
        dice: weight of their Dice loss, likewise.

    Source: MaskSAM (Xie et al., ICCV 2025, arXiv:2403.14103), from a description of its program.
    """
    chosen = weights or SetWeights()

    def step(model: Sam, batch: Batch, generator: torch.Generator) -> Iterator[StepLoss]:
        own, quirks = model.config.mask_classes, model.config.quirks
        if own is None:
            raise ConfigError(
                f"mask classification trains a model such as 'masksam_small', and {model.config.name!r} "
                f"gives no classes of masks"
            )
        out: MaskClassOutput = model(batch["image"])
        labels = batch["label"].clamp(min=0).long()
        targets = targets_of(labels.flatten(0, 1), own.num_classes, closed=quirks.mask_boxes)
        found = Found(out.pred_logits, out.pred_masks, out.aux_logits, out.pred_aux_bboxes)
        judged = set_losses(found, targets, chosen, generator, double_sigmoid=quirks.double_sigmoid)
        total, logs = judged.total, {k: v.detach() for k, v in judged.parts.items()}
        if cross_entropy or dice:
            scores = out.semantic.float().clamp(min=1e-6).log()
            ce, overlap = F.cross_entropy(scores, labels), multiclass_dice_loss(scores, labels)
            total = total + cross_entropy * ce + dice * overlap
            logs |= {"ce": ce.detach(), "dice_loss": overlap.detach()}
        yield StepLoss(total, {**logs, "dice": mean_dice(out.label_map, labels, own.num_classes)})

    return step


@torch.no_grad()
def targets_of(labels: Tensor, classes: int, *, closed: bool = False) -> Targets:
    """What is there in slices (n, h, w), read off their label maps.

    Args:
        labels: the class of every pixel.
        classes: background included.
        closed: boxes end on the last pixel (see `Quirks.mask_boxes`).

    Raises:
        ConfigError: if there is a label without a class.
    """
    if (highest := int(labels.max())) >= classes:
        raise ConfigError(
            f"labels go up to {highest}, but the model has {classes} classes, background included. Create it "
            f"with num_classes={highest + 1}, or renumber the labels"
        )
    masks = labels[:, None] == torch.arange(classes, device=labels.device)[:, None, None]
    boxes, present = boxes_of(masks, closed=closed)
    return Targets(labels, present, boxes)
