"""Runs on nnU-Net data from the command line: folds, probabilities, largest parts, held-out cases."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from cli.run import samaritan
from infer.planned import chain, scene

from samaritan.assembly import create_model
from samaritan.checkpoints import save_weights
from samaritan.io import read, read_labels, write
from samaritan.volume import LabelMap

pytest.importorskip("monai", reason="plain U-Nets are MONAI's")

IDS = ("p1", "p2", "p3")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Dataset007_Toy, with three labelled cases and one to predict."""
    folder = tmp_path_factory.mktemp("raw") / "Dataset007_Toy"
    for number, case in enumerate((*IDS, "p4")):
        volume, truth = scene((26 + number, 31, 11))
        part = "Ts" if case == "p4" else "Tr"
        write(volume, folder / f"images{part}/{case}_0000.nii.gz")
        write(truth, folder / f"labels{part}/{case}.nii.gz")
    content = {**chain().dataset, "numTraining": 3}
    (folder / "dataset.json").write_text(json.dumps(content), "utf-8")
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """Two folds of a U-Net, and their MaskSAM kin, all with random weights."""
    folder = tmp_path_factory.mktemp("runs") / "unet"
    for fold, held_out in enumerate((IDS[:1], IDS[1:])):
        torch.manual_seed(fold)
        model = create_model("dynunet_tiny", heads=3)
        made = chain(patch=(16, 16, 16), mirror=(1, 2), fold=fold, orientation="LPS")
        here = folder / f"fold_{fold}"
        here.mkdir(parents=True)
        save_weights(model, here / "best.safetensors", preprocess=made.to_dict())
        learned = [i for i in IDS if i not in held_out]
        (here / "data.json").write_text(
            json.dumps({"train": learned, "validate": list(held_out)}), "utf-8"
        )
    return folder


def test_folds_are_averaged_and_lie_on_the_scan(dataset, run_folder, tmp_path, capsys) -> None:
    options = ("--model", run_folder, "--probabilities", "npz", "--device", "cpu", "--json")
    told = samaritan(capsys, "predict", dataset / "imagesTs", tmp_path / "out", *options)
    assert told.code == 0, told.err
    labels = read_labels(tmp_path / "out/p4.nii.gz")
    assert labels.grid.same_as(read(dataset / "imagesTs/p4_0000.nii.gz").grid)
    assert labels.names == {1: "near", 2: "far"}
    with np.load(tmp_path / "out/p4.npz") as file:
        both = file["probabilities"]
    each = []
    for fold in "01":
        out = tmp_path / f"fold{fold}"
        told = samaritan(capsys, "predict", dataset / "imagesTs", out, *options, "--folds", fold)
        assert told.code == 0, told.err
        with np.load(out / "p4.npz") as file:
            each.append(file["probabilities"])
    assert both == pytest.approx((each[0] + each[1]) / 2, abs=1e-5)
    assert "fold_1" in (tmp_path / "out/predict.json").read_text("utf-8")


def test_what_is_typed_wrong_is_told(dataset, run_folder, tmp_path, capsys) -> None:
    start = ("predict", dataset / "imagesTs", tmp_path / "out", "--device", "cpu", "--model")
    for options, words in (
        ((run_folder, "--folds", "0,5"), "has no weights in fold_5; it has them in fold_0, fold_1"),
        ((run_folder / "fold_0", "--folds", "0"), "holds no folder fold_0, fold_1, ..."),
        ((run_folder, "--probabilities", "png"), "'png' is not known: use npz or nii.gz"),
        ((run_folder, "--clean"), "has no postprocessing.json. Decide it by validation"),
        ((run_folder, "--axis", "0"), "sees volumes as its plans say: leave out --axis"),
        (("samaritan_2d", "--no-mirror"), "labels no volumes in windows: leave out --mirror"),
        (("samaritan_2d", "--model", run_folder), "says nothing of plans"),
    ):
        told = samaritan(capsys, *start, *options)
        assert told.code == 1
        assert words in " ".join(told.err.split())
    told = samaritan(
        capsys, "segment", dataset / "imagesTs/p4_0000.nii.gz", "-o", tmp_path / "m.nii.gz",
        "--point", "1,2,3", "--model", run_folder / "fold_0",
    )  # fmt: skip
    assert "labels whole volumes and answers no prompts" in " ".join(told.err.split())


