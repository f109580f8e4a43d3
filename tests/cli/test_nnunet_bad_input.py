"""nnU-Net data that cannot be used, as a user meets it: one message that says what and where."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from cli.run import samaritan
from infer.planned import chain, scene
from train.patch_toys import write_raw

from samaritan.assembly import create_model
from samaritan.checkpoints import save_weights
from samaritan.data.nnunet import cases, fingerprint
from samaritan.geometry import Grid
from samaritan.io import read, read_labels, write
from samaritan.volume import LabelMap, Volume

ODD, OTHER = "patient000_frame01", "patient001_frame00"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(fingerprint, "VOXELS", 10_000)


@pytest.fixture
def raw(tmp_path) -> Path:
    return write_raw(tmp_path / "Dataset007_Toy", 4)


def image_of(raw: Path, case: str = ODD) -> Path:
    return raw / f"imagesTr/{case}_0000.nii.gz"


def label_of(raw: Path, case: str = ODD) -> Path:
    return raw / f"labelsTr/{case}.nii.gz"


def describe(raw: Path, **changes) -> None:
    file = raw / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **changes}), "utf-8")


def plan(capsys, raw: Path, *more):
    return samaritan(
        capsys, "prepare", "plan", raw, "-o", raw.parent / "out", "--workers", 1, *more
    )


def train(capsys, data: Path, *more):
    settings = (
        "model.name=masksam_tiny", "data.patch_size=[3, 24, 24]", "data.per_epoch=2", "run.epochs=1",
        "validation.batches=1", "validation.finish=false", "validation.pictures=0", "matching.points=32",
    )  # fmt: skip
    flags = [word for setting in settings for word in ("--set", setting)]
    start = ("train", "--recipe", "masksam_small", "--data", data, "--output", data.parent / "run")
    return samaritan(capsys, *start, *flags, "--device", "cpu", *more)


def refused(done, *words: str) -> None:
    told = " ".join(done.err.split())
    assert done.code == 1, done.out
    assert told.startswith("samaritan: ") or " samaritan: " in told
    assert "Traceback" not in told
    for word in words:
        assert word in told


# -- raw folders ---------------------------------------------------------------------------------------


def two_channels(raw: Path) -> None:
    describe(raw, channel_names={"0": "T1", "1": "T2"})


def gaps(raw: Path) -> None:
    describe(raw, labels={"background": 0, "disc": 1, "square": 3})


def other_shape(raw: Path) -> None:
    drawn = read_labels(label_of(raw))
    short = drawn.array[:-1]
    write(LabelMap(short, Grid(short.shape, drawn.grid.affine)), label_of(raw))


def other_affine(raw: Path) -> None:
    drawn = read_labels(label_of(raw))
    grid = Grid.from_spacing(drawn.shape, (1.0, 1.0, 5.0), orientation="LPS")
    write(LabelMap(drawn.array, grid), label_of(raw))


def truncated(raw: Path) -> None:
    whole = image_of(raw).read_bytes()
    image_of(raw).write_bytes(whole[: len(whole) // 2])


def beyond(raw: Path) -> None:
    drawn = read_labels(label_of(raw))
    array = drawn.array.copy()
    array[0, 0, 0] = 9
    write(LabelMap(array, drawn.grid), label_of(raw))


def no_image(raw: Path) -> None:
    image_of(raw).unlink()


def nothing(raw: Path) -> None:
    for file in [*raw.glob("imagesTr/*"), *raw.glob("labelsTr/*")]:
        file.unlink()


def no_json(raw: Path) -> None:
    (raw / "dataset.json").write_text("{", "utf-8")


def nothing_drawn(raw: Path) -> None:
    for file in raw.glob("labelsTr/*"):
        drawn = read_labels(file)
        write(LabelMap(0 * drawn.array, drawn.grid), file)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (two_channels, ("4 problems", "it has 1 channel, but dataset.json names 2: T1, T2")),
        (gaps, ("labels must be numbered without gaps, but nothing is called [2]",)),
        (other_shape, (ODD, "grids of image and labels differ: shape (26, 28, 6) vs (25, 28, 6)")),
        (other_affine, (ODD, "spacing (1, 1, 4) mm vs (1, 1, 5) mm")),
        (truncated, (f"{ODD}_0000.nii.gz is damaged after", "the compressed data end early")),
        (beyond, (ODD, "values [9] that dataset.json does not name; it names [0, 1, 2]")),
        (no_image, (f"{ODD}_0000.nii.gz: cannot be opened",)),
        (nothing, ("has no images with labels: is labelsTr empty?",)),
        (no_json, ("dataset.json is not JSON",)),
        (nothing_drawn, ("no case has a voxel of any label: there is nothing to learn",)),
    ],
)
def test_what_cannot_be_planned_is_told(capsys, raw, spoil, words) -> None:
    spoil(raw)
    refused(plan(capsys, raw), *words)


def test_all_bad_cases_are_told_at_once_before_anything_is_planned(capsys, raw) -> None:
    beyond(raw)
    write(
        Volume(np.full((26, 28, 6), np.nan, np.float32), read(image_of(raw, OTHER)).grid),
        image_of(raw, OTHER),
    )
    told = plan(capsys, raw)
    refused(
        told,
        "cases that cannot be used (2 problems)",
        f"{ODD!r}: its label map",
        f"{OTHER!r}: its image",
    )
    assert not (raw.parent / "out/nnUNetPlans.json").exists()


def test_an_image_without_a_label_is_left_out_and_told(capsys, raw, caplog) -> None:
    label_of(raw).unlink()
    done = plan(capsys, raw, "--later")
    assert done.code == 0
    assert f"images without a label file are left out: {ODD}" in caplog.text
    assert "dataset.json counts 4 cases to learn from (numTraining), and 3 are there" in caplog.text
    assert "3 cases" in done.out


# -- plans, folds, preprocessed cases ---------------------------------------------------------------------


def test_plans_of_another_version_are_told(capsys, raw, tmp_path) -> None:
    old = tmp_path / "nnUNetPlansv2.1_plans_3D.pkl"
    old.write_bytes(b"\x80\x04.")
    refused(
        plan(capsys, raw, "--plans", old),
        "is a plans file of nnU-Net 1, a pickle, which is not read",
    )
    other = tmp_path / "plans.json"
    other.write_text(json.dumps({"plans_per_stage": {}}), "utf-8")
    refused(
        plan(capsys, raw, "--plans", other),
        "is no plans file of nnU-Net 2: it lacks configurations",
    )
    newer = {
        "transpose_forward": [0, 1, 2],
        "configurations": {"3d_fullres": {"spacing_mm": [1, 1, 1]}},
    }
    other.write_text(json.dumps(newer), "utf-8")
    told = plan(capsys, raw, "--plans", other)
    refused(told, "configuration '3d_fullres'", "lacks or misstates 'data_identifier'")


@pytest.fixture
def planned(capsys, raw) -> Path:
    assert plan(capsys, raw).code == 0
    return raw.parent / "out"


def test_an_empty_fold_and_one_of_other_cases_are_told(capsys, planned) -> None:
    for fold, words in (
        ({"train": [ODD], "val": []}, "fold 0 has 1 cases to train on and 0 to validate on"),
        ({"train": [ODD], "val": ["nobody"]}, "fold 0 names cases that are not there: nobody"),
    ):
        (planned / "splits_final.json").write_text(json.dumps([fold]), "utf-8")
        refused(
            train(capsys, planned, "--fold", "0"), words, "Mend splits_final.json, or remove it"
        )


@pytest.mark.parametrize("kind", ["npy", "npz", "b2nd"])
def test_a_damaged_preprocessed_case_is_told(capsys, planned, kind) -> None:
    folder = planned / "nnUNetPlans_3d_fullres"
    (planned / "source.json").unlink()  # as nnU-Net leaves a folder
    for name in (file.stem for file in folder.glob("*.json")):
        if kind == "npz":
            np.savez_compressed(
                folder / f"{name}.npz",
                data=np.load(folder / f"{name}.npy"),
                seg=np.load(folder / f"{name}_seg.npy"),
            )
        if kind == "b2nd":
            blosc2 = pytest.importorskip("blosc2")
            for part in (name, f"{name}_seg"):
                blosc2.asarray(
                    np.load(folder / f"{part}.npy"), urlpath=str(folder / f"{part}.b2nd")
                )
        if kind != "npy":
            (folder / f"{name}.npy").unlink()
            (folder / f"{name}_seg.npy").unlink()
    file = folder / f"{ODD}.{kind}"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 3])
    refused(train(capsys, planned, "--fold", "all"), f"{ODD}.{kind}")


def test_regions_are_refused_before_anything_is_measured(
    capsys, raw, tmp_path, monkeypatch
) -> None:
    labels = {"background": 0, "both": [1, 2], "square": 2}
    describe(raw, labels=labels, regions_class_order=[1, 2])
    monkeypatch.chdir(tmp_path)
    told = train(capsys, raw, "--fold", "0")
    refused(told, "regions that overlap (both, square)", "unet_nnunet")
    assert not (tmp_path / "preprocessed").exists()


# -- a full disk, a kill ---------------------------------------------------------------------------------


def test_a_full_disk_stops_preprocessing_and_a_second_run_goes_on(capsys, raw, monkeypatch) -> None:
    real, calls = np.save, []

    def full(file, array, **more) -> None:
        calls.append(array.shape)
        if len(calls) > 5:  # each case has three arrays
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        real(file, array, **more)

    monkeypatch.setattr(cases.np, "save", full)
    told = plan(capsys, raw)
    refused(
        told,
        "No space left on device",
        "1 of 4 cases are done: free some space and run the same command again",
    )
    monkeypatch.undo()
    folder = raw.parent / "out/nnUNetPlans_3d_fullres"
    assert not list(folder.glob(".tmp*"))
    again = plan(capsys, raw)
    assert again.code == 0, again.err
    assert "4, 3 new" in again.out


PROGRAM = """
import sys, time
from samaritan.data.nnunet import cases, fingerprint
from samaritan.__main__ import main
fingerprint.VOXELS = 10_000
real = cases.np.save
def slowly(file, array, **more):
    time.sleep(0.05)
    real(file, array, **more)
