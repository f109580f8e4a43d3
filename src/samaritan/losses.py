"""What training minimises: the losses of the published systems, as pure functions of logits and labels.

Each returns its parts and their "total" as tensors, so that nothing waits for the device. Sums are taken in
float32 whatever the logits are, autocast included. Known oddities of the published code are switches that
are off by default.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

Losses = dict[str, Tensor]

_IN_CACHE = 2**17
"""Numbers of one tensor that are worked on at one time on a CPU."""


def samed_loss(
    logits: Float[Tensor, "b k *grid"],
    labels: Int[Tensor, " b *grid"],
    *,
    dice_weight: float = 0.8,
) -> Losses:
    """SAMed's loss: (1 - w) cross-entropy + w Dice, over all classes with the background.

    Source: hitachinsk/SAMed utils.py and trainer.py. The Dice term is one fraction for each class over the
    whole batch; cross-entropy is a plain mean over pixels.

    Args:
        logits: of each class, at the decoder's own resolution.
        labels: class of each pixel, 0 to k - 1, or -100 where nobody decided.
        dice_weight: part of the Dice term.

    Returns:
        "total", "ce" and "dice".
    """
    values = logits.float()
    ce = F.cross_entropy(values, labels.long())
    dice = multiclass_dice_loss(values, labels)
    return {"total": (1 - dice_weight) * ce + dice_weight * dice, "ce": ce, "dice": dice}


def multiclass_dice_loss(
    logits: Float[Tensor, "b k *grid"], labels: Int[Tensor, " b *grid"], *, smooth: float = 1e-5
) -> Float[Tensor, ""]:
    """One minus the soft Dice of each class over the whole batch, averaged over classes.

    Args:
        logits: of each class; probabilities are their softmax, squared in the denominator.
        labels: class of each pixel; below 0 where nobody decided, which counts for nothing.
        smooth: added above and below.
    """
    known = (labels >= 0)[:, None]
    probs = logits.float().softmax(dim=1) * known
    target = F.one_hot(labels.long().clamp(min=0), logits.shape[1]).movedim(-1, 1) * known
    axes = (0, *range(2, probs.ndim))
    both = (probs * target).sum(dim=axes)
    whole = probs.square().sum(dim=axes) + target.sum(dim=axes)
    return (1 - (2 * both + smooth) / (whole + smooth)).mean()


def nnunet_loss(
    logits: Float[Tensor, "b k *grid"],
    targets: Tensor,
    *,
    known: Tensor | None = None,
    regions: bool = False,
    batch_dice: bool = False,
    smooth: float = 1e-5,
) -> Losses:
    """Cross-entropy and Dice loss of classes or regions, as nnU-Net has them.

    Source: `DC_and_CE_loss` and `DC_and_BCE_loss` of nnU-Net 2.8.1, without squares in the denominator. Its
    Dice is negated, this one is one minus it: the gradients are the same.

    Args:
        logits: of each head.
        targets: "b k *grid" where the heads are, 0 or 1; of classes also label values "b *grid".
        known: "b *grid": where somebody decided; the rest counts for nothing.
        regions: heads may overlap; else they exclude each other and the first is the background, which
            Dice leaves out.
        batch_dice: one fraction for each head over the whole batch, not for each example.
        smooth: added above and below.

    Returns:
        "ce" and "dice".
    """
    values = logits.float()
    if not regions and targets.ndim < values.ndim:
        targets = F.one_hot(targets.long(), values.shape[1]).movedim(-1, 1)
    target = targets.to(values.dtype)
    mask = values.new_ones(1) if known is None else known[:, None].to(values.dtype)
    weights = mask.expand_as(target[:, :1])
    if regions:
        each = F.binary_cross_entropy_with_logits(values, target, reduction="none")
        probs = values.sigmoid()
    else:
        each = -(target * values.log_softmax(dim=1)).sum(dim=1, keepdim=True)
        probs, target = values.softmax(dim=1)[:, 1:], target[:, 1:]
    ce = (each * mask).sum() / (weights.sum() * each.shape[1]).clamp(min=1e-8)
    axes = tuple(range(2, values.ndim)) if not batch_dice else (0, *range(2, values.ndim))
    both = (probs * target * mask).sum(dim=axes)
    whole = (probs * mask).sum(dim=axes) + (target * mask).sum(dim=axes)
    return {"ce": ce, "dice": 1 - ((2 * both + smooth) / (whole + smooth).clamp(min=1e-8)).mean()}


def sam_med2d_loss(
    logits: Float[Tensor, "n m *grid"],
    masks: Tensor,
    predicted_iou: Float[Tensor, "n m"],
    *,
    focal_weight: float = 20.0,
    dice_weight: float = 1.0,
    iou_weight: float = 1.0,
    batch_dice: bool = False,
    batch_iou_target: bool = False,
    detach_iou_target: bool = True,
    iou_target: Literal["soft", "hard"] = "soft",
) -> Losses:
    """SAM-Med2D's loss: 20 focal + Dice + squared error of the predicted IoU.

    Source: OpenGVLab/SAM-Med2D utils.py. By default each mask has its own Dice and its own IoU target, and
    the target sends no gradient into the mask. The published code has `batch_dice=True,
    batch_iou_target=True, detach_iou_target=False`: one Dice and one target for the whole batch, with
    a gradient.

    Args:
        logits: one map for each mask.
        masks: "n m *grid": where the objects are, boolean or 0 and 1.
        predicted_iou: what the model says of its own masks.
        focal_weight: of the focal term.
        dice_weight: of the Dice term.
        iou_weight: of the squared error of the IoU.
        batch_dice: one Dice over the whole batch (published).
        batch_iou_target: one IoU over the whole batch as everyone's target (published).
        detach_iou_target: whether the target is a constant; False is published.
        iou_target: "soft" takes probabilities (published), "hard" the mask where logits exceed 0.

    Returns:
        "total", "focal", "dice" and "iou_mse".
    """
    values, target = logits.float(), masks.to(torch.float32)
    probs = values.sigmoid()
    focal = focal_loss(values, target)
    dice = _dice(probs, target, batch=batch_dice)
    judged = (values > 0).to(probs.dtype) if iou_target == "hard" else probs
    iou = _iou(judged, target, batch=batch_iou_target)
    iou_mse = ((iou.detach() if detach_iou_target else iou) - predicted_iou.float()).square().mean()
    total = focal_weight * focal + dice_weight * dice + iou_weight * iou_mse
    return {"total": total, "focal": focal, "dice": dice, "iou_mse": iou_mse}


def focal_loss(
    logits: Float[Tensor, "n m *grid"], masks: Tensor, *, alpha: float = 0.25, gamma: float = 2.0
) -> Float[Tensor, ""]:
    """Focal loss of binary masks, averaged over pixels (Lin et al. 2017, arXiv:1708.02002, equation 5).

    Logarithms are taken of the logits, so that confident mistakes keep their gradient; the published
    SAM-Med2D code adds 1e-12 to probabilities instead, which differs beyond logits of about 15.

    Args:
        logits: one map for each mask.
        masks: 1 inside.
        alpha: weight of the inside; the outside has 1 - alpha.
        gamma: how much easy pixels are discounted.
    """
    values, target = logits.float(), masks.to(torch.float32)
    probs = values.sigmoid()
    inside = alpha * target * (1 - probs) ** gamma * F.logsigmoid(values)
    outside = (1 - alpha) * (1 - target) * probs**gamma * F.logsigmoid(-values)
    return -(inside + outside).mean()


def dice_ce_loss(
    logits: Float[Tensor, "b m *grid"],
    masks: Tensor,
    *,
    dice_weight: float = 1.0,
    ce_weight: float = 1.0,
    smooth: float = 1e-5,
) -> Losses:
    """Dice and cross-entropy of binary masks, each mask for itself: the loss of SAM-Med3D and its kin.

    Equals MONAI's DiceCELoss(sigmoid=True, squared_pred=True) since its version 1.3. (Before, its
    cross-entropy of a single channel was 0: `ce_weight=0`.)

    Args:
        logits: one map for each mask.
        masks: "b m *grid": 1 inside.
        dice_weight: of the Dice term, whose denominator holds squares.
        ce_weight: of the binary cross-entropy, a mean over voxels.
        smooth: added above and below in the Dice term.

    Returns:
        "total", "dice" and "ce".
    """
    dice, ce = _DiceAndCe.apply(logits.float(), masks, smooth)  # type: ignore[no-untyped-call]
    return {"total": dice_weight * dice + ce_weight * ce, "dice": dice, "ce": ce}


class _DiceAndCe(torch.autograd.Function):
    """Both parts of `dice_ce_loss`, piece by piece: volumes leave the processor's cache otherwise."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, masks: Tensor, smooth: float) -> tuple[Tensor, Tensor]:
        sums = []
        for values, target in _pieces(logits, masks):
            probs, truth = values.sigmoid(), target.to(values.dtype)
            ce = F.softplus(values).sum(dim=1) - (values * truth).sum(dim=1)
            both, squares = (probs * truth).sum(dim=1), probs.square().sum(dim=1)
            sums.append(torch.stack([ce, both, squares + truth.square().sum(dim=1)]))
        ce, both, whole = torch.stack(sums).sum(dim=0)
        above, below = 2 * both + smooth, whole + smooth
        ctx.save_for_backward(logits, masks, above, below)
        return (1 - above / below).mean(), ce.sum() / logits.numel()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_dice: Tensor, to_ce: Tensor) -> tuple[Tensor, None, None]:
        logits, masks, above, below = ctx.saved_tensors
        of_both = (-2 / below * to_dice / len(below))[:, None]
        of_squares = (above / below.square() * to_dice / len(below))[:, None]
        of_ce = to_ce / logits.numel()
        found = []
        for values, target in _pieces(logits, masks):
            probs, truth = values.sigmoid(), target.to(values.dtype)
            to_probs = 2 * of_squares * probs + of_both * truth
            found.append(probs * (1 - probs) * to_probs + of_ce * (probs - truth))
        return torch.cat(found, dim=1).view_as(logits), None, None


