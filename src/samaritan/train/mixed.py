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
from samaritan.transforms import PRIOR_LOGIT


@dataclass(frozen=True)
class Told:
    """What the model is told about each object, in array order.

    Attributes:
        coords: (n, p, ndim).
        labels: (n, p): 1, 0, or -1 where there is no point.
        boxes: half-open (n, 2 * ndim); the last corner before the first where there is no box.
        masks: logits (n, 1, *size), 0 where nothing is known.
    """

    coords: Tensor
    labels: Tensor
    boxes: Tensor
    masks: Tensor


def mixed_step(prompts: Prompts, loss: Loss) -> Step:
    """The step of our own small models: a first answer to a box, a click or a rough mask, then corrections.

    Each is an update of its own; only the first reaches the stem.
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
        yield _loss(low_res, quality, masks, loss)
        embeddings = embeddings.detach()
        if turn < prompts.rounds:
            told = corrected(told, low_res[:, 0].detach(), masks, prompts, generator)


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
    deep = _deep_points(masks, 1, generator)
    anywhere = simulate.random_points(masks, 1, generator)
    coords = torch.where((dice[3] < 0.6)[:, None, None], deep, anywhere)
    return Told(
        coords,
        torch.where(clicked, 1, -1)[:, None],
        torch.where(boxed[:, None], boxes, _no_box(boxes)),
        rough_masks(masks, generator) * rough.reshape(-1, 1, *[1] * (masks.ndim - 1)),
    )


def corrected(
    told: Told, answer: Tensor, masks: Tensor, prompts: Prompts, generator: torch.Generator
) -> Told:
    """Add clicks on what is wrong with an answer (n, *size), and the answer itself as a mask."""
    which = torch.randint(len(prompts.points), (), generator=generator, device=generator.device)
    count = prompts.points[int(which)]
    at_core = bool(torch.rand((), generator=generator, device=generator.device) < 0.7)
    coords, labels = _error_points(answer > 0, masks, count, generator, at_core=at_core)
    return replace(
        told,
        coords=torch.cat([told.coords, coords], dim=1),
        labels=torch.cat([told.labels, labels], dim=1),
        masks=answer[:, None],
    )


def rough_masks(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Masks as a hurried hand would draw them (n, 1, *size): their edges moved in and out, as logits."""
    size = masks.shape[1:]
    shape = (len(masks), 1, *[8] * len(size))
    noise = torch.rand(shape, generator=generator, device=generator.device).to(masks.device)
    mode = {2: "bicubic", 3: "trilinear"}[len(size)]
    noise = F.interpolate(noise, list(size), mode=mode, align_corners=False)
    width = max(2 * (min(size) // 16) + 1, 3)
    soft = _averaged(masks[:, None].float(), width)
    return torch.where(soft > 0.15 + 0.7 * noise, PRIOR_LOGIT, -PRIOR_LOGIT)


def _averaged(values: Tensor, width: int) -> Tensor:
    """Average (n, c, *size) over cubes of an odd side, axis by axis; beyond the edge lies 0."""
    pool = F.avg_pool2d if values.ndim == 4 else F.avg_pool3d
    for axis in range(values.ndim - 2):
        sides = [width if a == axis else 1 for a in range(values.ndim - 2)]
        values = pool(values, sides, stride=1, padding=[n // 2 for n in sides])
    return values


def _deep_points(masks: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points deep inside; of volumes on a coarse grid, since their depth takes too long to find."""
    find = simulate.core_points if masks.ndim == 3 else simulate.thick_points
    return find(masks, count, generator)


def _error_points(
    predicted: Tensor, masks: Tensor, count: int, generator: torch.Generator, *, at_core: bool
) -> tuple[Tensor, Tensor]:
    """Clicks on errors; at the core of the largest, or about there in volumes."""
    if masks.ndim == 3 or not at_core:
        return simulate.error_points(predicted, masks, count, generator, at_core=at_core)
    wrong = predicted != masks
    coords = simulate.thick_points(wrong, count, generator)
    return coords, simulate.labels_at(coords, masks, wrong)


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


def _loss(low_res: Tensor, quality: Tensor, masks: Tensor, loss: Loss) -> StepLoss:
    """Losses of the first mask, and of how good the model believes it to be."""
    parts = mask_losses(low_res[:, :1], masks[:, None])
    wrong = (quality[:, :1] - parts["iou"].detach()).square().mean()
    ce, dice = parts["ce"].mean(), parts["dice"].mean()
    total = loss.cross_entropy * ce + loss.dice * dice + loss.iou * wrong
    right = mask_dice(low_res[:, 0] > 0, masks).mean()
    return StepLoss(total, {"ce": ce, "dice_loss": dice, "iou_mse": wrong, "dice": right})


def _no_box(boxes: Tensor) -> Tensor:
    """A box whose last corner lies before its first."""
    ndim = boxes.shape[1] // 2
    none = torch.zeros_like(boxes)
    none[:, :ndim] = 2.0
    return none
