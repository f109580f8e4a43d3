"""Clicks and boxes drawn from reference masks and from errors, as a person might give them.

Everything is batched, stays on the device of the masks, works in 2 and 3 dimensions, and is drawn from the
generator that is given. Coordinates are array indices, voxel centres at integers; boxes are half-open.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

POSITIVE, NEGATIVE, NO_POINT = 1, 0, -1
"""Labels of points: on the object, off the object, and no point at all (nothing was wrong)."""

CORE = 0.5
"""Voxels deeper inside than this part of the greatest depth are the core of an object."""

Masks = Bool[Tensor, "n *grid"]
Numbers = Int[Tensor, "n *grid"]
Coords = Float[Tensor, "n p d"]
Labels = Int[Tensor, "n p"]
Boxes = Float[Tensor, "n k"]

_POOL = {2: F.max_pool2d, 3: F.max_pool3d}


def boxes_of(masks: Masks) -> Boxes:
    """The smallest box around each mask: first voxel of each axis, then one past the last.

    An empty mask gets the box of the whole grid.

    >>> boxes_of(torch.eye(4, dtype=torch.bool)[None, 1:3])
    tensor([[0., 1., 2., 3.]])
    """
    starts, stops = [], []
    for axis in range(1, masks.ndim):
        others = [a for a in range(1, masks.ndim) if a != axis]
        line = masks.amax(dim=others) if others else masks
        size = line.shape[1]
        index = torch.arange(size, device=masks.device)
        starts.append(torch.where(line, index, size).amin(dim=1) % size)
        last = torch.where(line, index, -1).amax(dim=1)
        stops.append(torch.where(last < 0, size - 1, last) + 1)
    return torch.stack([*starts, *stops], dim=1).float()


def jitter_boxes(
    boxes: Boxes, size: tuple[int, ...], generator: torch.Generator, *, part: float = 0.1
) -> Boxes:
    """Move every face of a box on its own, by up to a part of the box's side, as a hand would.

    Boxes stay inside the grid and keep at least one voxel along every axis.
    """
    ndim = len(size)
    sides = (boxes[:, ndim:] - boxes[:, :ndim]).repeat(1, 2)
    moved = (boxes + part * sides * (2 * _uniform(boxes.shape, boxes, generator) - 1)).round()
    limit = torch.tensor(size, device=boxes.device, dtype=boxes.dtype)
    start = torch.minimum(moved[:, :ndim].clamp(min=0), limit - 1)
    stop = torch.maximum(torch.minimum(moved[:, ndim:], limit), start + 1)
    return torch.cat([start, stop], dim=1)


def shift_boxes(boxes: Boxes, generator: torch.Generator, *, most: int = 5) -> Boxes:
    """Shift boxes as a whole by whole voxels, as published for SAM-Med2D; they may leave the grid.

    Each axis moves by one of -m ... m - 1, where m is half of the shortest side, at most `most`.

    Source: OpenGVLab/SAM-Med2D, utils.py get_boxes_from_mask. `jitter_boxes` is what a hand does.
    """
    ndim = boxes.shape[1] // 2
    shortest = (boxes[:, ndim:] - boxes[:, :ndim]).amin(dim=1, keepdim=True)
    m = (0.5 * shortest).floor().clamp(max=most)
    drawn = _uniform((len(boxes), ndim), boxes, generator)
    shift = torch.minimum((drawn * 2 * m).floor(), (2 * m - 1).clamp(min=0)) - m
    return boxes + shift.repeat(1, 2)


def random_points(masks: Masks, count: int, generator: torch.Generator) -> Coords:
    """Voxels drawn evenly from each mask, with replacement; from the whole grid if it is empty."""
    lines = masks.flatten(1, -2)  # n lines voxels: counting in lines is quicker than one by one
    lines = lines | ~lines.flatten(1).any(dim=1)[:, None, None]
    counts = lines.sum(dim=2)
    rank = counts.cumsum(dim=1)
    total = rank[:, -1:]
    drawn = (_uniform((len(masks), count), masks, generator, torch.float64) * total).long()
    wanted = torch.minimum(drawn, total - 1) + 1
    line = torch.searchsorted(rank, wanted)
    within = wanted - (rank - counts).gather(1, line)
    chosen = lines[torch.arange(len(masks), device=masks.device)[:, None], line].cumsum(dim=2)
    place = torch.searchsorted(chosen, within[..., None])[..., 0]
    return _unravel(line * masks.shape[-1] + place, tuple(masks.shape[1:]))


def core_points(masks: Masks, count: int, generator: torch.Generator) -> Coords:
    """Voxels drawn from the core of each mask: where a person would click to mean the whole of it."""
    return random_points(core(masks), count, generator)


def thick_points(
    masks: Masks, count: int, generator: torch.Generator, *, cell: int = 4, noise: float = 0.3
) -> Coords:
    """Voxels from where each mask is thickest, found on a grid of coarse cells: `core_points` without loops.

    The cell is that with most of the mask in and around it, at a distance that is drawn, times 1 less up to
    `noise`; in it a voxel of the mask is drawn. An empty mask gets a voxel from anywhere.
    """
    empty = ~masks.flatten(1).any(dim=1).reshape(-1, *[1] * (masks.ndim - 1))
    masks, ndim = masks | empty, masks.ndim - 1
    pool = {2: F.avg_pool2d, 3: F.avg_pool3d}[ndim]
    sides = [-(-n // cell) for n in masks.shape[1:]]
    spare = [m * cell - n for n, m in zip(masks.shape[1:], sides, strict=True)]
    padded = F.pad(masks, [edge for after in reversed(spare) for edge in (0, after)])
    share = pool(padded[:, None].float(), cell)[:, 0]
    picks = []
    for _ in range(count):
        width = 2 * int(torch.randint(3, (), generator=generator, device=generator.device)) + 1
        width = min(width, (min(sides) - 1) // 2 * 2 + 1)
        around = pool(share[:, None], width, stride=1, padding=width // 2)[:, 0]
        drawn = 1 - noise * _uniform(share.shape, share, generator)
        best = (around * drawn * (share > 0)).flatten(1).argmax(dim=1, keepdim=True)
        corner = _unravel(best, tuple(share.shape[1:])) * cell
        steps = torch.cartesian_prod(*[torch.arange(cell)] * ndim).to(masks.device)
        inside = _values_at(padded, corner + steps)  # n cells
        choice = inside * (1e-3 + _uniform(inside.shape, share, generator))
        picks.append(corner[:, 0] + steps[choice.argmax(dim=1)])
    return torch.stack(picks, dim=1)


def first_points(
    masks: Masks, count: int, generator: torch.Generator, *, at_core: bool = False
) -> tuple[Coords, Labels]:
    """Points to begin with: one on the object; of several, half on it (rounded down) and half off it.

    The order is shuffled. An empty mask gets points off the object only.

    Source: OpenGVLab/SAM-Med2D, utils.py init_point_sampling.
    """
    inside = max(count // 2, 1)
    draw = core_points if at_core else random_points
    coords = torch.cat(
        [
            draw(masks, inside, generator),
            random_points(~masks, count - inside, generator),
        ],
        dim=1,
    )
    labels = torch.full(coords.shape[:2], NEGATIVE, device=masks.device)
    labels[:, :inside] = POSITIVE
    labels = labels * masks.flatten(1).any(dim=1, keepdim=True)
    order = _uniform(labels.shape, coords, generator).argsort(dim=1)
    return coords.gather(1, order[..., None].expand_as(coords)), labels.gather(1, order)


def error_points(
    predicted: Masks,
    reference: Masks,
    count: int,
    generator: torch.Generator,
    *,
    at_core: bool = False,
) -> tuple[Coords, Labels]:
    """Points that correct a prediction: on what was missed, off what was found wrongly.

    Args:
        predicted: what the model says.
        reference: what is true.
        count: points for each mask, drawn with replacement.
        generator: where randomness comes from.
        at_core: draw from the core of the largest connected error, as a person would, instead of
            evenly from all voxels that are wrong.

    Returns:
        Coordinates, and labels: `NO_POINT` throughout where nothing is wrong.
    """
    wrong = predicted != reference
    source = core(largest_component(wrong)) if at_core else wrong
    coords = random_points(source, count, generator)
    return coords, labels_at(coords, reference, wrong)


def labels_at(coords: Coords, reference: Masks, wrong: Masks) -> Labels:
    """Labels of points that correct errors: `NO_POINT` throughout where nothing is wrong."""
    labels = _values_at(reference, coords).long()
    any_wrong = wrong.flatten(1).any(dim=1, keepdim=True)
    return torch.where(any_wrong, labels, NO_POINT)


def components(masks: Masks) -> Numbers:
    """Number the connected components of each mask, diagonal neighbours included; 0 outside.

    The numbers are not consecutive: each is one more than the flat index of the component's last voxel.

    >>> components(torch.tensor([[[True, False, True]]])).tolist()
    [[[1, 0, 3]]]
    """
    work = _numbered_one_by_one if masks.device.type == "cpu" else _numbered_together
    return work(masks)


def _numbered_together(masks: Masks) -> Numbers:
    pool = _POOL[masks.ndim - 1]
    n_voxels = math.prod(masks.shape[1:])
    exact = torch.float32 if n_voxels < 2**24 else torch.float64
    index = torch.arange(1, n_voxels + 1, device=masks.device).reshape(masks.shape[1:])
    labels = torch.where(masks, index, 0)
    while True:
        grown = pool(labels[:, None].to(exact), 3, stride=1, padding=1)[:, 0].long()
        grown = torch.where(masks, grown, 0)
        flat = F.pad(grown.flatten(1), (1, 0))  # so that label 0 leads to 0
        jumped = flat.gather(1, flat.gather(1, flat))[:, 1:].reshape(labels.shape)
        if torch.equal(jumped, labels):
            return labels
        labels = jumped


def largest_component(masks: Masks) -> Masks:
    """The largest connected component of each mask; the first of equals."""
    flat = components(masks).flatten(1)
    sizes = torch.zeros(len(flat), flat.shape[1] + 1, dtype=torch.long, device=masks.device)
    sizes.scatter_add_(1, flat, torch.ones_like(flat))
    sizes[:, 0] = 0
    best = sizes.argmax(dim=1, keepdim=True)
    return ((flat == best) & (flat > 0)).reshape(masks.shape)


def depth(masks: Masks) -> Numbers:
    """Steps from each voxel of a mask to the nearest voxel outside it, diagonal steps included.

    What lies beyond the grid counts as outside.
    """
    work = _depth_one_by_one if masks.device.type == "cpu" else _depth_together
    return work(masks)


def _depth_together(masks: Masks) -> Numbers:
    pool, ndim = _POOL[masks.ndim - 1], masks.ndim - 1
    left = masks
    steps = torch.zeros(masks.shape, dtype=torch.long, device=masks.device)
    while bool(left.any()):
        steps += left
        outside = F.pad((~left)[:, None].float(), (1, 1) * ndim, value=1.0)
        left = pool(outside, 3, stride=1)[:, 0] == 0
    return steps


def core(masks: Masks) -> Masks:
    """The voxels that lie deepest inside each mask; see `CORE`."""
    steps = depth(masks)
    deepest = steps.flatten(1).amax(dim=1).reshape(-1, *[1] * (masks.ndim - 1))
    return masks & (steps > CORE * deepest)


def _numbered_one_by_one(masks: Masks) -> Numbers:
    """Number components as `_numbered_together` does; on a CPU, scipy's single pass is much faster."""
    from scipy import ndimage

    numbers = torch.zeros(masks.shape, dtype=torch.long)
    for mask, found in zip(masks.numpy(), numbers.numpy(), strict=True):
        parts, count = ndimage.label(mask, np.ones((3,) * mask.ndim, int))
        where = np.flatnonzero(parts)
        last = np.zeros(count + 1, np.int64)
        np.maximum.at(last, parts.ravel()[where], where + 1)
        found[...] = last[parts]
    return numbers


def _depth_one_by_one(masks: Masks) -> Numbers:
    """Find depths as `_depth_together` does; on a CPU, scipy's two passes are much faster."""
    from scipy import ndimage

    steps = torch.zeros(masks.shape, dtype=torch.long)
    for mask, found in zip(masks.numpy(), steps.numpy(), strict=True):
        inner = (slice(1, -1),) * mask.ndim
        found[...] = ndimage.distance_transform_cdt(np.pad(mask, 1), "chessboard")[inner]
    return steps


def _uniform(
    shape: tuple[int, ...] | torch.Size,
    like: Tensor,
    generator: torch.Generator,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Numbers from [0, 1), drawn where the generator is and brought to where they are needed."""
    drawn = torch.rand(shape, generator=generator, device=generator.device, dtype=dtype)
    return drawn.to(like.device)


def _unravel(place: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.stack(torch.unravel_index(place, shape), dim=-1).float()


def _values_at(masks: Tensor, coords: Tensor) -> Tensor:
    index = coords.long().unbind(dim=-1)
    batch = torch.arange(len(masks), device=masks.device)[:, None]
    return masks[(batch, *index)]
