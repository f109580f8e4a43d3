"""What is known of one object in one frame, and the model's answer to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from samaritan.geometry import FloatArray, Grid
from samaritan.infer.engine import Embedded, OpenImage
from samaritan.transforms import PRIOR_LOGIT
from samaritan.volume import Volume

Key = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class FrameState:
    """One object in one frame. Prompts are in array indices of the image."""

    points: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))
    labels: tuple[int, ...] = ()
    box: tuple[FloatArray, FloatArray] | None = None
    """Start and stop, half-open."""
    logits: Float[Tensor, "*low"] | None = None
    """The present low-resolution mask."""
    quality: float | None = None
    """The model's own estimate of its intersection over union."""
    features: Float[Tensor, "1 c *g"] | None = None
    """The image as the last answer joined it with the mask, where the decoder gets it back."""
    statistics: Mapping[str, float] | None = None
    """Intensities to normalise the frame with; None: its own."""

    def with_click(self, index: FloatArray, positive: bool) -> FrameState:
        """Add a click."""
        points = np.concatenate([self.points, np.reshape(index, (1, 3))])
        return replace(self, points=points, labels=(*self.labels, int(positive)))


def answer(image: OpenImage, key: Key, state: FrameState, *, mask_only: bool = False) -> FrameState:
    """Ask the model for the mask of the object, given its prompts and its present mask.

    With `mask_only` it is redrawn from its present mask, as training did that.
    """
    embedded = image.embedded(key, state.statistics)
    engine, policy = image.engine, image.engine.preprocess.prompting
    mask_only = mask_only and policy.refine == "mask"
    shown = 0 if mask_only else len(state.points) if policy.clicks == "all" else 1
    points = None
    if shown and len(state.points):
        coords = embedded.to_frame(state.points[-shown:], image.volume.grid)
        points = (coords[None], torch.tensor(state.labels[-shown:])[None])
    boxes = None
    if state.box is not None and not mask_only:
        boxes = box_coordinates(embedded, *state.box, image.volume.grid)
    masks = _mask_prompt(image, state.logits)
    if policy.feedback:
        low_res, quality, features = engine.decode_joined(
            embedded, state.features, points=points, boxes=boxes, masks=masks
        )
        state = replace(state, features=features)
    else:
        lone = state.logits is None and boxes is None and len(state.points) == 1
        multimask = policy.multimask == "always" or (lone and policy.multimask == "first")
        low_res, quality = engine.decode(
            embedded, points=points, boxes=boxes, masks=masks, multimask=multimask
        )
    best = int(quality[0].argmax())
    return replace(state, logits=low_res[0, best], quality=float(quality[0, best]))


def _mask_prompt(image: OpenImage, logits: Tensor | None) -> Tensor | None:
    """Give the present mask in the values that the weights expect."""
    policy = image.engine.preprocess.prompting
    if logits is None:
        if policy.first_mask == "none":
            return None
        return torch.zeros(1, 1, *image.engine.low_res_size)
    return (logits.sigmoid() if policy.mask_values == "probabilities" else logits)[None, None]


def box_coordinates(embedded: Embedded, start: FloatArray, stop: FloatArray, grid: Grid) -> Tensor:
    """Take a half-open box on the image to the model's corners "1 2*axes", at centres of outermost voxels."""
    ends = np.stack([start, stop]) - 0.5
    corners = np.array([[ends[a, 0], ends[b, 1], ends[c, 2]] for a, b, c in np.ndindex(2, 2, 2)])
    moved = embedded.to_frame(corners, grid)
    low, high = moved.amin(dim=0) + 0.5, moved.amax(dim=0) - 0.5
    size = embedded.grid.shape[: embedded.n_axes]
    last = torch.tensor(size[::-1] if embedded.n_axes == 2 else size, dtype=torch.float32) - 1
    low = torch.minimum(low.clamp(min=0), last)
    high = torch.maximum(torch.minimum(high, last), low)
    return torch.cat([low, high])[None]


def prior_logits(
    image: OpenImage, key: Key, mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> Tensor:
    """Turn a drawn mask on the image's grid into the low-resolution logits of a frame."""
    grid, n_axes = image.frame_grid(key), image.engine.preprocess.n_axes
    drawn = Volume(mask.view(np.uint8), image.volume.grid).to_grid(grid)
    values = torch.from_numpy(np.ascontiguousarray(drawn.array, np.float32))
    values, low = values.reshape(grid.shape[:n_axes]), image.engine.low_res_size
    least = 1 / (1 + float(np.exp(PRIOR_LOGIT)))
    pooled = reduce(values, low).clamp(least, 1 - least)
    return torch.logit(pooled)


def upsample(
    logits: Float[Tensor, "*low"],
    size: tuple[int, ...],
    part: tuple[slice, ...] | None = None,
) -> Float[Tensor, "*size"]:
    """Bring low-resolution logits to the size of the model's input, as in training (linear).

    Args:
        logits: of one mask.
        size: of the model's input.
        part: the part of it that is wanted; of a thin one, such as a face, no more is worked out.
    """
    if tuple(logits.shape) == tuple(size):
        return logits if part is None else logits[part]
    ranges = [
        range(*p.indices(n)) for p, n in zip(part or (slice(None),) * len(size), size, strict=True)
    ]
    if logits.ndim == 2 and 8 * math.prod(map(len, ranges)) > math.prod(size):
        options: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
        whole = F.interpolate(logits[None, None], size=size, **options)[0, 0]
        return whole if part is None else whole[part]
    values = logits
    for axis in sorted(range(logits.ndim), key=lambda a: len(ranges[a]) / logits.shape[a]):
        weights = interpolation(logits.shape[axis], size[axis], ranges[axis]).to(values)
        values = _along(values, weights, axis)
    return values


def _along(values: Tensor, weights: Float[Tensor, "rows low"], axis: int) -> Tensor:
    """Multiply by a matrix along one axis; nothing is moved where it is the last or the first."""
    if axis == values.ndim - 1:
        return values @ weights.T
    before, after = values.shape[:axis], values.shape[axis + 1 :]
    flat = values.reshape(*before, values.shape[axis], -1)
    return (weights @ flat).reshape(*before, len(weights), *after)


@lru_cache(maxsize=256)
def interpolation(low: int, high: int, rows: range) -> Float[Tensor, "rows low"]:
    """Weights of linear interpolation between cell centres, the edge value going on beyond them."""
    at = (torch.arange(rows.start, rows.stop, dtype=torch.float64) + 0.5) * low / high - 0.5
    at = at.clamp(0, low - 1)
    before = at.floor().long().clamp(max=max(low - 2, 0))
    weights = torch.zeros(len(rows), low, dtype=torch.float64)
    share = at - before
    weights.scatter_add_(1, before[:, None], 1 - share[:, None])
    weights.scatter_add_(1, (before + 1).clamp(max=low - 1)[:, None], share[:, None])
    return weights.float()


def reduce(values: Float[Tensor, "*size"], low: tuple[int, ...]) -> Float[Tensor, "*low"]:
    """Average values of the model's input size down to the size of its masks."""
    pool: Callable[..., Tensor] = (
        F.adaptive_avg_pool2d if values.ndim == 2 else F.adaptive_avg_pool3d
    )
    return pool(values[None, None], low)[0, 0]
