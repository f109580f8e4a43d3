"""`samaritan predict`: a folder in, a folder out; what it tells, and what a kill leaves behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cli.run import samaritan

from samaritan.assembly import create_model
from samaritan.checkpoints import save_weights
from samaritan.geometry import Grid
from samaritan.io import read, read_labels, write
from samaritan.volume import Volume

GRID = Grid.from_spacing((14, 12, 4), (1.5, 1.5, 3.0), orientation="LPI", origin_mm=(9, -4, 2))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans, the run of a model with classes, and a model with prompts."""
    root, rng = tmp_path_factory.mktemp("predict"), np.random.default_rng(0)
    for name in ("p01", "p02"):
        voxels = rng.integers(0, 300, GRID.shape).astype(np.int16)
        write(Volume(voxels, GRID), root / "images" / f"{name}_0000.nii.gz")
    (root / "run").mkdir()
    torch.manual_seed(1)
    extra = {"labels": {"1": "liver", "2": "spleen"}}
    save_weights(
        create_model("sam_tiny", num_classes=2), root / "run" / "best.safetensors", extra=extra
    )
    save_weights(create_model("sam_tiny"), root / "clicks.safetensors")
    adapted = create_model("samed_tiny", num_classes=2)
    save_weights(adapted, root / "lora.safetensors", only="trainable", extra=extra)
    plain = create_model("sam_tiny")
    torch.nn.init.normal_(plain.image_encoder.pos_embed)  # zero is what a model without weights has
    save_weights(plain, root / "plain.safetensors")
    return root


def test_the_folder_of_a_run_labels_a_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ("predict", folder / "images", out, "-m", folder / "run", "--picture")
    done = samaritan(capsys, *command)
    assert done.code == 0, done.err
    assert done.out == f"cases: 2 done\nwritten: {out}\n"
    assert f"weights: {folder / 'run' / 'best.safetensors'}" in done.err
    mask = read_labels(out / "p01.nii.gz")
    assert mask.grid.same_as(read(folder / "images" / "p01_0000.nii.gz").grid)
    assert mask.names == {1: "liver", 2: "spleen"}
    assert (out / "pictures" / "p02.png").read_bytes().startswith(b"\x89PNG")
    made_with = json.loads((out / "predict.json").read_text("utf-8"))["made_with"]
    assert made_with["weights"].startswith("best.safetensors, sha256 ")
    again = samaritan(capsys, *command, "--json")
    assert set(json.loads(again.out)["there"]) == {"p01", "p02"}
    other = samaritan(capsys, "predict", folder / "images", out, "-m", folder / "run", "--axis", 0)
    assert other.code == 1
    assert "axis was None, is 0" in other.err


def test_a_bad_case_is_told_at_the_end(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    write(read(folder / "images" / "p01_0000.nii.gz"), images / "good.nrrd")
    (images / "bad.nii.gz").write_bytes(b"nothing")
    done = samaritan(
        capsys, "predict", images, out, "-m", folder / "run", "--format", "seg.nrrd", "--json"
    )
    assert done.code == 1
    assert "1 case could not be predicted" in done.err
    assert "bad: " in done.err
    told = json.loads(done.out)
    assert (set(told["done"]), set(told["failed"])) == ({"good"}, {"bad"})
    assert read_labels(out / "good.seg.nrrd").names == {1: "liver", 2: "spleen"}


def test_prompts_come_from_a_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("predict", folder / "images", tmp_path / "out", "-m", folder / "clicks.safetensors")
    without = samaritan(capsys, *command)
    assert without.code == 1
    assert "predict --prompts FILE" in without.err
    prompts = tmp_path / "prompts.csv"
    prompts.write_text("case,object,kind,i,j,k\np02,liver,point,5,5,2\n")
    done = samaritan(capsys, *command, "--prompts", prompts)
    assert done.code == 0, done.err
    assert done.out.startswith("cases: 1 done, 1 without prompts (p01)\n")
    assert read_labels(tmp_path / "out" / "p02.nii.gz").names == {1: "liver"}
    one = samaritan(
        capsys,
        *("segment", folder / "images" / "p02_0000.nii.gz", "-o", tmp_path / "one.nii.gz"),
        *("-m", folder / "clicks.safetensors", "-p", "liver=5,5,2"),
    )
    assert one.code in (0, 3), one.err
    same = read_labels(tmp_path / "one.nii.gz").array
    assert np.array_equal(read_labels(tmp_path / "out" / "p02.nii.gz").array, same)


def test_adapters_alone_need_their_base(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("predict", folder / "images", tmp_path / "out", "-m", folder / "lora.safetensors")
    without = samaritan(capsys, *command)
    assert without.code == 1
    assert "--base" in without.err
    done = samaritan(capsys, *command, "--base", folder / "plain.safetensors")
    assert done.code == 0, done.err


def test_outputs_stay_out_of_the_inputs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = samaritan(
        capsys, "predict", folder / "images", folder / "images" / "out", "-m", folder / "run"
    )
    assert done.code == 1
    assert "lies in" in done.err
    missing = samaritan(capsys, "predict", tmp_path / "no", tmp_path / "out", "-m", folder / "run")
    assert missing.code == 1
    assert "does not exist" in missing.err


def test_a_killed_run_leaves_whole_files_and_goes_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for n in range(60):
        (images / f"c{n:02}.nii.gz").symlink_to(folder / "images" / "p01_0000.nii.gz")
    command = ["predict", str(images), str(out), "-m", str(folder / "run")]
    with subprocess.Popen(
        [sys.executable, "-m", "samaritan", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        while process.poll() is None and len(list(out.glob("*.nii.gz"))) < 3:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    made = sorted(path.name for path in out.glob("c*.nii.gz"))
    assert made
    for name in made:
        assert read_labels(out / name).grid.same_as(GRID)
    done = samaritan(capsys, *command, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert sorted(told["there"]) == [name.removesuffix(".nii.gz") for name in made]
    assert len(told["there"]) + len(told["done"]) == 60
    assert not list(out.glob(".*"))