cases.np.save = slowly
main()
"""


def test_a_killed_preprocessing_goes_on_and_leaves_nothing_behind(capsys, raw) -> None:
    out = raw.parent / "out"
    command = ("prepare", "plan", str(raw), "-o", str(out), "--workers", "1")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    folder = out / "nnUNetPlans_3d_fullres"
    try:
        while process.poll() is None and not (
            cases.stored_ids(folder) and list(folder.glob(".tmp*"))
        ):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    there = len(cases.stored_ids(folder))
    assert 1 <= there < 4
    for file in folder.glob(".tmp*"):  # as if it was killed yesterday
        os.utime(file, (time.time() - 100_000,) * 2)
    again = plan(capsys, raw)
    assert again.code == 0, again.err
    assert f"4, {4 - there} new" in again.out
    assert not list(folder.glob(".tmp*"))


# -- prediction ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "fold_0"
    folder.mkdir()
    torch.manual_seed(0)
    made = chain(patch=(3, 32, 32))
    save_weights(
        create_model("masksam_tiny"), folder / "best.safetensors", preprocess=made.to_dict()
    )
    return folder.parent


def predict(capsys, images: Path, run: Path, *more):
    out = images.parent / "masks"
    return samaritan(capsys, "predict", images, out, "--model", run, "--device", "cpu", *more)


def test_bad_images_are_told_and_the_others_labelled(capsys, tmp_path, run) -> None:
    images = tmp_path / "imagesTs"
    for case in "abc":
        write(scene()[0], images / f"{case}_0000.nii.gz")
    whole = (images / "b_0000.nii.gz").read_bytes()
    (images / "b_0000.nii.gz").write_bytes(whole[: len(whole) // 2])
    shutil.copy(images / "c_0000.nii.gz", images / "c_0001.nii.gz")
    told = predict(capsys, images, run)
    assert told.code == 1
    text = " ".join(told.err.split())
    assert "b_0000.nii.gz is damaged" in text
    assert "the image has 2 channels (channel 0, channel 1) and the model takes 1: MRI 0" in text
    assert (tmp_path / "masks/a.nii.gz").is_file()


def test_images_of_another_data_set_are_told(capsys, tmp_path, run, caplog) -> None:
    images = tmp_path / "Dataset009_Other/imagesTs"
    write(scene()[0], images / "a_0000.nii.gz")
    content = {
        **chain().dataset,
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1},
    }
    (images.parent / "dataset.json").write_text(json.dumps(content), "utf-8")
    told = predict(capsys, images, run)
    assert told.code == 0, told.err
    text = " ".join(told.err.split())
    assert "lie in another data set than the model learned from" in text
    assert "channels MRI 0 (here CT)" in text
    assert "labels near, far (here liver)" in text


def test_a_model_without_weights_and_a_folder_without_images_are_told(
    capsys, tmp_path, run
) -> None:
    (tmp_path / "imagesTs").mkdir()
    refused(predict(capsys, tmp_path / "imagesTs", run), "imagesTs")
    write(scene()[0], tmp_path / "imagesTs/a_0000.nii.gz")
    (tmp_path / "fold_0").mkdir()
    refused(predict(capsys, tmp_path / "imagesTs", tmp_path / "fold_0"), "fold_0")
