"""Learning from clicks that follow one another on an object: one loss a batch, summed over all answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from samaritan import simulate
from samaritan.losses import dice_ce_loss
from samaritan.models.sam import Sam
from samaritan.recipes.sections import At, Clicks, Compat, Loss
from samaritan.train.at_once import apart, at_once
from samaritan.train.interactive import Answer, Given, enlarged, own_order
from samaritan.train.judging import Judge, Scores
from samaritan.train.steps import Batch, Step, StepLoss, mask_dice
from samaritan.transforms.windows import pooled

HALF_LOGIT = 0.5
"""See `Compat.half_logit_errors`."""

_MIDDLE = (2, 8)
"""Turns among which the one in the middle without a click is drawn, counted from 0 (SAM-Med3D)."""


def iterated_step(clicks: Clicks, loss: Loss, compat: Compat) -> Step:
    """The step of SAM-Med3D: an image is encoded once, and each click corrects the answer to the last.

    The low-resolution answer is the next mask prompt; it is zeros at first. Where nothing is wrong any
    more, an object gets no further point (the model sees its embedding of "no point") and its last mask.

    Source: uni-medical/SAM-Med3D, train.py; N clicks, boxes and all clicks: NeuroSAM3D, neuro_sam_model.py.
    """
    return partial(_step, clicks=clicks, loss=loss, compat=compat)


def _step(
    model: Sam,
    batch: Batch,
    generator: torch.Generator,
    *,
    clicks: Clicks,
    loss: Loss,
    compat: Compat,
) -> Iterator[StepLoss]:
    images = pooled(batch["image"]) if compat.pooled_statistics else batch["image"]
    masks = batch["masks"].flatten(0, 1).bool()  # (b k) *size
    boxed = float(torch.rand((), generator=generator, device=generator.device)) < clicks.box_part
    threshold = HALF_LOGIT if compat.half_logit_errors else 0.0
    embeddings = model.image_encoder(images)
    found = answers(model, embeddings, masks, clicks, generator, boxed=boxed, threshold=threshold)
    losses: list[dict[str, Tensor]] = []
    for turn, answer in enumerate(found):
        if turn or clicks.box_loss or not boxed:
            losses.append(_loss(answer, masks, loss))
    sums = {name: torch.stack([one[name] for one in losses]).sum(dim=0) for name in losses[0]}
    total = sums.pop("total")
    logs = {name: value / len(losses) for name, value in sums.items()}
    dice = mask_dice(answer.logits[:, 0] > 0, masks).mean()
    yield StepLoss(total, {**logs, "dice": dice})


def answers(
    model: Sam,
    embeddings: Tensor,
    masks: Tensor,
    clicks: Clicks,
    generator: torch.Generator,
    *,
    boxed: bool = False,
    threshold: float = 0.0,
) -> Iterator[Answer]:
    """Ask again and again, each time with a click on what is wrong with the last answer.

    Args:
        model: whom to ask.
        embeddings: of the images (b, e, *grid).
        masks: what is true (n, *size), the same number for each image.
        clicks: how to ask.
        generator: where randomness comes from.
        boxed: begin with a box alone, and keep showing it.
        threshold: logits above it count as the mask when errors are looked for.
    """
    size, ndim = tuple(masks.shape[1:]), masks.ndim - 1
    first, last = clicks.count
    count = first + _draw(last - first + 1, generator)
    alone = turns_of_masks_alone(clicks, count, generator)
    boxes = box_prompts(masks, clicks, generator) if boxed else None
    coords = masks.new_zeros(len(masks), 0, ndim, dtype=torch.float32)
    labels = masks.new_zeros(len(masks), 0, dtype=torch.long)
    low_res = embeddings.new_zeros(len(masks), 1, *model.low_res_size)
    predicted = torch.zeros_like(masks)
    for turn in range(count):
        if clicks.reach is not None and turn % (clicks.reach + 1) == 0:
            low_res = low_res.detach()
            embeddings = embeddings.detach() if turn and clicks.feedback else embeddings
        points = None
        if turn not in alone and (turn or not boxed):
            new = click(predicted, masks, clicks.at if turn else clicks.first_at, generator)
            if clicks.show == "all":
                new = torch.cat([coords, new[0]], dim=1), torch.cat([labels, new[1]], dim=1)
            coords, labels = new
            points = own_order(coords), labels
        given = Given(points, boxes if turn not in alone else None, low_res)
        low_res, iou, joined = _ask(model, embeddings, given, size, feedback=clicks.feedback)
        embeddings = joined if joined is not None else embeddings
        start = apart(low_res)
        logits = enlarged(start, size) if low_res.shape[2:] != size else start
        predicted = logits.detach()[:, 0] > threshold
        yield Answer(low_res, logits, iou, start)


def click(
    predicted: Tensor, masks: Tensor, at: At, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One click for each object on what is wrong with it; label -1 where nothing is.

    Of an empty prediction all of the object is wrong, so a first click lies on it.
    """
    if at == "largest":
        predicted = masks ^ simulate.largest_component(predicted != masks)
    return simulate.error_points(predicted, masks, 1, generator, at_core=at == "core")


