"""What everything-mode finds: records of masks, as a label map, and as files in the published layout."""

from __future__ import annotations

import csv
import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from samaritan.errors import ConfigError, FileError, GridMismatch, PromptError
from samaritan.geometry import Grid
from samaritan.infer.run_lengths import BoolArray, RunLengths
from samaritan.io.files import replacing
from samaritan.volume import LATTICE_TOLERANCE, LabelMap, Volume, smallest_label_dtype

OutputMode = Literal["binary_mask", "uncompressed_rle", "coco_rle"]
OUTPUT_MODES = ("binary_mask", "uncompressed_rle", "coco_rle")

XYWH = tuple[int, int, int, int]

COLUMNS = (
    *("id", "area", "bbox_x0", "bbox_y0", "bbox_w", "bbox_h", "point_input_x", "point_input_y"),
    *("predicted_iou", "stability_score", "crop_box_x0", "crop_box_y0", "crop_box_w", "crop_box_h"),
)
"""Columns of metadata.csv, as published."""


@dataclass(frozen=True)
class MaskRecord:
    """One mask of everything-mode, with the fields and the conventions of the published records.

    Positions are pixels of the picture as it is looked at, (x, y) from its upper left corner; `grid`
    says where that picture lies.

    Attributes:
        segmentation: the mask, as runs.
        bbox: (x, y, w, h), where w and h are last minus first pixel: one less than their number.
        predicted_iou: the model's own estimate of the mask's quality.
        point_coords: the click that the mask answers, ((x, y),).
        stability_score: area at a higher threshold over area at a lower one, from 0 to 1.
        crop_box: (x, y, w, h) of the part of the picture that was looked at.
        grid: rows and columns of the picture, one voxel thick along its third axis.
    """

    segmentation: RunLengths
    bbox: XYWH
    predicted_iou: float
    point_coords: tuple[tuple[float, float], ...]
    stability_score: float
    crop_box: XYWH
    grid: Grid = field(repr=False)

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.segmentation.area

    def mask(self) -> BoolArray:
        """Decode the mask: a boolean array (rows, columns) of the picture as it is looked at."""
        return self.segmentation.mask()

    def volume(self) -> Volume:
        """Give the mask together with its place, one voxel thick."""
        return Volume(self.mask()[:, :, None], self.grid)

    def to_dict(self, output_mode: OutputMode = "binary_mask") -> dict[str, Any]:
        """Describe the record under the published keys.

        Args:
            output_mode: what "segmentation" holds: a boolean array, or COCO's runs, plain or compressed.

        Raises:
            ConfigError: if the mode is not known.
        """
        if output_mode not in OUTPUT_MODES:
            raise ConfigError(f"output_mode is one of {OUTPUT_MODES}, got {output_mode!r}")
        mask: Any
        if output_mode == "binary_mask":
            mask = self.mask()
        else:
            mask = self.segmentation.to_dict(compressed=output_mode == "coco_rle")
        return {
            "segmentation": mask,
            "area": self.area,
            "bbox": list(self.bbox),
            "predicted_iou": self.predicted_iou,
            "point_coords": [list(point) for point in self.point_coords],
            "stability_score": self.stability_score,
            "crop_box": list(self.crop_box),
        }


def label_map(records: Sequence[MaskRecord], target: Volume | Grid) -> LabelMap:
    """Draw masks into one label map on the grid of the image that they were found in.

    Label 1 is the largest mask and the last label the smallest; smaller masks lie on top of larger
    ones, so a mask may be partly or wholly hidden. Of a volume only the slice is drawn into.

    Args:
        records: of one picture or slice; none gives an empty map.
        target: the image, or its grid.

    Raises:
        PromptError: if the records are of different slices.
        GridMismatch: if they are not of this image.
    """
    grid = target.grid if isinstance(target, Volume) else target
    dtype = smallest_label_dtype(len(records))
    if not records:
        return LabelMap(np.zeros(grid.shape, dtype), grid)
    shown = records[0].grid
    if any(record.grid != shown for record in records):
        raise PromptError("the masks are of different slices: draw those of one slice at a time")
    _require_slice_of(shown, grid)
    drawn = np.zeros(shown.shape, dtype)
    largest_first = sorted(records, key=lambda record: -record.area)
    for label, record in enumerate(largest_first, start=1):
        drawn[:, :, 0][record.mask()] = label
    return LabelMap(drawn, shown).to_grid(grid)


def write_records(records: Sequence[MaskRecord], folder: str | Path) -> None:
    """Write one picture per mask (0.png, 1.png, ..., 0 or 255) and metadata.csv into a new folder.

    The folder appears whole or not at all.

    Raises:
        FileError: if there is something in the folder already, or it cannot be written.
    """
    folder = Path(folder)
    _require_vacant(folder)
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        for number, record in enumerate(records):
            _write_png(record, draft / f"{number}.png")
        _write_metadata(records, draft / "metadata.csv")
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    except OSError as error:
        raise FileError(f"{folder}: the masks cannot be written ({error})") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_records_json(records: Sequence[MaskRecord], path: str | Path) -> None:
    """Write all records as one JSON list whose masks are compressed as in COCO.

    The file appears whole or not at all.

    Raises:
        FileError: if it cannot be written.
    """
    text = json.dumps([record.to_dict("coco_rle") for record in records])
    with replacing(Path(path)) as (draft,):
        draft.write_text(text, encoding="utf-8")


def _write_png(record: MaskRecord, path: Path) -> None:
    from PIL import Image

    Image.fromarray(record.mask().astype(np.uint8) * np.uint8(255)).save(path)


def _write_metadata(records: Sequence[MaskRecord], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for number, record in enumerate(records):
            scores = (record.predicted_iou, record.stability_score)
            first = (number, record.area, *record.bbox, *record.point_coords[0])
            rows.writerow((*first, *scores, *record.crop_box))


def _require_vacant(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(
            f"{folder} is there already and is not an empty folder: name another, or remove it"
        )


def _require_slice_of(shown: Grid, grid: Grid) -> None:
    """Raise unless every voxel of `shown` is a voxel of `grid`."""
    corners = grid.mm_to_index(shown.index_to_mm(shown.corners()))
    steps = np.linalg.solve(grid.affine, shown.affine)[:3, :3]
    on_voxels = np.abs(corners - np.rint(corners)).max() <= LATTICE_TOLERANCE
    one_to_one = np.abs(np.abs(steps) - np.rint(np.abs(steps))).max() <= LATTICE_TOLERANCE
    if not (on_voxels and one_to_one and grid.contains(corners).all()):
        raise GridMismatch(
            f"the masks lie on {shown}, which is no slice of {grid}: give the image that the masks "
            "were found in, or its grid"
        )
