"""`samaritan prepare check`, `samaritan prepare slices` and `samaritan prepare convert`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cli.run import samaritan

from samaritan import Grid, LabelMap, Volume, write


@pytest.fixture
def folder(tmp_path):
    """Four MR volumes of two patients: toy/images, toy/labels."""
    grid = Grid.from_spacing((5, 6, 4), (1.0, 1.5, 4.0), orientation="LPS")
    for number, name in enumerate(("p1_a", "p1_b", "p2_a", "p2_b")):
        array = np.random.default_rng(number).integers(0, 300, grid.shape).astype(np.int16)
        drawn = np.zeros(grid.shape, np.uint8)
        drawn[1:3, 1:3, 1:3] = 1
        write(Volume(array, grid), tmp_path / f"toy/images/{name}.nii.gz")
        write(LabelMap(drawn, grid), tmp_path / f"toy/labels/{name}.nii.gz")
    return tmp_path / "toy"


def test_check_tells_what_is_there_and_writes_a_manifest(folder, tmp_path, capsys) -> None:
    done = samaritan(
        capsys, "prepare", "check", folder, "--patient", r"(p\d)_.", "-o", tmp_path / "m.json"
    )
    assert (done.code, "nothing breaks training" in done.out) == (0, True)
    assert "4 cases of 2 patients" in done.out
    again = samaritan(capsys, "prepare", "check", tmp_path / "m.json")
    assert "4 cases of 2 patients" in again.out


def test_check_fails_on_what_breaks_training_and_writes_nothing(folder, tmp_path, capsys) -> None:
    (folder / "images/p1_a.nii.gz").write_bytes(b"nothing")
    (folder / "images/p1_b.nii.gz").unlink()
    (folder / "labels/p1_b.nii.gz").unlink()
    target = tmp_path / "m.csv"
    done = samaritan(capsys, "prepare", "check", folder, "-o", target)
    assert done.code == 1
    assert "wrong p1_a: unreadable" in done.out
    assert not target.exists()
    done = samaritan(capsys, "prepare", "check", folder, "-o", target, "--anyway", "--json")
    assert (done.code, target.exists()) == (1, True)
    told = json.loads(done.out)
    assert (told["ok"], told["cases"]) == (False, 3)
    assert [p["kind"] for p in told["problems"]] == ["unreadable"]


def test_slices_are_made_and_checked(folder, tmp_path, capsys) -> None:
    args = ("prepare", "slices", folder, tmp_path / "out", "--patient", r"(p\d)_.")
    done = samaritan(capsys, *args)
    assert done.code == 1
    assert "the modality is not known" in done.err
    done = samaritan(capsys, *args, "--modality", "MR", "--split", "train=0.5,val=0.5")
    assert done.code == 0
    assert "8 cases of 2 patients (4 train, 4 val)" in done.out
    done = samaritan(capsys, "prepare", "check", tmp_path / "out/manifest.json")
    assert (done.code, "8 cases of 2 patients" in done.out) == (0, True)


def test_volumes_are_laid_out_anew(folder, tmp_path, capsys) -> None:
    words = ["prepare", "convert", folder, tmp_path / "out", "--to", "neurosam3d", "--spacing", "2"]
    done = samaritan(capsys, *words, "--split", "train=0.5,val=0.5", "--patient", r"(p\d)_.")
    assert (done.code, done.err.strip()) == (0, "")
    assert "4 cases of 2 patients (2 train, 2 val)" in done.out
    done = samaritan(capsys, "prepare", "check", tmp_path / "out")
    assert (done.code, "nothing breaks training" in done.out) == (0, True)
    done = samaritan(capsys, *words[:-1], "1,2")
    assert (done.code, "spacing '1,2' must be one number or three" in done.err) == (1, True)


def test_the_synapse_layout_can_be_chosen(folder, tmp_path, capsys) -> None:
    pytest.importorskip("h5py")
    args = ("prepare", "slices", folder, tmp_path / "out", "--layout")
    assert "split the manifest first" in samaritan(capsys, *args, "synapse").err
    assert "expected pairs or synapse" in samaritan(capsys, *args, "other").err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split", "train"), "must be like train=0.8,val=0.2"),
        (("--split", "train=0.5"), "add up to 1"),
        (("--modality", "MRT"), "modality 'MRT' is not known"),
        (("--modality", "CT", "--window", "1,x"), "must be a name, or two numbers"),
        (("--modality", "CT", "--window", "belly"), "window 'belly' is not known"),
        (("--modality", "MR", "--bits", "12"), "bits 8 or 16"),
        (("--patient", "(x)"), "does not fit 4 of 4"),
    ],
)
def test_wrong_options_are_one_message(folder, tmp_path, capsys, options, message) -> None:
    done = samaritan(capsys, "prepare", "slices", folder, tmp_path / "out", *options)
    assert (done.code, message in done.err) == (1, True)
    assert not (tmp_path / "out").exists()
