"""Everything-mode as published, stated plainly: a yardstick.

Every mask of every click is upsampled before any is looked at, in the order and with the thresholds of the
published program; the whole picture is the only crop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Decode = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Low-resolution logits (n, 3, h, w) and quality (n, 3) of clicks (n, 1, 2)."""


def everything(
    decode: Decode, picture: tuple[int, int], content: tuple[int, int], size: int, o: Any
) -> list[dict[str, Any]]:
    """Masks of a picture of (rows, columns) that fills `content` of the model's input.

    `o` has the published settings as attributes.
    """
    found: dict[str, list[Any]] = {"runs": [], "boxes": [], "iou": [], "stability": [], "point": []}
    steps = (torch.arange(o.points_per_side, dtype=torch.float64) + 0.5) / o.points_per_side
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    points = torch.stack([x.flatten() * picture[1], y.flatten() * picture[0]], dim=1)
    scale = torch.tensor([content[1] / picture[1], content[0] / picture[0]])
    for batch in points.split(o.points_per_batch):
        low, iou = decode((batch * scale).float()[:, None])
        whole = F.interpolate(low, (size, size), mode="bilinear", align_corners=False)
        whole = whole[..., : content[0], : content[1]]
        masks = F.interpolate(whole, picture, mode="bilinear", align_corners=False).flatten(0, 1)
        iou, clicks = iou.flatten(), batch.repeat_interleave(low.shape[1], dim=0)
        keep = iou > o.pred_iou_thresh
        masks, iou, clicks = masks[keep], iou[keep], clicks[keep]
        inner = (masks > o.stability_score_offset).sum(-1, dtype=torch.int16)
        outer = (masks > -o.stability_score_offset).sum(-1, dtype=torch.int16)
        stability = inner.sum(-1, dtype=torch.int32) / outer.sum(-1, dtype=torch.int32)
        keep = stability >= o.stability_score_thresh
        masks, iou, clicks, stability = masks[keep] > 0, iou[keep], clicks[keep], stability[keep]
        found["boxes"].append(boxes(masks))
        found["runs"] += runs(masks)
        found["iou"].append(iou)
        found["stability"].append(stability)
        found["point"].append(clicks)
    joined = {k: torch.cat(v) for k, v in found.items() if k != "runs"}
    kept = suppressed(joined["boxes"].double().numpy(), joined["iou"].numpy(), o.box_nms_thresh)
    return [
        {
            "segmentation": decoded(found["runs"][n], picture),
            "area": sum(found["runs"][n][1::2]),
            "predicted_iou": joined["iou"][n].item(),
            "stability_score": joined["stability"][n].item(),
            "point_coords": [joined["point"][n].tolist()],
            "bbox": joined["boxes"][n].tolist(),
        }
        for n in kept
    ]


def boxes(masks: Tensor) -> Tensor:
    """First and last column and row of each mask (x0, y0, x1, y1); zeros for an empty one."""
    rows, columns = masks.amax(dim=-1), masks.amax(dim=-2)
    sides = []
    for line in (columns, rows):
        at = torch.arange(line.shape[1])
        high = (line * at).amax(dim=-1)
        low = (line * at + line.shape[1] * ~line).amin(dim=-1)
        sides.append((low, high))
    (x0, x1), (y0, y1) = sides
    empty = (x1 < x0) | (y1 < y0)
    return torch.stack([x0, y0, x1, y1], dim=1) * ~empty[:, None]


def runs(masks: Tensor) -> list[list[int]]:
    """Lengths of runs down the columns, the first outside, of each mask by itself."""
    n, rows, columns = masks.shape
    flat = masks.permute(0, 2, 1).flatten(1)
    change = (flat[:, 1:] ^ flat[:, :-1]).nonzero()
    out = []
    for i in range(n):
        edges = change[change[:, 0] == i, 1] + 1
        ends = torch.cat([torch.tensor([0]), edges, torch.tensor([rows * columns])])
        out.append(([] if not flat[i, 0] else [0]) + (ends[1:] - ends[:-1]).tolist())
    return out


def decoded(counts: list[int], shape: tuple[int, int]) -> np.ndarray:
    """The mask of its runs."""
    flat, at, inside = np.empty(shape[0] * shape[1], bool), 0, False
    for count in counts:
        flat[at : at + count] = inside
        at, inside = at + count, not inside
    return flat.reshape(shape[1], shape[0]).T


def suppressed(places: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    """Non-maximum suppression of boxes, best first."""
    order = np.argsort(-scores, kind="stable")
    sizes = (places[:, 2:] - places[:, :2]).prod(axis=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        low = np.maximum(places[best, :2], places[order, :2])
        high = np.minimum(places[best, 2:], places[order, 2:])
        both = (high - low).clip(min=0).prod(axis=1)
        union = sizes[best] + sizes[order] - both
        order = order[~(both > threshold * union)]
    return kept
