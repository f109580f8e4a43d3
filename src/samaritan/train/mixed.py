"""Learning to answer prompts where each object of a batch has a kind of its own: for small models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan import simulate
from samaritan.errors import ConfigError
from samaritan.losses import mask_losses
from samaritan.models.sam import Sam
from samaritan.recipes.sections import Loss, Prompts
from samaritan.train.interactive import own_order
from samaritan.train.steps import Batch, Step, StepLoss, mask_dice

PRIOR_LOGIT = 6.0
"""A mask that is drawn, not predicted, counts as logits of this size, as in inference."""


@dataclass(frozen=True)
class Told:
    """What the model is told about each object, in array order.

    Attributes:
        coords: (n, p, ndim).
        labels: (n, p): 1, 0, or -1 where there is no point.
        boxes: half-open (n, 2 * ndim); the last corner before the first where there is no box.
        masks: logits (n, 1, *size), 0 where nothing is known.
        lone: (n): one click and nothing else, so that several answers may be right.
    """

    coords: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor | None
    lone: Tensor


def mixed_step(prompts: Prompts, loss: Loss) -> Step:
    """The step of our own small models: a first answer to a box, a click or a rough mask, then corrections.

    Each is an update of its own; only the first reaches the stem. The first mask token answers everything;
    the others share out the answers to a lone click, of which only the best learns.
    """
    return partial(_step, prompts=prompts, loss=loss)


def _step(
    model: Sam, batch: Batch, generator: torch.Generator, *, prompts: Prompts, loss: Loss
) -> Iterator[StepLoss]:
    if model.config.backbone != "unet":
        raise ConfigError(
            f"prompts.each object needs a model of backbone unet, and {model.config.name!r} is of "
            f"{model.config.backbone!r}: use prompts.each batch"
        )
    masks = batch["masks"].flatten(0, 1).bool()
    embeddings = model.image_encoder(batch["image"])
    told = first(masks, prompts, generator)
    for turn in range(prompts.rounds + 1):
        low_res, quality = _ask(model, embeddings, told)
        yield _loss(low_res, quality, masks, told, loss)
        embeddings = embeddings.detach()
        if turn < prompts.rounds:
            told = corrected(told, _chosen(low_res, quality, told), masks, prompts, generator)


def first(masks: Tensor, prompts: Prompts, generator: torch.Generator) -> Told:
    """Begin with a box, a click, or both, and some with a rough mask as well."""
    n = len(masks)
    dice = torch.rand(4, n, generator=generator, device=generator.device).to(masks.device)
    boxed = dice[0] < prompts.box_part
    clicked = ~boxed | (dice[1] < 0.2)
    rough = dice[2] < prompts.mask_part
    boxes = simulate.boxes_of(masks)
    if prompts.box_noise == "jitter":
        boxes = simulate.jitter_boxes(boxes, tuple(masks.shape[1:]), generator)
    deep = simulate.core_points(masks, 1, generator)
    anywhere = simulate.random_points(masks, 1, generator)
    coords = torch.where((dice[3] < 0.6)[:, None, None], deep, anywhere)
    return Told(
        coords,
        torch.where(clicked, 1, -1)[:, None],
        torch.where(boxed[:, None], boxes, _no_box(boxes)),
        rough_masks(masks, generator) * rough.reshape(-1, 1, *[1] * (masks.ndim - 1)),
        clicked & ~boxed & ~rough,
    )


def corrected(
    told: Told, answer: Tensor, masks: Tensor, prompts: Prompts, generator: torch.Generator
) -> Told:
    """Add clicks on what is wrong with an answer (n, *size), and the answer itself as a mask."""
    which = torch.randint(len(prompts.points), (), generator=generator, device=generator.device)
    count = prompts.points[int(which)]
    at_core = bool(torch.rand((), generator=generator, device=generator.device) < 0.7)
    coords, labels = simulate.error_points(answer > 0, masks, count, generator, at_core=at_core)
    return replace(
        told,
        coords=torch.cat([told.coords, coords], dim=1),
        labels=torch.cat([told.labels, labels], dim=1),
        masks=answer.detach()[:, None],
        lone=torch.zeros_like(told.lone),
    )


def rough_masks(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Masks as a hurried hand would draw them (n, 1, *size): their edges moved in and out, as logits."""
    size = masks.shape[1:]
    shape = (len(masks), 1, *[8] * len(size))
    noise = torch.rand(shape, generator=generator, device=generator.device).to(masks.device)
    mode = {2: "bicubic", 3: "trilinear"}[len(size)]
    noise = F.interpolate(noise, list(size), mode=mode, align_corners=False)
    width = max(2 * (min(size) // 16) + 1, 3)
    pool = F.avg_pool2d if len(size) == 2 else F.avg_pool3d
    soft = pool(masks[:, None].float(), width, stride=1, padding=width // 2)
    return torch.where(soft > 0.15 + 0.7 * noise, PRIOR_LOGIT, -PRIOR_LOGIT)


def _ask(model: Sam, embeddings: Tensor, told: Told) -> tuple[Tensor, Tensor]:
    size = tuple(model.prompt_encoder.image_size)
    start, stop = told.boxes.chunk(2, dim=1)
    sparse, dense = model.prompt_encoder(
        (own_order(told.coords), told.labels),
        torch.cat([own_order(start), own_order(stop - 1)], dim=1),
        told.masks,
        image_size=size,
    )
    low_res, quality = model.mask_decoder.every_mask(
        image_embeddings=embeddings,
        image_pe=model.prompt_encoder.get_dense_pe(size),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    return low_res.float(), quality.float()


def _chosen(low_res: Tensor, quality: Tensor, told: Told) -> Tensor:
    """The answer that inference would show: of a lone click the best of several, else the first."""
    several = 1 + quality[:, 1:].argmax(dim=1)
    which = torch.where(told.lone, several, 0)
    return low_res[torch.arange(len(which), device=which.device), which].detach()


def _loss(low_res: Tensor, quality: Tensor, masks: Tensor, told: Told, loss: Loss) -> StepLoss:
    """Losses of the masks that count, and of the quality of those."""
    target = masks.float()
    parts = mask_losses(low_res, target[:, None].expand_as(low_res))
    costs = loss.cross_entropy * parts["ce"] + loss.dice * parts["dice"]
    best = 1 + costs[:, 1:].detach().argmin(dim=1)
    rows = torch.arange(len(best), device=best.device)
    several = costs[rows, best] * told.lone
    counted = torch.ones_like(quality)
    counted[:, 1:] = told.lone[:, None].to(counted.dtype)
    wrong = ((quality - parts["iou"].detach()).square() * counted).sum() / counted.sum()
    total = (costs[:, 0] + several).mean() + loss.iou * wrong
    shown = _chosen(low_res, quality, told)
    dice = mask_dice(shown > 0, masks).mean()
    logs = {"ce": parts["ce"][:, 0].mean(), "dice_loss": parts["dice"][:, 0].mean()}
    return StepLoss(total, {**logs, "iou_mse": wrong, "dice": dice})


def _no_box(boxes: Tensor) -> Tensor:
    """A box whose last corner lies before its first."""
    ndim = boxes.shape[1] // 2
    none = torch.zeros_like(boxes)
    none[:, :ndim] = 2.0
    return none
