"""Summaries in nnU-Net's form: its counts, its means, its way with what occurs nowhere."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samaritan import Grid, LabelMap, write
from samaritan.data.nnunet.labels import LabelSet
from samaritan.data.nnunet.results import (
    Compared,
    compare,
    describe_run,
    read_summary,
    run_folder,
    summarise,
    summarise_folder,
    write_probabilities,
)
from samaritan.errors import ConfigError, CorruptFile, FileError, GridMismatch

PLAIN = LabelSet({"a": 1, "b": 2})
REFERENCE = np.array([[0, 1, 1, 2], [0, 1, 2, 2]])
PREDICTION = np.array([[1, 1, 1, 0], [0, 0, 2, 2]])


def test_counts_are_those_of_each_label() -> None:
    found = compare(PREDICTION, REFERENCE, PLAIN)
    assert found[1] == {
        "Dice": 4 / 6, "IoU": 0.5, "FP": 1, "TP": 2, "FN": 1, "TN": 4, "n_pred": 3, "n_ref": 3,
    }  # fmt: skip
    assert found[2]["Dice"] == 0.8


def test_what_nobody_decided_is_not_counted() -> None:
    labels = LabelSet({"a": 1}, ignore=2)
    found = compare(np.minimum(PREDICTION, 1), REFERENCE, labels)[1]
    assert found["TP"] + found["FP"] + found["FN"] + found["TN"] == 5


def test_regions_are_compared_as_unions() -> None:
    labels = LabelSet({"both": (1, 2), "b": (2,)}, region_order=(1, 2))
    found = compare(PREDICTION, REFERENCE, labels)
    assert found[1, 2]["TP"] == 4
    summary = summarise([Compared("p", "r", found)], labels)
    assert list(summary["mean"]) == ["(1, 2)", "(2,)"]


def test_labels_that_occur_nowhere_are_nan_and_left_out_of_their_mean() -> None:
    empty = np.zeros_like(REFERENCE)
    rows = [Compared("p", "r", compare(PREDICTION, REFERENCE, PLAIN))]
    rows.append(Compared("q", "s", compare(empty, empty, PLAIN)))
    summary = summarise(rows, PLAIN)
    assert math.isnan(summary["metric_per_case"][1]["metrics"]["1"]["Dice"])
    assert summary["mean"]["1"]["Dice"] == 4 / 6
    assert summary["mean"]["1"]["TP"] == 1
    assert summary["foreground_mean"]["Dice"] == pytest.approx((4 / 6 + 0.8) / 2)
    never = summarise(rows[1:], PLAIN)
    assert math.isnan(never["foreground_mean"]["Dice"])


def test_a_folder_is_summed_up_and_read_again(tmp_path) -> None:
    grid = Grid.from_spacing((2, 4, 1), (1, 1, 2))
    for folder, array in (("pred", PREDICTION), ("ref", REFERENCE)):
        write(LabelMap(array[..., None].astype(np.uint8), grid), tmp_path / folder / "one.nii.gz")
    found = summarise_folder(tmp_path / "pred", tmp_path / "ref", PLAIN, ".nii.gz")
    assert read_summary(tmp_path / "pred/summary.json") == found
    assert found["metric_per_case"][0]["prediction_file"].endswith("pred/one.nii.gz")
    other = Grid.from_spacing((2, 4, 1), (1, 1, 3))
    write(LabelMap(REFERENCE[..., None].astype(np.uint8), other), tmp_path / "ref/one.nii.gz")
    with pytest.raises(GridMismatch, match="one"):
        summarise_folder(tmp_path / "pred", tmp_path / "ref", PLAIN, ".nii.gz")
    (tmp_path / "ref/one.nii.gz").unlink()
    with pytest.raises(FileError, match="what is"):
        summarise_folder(tmp_path / "pred", tmp_path / "ref", PLAIN, ".nii.gz")
    with pytest.raises(ConfigError, match="no prediction"):
        summarise_folder(tmp_path / "ref", tmp_path / "pred", PLAIN, ".nii.gz")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(CorruptFile, match="no summary"):
        read_summary(tmp_path / "bad.json")


def test_runs_lie_where_nnunet_looks_for_them(planned, tmp_path) -> None:
    folder = run_folder(tmp_path, planned, "3d_fullres", "SamaritanTrainer", 0)
    assert folder.relative_to(tmp_path).as_posix() == (
        "Dataset007_Toy/SamaritanTrainer__nnUNetPlans__3d_fullres/fold_0"
    )
    describe_run(folder.parent, planned)
    assert {p.name for p in folder.parent.iterdir()} == {
        "dataset.json", "plans.json", "dataset_fingerprint.json",
    }  # fmt: skip
    write_probabilities(folder / "one.npz", np.ones((2, 3, 4, 5)))
    with np.load(folder / "one.npz") as found:
        assert found["probabilities"].dtype == np.float32
