"""`samaritan prepare plan`: what it leaves, says and goes on with."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from samaritan import Grid, LabelMap, Volume, write
from samaritan.cli import app
from samaritan.data.nnunet import fingerprint
from samaritan.errors import ConfigError


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint, "VOXELS", 10_000)
    folder = tmp_path / "Dataset007_Toy"
    for number, case in enumerate(("pat1_a", "pat1_b", "pat2_a", "pat2_b", "pat3_a")):
        rng = np.random.default_rng(number)
        grid = Grid.from_spacing((14, 15, 9), (1.0, 1.5, 5.0))
        drawn = np.zeros(grid.shape, np.uint8)
        drawn[3:8, 4:9, 2:6] = 1
        image = rng.integers(50, 200, grid.shape).astype(np.int16) + drawn * 100
        write(Volume(image, grid), folder / f"imagesTr/{case}_0000.nii.gz")
        write(LabelMap(drawn, grid), folder / f"labelsTr/{case}.nii.gz")
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "thing": 1},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content), "utf-8")
    return folder


def run(*args):
    result = CliRunner().invoke(app, ["prepare", "plan", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_it_plans_splits_and_preprocesses_and_goes_on(toy, tmp_path) -> None:
    out = tmp_path / "out"
    first = run(toy, "-o", out, "--workers", 1)
    assert "Dataset007_Toy: 5 cases, channels MRI, 1 label" in first.stdout
    assert "5, 5 new" in first.stdout
    assert "5 folds (training/validation): 4/1" in first.stdout
    assert {p.name for p in out.iterdir()} == {
        "dataset.json", "dataset_fingerprint.json", "nnUNetPlans.json", "splits_final.json", "source.json",
        "nnUNetPlans_3d_fullres",
    }  # fmt: skip
    assert len(list((out / "nnUNetPlans_3d_fullres").glob("*.json"))) == 5
    second = run(toy, "-o", out, "-c", "3d_fullres", "-c", "2d", "--workers", 1)
    assert "5, 0 new" in second.stdout
    assert "5, 5 new" in second.stdout


def test_later_preprocesses_nothing(toy, tmp_path) -> None:
    found = run(toy, "-o", tmp_path / "out", "--later", "--spacing", "1.5,1.5,4")
    assert "when used" in found.stdout
    assert not (tmp_path / "out/nnUNetPlans_3d_fullres").exists()
    plans = json.loads((tmp_path / "out/nnUNetPlans.json").read_text())
    assert plans["configurations"]["3d_fullres"]["spacing"] == [4.0, 1.5, 1.5]


def test_patients_in_both_parts_are_told_and_can_be_kept_apart(toy, tmp_path) -> None:
    pattern = ("--patient", r"(pat\d)_.*", "--later")
    assert "1 patient has scans in both parts" in run(toy, "-o", tmp_path / "one", *pattern).stderr
    apart = run(toy, "-o", tmp_path / "two", "--by-patient", *pattern)
    assert "scans in both parts" not in apart.stderr
    assert "3 folds" in apart.stdout


def test_without_a_folder_nnunets_own_is_taken(toy, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "pre"))
    run(toy, "--later")
    assert (tmp_path / "pre/Dataset007_Toy/nnUNetPlans.json").is_file()


def test_what_cannot_be_is_told(toy, tmp_path) -> None:
    with pytest.raises(
        ConfigError, match="'3d_lowres' is not planned; expected one of 2d, 3d_fullres"
    ):
        run(toy, "-o", tmp_path / "out", "-c", "3d_lowres")
    with pytest.raises(ConfigError, match="must be three numbers"):
        run(toy, "-o", tmp_path / "out", "--spacing", "1.5")
    with pytest.raises(ConfigError, match="differs from the plans that were asked for"):
        run(toy, "-o", tmp_path / "out", "--spacing", "1,1,9")
