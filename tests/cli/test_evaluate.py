"""`samaritan evaluate` measures files, writes a report, and tells what is wrong with its input."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cli.run import samaritan

from samaritan.geometry import Grid
from samaritan.io import write
from samaritan.volume import LabelMap, Volume

GRID = Grid.from_spacing((10, 11, 6), (0.8, 0.8, 3.0), orientation="LAS")
FILES = ["cases.csv", "report.html", "report.json", "summary.csv"]


def label_map(shift=0, label=1):
    array = np.zeros(GRID.shape, np.uint8)
    array[2 + shift : 7 + shift, 3:8, 1:4] = label
    return LabelMap(array, GRID)


@pytest.fixture
def folders(tmp_path):
    for case in ("a", "b"):
        write(label_map(), tmp_path / "ref" / f"{case}.nii.gz")
        write(Volume(np.ones(GRID.shape, np.float32), GRID), tmp_path / "img" / f"{case}.nii.gz")
    write(label_map(), tmp_path / "pred" / "a.nii.gz")
    write(label_map(1), tmp_path / "pred" / "b.nrrd")
    return tmp_path / "pred", tmp_path / "ref", "-o", tmp_path / "out"


def test_two_folders_become_a_report(capsys, folders, tmp_path) -> None:
    done = samaritan(
        capsys, "evaluate", *folders, "--labels", "1=heart", "--images", tmp_path / "img"
    )
    assert done.code == 0, done.err
    assert "heart" in done.out
    assert "0.900" in done.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert (tmp_path / "out" / "report.html").read_text("utf-8").count("<figure>") == 2


def test_the_summary_is_printed_as_json(capsys, folders) -> None:
    done = samaritan(capsys, "evaluate", *folders, "--json", "--tolerance", 0.5, "--pictures", 0)
    told = json.loads(done.out)
    assert (told["protocol"], told["tolerance"]) == ("samaritan", 0.5)
    stats = told["labels"][0]["stats"]
    assert stats["dice"]["mean"] == pytest.approx(0.9)
    assert stats["hd95_mm"]["most"] == pytest.approx(0.8)
    assert told["page"].endswith("report.html")


def test_published_protocols_have_their_own_columns(capsys, folders, tmp_path) -> None:
    for protocol, wanted in (("samed", {"dice", "hd95_voxels"}), ("sam_med2d", {"iou", "dice"})):
        done = samaritan(capsys, "evaluate", *folders, "--json", "--protocol", protocol)
        assert done.code == 0, done.err
        assert set(json.loads(done.out)["overall"][0]["stats"]) == wanted


def test_two_files_are_compared(capsys, folders) -> None:
    pred, ref, *output = folders
    done = samaritan(capsys, "evaluate", pred / "b.nrrd", ref / "a.nii.gz", *output)
    assert done.code == 0, done.err
    assert "0.800" in done.out


def test_missing_predictions_are_missed_objects(capsys, folders) -> None:
    (folders[0] / "b.nrrd").unlink()
    done = samaritan(capsys, "evaluate", *folders, "--json")
    assert done.code == 0
    assert "b has no prediction" in done.err
    told = json.loads(done.out)["overall"][0]
    assert (told["n_missed"], told["stats"]["dice"]["mean"]) == (1, 0.5)
    assert told["stats"]["hd95_mm"]["mean"] == "inf"


def test_bad_cases_are_told_together_and_the_others_are_reported(capsys, folders, tmp_path) -> None:
    pred, ref, *_ = folders
    write(label_map().crop((0, 0, 0), (10, 11, 5)), pred / "b.nrrd")
    (pred / "c.nii.gz").write_bytes(b"garbage")
    write(label_map(), ref / "c.nii.gz")
    done = samaritan(capsys, "evaluate", *folders)
    assert done.code == 1
    assert "2 cases could not be measured" in done.err
    assert (
        "b: grids of reference and prediction differ: shape (10, 11, 6) vs (10, 11, 5)" in done.err
    )
    assert "c.nii.gz" in done.err
    assert "2 cases could not be measured" in (tmp_path / "out" / "report.html").read_text("utf-8")
    write(label_map(), pred / "c.nii.gz")
    assert samaritan(capsys, "evaluate", *folders, "--resample").code == 0


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--protocol", "medpy"], "protocol 'medpy' is not known"),
        (["--protocol", "samed", "--tolerance", "1"], "fixes its own measures"),
        (["--labels", "1,,2"], "'' is not a label"),
        (["--labels", "liver=1"], "'liver=1' is not a label"),
        (["--labels", "0"], "'0' is not a label"),
        (["--labels", "liver"], "no label is named 'liver'"),
        (["--groups", "nothing.csv"], "nothing.csv cannot be read as text"),
        (["--images", "nothing"], "nothing does not exist"),
    ],
)
def test_bad_options_are_told_and_leave_nothing(capsys, folders, tmp_path, options, text) -> None:
    done = samaritan(capsys, "evaluate", *folders, *options)
    assert done.code == 1
    assert text in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_told_before_measuring(capsys, folders, tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    pred, ref, *_ = folders
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        done = samaritan(capsys, "evaluate", pred, ref, "-o", place)
        assert done.code == 1
        assert "folder" in done.err


def test_empty_masks_are_told(capsys, folders, tmp_path) -> None:
    nothing = LabelMap(np.zeros(GRID.shape, np.uint8), GRID)
    write(nothing, tmp_path / "none" / "a.nii.gz")
    none = tmp_path / "none"
    done = samaritan(capsys, "evaluate", none, none, "-o", tmp_path / "out")
    assert done.code == 1
    assert "hold no label at all" in done.err
    assert (
        samaritan(capsys, "evaluate", none, none, "-o", tmp_path / "out", "--labels", 1).code == 0
    )


def test_real_references_agree_with_themselves(capsys, data_dir, tmp_path) -> None:
    labels = data_dir / "images2d" / "bus_bra" / "masks"
    done = samaritan(
        capsys, "evaluate", labels, labels, "-o", tmp_path / "out", "--json", "--binary"
    )
    assert done.code == 0, done.err
    stats = json.loads(done.out)["overall"][0]["stats"]
    assert stats["dice"]["mean"] == stats["surface_dice"]["least"] == 1
    assert stats["hd95_px"]["most"] == 0
