"""Looks at every prompt that is given to a model, and says what is wrong with it."""

from __future__ import annotations

from jaxtyping import Num
from torch import Tensor

from samaritan.errors import PromptError

AnyTensor = Num[Tensor, "..."]
"""A prompt as it comes in; its shape is checked with a `PromptError`."""

PointPrompts = tuple[AnyTensor, AnyTensor]
"""Coordinates (n, points, ndim) and labels (n, points)."""


def check_prompts(
    points: PointPrompts | None,
    boxes: Tensor | None,
    masks: Tensor | None,
    *,
    ndim: int,
    low_res: tuple[int, ...],
    takes_boxes: bool = True,
) -> int:
    """Look at every prompt that was given; give the number of sets.

    Args:
        points: coordinates (n, points, ndim) and labels (n, points).
        boxes: one box per set (n, 2 * ndim).
        masks: (n, 1, *low_res); a batch of one serves all sets.
        ndim: axes of the model.
        low_res: size of its masks.
        takes_boxes: whether it was built to take boxes.

    Raises:
        PromptError: if a shape or label is not one of these, or boxes are not supported.
    """
    counts = {}
    if points is not None:
        _check_points(*points, ndim)
        counts["points"] = len(points[0])
    if boxes is not None:
        _check_boxes(boxes, ndim, takes_boxes)
        counts["boxes"] = len(boxes)
    if masks is not None:
        _check_masks(masks, low_res)
        if len(masks) > 1 or not counts:
            counts["masks"] = len(masks)
    if len(set(counts.values())) > 1:
        given = ", ".join(f"{n} {name}" for name, n in counts.items())
        raise PromptError(f"each set needs one prompt of every kind that is given, not {given}")
    return next(iter(counts.values()), 1)


def _check_boxes(boxes: Tensor, ndim: int, takes_boxes: bool) -> None:
    if not takes_boxes:
        raise PromptError(
            "this model has no embeddings for box corners. Use points, or weights "
            "with 4 point embeddings and num_point_embeddings=4"
        )
    if boxes.ndim < 2 or boxes[0:1].numel() != min(1, len(boxes)) * 2 * ndim:
        raise PromptError(
            f"boxes have shape {tuple(boxes.shape)}; expected (n, {2 * ndim}): for each set "
            f"of prompts one box, minimum corner then maximum corner"
        )


def _check_masks(masks: Tensor, low_res: tuple[int, ...]) -> None:
    if tuple(masks.shape[1:]) != (1, *low_res):
        raise PromptError(
            f"mask prompts have shape {tuple(masks.shape)}; expected (n, 1, "
            f"{', '.join(map(str, low_res))}). Give the low-resolution logits of an earlier "
            f"prediction, or resize the mask to that size"
        )


def _check_points(coords: Tensor, labels: Tensor, ndim: int) -> None:
    if coords.ndim != 3 or coords.shape[-1] != ndim:
        order = "(x, y)" if ndim == 2 else "array order"
        raise PromptError(
            f"point coordinates have shape {tuple(coords.shape)}; expected (n, points, {ndim}), {order}"
        )
    if labels.shape != coords.shape[:2]:
        raise PromptError(
            f"point labels have shape {tuple(labels.shape)}; expected one per point: "
            f"{tuple(coords.shape[:2])}"
        )
    known = (labels == 1) | (labels == 0) | (labels == -1)
    if not bool(known.all()):
        bad = sorted({float(v) for v in labels[~known]})
        raise PromptError(
            f"point labels {bad} are not known; use 1 (positive), 0 (negative) or -1 (no point)"
        )