def box_prompts(masks: Tensor, clicks: Clicks, generator: torch.Generator) -> Tensor:
    """Boxes in the model's frame: corners at the centres of outermost voxels, as in inference."""
    boxes = simulate.boxes_of(masks)
    if clicks.box_noise == "jitter":
        boxes = simulate.jitter_boxes(boxes, tuple(masks.shape[1:]), generator)
    start, stop = boxes.chunk(2, dim=1)
    return torch.cat([own_order(start), own_order(stop - 1)], dim=1)


def turns_of_masks_alone(clicks: Clicks, count: int, generator: torch.Generator) -> set[int]:
    """The turns at which the last answer is shown and nothing else."""
    found = set()
    low, high = _MIDDLE[0], min(_MIDDLE[1], count - 2)
    if clicks.mask_only != "none" and low <= high:
        found.add(low + _draw(high - low + 1, generator))
    if clicks.mask_only == "middle_and_last" and count > 1:
        found.add(count - 1)
    return found


def iterated_judge(clicks: Clicks, count: int) -> Judge:
    """Judge answers to clicks of which each corrects the last answer, and to an exact box if one is taken.

    Clicks lie at the core of objects and errors, and none is left out.
    """
    shown = clicks.model_copy(
        update={"count": (count, count), "at": "core", "first_at": "core", "mask_only": "none"}
    )
    one = shown.model_copy(update={"count": (1, 1), "box_noise": "none"})

    def judge(model: Sam, batch: Batch, draws: torch.Generator) -> tuple[Scores, Tensor]:
        shape = batch["masks"].shape[:2]
        masks = batch["masks"].flatten(0, 1).bool()
        embeddings = model.image_encoder(batch["image"])
        scores: Scores = {}
        for turn, answer in enumerate(answers(model, embeddings, masks, shown, draws), 1):
            best = answer.logits[:, 0] > 0
            scores[f"dice_{turn}"] = mask_dice(best, masks)
        scores["dice"] = torch.stack(list(scores.values())).mean(dim=0)
        if len(model.prompt_encoder.point_embeddings) >= 4:
            (boxed,) = answers(model, embeddings, masks, one, draws, boxed=True)
            scores["dice_box"] = mask_dice(boxed.logits[:, 0] > 0, masks)
        if "valid" in batch:
            filling = ~batch["valid"].flatten()
            scores = {name: v.masked_fill(filling, torch.nan) for name, v in scores.items()}
        return scores, best.reshape(*shape, *best.shape[1:])

    return judge


def _ask(
    model: Sam, embeddings: Tensor, given: Given, size: tuple[int, ...], *, feedback: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Decode one mask for each object; with `feedback` also give the image joined with the last mask."""
    sparse, dense = model.prompt_encoder(given.points, given.boxes, given.masks, image_size=size)
    positions = model.prompt_encoder.get_dense_pe(size)
    if feedback:
        joined = model.mask_decoder.join(embeddings, sparse, dense)
        low_res, iou = model.mask_decoder.decode_joined(joined, positions, sparse)
        return low_res.float(), iou, joined
    low_res, iou = model.mask_decoder(
        image_embeddings=embeddings,
        image_pe=positions,
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )
    return low_res.float(), iou, None


def _loss(answer: Answer, masks: Tensor, loss: Loss) -> dict[str, Tensor]:
    parts = dice_ce_loss(
        answer.logits, masks[:, None], dice_weight=loss.dice, ce_weight=loss.cross_entropy
    )
    total = at_once(parts["total"], answer.start, answer.low_res)
    found = {"total": total, "ce": parts["ce"], "dice_loss": parts["dice"]}
    if loss.iou:
        dice = mask_dice(answer.logits.detach()[:, 0] > 0, masks)
        wrong = (answer.iou.float()[:, 0] - dice / (2 - dice)).square().mean()
        found |= {"total": found["total"] + loss.iou * wrong, "iou_mse": wrong}
    return found


def _draw(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator, device=generator.device))
