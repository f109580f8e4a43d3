"""Learning to answer prompts and to take corrections: several updates from one batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan import simulate
from samaritan.losses import sam_med2d_loss
from samaritan.models.sam import Sam
from samaritan.products import linear
from samaritan.recipes.sections import Compat, Loss, Prompts
from samaritan.train.steps import Batch, Step, StepLoss, mask_dice


@dataclass(frozen=True)
class Given:
    """What the model is told about each object, in its own frame."""

    points: tuple[Tensor, Tensor] | None = None
    boxes: Tensor | None = None
    masks: Tensor | None = None


@dataclass(frozen=True)
class Answer:
    """What it says: the chosen mask of each object."""

    low_res: Tensor
    """Logits (n, 1, *low_res)."""
    logits: Tensor
    """The same at the size of the image, computed from `start`."""
    iou: Tensor
    """Predicted quality (n, 1)."""
    start: Tensor
    """`low_res`, or its values with a graph of their own."""


def interactive_step(prompts: Prompts, loss: Loss, compat: Compat) -> Step:
    """The step of SAM-Med2D: a first answer from a box or a point, then corrections of errors.

    Only the first update reaches the image encoder; its embedding serves the others.

    Source: OpenGVLab/SAM-Med2D, train.py.
    """
    return partial(_step, prompts=prompts, loss=loss, compat=compat)


def _step(
    model: Sam,
    batch: Batch,
    generator: torch.Generator,
    *,
    prompts: Prompts,
    loss: Loss,
    compat: Compat,
) -> Iterator[StepLoss]:
    images = batch["image"]
    masks = batch["masks"].flatten(0, 1).bool()  # (b k) *size
    embeddings = model.image_encoder(images)
    ask = partial(_ask, model, masks=masks, prompts=prompts, loss=loss)
    answer = ask(embeddings, first_prompts(masks, prompts, compat, generator))
    yield _loss(answer, masks, loss, compat)
    embeddings = embeddings.detach()
    held = torch.no_grad if compat.prompts_without_gradient else contextlib.nullcontext
    alone = _rounds_of_masks_alone(prompts, generator)
    for turn in range(prompts.rounds):
        given = corrections(answer, masks, prompts, generator)
        if turn in alone:
            given = Given(masks=given.masks)
        answer = ask(embeddings, given, prompt_context=held)
        yield _loss(answer, masks, loss, compat)


def first_prompts(
    masks: Tensor, prompts: Prompts, compat: Compat, generator: torch.Generator
) -> Given:
    """A box for each object, or a point for each."""
    if float(torch.rand((), generator=generator, device=generator.device)) < prompts.box_part:
        return Given(boxes=box_prompts(masks, prompts, compat, generator))
    at_core = prompts.click_at == "core"
    return Given(points=_in_frame(*simulate.first_points(masks, 1, generator, at_core=at_core)))


def box_prompts(
    masks: Tensor, prompts: Prompts, compat: Compat, generator: torch.Generator
) -> Tensor:
    """Boxes in the model's frame: corners at the centres of outermost pixels, as in inference."""
    if prompts.box_around == "largest":
        masks = simulate.largest_component(masks)
    boxes = simulate.boxes_of(masks)
    size = tuple(masks.shape[1:])
    if prompts.box_noise == "jitter":
        boxes = simulate.jitter_boxes(boxes, size, generator)
    elif prompts.box_noise == "shift":
        boxes = simulate.shift_boxes(boxes, generator)
    start, stop = boxes.chunk(2, dim=1)
    last = stop if compat.exclusive_box_corners else stop - 1
    return torch.cat([own_order(start), own_order(last)], dim=1)


def corrections(
    answer: Answer, masks: Tensor, prompts: Prompts, generator: torch.Generator
) -> Given:
    """Points on the errors of an answer, and the answer itself as a mask."""
    which = torch.randint(len(prompts.points), (), generator=generator, device=generator.device)
    found = simulate.error_points(
        answer.logits[:, 0] > 0,
        masks,
        prompts.points[int(which)],
        generator,
        at_core=prompts.click_at == "core",
    )
    return Given(points=_in_frame(*found), masks=mask_prompt(answer, prompts))


