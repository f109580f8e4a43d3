"""Everything-mode: a mask for every object in a picture or slice, without a prompt from a person.

A lattice of clicks is put to the model, and of all answers the sure, stable and distinct ones are kept.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from samaritan.errors import ConfigError, PromptError
from samaritan.infer.engine import OpenImage, Progress
from samaritan.infer.enlarging import Enlarging
from samaritan.infer.everything_options import Box, EverythingOptions, crop_boxes, with_settings
from samaritan.infer.mask_filters import (
    FloatArray,
    IntArray,
    cut_by_crop,
    mask_boxes,
    non_maximum_suppression,
    stability_scores,
    tidy_regions,
)
from samaritan.infer.mask_records import XYWH, MaskRecord
from samaritan.infer.predictor import Predictor
from samaritan.infer.run_lengths import RunLengths
from samaritan.transforms import SlicePreprocess
from samaritan.transforms.preprocess import displayed
from samaritan.volume import Volume


def generate_masks(
    predictor: Predictor,
    volume: Volume,
    *,
    index: int | None = None,
    axis: int | None = None,
    window: tuple[float, float] | None = None,
    options: EverythingOptions | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> list[MaskRecord]:
    """Find masks of everything in a picture, or in one slice of a volume.

    Args:
        predictor: holds a 2D model.
        volume: a picture, a slice or a volume.
        index: which slice, along `axis`; a picture has only one.
        axis: array axis that slices are taken across; None: that of the thickest voxels.
        window: stored intensities that become black and white; None: as `Predictor.open` tells.
        options: settings; None: the published defaults.
        progress: called with (what, done, total); None: the predictor's own.
        **settings: single settings by name (see `EverythingOptions`), which go before `options`.

    Returns:
        Records in the published order: best predicted quality first; with crops, smaller parts first.
        They are on the pixels of the picture as it is looked at; `label_map` brings them to the image's
        grid.

    Raises:
        ConfigError: if the model is 3D or gives one mask per prompt only, or a setting is not valid.
        PromptError: if the slice is not given or does not exist.

    Example::

        image = read("cells.png")
        records = generate_masks(predictor, image, points_per_side=16)
        write(label_map(records, image), "labels.nii.gz")

    Source: facebookresearch/segment-anything, automatic_mask_generator.py and utils/amg.py. There an empty
    mask has a stability of NaN; here it has none and is dropped.
    """
    chosen = with_settings(options or EverythingOptions(), settings)
    chain = _slice_chain(predictor)
    image = predictor.open(volume, axis=axis, window=window)
    shown = displayed(volume.slice(image.axis, _slice_index(image, index)), image.axis)
    crops = list(
        crop_boxes(
            (shown.shape[0], shown.shape[1]), chosen.crop_n_layers, chosen.crop_overlap_ratio
        )
    )
    low = predictor.model.config.low_res_size
    tick = _Tick(progress or predictor.progress, sum(len(chosen.points(n)) for _, n in crops))
    found = _Candidates.joined(
        [
            _in_part(
                predictor,
                _Part.of(shown, crop, chain, low),
                image.statistics,
                chosen.points(layer),
                chosen,
                tick,
            )
            for crop, layer in crops
        ]
    )
    if len(crops) > 1:
        sizes = (found.crops[:, 2:] - found.crops[:, :2]).prod(axis=1)
        found = found.take(non_maximum_suppression(found.boxes, 1 / sizes, chosen.crop_nms_thresh))
    if chosen.min_mask_region_area > 0:
        threshold = max(chosen.box_nms_thresh, chosen.crop_nms_thresh)
        found = _tidied(found, chosen.min_mask_region_area, threshold)
    return [found.record(n, shown) for n in range(len(found.runs))]


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Masks with what is known of them, one row each; places are in the shown picture."""

    runs: list[RunLengths]
    boxes: IntArray
    """(x0, y0, x1, y1), inclusive."""
    quality: npt.NDArray[Any]
    stability: npt.NDArray[Any]
    points: FloatArray
    crops: IntArray

    @classmethod
    def joined(cls, parts: Sequence[_Candidates]) -> _Candidates:
        """Put the rows of several together."""
        none = np.zeros((0, 4), np.int64)
        return cls(
            [runs for part in parts for runs in part.runs],
            np.concatenate([none, *(part.boxes for part in parts)]),
            np.concatenate([[], *(part.quality for part in parts)]),
            np.concatenate([[], *(part.stability for part in parts)]),
            np.concatenate([np.zeros((0, 2)), *(part.points for part in parts)]),
            np.concatenate([none, *(part.crops for part in parts)]),
        )

    def take(self, rows: IntArray) -> _Candidates:
        """Choose and order rows."""
        return _Candidates(
            [self.runs[n] for n in rows],
            self.boxes[rows],
            self.quality[rows],
            self.stability[rows],
            self.points[rows],
            self.crops[rows],
        )

    def record(self, n: int, shown: Volume) -> MaskRecord:
        """Make the record of one row."""
        return MaskRecord(
            segmentation=self.runs[n],
            bbox=_xywh(self.boxes[n]),
            predicted_iou=float(self.quality[n]),
            point_coords=((float(self.points[n, 0]), float(self.points[n, 1])),),
            stability_score=float(self.stability[n]),
            crop_box=_xywh(self.crops[n]),
            grid=shown.grid,
        )


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of the picture that the model looks at; sizes are rows and columns."""

    crop: Box
    piece: Volume
    picture: tuple[int, int]
    content: tuple[int, int]
    """What the part fills of it."""
    enlarging: Enlarging
    """The way from the model's masks to the part's pixels."""

    @classmethod
    def of(cls, shown: Volume, crop: Box, chain: SlicePreprocess, low: tuple[int, ...]) -> _Part:
        """Cut a part from the picture; `low` is the size of the model's masks."""
        x0, y0, x1, y1 = crop
        piece = shown.crop((y0, x0, 0), (y1, x1, 1))
        content = chain.content_size(piece.grid)
        enlarging = Enlarging((low[0], low[1]), chain.size, content, (y1 - y0, x1 - x0))
        return cls(crop, piece, (shown.shape[0], shown.shape[1]), content, enlarging)

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of the part."""
        return self.piece.shape[0], self.piece.shape[1]


def _in_part(
    predictor: Predictor,
    part: _Part,
    statistics: Mapping[str, float],
    points: FloatArray,
    options: EverythingOptions,
    tick: _Tick,
) -> _Candidates:
    """Find the masks of one part of the picture, best first. `points` are shares of width and height."""
    image = OpenImage(part.piece, predictor, 2, statistics)
    found: list[_Candidates] = []
    n = options.points_per_batch
    try:
        embedded = image.embedded((2, 0))
        for batch in np.split(points, range(n, len(points), n)):
            clicks = torch.from_numpy(batch * part.content[::-1]).float()[:, None]
            limit = options.pred_iou_thresh if options.pred_iou_thresh > 0 else -math.inf
            labels = torch.ones(clicks.shape[:2])
            low, quality = predictor.decode_above(embedded, (clicks, labels), limit)
            places = np.argwhere(quality.numpy() > limit)
            found.append(_stable(part, batch[places[:, 0]], low, quality[quality > limit], options))
            tick(len(batch))
    finally:
        predictor.forget(image)
    joined = _Candidates.joined(found)
    best = non_maximum_suppression(joined.boxes, joined.quality, options.box_nms_thresh)
    return joined.take(best)


def _stable(
    part: _Part,
    points: FloatArray,
    low: Float[Tensor, "n h w"],
    quality: Float[Tensor, n],
    options: EverythingOptions,
) -> _Candidates:
    """Of sure masks those that are stable and not cut by the part's edge.

    Only pixels that may be above the lowest threshold are looked at.
    """
    offset, corner = options.stability_score_offset, np.array(part.crop[:2])
    rows, runs, boxes, stability = [], [], [], []
    above = (low > -offset).numpy()
    for n, near in enumerate(mask_boxes(above)):
        (top, left), pixels = part.enlarging.part(low[n], near)
        score = float(stability_scores(pixels[None], offset)[0])
        mask = (pixels > 0).numpy()
        if not score >= options.stability_score_thresh or not mask.any():
            continue
        start = corner + np.array([left, top])
        box = mask_boxes(mask[None])[0] + np.tile(start, 2)
        if cut_by_crop(box[None], part.crop, part.picture)[0]:
            continue
        rows.append(n)
        runs.append(RunLengths.from_window(mask, (int(start[1]), int(start[0])), part.picture))
        boxes.append(box)
        stability.append(score)
    return _Candidates(
        runs,
        np.array(boxes, np.int64).reshape(-1, 4),
        quality.numpy()[rows],
        np.array(stability),
        points[rows] * part.shape[::-1] + corner,
        np.tile(part.crop, (len(rows), 1)),
    )


def _tidied(found: _Candidates, min_area: int, threshold: float) -> _Candidates:
    """Fill holes and remove islands; of masks that become alike prefer those that did not change."""
    runs, boxes, unchanged = [], found.boxes.copy(), np.ones(len(found.runs))
    for n, old in enumerate(found.runs):
        mask, changed = tidy_regions(old.mask(), min_area)
        runs.append(RunLengths.from_mask(mask) if changed else old)
        if changed:
            boxes[n], unchanged[n] = mask_boxes(mask[None])[0], 0
    tidied = replace(found, runs=runs, boxes=boxes)
    return tidied.take(non_maximum_suppression(boxes, unchanged, threshold))


def _xywh(box: IntArray) -> XYWH:
    x0, y0, x1, y1 = (int(v) for v in box)
    return x0, y0, x1 - x0, y1 - y0


@dataclass
class _Tick:
    """Counts the clicks that were answered."""

    progress: Callable[[str, int, int], None]
    total: int
    done: int = 0

    def __call__(self, n: int) -> None:
        self.done += n
        self.progress("everything", self.done, self.total)


def _slice_chain(predictor: Predictor) -> SlicePreprocess:
    """Check that the model can do it, and give its preprocessing."""
    config, chain = predictor.model.config, predictor.preprocess
    predictor.require_prompts()
    if isinstance(chain, SlicePreprocess) and chain.resize == "pad":
        raise ConfigError(
            "everything-mode needs pictures that begin in the first corner of the input, and this chain puts "
            "small ones in its middle (resize='pad'). Use dataclasses.replace(chain, resize='stretch')"
        )
    if not isinstance(chain, SlicePreprocess):
        raise ConfigError(
            f"everything-mode works on pictures and slices, and model {config.name!r} sees "
            f"{config.ndim} axes: take a 2D model, such as sam_vit_b"
        )
    if config.num_mask_tokens < 2:
        raise ConfigError(
            f"everything-mode chooses among several masks per click, and model {config.name!r} gives "
            "one: take a model with more mask tokens, such as sam_vit_b with 4"
        )
    return chain


def _slice_index(image: OpenImage, index: int | None) -> int:
    n = image.volume.shape[image.axis]
    if index is None and n > 1:
        raise PromptError(
            f"the image has {n} slices across axis {image.axis}: say which one with index={n // 2}, or "
            f"--slice {n // 2} on the command line"
        )
    at = 0 if index is None else operator.index(index)
    if not 0 <= at < n:
        raise PromptError(f"slice {at} does not exist: axis {image.axis} has slices 0 to {n - 1}")
    return at
