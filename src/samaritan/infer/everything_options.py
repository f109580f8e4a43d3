"""Settings of everything-mode, and where it looks: parts of the picture and clicks in each."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import ConfigError

FloatArray = npt.NDArray[np.float64]

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1), half-open."""

_LEAST = {
    "points_per_batch": 1,
    "crop_n_layers": 0,
    "crop_n_points_downscale_factor": 1,
    "min_mask_region_area": 0,
}
MOST_LAYERS = 8
"""A layer has four times as many parts as the one before it: 65,536 in the eighth."""


@dataclass(frozen=True)
class EverythingOptions:
    """Settings of everything-mode, under the published names and with the published defaults.

    Raises:
        ConfigError: naming every bad field at once.
    """

    points_per_side: int | None = 32
    """Clicks along each side of the picture; None: `point_grids` says where."""
    points_per_batch: int = 64
    """Clicks that the model answers at once; memory and speed only."""
    pred_iou_thresh: float = 0.88
    """Masks must have a greater predicted quality; 0: all do."""
    stability_score_thresh: float = 0.95
    """Masks must have at least this stability; 0: all do."""
    stability_score_offset: float = 1.0
    """How far the threshold of the logits is moved up and down to measure stability."""
    box_nms_thresh: float = 0.7
    """Of boxes that overlap more than this (intersection over union) the best stays."""
    crop_n_layers: int = 0
    """Look at parts too: 2 x 2 of them in layer 1, 4 x 4 in layer 2, and so on."""
    crop_nms_thresh: float = 0.7
    """As `box_nms_thresh`, among masks of different parts; those of smaller parts stay."""
    crop_overlap_ratio: float = 512 / 1500
    """Overlap of the parts of layer 1, as a share of the picture's shorter side."""
    crop_n_points_downscale_factor: int = 1
    """Layer n has points_per_side / factor^n clicks along each side of a part."""
    point_grids: tuple[tuple[tuple[float, float], ...], ...] | None = None
    """For each layer the clicks (x, y), as shares of width and height."""
    min_mask_region_area: int = 0
    """Fill holes and remove islands of fewer pixels; 0: leave masks as they are."""

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ConfigError("everything-mode cannot run so: " + "; ".join(problems))
        if self.point_grids is not None:
            frozen = tuple(tuple((float(x), float(y)) for x, y in g) for g in self.point_grids)
            object.__setattr__(self, "point_grids", frozen)

    def points(self, layer: int) -> FloatArray:
        """Give the clicks (n, 2) of a layer, (x, y) as shares of width and height, x fastest."""
        if self.point_grids is not None:
            return np.array(self.point_grids[layer], np.float64).reshape(-1, 2)
        return point_grid(self._points_per_side(layer))

    def _points_per_side(self, layer: int) -> int:
        return int((self.points_per_side or 0) / self.crop_n_points_downscale_factor**layer)


def with_settings(options: EverythingOptions, settings: Mapping[str, Any]) -> EverythingOptions:
    """Change single settings by name.

    Raises:
        ConfigError: if a name is not known, or a value not valid.
    """
    known = [f.name for f in fields(options)]
    unknown = [name for name in settings if name not in known]
    if unknown:
        near = [m for name in unknown for m in difflib.get_close_matches(name, known, n=1)]
        hint = f" Did you mean {', '.join(near)}?" if near else f" Known: {', '.join(known)}"
        raise ConfigError(f"everything-mode has no setting {', '.join(unknown)}.{hint}")
    return replace(options, **settings) if settings else options


def point_grid(n: int) -> FloatArray:
    """Make n x n points (x, y), evenly spread in the unit square, x fastest.

    >>> point_grid(2).tolist()
    [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    """
    steps = (np.arange(n) + 0.5) / n
    return np.stack([np.tile(steps, n), np.repeat(steps, n)], axis=1)


def crop_boxes(
    size: tuple[int, int], n_layers: int, overlap_ratio: float
) -> Iterator[tuple[Box, int]]:
    """Divide a picture of (rows, columns) into overlapping parts, with the layer of each.

    Layer 0 is the whole picture; layer n > 0 has 2^n parts along each side. Parts of no size, in
    pictures of very few pixels, are left out.
    """
    rows, columns = size
    yield (0, 0, columns, rows), 0
    for layer in range(1, n_layers + 1):
        per_side = 2**layer
        overlap = int(overlap_ratio * min(size) * (2 / per_side))
        spans = [_spans(length, per_side, overlap) for length in (columns, rows)]
        for (x0, x1), (y0, y1) in itertools.product(*spans):
            if x0 < x1 and y0 < y1:
                yield (x0, y0, x1, y1), layer


def _spans(length: int, n: int, overlap: int) -> list[tuple[int, int]]:
    part = math.ceil((overlap * (n - 1) + length) / n)
    starts = [k * (part - overlap) for k in range(n)]
    return [(start, min(start + part, length)) for start in starts]


def _problems(options: EverythingOptions) -> Iterator[str]:
    """Say what is wrong with each field, and with fields together."""
    for f in fields(options):
        value = getattr(options, f.name)
        if f.name in _LEAST and not (_is_whole(value) and value >= _LEAST[f.name]):
            yield f"{f.name} must be a whole number of at least {_LEAST[f.name]}, got {value!r}"
        elif f.type == "float" and not _is_number(value):
            yield f"{f.name} must be a finite number, got {value!r}"
    layers, ratio = options.crop_n_layers, options.crop_overlap_ratio
    if _is_whole(layers) and layers > MOST_LAYERS:
        yield f"crop_n_layers must be at most {MOST_LAYERS}, got {layers}"
    if _is_number(ratio) and not 0 <= ratio < 1:
        yield f"crop_overlap_ratio must be from 0 to below 1, got {ratio}"
    if _is_number(options.stability_score_offset) and options.stability_score_offset < 0:
        yield f"stability_score_offset must not be negative, got {options.stability_score_offset}"
    yield from _point_problems(options)


def _point_problems(options: EverythingOptions) -> Iterator[str]:
    """Say what is wrong with where the clicks are."""
    per_side, grids = options.points_per_side, options.point_grids
    layers, factor = options.crop_n_layers, options.crop_n_points_downscale_factor
    if (per_side is None) == (grids is None):
        yield "give either points_per_side or point_grids, and None for the other"
    elif grids is not None:
        if _is_whole(layers) and len(grids) != layers + 1:
            yield f"point_grids needs one grid for each of {layers + 1} layers, got {len(grids)}"
        for points in grids:
            array = np.asarray(points, np.float64)
            if array.ndim != 2 or array.shape[1] != 2 or not ((array >= 0) & (array <= 1)).all():
                yield "point_grids holds points (x, y), each from 0 to 1: shares of width and height"
                break
    elif per_side is None or not _is_whole(per_side) or per_side < 1:
        yield f"points_per_side must be a whole number of at least 1, got {per_side!r}"
    elif _is_whole(layers) and _is_whole(factor) and factor >= 1 and per_side < factor**layers:
        yield (
            f"points_per_side {per_side} over crop_n_points_downscale_factor {factor}^{layers} leaves "
            f"no clicks in layer {layers}"
        )


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