def _pieces(logits: Tensor, masks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and masks "b m *grid" as rows of voxels, so many at a time as a processor's cache holds."""
    size = _IN_CACHE if logits.device.type == "cpu" else logits.numel()
    rows = logits.shape[0] * logits.shape[1]
    values, target = logits.reshape(rows, -1), masks.reshape(rows, -1)
    step = max(1, size // rows)
    return zip(torch.split(values, step, 1), torch.split(target, step, 1), strict=True)


def mask_losses(
    logits: Float[Tensor, "n m *grid"], masks: Tensor, *, smooth: float = 1.0
) -> Losses:
    """Cross-entropy, Dice loss and true IoU of each mask by itself, for whoever chooses among them.

    Args:
        logits: one map for each mask.
        masks: "n m *grid": 1 inside.
        smooth: added above and below in the Dice term.

    Returns:
        "ce", "dice" and "iou", each "n m"; the IoU is that of the mask where logits exceed 0.
    """
    values, target = logits.float(), masks.to(torch.float32)
    axes = tuple(range(2, values.ndim))
    ce = F.binary_cross_entropy_with_logits(values, target, reduction="none").mean(dim=axes)
    probs = values.sigmoid()
    both, whole = (probs * target).sum(dim=axes), (probs + target).sum(dim=axes)
    hard = (values > 0).to(torch.float32)
    met, either = (hard * target).sum(dim=axes), torch.maximum(hard, target).sum(dim=axes)
    return {
        "ce": ce,
        "dice": 1 - (2 * both + smooth) / (whole + smooth),
        "iou": (met + 1e-7) / (either + 1e-7),
    }


def _dice(probs: Tensor, target: Tensor, *, batch: bool) -> Tensor:
    """One minus soft Dice with 1 above and below, of each mask or of all together."""
    axes = tuple(range(0 if batch else 2, probs.ndim))
    both, whole = (probs * target).sum(dim=axes), (probs + target).sum(dim=axes)
    return (1 - (2 * both + 1) / (whole + 1)).mean()


def _iou(probs: Tensor, target: Tensor, *, batch: bool) -> Tensor:
    """Soft intersection over union, of each mask ("n m") or of all together."""
    axes = tuple(range(0 if batch else 2, probs.ndim))
    both, whole = (probs * target).sum(dim=axes), (probs + target).sum(dim=axes)
    return (both + 1e-7) / (whole - both + 1e-7)
