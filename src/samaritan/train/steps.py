"""What is learned from a batch: pure functions (model, batch, generator) -> losses, one after the other.

A step yields one loss for each optimiser update that the batch is worth. Whoever asks for the next one
has gone back through the last and updated the weights: the loop does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.losses import samed_loss
from samaritan.models.sam import Sam
from samaritan.recipes.sections import Compat, Loss

Batch = Mapping[str, Tensor]
"""Tensors by name, batch first: "image" (b c *size), and "label" (b *size) or "masks" (b k *size).

"low_res_label" spares the work of shrinking labels; "valid" (b k) is false for masks that only fill up.
"""


class StepLoss(NamedTuple):
    """One loss to go back through, a mean over the examples, and what is worth logging."""

    total: Tensor
    logs: dict[str, Tensor]


Step = Callable[[Sam, Batch, torch.Generator], Iterator[StepLoss]]


def multiclass_step(loss: Loss, compat: Compat) -> Step:
    """The step of prompt-free training: one update a batch, with the loss at the decoder's resolution.

    Source: hitachinsk/SAMed, trainer.py.
    """

    def step(model: Sam, batch: Batch, generator: torch.Generator) -> Iterator[StepLoss]:
        logits = class_logits(model, batch["image"])
        labels = batch.get("low_res_label")
        if labels is None or labels.shape[1:] != logits.shape[2:]:
            shrink = corner_aligned if compat.corner_aligned_labels else pixel_aligned
            labels = shrink(batch["label"], tuple(logits.shape[2:]))
        parts = samed_loss(logits, labels)
        total = loss.cross_entropy * parts["ce"] + loss.dice * parts["dice"]
        logs = {"ce": parts["ce"], "dice_loss": parts["dice"]}
        yield StepLoss(
            total, {**logs, "dice": mean_dice(logits.argmax(dim=1), labels, logits.shape[1])}
        )

    return step


def class_logits(model: Sam, images: Tensor) -> Tensor:
    """Logits of every class (b, classes, *low_res), background first."""
    size = tuple(images.shape[2:])
    sparse, dense = model.prompt_encoder(image_size=size)
    logits, _ = model.mask_decoder(
        image_embeddings=model.image_encoder(images),
        image_pe=model.prompt_encoder.get_dense_pe(size),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    found: Tensor = logits
    return found


def pixel_aligned(labels: Tensor, size: tuple[int, ...]) -> Tensor:
    """Labels at a lower resolution, from under the centres of its pixels, as the logits are enlarged."""
    return F.interpolate(labels[:, None].float(), size, mode="nearest-exact")[:, 0].long()


def corner_aligned(labels: Tensor, size: tuple[int, ...]) -> Tensor:
    """Labels at a lower resolution with corner on corner, as published: see `Compat.corner_aligned_labels`.

    Source: hitachinsk/SAMed, datasets/dataset_synapse.py: a spline zoom of order 0.
    """
    for axis, count in enumerate(size, start=1):
        at = torch.arange(count, device=labels.device) * (
            (labels.shape[axis] - 1) / max(count - 1, 1)
        )
        labels = labels.index_select(axis, (at + 0.5).floor().long())
    return labels.long()


@torch.no_grad()
def class_dice(predicted: Tensor, reference: Tensor, classes: int) -> Tensor:
    """Dice of each class but the background (b, classes - 1); NaN where neither has any."""
    axes = tuple(range(1, predicted.ndim))
    known = reference >= 0
    found = [
        _dice((predicted == value) & known, reference == value, axes) for value in range(1, classes)
    ]
    return torch.stack(found, dim=1)


def mean_dice(predicted: Tensor, reference: Tensor, classes: int) -> Tensor:
    """Dice averaged over the images and classes that there are; 1 if there are none."""
    return class_dice(predicted, reference, classes).nanmean().nan_to_num(1.0)


@torch.no_grad()
def mask_dice(predicted: Tensor, reference: Tensor) -> Tensor:
    """Dice of each mask (n); 1 where both are empty."""
    found = _dice(predicted, reference, tuple(range(1, predicted.ndim)))
    return found.nan_to_num(1.0)


def _dice(one: Tensor, two: Tensor, axes: tuple[int, ...]) -> Tensor:
    both, whole = (one & two).sum(dim=axes), one.sum(dim=axes) + two.sum(dim=axes)
    return 2 * both / whole  # 0 / 0 is NaN
