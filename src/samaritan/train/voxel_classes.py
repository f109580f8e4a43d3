"""The step of models that label patches voxel by voxel, and how all models of patches are judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.data.nnunet.labels import Key, LabelSet
from samaritan.losses import nnunet_loss
from samaritan.models import Sam, VoxelNet, patch_logits
from samaritan.recipes.sections import Loss
from samaritan.train.judging import Judge, Scores
from samaritan.train.steps import Batch, Step, StepLoss

Sums = Mapping[str, float]


def voxel_classes_step(loss: Loss, labels: LabelSet, *, batch_dice: bool = False) -> Step:
    """The step of a model that `patch_logits` knows: one update a batch of "image" and "label".

    Of a U-Net with coarser outputs each counts half as much as the one before, against labels that are
    thinned to its grid. Voxels with the ignored label count for nothing.

    Args:
        loss: weights of cross-entropy and Dice.
        labels: what label values and heads mean.
        batch_dice: see `nnunet_loss`.

    Source: nnU-Net 2.8.1, `nnUNetTrainer._build_loss`.
    """

    def step(model: Sam, batch: Batch, _: torch.Generator) -> Iterator[StepLoss]:
        levels = _levels(model, batch["image"])
        parts: dict[str, Tensor] = {}
        share = 1 / sum(0.5**i for i in range(len(levels)))
        for logits in levels:
            drawn = thinned(batch["label"], tuple(logits.shape[2:]))
            found = nnunet_loss(
                logits,
                heads_of(drawn, labels),
                known=known_in(drawn, labels),
                regions=labels.has_regions,
                batch_dice=batch_dice,
            )
            parts = {k: parts.get(k, 0) + share * v for k, v in found.items()}
            share /= 2
        total = loss.cross_entropy * parts["ce"] + loss.dice * parts["dice"]
        counts = counted(levels[0].detach(), batch["label"], labels)
        dice = _ratio(counts.both.sum(dim=0), counts.whole.sum(dim=0)).nanmean().nan_to_num(1.0)
        yield StepLoss(total, {"ce": parts["ce"], "dice_loss": parts["dice"], "dice": dice})

    return step


def patch_judge(labels: LabelSet, *, pooled: bool = True) -> Judge:
    """Judge a model by the patches that it labels.

    Args:
        labels: what heads mean.
        pooled: count voxels, for `pooled_dice` to make Dice of them in the end; else Dice of each patch.
    """
    names = titles(labels)

    def judge(model: Sam, batch: Batch, _: torch.Generator) -> tuple[Scores, Tensor]:
        logits = patch_logits(model, batch["image"])
        found = counted(logits, batch["label"], labels)
        dice = _ratio(found.both, found.whole)
        scores = {"dice": dice.flatten()}
        for i, name in enumerate(names):
            scores[f"class_{name}"] = dice[:, i]
        if pooled:
            scores = {f"both_{name}": found.both[:, i] for i, name in enumerate(names)}
            scores |= {f"whole_{name}": found.whole[:, i] for i, name in enumerate(names)}
        return scores, decided(logits, labels)

    return judge


def pooled_dice(sums: Sums) -> dict[str, float]:
    """Dice of each class over all patches together, and their mean: nnU-Net's pseudo Dice.

    Args:
        sums: means or sums of "both_NAME" and "whole_NAME" over the same patches.
    """
    found = {}
    for key, whole in sums.items():
        if key.startswith("whole_"):
            name = key.removeprefix("whole_")
            found[f"class_{name}"] = 2 * sums[f"both_{name}"] / whole if whole else float("nan")
    known = [value for value in found.values() if value == value]
    return {"dice": sum(known) / len(known) if known else float("nan"), **found}


class Counts:
    """Voxels of each class or region in each patch (b, n): in both, and in one plus in the other."""

    def __init__(self, both: Tensor, whole: Tensor) -> None:
        self.both, self.whole = both.double(), whole.double()


@torch.no_grad()
def counted(logits: Tensor, drawn: Tensor, labels: LabelSet) -> Counts:
    """Count what a model found, and what was drawn; the background and undecided voxels are left out."""
    known = known_in(drawn, labels)
    both, whole = [], []
    predicted = None if labels.has_regions else logits.argmax(dim=1)
    for head, key in enumerate(labels.foreground):
        one = logits[:, head] > 0 if predicted is None else _is(predicted, key)
        two = _is(drawn, key)
        if known is not None:
            one, two = one & known, two & known
        both.append((one & two).flatten(1).sum(dim=1))
        whole.append(one.flatten(1).sum(dim=1) + two.flatten(1).sum(dim=1))
    return Counts(torch.stack(both, dim=1), torch.stack(whole, dim=1))


def decided(logits: Tensor, labels: LabelSet) -> Tensor:
    """Label maps (b, *patch) from logits."""
    if labels.region_order is None:
        return logits.argmax(dim=1)
    found = torch.zeros_like(logits[:, 0], dtype=torch.long)
    for head, value in enumerate(labels.region_order):
        found[logits[:, head] > 0] = value
    return found


def titles(labels: LabelSet) -> list[str]:
    """Name what is looked for, in the order of `LabelSet.foreground`."""
    named = {key: name for name, key in labels.names.items()}
    return [named.get(key, str(key)) for key in labels.foreground]


def thinned(drawn: Tensor, size: tuple[int, ...]) -> Tensor:
    """Label maps (b, *patch) on a coarser grid, from under the centres of its voxels."""
    if tuple(drawn.shape[1:]) == size:
        return drawn
    return F.interpolate(drawn[:, None].float(), size, mode="nearest-exact")[:, 0].long()


def heads_of(drawn: Tensor, labels: LabelSet) -> Tensor:
    """What each head should be: label values, or for regions a mask of each (b, n, *patch)."""
    if labels.has_regions:
        return torch.stack([_is(drawn, key) for key in labels.foreground], dim=1)
    if labels.ignore is None:
        return drawn
    return torch.where(drawn == labels.ignore, 0, drawn)


def known_in(drawn: Tensor, labels: LabelSet) -> Tensor | None:
    """Where somebody decided; None: everywhere."""
    return None if labels.ignore is None else drawn != labels.ignore


def _is(drawn: Tensor, key: Key) -> Tensor:
    if isinstance(key, int):
        return drawn == key
    return torch.isin(drawn, torch.tensor(key, device=drawn.device))


def _levels(model: Sam, images: Tensor) -> list[Tensor]:
    if isinstance(model, VoxelNet):
        return model.supervised_logits(images)
    return [patch_logits(model, images)]


def _ratio(both: Tensor, whole: Tensor) -> Tensor:
    return 2 * both / whole  # 0 / 0 is NaN
