from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from PIL import Image

from samaritan.errors import ConfigError, FileError, GridMismatch, PromptError
from samaritan.geometry import Grid
from samaritan.infer.mask_filters import mask_boxes
from samaritan.infer.mask_records import (
    MaskRecord,
    label_map,
    write_records,
    write_records_json,
)
from samaritan.infer.run_lengths import RunLengths
from samaritan.transforms.preprocess import displayed
from samaritan.volume import Volume

PICTURE = Grid.pixels((4, 5))


def record(mask: np.ndarray, grid: Grid = PICTURE) -> MaskRecord:
    x0, y0, x1, y1 = mask_boxes(mask[None])[0].tolist()
    return MaskRecord(
        segmentation=RunLengths.from_mask(mask),
        bbox=(x0, y0, x1 - x0, y1 - y0),
        predicted_iou=0.9,
        point_coords=((1.5, 2.0),),
        stability_score=0.97,
        crop_box=(0, 0, mask.shape[1], mask.shape[0]),
        grid=grid,
    )


def rectangle(y0: int, y1: int, x0: int, x1: int, shape: tuple[int, int] = (4, 5)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_dictionary_has_the_published_keys_in_order():
    mask = rectangle(1, 3, 0, 4)
    values = record(mask).to_dict()
    assert list(values) == [
        *("segmentation", "area", "bbox", "predicted_iou", "point_coords"),
        *("stability_score", "crop_box"),
    ]
    assert np.array_equal(values.pop("segmentation"), mask)
    assert values == {
        "area": 8,
        "bbox": [0, 1, 3, 1],
        "predicted_iou": 0.9,
        "point_coords": [[1.5, 2.0]],
        "stability_score": 0.97,
        "crop_box": [0, 0, 5, 4],
    }


def test_dictionary_holds_runs_when_asked():
    values = record(rectangle(1, 3, 0, 4))
    plain = values.to_dict("uncompressed_rle")["segmentation"]
    assert plain == {"size": [4, 5], "counts": [1, 2, 2, 2, 2, 2, 2, 2, 5]}
    packed = values.to_dict("coco_rle")["segmentation"]
    assert RunLengths.from_coco(packed["size"], packed["counts"]) == values.segmentation
    with pytest.raises(ConfigError, match="binary_mask"):
        values.to_dict("polygon")  # type: ignore[arg-type]


def test_smaller_masks_lie_on_top_of_larger_ones():
    small, large = record(rectangle(1, 2, 1, 3)), record(rectangle(0, 4, 0, 3))
    labels = label_map([small, large], PICTURE)
    assert labels.grid == PICTURE
    assert labels.array[:, :, 0].tolist() == [
        [1, 1, 1, 0, 0],
        [1, 2, 2, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
    ]


def test_no_masks_make_an_empty_map():
    assert label_map([], Grid.pixels((4, 5))).labels() == []


def test_more_than_255_masks_keep_their_labels():
    masks = [
        record(rectangle(0, 1, 0, n, (1, 301)), Grid.pixels((1, 301))) for n in range(301, 0, -1)
    ]
    assert label_map(masks, masks[0].grid).array[0, :, 0].tolist() == list(range(301, 0, -1))


@pytest.mark.parametrize("orientation", ["LPS", "RAS", "SAR", "PIR"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_is_drawn_where_it_was_taken_from(orientation, axis):
    grid = Grid.from_spacing(
        (3, 4, 5), (1.0, 1.5, 2.5), orientation=orientation, origin_mm=(7, -3, 2)
    )
    values = np.random.default_rng(0).integers(0, 99, grid.shape)
    shown = displayed(Volume(values, grid).slice(axis, 1), axis)
    found = record(shown.array[:, :, 0] > 50, shown.grid)
    expected = np.zeros(grid.shape, bool)
    here = (*[slice(None)] * axis, 1)
    expected[here] = values[here] > 50
    labels = label_map([found], grid)
    assert np.array_equal(labels.array == 1, expected)
    assert labels.grid == grid


def test_masks_of_another_image_are_refused():
    found = record(rectangle(0, 2, 0, 2))
    with pytest.raises(GridMismatch, match="no slice of"):
        label_map([found], Grid.pixels((4, 4)))
    with pytest.raises(GridMismatch, match="no slice of"):
        label_map([found], Grid.from_spacing((4, 5, 1), (0.5, 0.5, 1), orientation="PLS"))


def test_masks_of_two_slices_are_refused():
    volume = Volume(np.zeros((4, 5, 3)), Grid.from_spacing((4, 5, 3), orientation="PLS"))
    found = [record(rectangle(0, 2, 0, 2), volume.slice(2, k).grid) for k in (0, 2)]
    with pytest.raises(PromptError, match="different slices"):
        label_map(found, volume)


def test_written_records_have_the_published_layout(tmp_path):
    masks = [rectangle(1, 3, 0, 4), rectangle(0, 1, 2, 3)]
    write_records([record(mask) for mask in masks], tmp_path / "out" / "picture")
    folder = tmp_path / "out" / "picture"
    assert sorted(p.name for p in folder.iterdir()) == ["0.png", "1.png", "metadata.csv"]
    for number, mask in enumerate(masks):
        assert np.array_equal(np.array(Image.open(folder / f"{number}.png")), mask * 255)
    with (folder / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert ",".join(rows[0]) == (
        "id,area,bbox_x0,bbox_y0,bbox_w,bbox_h,point_input_x,point_input_y,"
        "predicted_iou,stability_score,crop_box_x0,crop_box_y0,crop_box_w,crop_box_h"
    )
    assert list(rows[1].values()) == (
        ["1", "1", "2", "0", "0", "0", "1.5", "2.0", "0.9", "0.97", "0", "0", "5", "4"]
    )


def test_a_folder_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileError, match="there already"):
        write_records([record(rectangle(0, 2, 0, 2))], tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("samaritan.infer.mask_records._write_metadata", fail)
    with pytest.raises(FileError, match="disk full"):
        write_records([record(rectangle(0, 2, 0, 2))], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_json_holds_every_record(tmp_path):
    found = [record(rectangle(1, 3, 0, 4)), record(rectangle(0, 1, 2, 3))]
    write_records_json(found, tmp_path / "masks.json")
    read = json.loads((tmp_path / "masks.json").read_text())
    assert read == [one.to_dict("coco_rle") for one in found]