def mask_prompt(answer: Answer, prompts: Prompts) -> Tensor:
    """An answer as the next mask prompt, which sends no gradient back."""
    low_res = answer.low_res.detach().float()
    return low_res.sigmoid() if prompts.mask_values == "probabilities" else low_res


def _ask(
    model: Sam,
    embeddings: Tensor,
    given: Given,
    *,
    masks: Tensor,
    prompts: Prompts,
    loss: Loss,
    prompt_context: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Answer:
    """Decode prompts for each object, and choose one mask for each."""
    size = tuple(masks.shape[1:])
    with prompt_context():
        sparse, dense = model.prompt_encoder(
            given.points, given.boxes, given.masks, image_size=size
        )
    low_res, iou = model.mask_decoder(
        image_embeddings=embeddings,
        image_pe=model.prompt_encoder.get_dense_pe(size),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=prompts.multimask,
    )
    if prompts.choose == "lowest_loss" and prompts.multimask:
        best = _costs(low_res, masks, loss).argmin(dim=1)
    else:
        best = iou.argmax(dim=1)
    rows = torch.arange(len(best), device=best.device)
    low_res, iou = low_res[rows, best][:, None], iou[rows, best][:, None]
    return Answer(low_res, enlarged(low_res, size), iou, low_res)


def enlarged(low_res: Tensor, size: tuple[int, ...]) -> Tensor:
    """Logits at the size of the image, linearly: axis by axis, which goes back faster than all at once."""
    x = low_res.float()
    with torch.autocast(x.device.type, enabled=False):
        for axis, wanted in enumerate(size, start=2):
            weights = _interpolation(x.shape[axis], wanted).to(x.device)
            if axis == x.ndim - 1:
                x = linear(x, weights)
            else:
                rest = x.shape[axis + 1 :]
                x = (weights @ x.flatten(axis + 1)).reshape(*x.shape[:axis], wanted, *rest)
    return x


@lru_cache(maxsize=16)
def _interpolation(given: int, wanted: int) -> Tensor:
    """How much each given place counts at each wanted one, corners not aligned (wanted, given)."""
    found: Tensor = F.interpolate(torch.eye(given)[None], wanted, mode="linear")[0].t().contiguous()
    return found


@torch.no_grad()
def _costs(low_res: Tensor, masks: Tensor, loss: Loss) -> Tensor:
    """What each of several masks (n, m) would cost on its own."""
    logits = enlarged(low_res, tuple(masks.shape[1:]))
    costs = []
    for one in logits.unbind(dim=1):
        apart = torch.vmap(partial(_cost, loss=loss))(one, masks.float())
        costs.append(apart)
    return torch.stack(costs, dim=1)


def _cost(logits: Tensor, mask: Tensor, *, loss: Loss) -> Tensor:
    parts = sam_med2d_loss(logits[None, None], mask[None, None], logits.new_zeros(1, 1))
    return loss.focal * parts["focal"] + loss.dice * parts["dice"]


def _loss(answer: Answer, masks: Tensor, loss: Loss, compat: Compat) -> StepLoss:
    parts = sam_med2d_loss(
        answer.logits,
        masks[:, None],
        answer.iou,
        focal_weight=loss.focal,
        dice_weight=loss.dice,
        iou_weight=loss.iou,
        batch_dice=compat.batch_losses,
        batch_iou_target=compat.batch_losses,
        detach_iou_target=not compat.batch_losses,
    )
    logs = {"focal": parts["focal"], "dice_loss": parts["dice"], "iou_mse": parts["iou_mse"]}
    dice = mask_dice(answer.logits[:, 0] > 0, masks).mean()
    return StepLoss(parts["total"], {**logs, "dice": dice})


def _rounds_of_masks_alone(prompts: Prompts, generator: torch.Generator) -> set[int]:
    """The rounds that show the previous mask and nothing else: one in the middle, and the last."""
    if not (prompts.mask_only and prompts.rounds):
        return set()
    last = prompts.rounds - 1
    if last < 2:
        return {last}
    middle = torch.randint(1, last, (), generator=generator, device=generator.device)
    return {int(middle), last}


def _in_frame(coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return own_order(coords), labels


def own_order(coords: Tensor) -> Tensor:
    """Array order as the model takes it: (x, y) in 2D, as it is in 3D."""
    return coords.flip(-1) if coords.shape[-1] == 2 else coords
