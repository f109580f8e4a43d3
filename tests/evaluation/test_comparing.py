"""Folders are matched by name, and measured on one grid; pictures show where masks differ."""

from __future__ import annotations

import io
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from samaritan.errors import ConfigError, FileError
from samaritan.evaluation import compare, match, read_groups
from samaritan.evaluation.choosing import choose_cases, picture_cases
from samaritan.evaluation.comparing import Settings
from samaritan.evaluation.matching import Pair, case_name, names_beside
from samaritan.evaluation.pictures import draw_case
from samaritan.geometry import Grid
from samaritan.io import write
from samaritan.metrics import summarise
from samaritan.volume import LabelMap, Volume

GRID = Grid.from_spacing((12, 14, 5), (1.5, 1.0, 4.0), orientation="LPS")


def label_map(*boxes, grid=GRID, names=None):
    array = np.zeros(grid.shape, np.uint8)
    for label, (i, j, k) in enumerate(boxes, start=1):
        array[i : i + 5, j : j + 4, k : k + 2] = label
    return LabelMap(array, grid, names=names or {})


@pytest.fixture
def folders(tmp_path):
    """Three cases: one right, one shifted by a voxel in another format, one missing; and one too many."""
    reference = label_map((1, 1, 1), (7, 8, 2), names={1: "liver", 2: "spleen"})
    for case in ("a", "b", "c"):
        write(reference, tmp_path / "ref" / f"{case}.seg.nrrd")
    write(reference, tmp_path / "pred" / "a.nii.gz")
    write(label_map((2, 1, 1), (7, 8, 2)), tmp_path / "pred" / "b.mha")
    write(reference, tmp_path / "pred" / "d.nii.gz")
    return tmp_path / "pred", tmp_path / "ref"


def test_names_match_whatever_the_formats(folders) -> None:
    matched = match(*folders)
    assert [pair.case for pair in matched.pairs] == ["a", "b", "c"]
    assert matched.missing == ("c",)
    assert [path.name for path in matched.extra] == ["d.nii.gz"]
    assert case_name(folders[0] / "p.1.SEG.NRRD") == "p.1"


def test_every_label_of_every_case_is_measured(folders) -> None:
    found = compare(match(*folders))
    rows = {(row.case, row.name): row for row in found.rows}
    assert len(rows) == 6
    assert rows["a", "liver"].values["dice"] == 1
    assert rows["b", "liver"].values["dice"] == pytest.approx(0.8)
    assert rows["b", "liver"].values["hd95_mm"] == 1.5
    assert {rows["c", name].outcome for name in ("liver", "spleen")} == {"missed"}
    assert any("c has no prediction" in note for note in found.notes)


def test_several_processes_give_the_same(folders) -> None:
    assert compare(match(*folders), workers=2).rows == compare(match(*folders)).rows


def test_labels_are_chosen_by_number_or_name(folders) -> None:
    for wanted in ((2,), ("Spleen",)):
        found = compare(match(*folders), Settings(labels=wanted))
        assert {row.label for row in found.rows} == {2}
    found = compare(match(*folders), Settings(labels=(9,), names={9: "moon"}))
    assert {(row.name, row.outcome, row.counted) for row in found.rows} == {
        ("moon", "absent", False)
    }
    found = compare(match(*folders), Settings(labels=("kidney",)))
    assert "no label is named 'kidney': known are liver, spleen" in found.problems["a"]
    (row, *_) = compare(match(*folders), Settings(binary=True)).rows
    assert (row.label, row.name) == (1, "object")


def test_a_label_that_one_case_lacks_is_absent_there(tmp_path) -> None:
    write(label_map((1, 1, 1)), tmp_path / "ref" / "a.nii.gz")
    write(label_map((1, 1, 1), (7, 8, 2)), tmp_path / "ref" / "b.nii.gz")
    found = compare(match(tmp_path / "ref", tmp_path / "ref"))
    assert [(r.case, r.label, r.outcome) for r in found.rows] == [
        ("a", 1, "found"), ("a", 2, "absent"), ("b", 1, "found"), ("b", 2, "found"),
    ]  # fmt: skip


