"""Files of the CVPR 2025 challenge go through every command."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from cli.run import samaritan

from samaritan import read, read_labels
from samaritan.assembly import create_model
from samaritan.checkpoints import save_weights
from samaritan.io.npz_arrays import array_names


@pytest.fixture
def folder(tmp_path):
    gts = np.zeros((6, 14, 16), np.uint8)
    gts[1:5, 2:9, 3:10], gts[2:5, 10:13, 11:15] = 1, 3
    image = (gts * 50 + np.random.default_rng(0).integers(0, 40, gts.shape)).astype(np.uint8)
    (tmp_path / "set").mkdir()
    for name in ("a", "b"):
        np.savez(tmp_path / f"set/{name}.npz", imgs=image, gts=gts, spacing=[2.5, 1, 1])
    torch.manual_seed(0)
    save_weights(create_model("sam3d_tiny"), tmp_path / "tiny.safetensors")
    return tmp_path


def test_info_tells_the_image_its_labels_and_that_nothing_is_known_of_its_place(
    capsys, folder
) -> None:
    done = samaritan(capsys, "info", folder / "set/a.npz", "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["format"], told["shape"], told["spacing"]) == ("NPZ", [6, 14, 16], [2.5, 1.0, 1.0])
    assert [row["value"] for row in told["labels"]] == [1, 3]
    assert "no orientation" in told["notes"][0]


def test_a_click_on_a_file_gives_a_file_of_its_kind(capsys, folder) -> None:
    done = samaritan(
        capsys, "segment", folder / "set/a.npz", "--point", "2,5,6", "-m", folder / "tiny.safetensors",
        "-o", folder / "mask.npz", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert array_names(folder / "mask.npz")[0] == "segs"
    read_labels(folder / "mask.npz").grid.require_same(read(folder / "set/a.npz").grid)


def test_predictions_of_such_files_are_such_files(capsys, folder) -> None:
    rows = "case,object,kind,i,j,k\na,organ,point,2,5,6\nb,organ,point,2,5,6\n"
    (folder / "prompts.csv").write_text(rows)
    done = samaritan(
        capsys, "predict", folder / "set", folder / "out", "-m", folder / "tiny.safetensors", "--prompts",
        folder / "prompts.csv", "--device", "cpu",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert sorted(p.name for p in (folder / "out").glob("*.npz")) == ["a.npz", "b.npz"]
    assert read_labels(folder / "out/a.npz").shape == (6, 14, 16)


def test_a_data_set_of_them_is_checked(capsys, folder) -> None:
    done = samaritan(capsys, "prepare", "check", folder / "set", "--json")
    assert done.code == 0, done.out
    assert json.loads(done.out)["labels"] == {"set": {"1": 2, "3": 2}}