def test_held_out_cases_are_measured_and_decide_about_largest_parts(
    dataset, run_folder, tmp_path, capsys
) -> None:
    report = tmp_path / "report"
    told = samaritan(
        capsys, "evaluate", "--model", run_folder, "--data", dataset, "-o", report, "--clean",
        "--device", "cpu", "--pictures", "1",
    )  # fmt: skip
    assert told.code == 0, told.err
    for fold, cases in (("fold_0", IDS[:1]), ("fold_1", IDS[1:])):
        folder = report / "predictions" / fold
        summary = json.loads((folder / "summary.json").read_text("utf-8"))
        names = [Path(c["prediction_file"]).name for c in summary["metric_per_case"]]
        assert sorted(names) == [f"{case}.nii.gz" for case in cases]
    content = json.loads((report / "report.json").read_text("utf-8"))
    assert any("held" in note or "did not learn" in note for note in content["notes"])
    path = run_folder / "postprocessing.json"
    decided = json.loads(path.read_text("utf-8"))
    assert set(decided) >= {"input_folder", "postprocessed", "postprocessing_fns"}
    try:
        told = samaritan(
            capsys, "predict", dataset / "imagesTs", tmp_path / "out", "--model", run_folder,
            "--device", "cpu",
        )  # fmt: skip
        assert told.code == 0, told.err
        assert "largest parts: as" in " ".join(told.err.split())
    finally:
        path.unlink()


def test_a_part_is_measured_by_all_folds_together(dataset, run_folder, tmp_path, capsys) -> None:
    told = samaritan(
        capsys, "evaluate", "--model", run_folder, "--data", dataset, "-o", tmp_path / "report",
        "--split", "test", "--device", "cpu", "--pictures", "0",
    )  # fmt: skip
    assert told.code == 0, told.err
    rows = (tmp_path / "report/cases.csv").read_text("utf-8")
    assert "p4" in rows
    assert "p1" not in rows


def test_masksam_goes_the_same_way(dataset, tmp_path, capsys) -> None:
    torch.manual_seed(0)
    model = create_model("masksam_tiny")
    made = chain(patch=(3, 32, 32))
    (tmp_path / "run").mkdir()
    save_weights(model, tmp_path / "run/best.safetensors", preprocess=made.to_dict())
    told = samaritan(
        capsys, "predict", dataset / "imagesTs", tmp_path / "out", "--model", tmp_path / "run",
        "--device", "cpu",
    )  # fmt: skip
    assert told.code == 0, told.err
    found = read_labels(tmp_path / "out/p4.nii.gz")
    assert isinstance(found, LabelMap)
    assert found.shape == (29, 31, 11)


def test_what_was_labelled_automatically_is_corrected_by_a_click(dataset, tmp_path, capsys) -> None:
    """Predict, click, save: names, values and all that was not pointed at stay."""
    torch.manual_seed(0)
    (tmp_path / "run").mkdir()
    made = chain(patch=(3, 32, 32))
    save_weights(
        create_model("masksam_tiny"), tmp_path / "run/best.safetensors", preprocess=made.to_dict()
    )
    prompted = save_weights(create_model("sam3d_tiny"), tmp_path / "prompted.safetensors")
    scan = dataset / "imagesTs/p4_0000.nii.gz"
    told = samaritan(
        capsys, "predict", scan, tmp_path / "masks", "--model", tmp_path / "run", "--device", "cpu",
        "--no-mirror",
    )  # fmt: skip
    assert told.code == 0, told.err
    (file,) = (tmp_path / "masks").glob("*.nii.gz")
    drawn = read_labels(file)
    told = samaritan(
        capsys, "segment", scan, "-o", tmp_path / "mended.nii.gz", "--mask", file, "--model", prompted,
        "--point", "near=10,12,5", "--device", "cpu",
    )  # fmt: skip
    assert told.code == 0, told.err
    mended = read_labels(tmp_path / "mended.nii.gz")
    assert mended.grid.same_as(read(scan).grid)
    assert mended.names == {1: "near", 2: "far"}
    changed = mended.array != drawn.array
    assert (mended.array[changed] == 1).all()  # a point adds to its structure, and nothing else