def test_samed_averages_cases_then_labels_with_what_is_absent(tmp_path) -> None:
    write(label_map((1, 1, 1)), tmp_path / "ref" / "a.nii.gz")
    write(label_map((1, 1, 1), (7, 8, 2)), tmp_path / "ref" / "b.nii.gz")
    write(label_map((1, 1, 1), (7, 8, 2)), tmp_path / "pred" / "a.nii.gz")
    write(label_map((1, 1, 1)), tmp_path / "pred" / "b.nii.gz")
    settings = Settings("samed", labels=(1, 2, 3))
    rows = compare(match(tmp_path / "pred", tmp_path / "ref"), settings).rows
    (overall,) = summarise(rows, by=())
    # label 1: 1 and 1; label 2: invented scores 1, missed 0; label 3 is nowhere: 0 and 0
    assert overall.stats["dice"].mean == pytest.approx((1 + 0.5 + 0) / 3)
    assert overall.stats["hd95_voxels"].mean == 0


def test_a_worker_that_dies_is_told(folders, monkeypatch) -> None:
    class Pool:
        def __init__(self, *_, **__): ...
        def __enter__(self):
            return self

        def __exit__(self, *_): ...
        def map(self, *_):
            raise BrokenProcessPool

    monkeypatch.setattr("samaritan.evaluation.comparing.ProcessPoolExecutor", Pool)
    with pytest.raises(ConfigError, match="probably because memory ran out"):
        compare(match(*folders), workers=2)


def test_other_grids_are_told_or_resampled(tmp_path) -> None:
    write(label_map((1, 1, 1)), tmp_path / "ref" / "a.nii.gz")
    write(label_map((1, 1, 1)), tmp_path / "ref" / "b.nii.gz")
    write(label_map((1, 1, 1)), tmp_path / "pred" / "a.nii.gz")
    write(
        label_map((1, 1, 1)).reorient("RAS").pad((1, 1, 0), (2, 0, 0)),
        tmp_path / "pred" / "b.nii.gz",
    )
    matched = match(tmp_path / "pred", tmp_path / "ref")
    found = compare(matched)
    assert {row.case for row in found.rows} == {"a"}
    assert "shape (12, 14, 5) vs (15, 15, 5)" in found.problems["b"]
    assert "--resample" in found.problems["b"]
    resampled = compare(matched, Settings(resample=True))
    assert [row.values["dice"] for row in resampled.rows] == [1, 1]


def test_pictures_are_measured_in_pixels(tmp_path) -> None:
    mask = np.zeros((9, 8), np.uint8)
    mask[2:6, 1:5] = 255
    write(LabelMap(mask[..., None], Grid.pixels((9, 8))), tmp_path / "ref" / "a.png")
    write(
        LabelMap(np.roll(mask, 2, 0)[..., None], Grid.pixels((9, 8))), tmp_path / "pred" / "a.tif"
    )
    (row,) = compare(match(tmp_path / "pred", tmp_path / "ref")).rows
    assert (row.label, row.values["hd95_px"], row.values["dice"]) == (255, 2, 0.5)


def test_damaged_files_are_told_and_the_rest_goes_on(folders) -> None:
    (folders[0] / "b.mha").write_bytes(b"\x00" * 100)
    found = compare(match(*folders))
    assert list(found.problems) == ["b"]
    assert "b.mha" in found.problems["b"]
    assert {row.case for row in found.rows} == {"a", "c"}


def test_names_that_contradict_each_other_are_noted(folders) -> None:
    write(label_map((1, 1, 1), names={1: "kidney"}), folders[0] / "c.seg.nrrd")
    assert any("'liver' in references, but 'kidney'" in n for n in compare(match(*folders)).notes)


def test_folders_that_do_not_fit_are_told(folders, tmp_path) -> None:
    pred, ref = folders
    with pytest.raises(FileError, match="nowhere does not exist"):
        match(tmp_path / "nowhere", ref)
    with pytest.raises(FileError, match="one is a folder, the other a file"):
        match(pred, ref / "a.seg.nrrd")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="holds no label files"):
        match(pred, tmp_path / "empty")
    with pytest.raises(
        FileError, match=r"no file in .*empty has the name of a file in .*: no files"
    ):
        match(tmp_path / "empty", ref)
    write(label_map((1, 1, 1)), pred / "a.nrrd")
    with pytest.raises(FileError, match=r"two files for case 'a': a.nii.gz and a.nrrd"):
        match(pred, ref)


def test_two_files_are_one_case(folders) -> None:
    matched = match(folders[0] / "b.mha", folders[1] / "a.seg.nrrd")
    assert [pair.case for pair in matched.pairs] == ["a"]
    assert len(compare(matched).rows) == 2


