"""Validation: how good the model is on images that it does not learn from, with the same prompts always."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from samaritan import simulate
from samaritan.models.sam import Sam
from samaritan.recipes.sections import Prompts
from samaritan.train.interactive import Answer, enlarged, mask_prompt, own_order
from samaritan.train.machine import Machine
from samaritan.train.sampling import generator
from samaritan.train.steps import Batch, class_dice, class_logits, mask_dice

Scores = dict[str, Tensor]
"""Values of each example or object by name; NaN where there was nothing to judge."""

Judge = Callable[[Sam, Batch, torch.Generator], tuple[Scores, Tensor]]
"""Scores of a batch, and what was predicted: "b *size" labels, or "b k *size" masks."""


def multiclass_judge(names: dict[int, str]) -> Judge:
    """Judge the labels of whole images, at their own resolution: Dice of each class."""

    def judge(model: Sam, batch: Batch, _: torch.Generator) -> tuple[Scores, Tensor]:
        low_res = class_logits(model, batch["image"])
        size = tuple(batch["label"].shape[1:])
        predicted = enlarged(low_res, size).argmax(dim=1)
        dice = class_dice(predicted, batch["label"], low_res.shape[1])
        scores = {"dice": dice.flatten()}
        for value in range(1, low_res.shape[1]):
            scores[f"class_{names.get(value, value)}"] = dice[:, value - 1]
        return scores, predicted

    return judge


def interactive_judge(prompts: Prompts, clicks: int) -> Judge:
    """Judge answers to an exact box, and to clicks of which each corrects the last answer."""

    def judge(model: Sam, batch: Batch, draws: torch.Generator) -> tuple[Scores, Tensor]:
        shape = batch["masks"].shape[:2]
        masks = batch["masks"].flatten(0, 1).bool()
        embeddings = model.image_encoder(batch["image"])
        boxes = simulate.boxes_of(masks)
        start, stop = boxes.chunk(2, dim=1)
        corners = torch.cat([own_order(start), own_order(stop - 1)], dim=1)
        answer = _answer(model, embeddings, masks, prompts, boxes=corners)
        best = answer.logits[:, 0] > 0
        scores = {"dice_box": mask_dice(best, masks)}
        points, labels = simulate.first_points(masks, 1, draws, at_core=True)
        previous = None
        for click in range(1, clicks + 1):
            answer = _answer(
                model,
                embeddings,
                masks,
                prompts,
                points=(own_order(points), labels),
                masks_in=previous,
            )
            now = answer.logits[:, 0] > 0
            scores[f"dice_{click}"] = mask_dice(now, masks)
            before = points, labels
            points, labels = simulate.error_points(now, masks, 1, draws, at_core=True)
            if prompts.each == "object":  # such models are shown all clicks
                points = torch.cat([before[0], points], dim=1)
                labels = torch.cat([before[1], labels], dim=1)
            previous = mask_prompt(answer, prompts)
        if "valid" in batch:
            filling = ~batch["valid"].flatten()
            scores = {name: v.masked_fill(filling, torch.nan) for name, v in scores.items()}
        scores["dice"] = torch.stack(list(scores.values())).mean(dim=0)
        return scores, best.reshape(*shape, *best.shape[1:])

    return judge


@torch.no_grad()
def validate(
    model: Sam,
    batches: Iterable[tuple[int, Batch]],
    judge: Judge,
    machine: Machine,
    *,
    seed: int,
    keep: int = 0,
) -> tuple[dict[str, float], list[tuple[Tensor, Tensor, Tensor]]]:
    """Mean scores over all batches of all processes, and some samples of this one.

    Args:
        model: what to judge; in training mode again afterwards.
        batches: those of this process, each with its number among all.
        judge: how.
        machine: where.
        seed: of the prompts; a batch's prompts depend on its number alone.
        keep: how many samples (image, reference, prediction) to give back.
    """
    sums: dict[str, tuple[float, float]] = {}
    samples: list[tuple[Tensor, Tensor, Tensor]] = []
    model.eval()
    for number, batch in batches:
        batch = {name: value.to(machine.device) for name, value in batch.items()}
        with machine.autocast():
            scores, predicted = judge(model, batch, generator(seed, "validation", number))
        for name, values in scores.items():
            good = values[~values.isnan()].double()
            total, count = sums.get(name, (0.0, 0.0))
            sums[name] = (total + float(good.sum()), count + len(good))
        for i in range(min(keep - len(samples), len(predicted))):
            reference = batch["label" if "label" in batch else "masks"][i]
            samples.append((batch["image"][i].cpu(), reference.cpu(), predicted[i].cpu()))
    model.train()
    everyone = machine.gathered(sums)
    found = {}
    for name in sorted({name for own in everyone for name in own}):
        total, count = (sum(own.get(name, (0.0, 0.0))[i] for own in everyone) for i in (0, 1))
        found[name] = total / count if count else float("nan")
    return found, samples


def _answer(
    model: Sam,
    embeddings: Tensor,
    masks: Tensor,
    prompts: Prompts,
    *,
    points: tuple[Tensor, Tensor] | None = None,
    boxes: Tensor | None = None,
    masks_in: Tensor | None = None,
) -> Answer:
    size = tuple(masks.shape[1:])
    sparse, dense = model.prompt_encoder(points, boxes, masks_in, image_size=size)
    low_res, iou = model.mask_decoder(
        image_embeddings=embeddings,
        image_pe=model.prompt_encoder.get_dense_pe(size),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=prompts.multimask,
    )
    rows, best = torch.arange(len(iou), device=iou.device), iou.argmax(dim=1)
    low_res = low_res[rows, best][:, None]
    return Answer(low_res, enlarged(low_res, size), iou[rows, best][:, None], start=low_res)