def test_groups_come_from_a_table(folders, tmp_path) -> None:
    table = tmp_path / "groups.csv"
    table.write_text("Case,Group,Patient\na.nii.gz,one,p1\nb,two,p1\n", "utf-8-sig")
    rows = compare(match(*folders), groups=read_groups(table)).rows
    assert [(r.case, r.group, r.patient) for r in rows[::2]] == [
        ("a", "one", "p1"), ("b", "two", "p1"), ("c", "", ""),
    ]  # fmt: skip
    table.write_text("name,set\na,one\n")
    with pytest.raises(ConfigError, match="has the columns name, set: expected `case`"):
        read_groups(table)
    table.write_text("case,group\na,one\na.png,two\n")
    with pytest.raises(ConfigError, match="names case 'a' twice"):
        read_groups(table)
    with pytest.raises(FileError, match="cannot be read as text"):
        read_groups(tmp_path)


@pytest.mark.parametrize(
    "labels", ['{"background": 0, "liver": 1}', '{"0": "background", "1": "liver"}']
)
def test_names_come_from_nnunet_folders(tmp_path, labels) -> None:
    (tmp_path / "labelsTr").mkdir()
    (tmp_path / "dataset.json").write_text(f'{{"labels": {labels}}}')
    assert names_beside(tmp_path / "labelsTr") == {1: "liver"}
    (tmp_path / "dataset.json").write_text("[]")
    assert names_beside(tmp_path / "labelsTr") == {}


# -- pictures ------------------------------------------------------------------------------------


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_cases_are_chosen_from_both_ends_and_the_middle(folders) -> None:
    row = compare(match(*folders)).rows[0]
    rows = [replace(row, case=f"{i:02}", values={"dice": i / 20}) for i in range(11)]
    assert choose_cases(rows, each=2) == {
        "worst": ["00", "01"], "best": ["10", "09"], "median": ["04", "05"],
    }  # fmt: skip
    assert choose_cases(rows[:1]) == {"worst": ["00"], "best": [], "median": []}
    assert choose_cases([]) == {"worst": [], "best": [], "median": []}


def test_pictures_show_cases_with_and_without_images(folders, tmp_path) -> None:
    write(
        Volume(np.random.default_rng(0).random(GRID.shape), GRID),
        tmp_path / "img" / "a_0000.nii.gz",
    )
    (tmp_path / "img" / "b.png").write_bytes(b"no picture")
    matched = match(*folders, tmp_path / "img")
    assert [pair.image and pair.image.name for pair in matched.pairs] == [
        "a_0000.nii.gz",
        "b.png",
        None,
    ]
    pictures, colours = picture_cases(matched.pairs, compare(matched).rows, Settings())
    assert [(p.kind, p.case) for p in pictures] == [("worst", "c"), ("best", "a"), ("median", "b")]
    assert [name for name, _ in colours] == ["liver", "spleen"]
    shapes = [opened(p.png).shape for p in pictures]
    assert shapes[1][1] > 1.8 * shapes[2][1]  # only a has an image to show beside


def test_a_picture_shows_the_slice_that_differs_most() -> None:
    one, two = label_map((1, 1, 1)), label_map((1, 1, 1))
    same = opened(draw_case(one, two))
    two.array[8:11, 8:12, 4] = 1
    differs = opened(draw_case(one, two))
    assert same.shape != differs.shape or np.abs(same - differs).max() > 50


def test_pictures_take_colour_images_and_images_on_other_grids() -> None:
    grid = Grid.pixels((30, 40))
    array = np.zeros((30, 40, 1), np.uint8)
    array[5:20, 8:30] = 1
    mask = LabelMap(array, grid)
    colour = Volume(np.full((30, 40, 1, 3), 200, np.uint8), grid, ("red", "green", "blue"))
    drawn = opened(draw_case(mask, mask, image=colour))
    assert (drawn == 200).all(axis=-1).mean() > 0.3
    scan = Volume(np.random.default_rng(0).random((6, 7, 5)), GRID.resize((6, 7, 5)))
    empty = label_map()
    assert opened(draw_case(label_map((1, 1, 1)), empty, image=scan)).std() > 10
    assert opened(draw_case(empty, empty)).size


def test_a_pair_names_its_files(tmp_path) -> None:
    assert Pair("a", tmp_path, None).image is None
