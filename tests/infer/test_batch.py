"""Folders of images: every mask on its image's grid, stopped runs go on, bad cases stop nobody."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from samaritan.assembly import create_model
from samaritan.data import load_manifest
from samaritan.data.slicing import SliceOptions, make_slices
from samaritan.errors import ConfigError, FileError, PromptError
from samaritan.geometry import Grid
from samaritan.infer import Predictor, batch
from samaritan.infer.batch import PredictOptions, predict_cases, predict_labels
from samaritan.infer.inputs import check_apart, find_cases
from samaritan.infer.prompt_files import read_prompts
from samaritan.io import read, read_labels, write
from samaritan.volume import LabelMap, Volume


@pytest.fixture(scope="module")
def classes() -> Predictor:
    torch.manual_seed(0)
    return Predictor(create_model("sam_tiny", num_classes=3), device="cpu")


@pytest.fixture(scope="module")
def clicks() -> Predictor:
    torch.manual_seed(0)
    return Predictor(create_model("sam_tiny"), device="cpu")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Volumes in several formats and orientations, and a picture."""
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    for n, (name, code) in enumerate({"a.nii.gz": "LPS", "b.nrrd": "ASR", "c.mha": "RAI"}.items()):
        grid = Grid.from_spacing(
            (12 + n, 10, 4), (1, 1.5, 4), orientation=code, origin_mm=(n, 2, 3)
        )
        write(Volume(rng.integers(0, 900, grid.shape).astype(np.int16), grid), folder / name)
    pixels = rng.integers(0, 256, (20, 30, 1, 3)).astype(np.uint8)
    write(Volume(pixels, Grid.pixels((20, 30)), channels=("R", "G", "B")), folder / "d.png")
    return folder


def status(out: Path) -> dict[str, str]:
    content = json.loads((out / "predict.json").read_text("utf-8"))
    return {case: told["status"] for case, told in content["cases"].items()}


# -- what comes out ------------------------------------------------------------------------------


def test_every_mask_lies_on_the_grid_of_its_image(classes, images, tmp_path) -> None:
    out = tmp_path / "out"
    done = predict_cases(classes, find_cases(images), out).done
    assert {p.name for p in done.values()} == {"a.nii.gz", "b.nii.gz", "c.nii.gz", "d.png"}
    for name in ("a.nii.gz", "b.nrrd", "c.mha", "d.png"):
        image, mask = read(images / name), read_labels(done[name[0]])
        assert mask.grid.same_as(image.grid)
        assert np.array_equal(mask.array, predict_labels(classes, image).array)
    assert read_labels(done["a"]).names == {1: "label 1", 2: "label 2", 3: "label 3"}
    assert sorted(p.name for p in out.iterdir()) == [
        "a.nii.gz", "b.nii.gz", "c.nii.gz", "d.png", "predict.json",
    ]  # fmt: skip


def test_slices_of_a_manifest_are_seen_as_in_training(classes, images, tmp_path) -> None:
    """PNG slices keep their 0..255, lie on their place, and become pictures of the same size."""
    volumes = find_cases(images).select(where=lambda case: case.id == "a")
    options = SliceOptions(modality="MR", min_foreground=0)
    slices = make_slices(volumes, tmp_path / "slices", options)
    manifest = load_manifest(tmp_path / "slices" / "manifest.json")
    done = predict_cases(classes, manifest, tmp_path / "out").done
    assert len(done) == len(slices) == 4
    whole = predict_labels(classes, read(images / "a.nii.gz"))
    for case in manifest:
        assert case.place is not None
        mask = read_labels(done[case.id])
        assert mask.grid.unit == "px"
        assert mask.shape == read(manifest.path(case.images[0])).shape
        placed = replace(whole.slice(2, case.place.index))
        assert np.array_equal(mask.array, placed.reorient("PLS").array)


def test_a_picture_format_is_no_excuse_to_lose_geometry(classes, images, tmp_path) -> None:
    outcome = predict_cases(
        classes, find_cases(images), tmp_path / "out", options=PredictOptions(format="png")
    )
    assert set(outcome.done) == {"d"}
    assert "holds no spacing" in outcome.failed["a"]
    with pytest.raises(ConfigError, match="not written as 'jpg'"):
        PredictOptions(format="jpg")


def test_channels_of_nnunet_are_one_case_and_frames_are_not(tmp_path) -> None:
    for name in ("p1_0000", "p1_0001", "p2_0000", "p2_0001"):
        (tmp_path / f"{name}.nii.gz").touch()
    found = {case.id: case.images for case in find_cases(tmp_path)}
    assert found["p1"] == ("p1_0000.nii.gz", "p1_0001.nii.gz")
    assert set(found) == {"p1", "p2"}
    (tmp_path / "p3.nii.gz").touch()
    assert len(find_cases(tmp_path)) == 5
    (tmp_path / "p3.png").touch()
    with pytest.raises(ConfigError, match="two images under one name"):
        find_cases(tmp_path)
    assert [case.id for case in find_cases(tmp_path / "p1_0000.nii.gz")] == ["p1"]


# -- going on ------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_and_leaves_no_half_file(
    classes, images, tmp_path, monkeypatch
) -> None:
    out = tmp_path / "out"

    def stopping(what: str, done: int, total: int) -> None:
        if what == "c":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_cases(classes, find_cases(images), out, progress=stopping)
    assert status(out) == {"a": "done", "b": "done", "c": "waiting", "d": "waiting"}
    (out / ".tmp-x-c.nii.gz").write_bytes(b"half")  # as a killed process leaves it
    before = (out / "a.nii.gz").stat().st_mtime_ns
    outcome = predict_cases(classes, find_cases(images), out)
    assert (set(outcome.there), set(outcome.done)) == ({"a", "b"}, {"c", "d"})
    assert (out / "a.nii.gz").stat().st_mtime_ns == before
    assert not list(out.glob(".*"))


def test_a_kill_between_a_mask_and_its_record_loses_nothing(classes, images, tmp_path) -> None:
    out = tmp_path / "out"
    predict_cases(classes, find_cases(images), out)
    record = json.loads((out / "predict.json").read_text("utf-8"))
    record["cases"]["b"]["status"] = "waiting"
    (out / "predict.json").write_text(json.dumps(record), "utf-8")
    assert set(predict_cases(classes, find_cases(images), out).there) == set("abcd")
    assert set(status(out).values()) == {"done"}


def test_an_image_that_changed_is_done_again(classes, images, tmp_path) -> None:
    out = tmp_path / "out"
    predict_cases(classes, find_cases(images), out)
    os.utime(images / "b.nrrd", (1, 1))
    assert set(predict_cases(classes, find_cases(images), out).done) == {"b"}


def test_another_model_or_setting_is_refused_and_told(classes, images, tmp_path) -> None:
    out, cases = tmp_path / "out", find_cases(images)
    predict_cases(classes, cases, out, model={"weights": "one"})
    other = PredictOptions(axis=0)
    with pytest.raises(ConfigError, match=r"weights was 'one', is 'two'\s+axis was None, is 0"):
        predict_cases(classes, cases, out, model={"weights": "two"}, options=other)
    outcome = predict_cases(
        classes, cases, out, model={"weights": "two"}, options=other, overwrite=True
    )
    assert set(outcome.done) == set("abcd")
    assert not predict_cases(classes, cases, out, model={"weights": "two"}, options=other).done


# -- what goes wrong -----------------------------------------------------------------------------


def test_bad_cases_are_told_and_the_others_go_on(classes, images, tmp_path, monkeypatch) -> None:
    (images / "broken.nii.gz").write_bytes(b"no image")
    grid = Grid.from_spacing((9, 8, 3), (1, 1, 4))
    write(Volume(np.zeros((*grid.shape, 2), np.int16), grid), images / "two.nii.gz")
    real = batch.predict_labels

    def short_of_memory(predictor, volume, **options) -> LabelMap:
        if volume.shape[0] == 13:
            raise MemoryError
        return real(predictor, volume, **options)

    monkeypatch.setattr(batch, "predict_labels", short_of_memory)
    outcome = predict_cases(classes, find_cases(images), tmp_path / "out")
    assert set(outcome.done) == {"a", "c", "d"}
    assert "out of memory: try a smaller --batch-size" in outcome.failed["b"]
    assert "broken.nii.gz" in outcome.failed["broken"]
    assert "2 channels" in outcome.failed["two"]
    assert status(tmp_path / "out")["two"] == "failed"
    monkeypatch.setattr(batch, "predict_labels", real)
    assert set(predict_cases(classes, find_cases(images), tmp_path / "out").done) == {"b"}


def test_a_full_disk_stops_the_run_with_what_is_complete(
    classes, images, tmp_path, monkeypatch
) -> None:
    real = batch.write

    def no_space(*_) -> None:
        raise FileError("it could not be written: No space left on device")

    def full(volume, path) -> Path:
        if path.name == "c.nii.gz":
            monkeypatch.setattr("samaritan.infer.ledger.Ledger.write", no_space)
            no_space()
        return real(volume, path)

    monkeypatch.setattr(batch, "write", full)
    with pytest.raises(FileError, match=r"No space left.*The 2 predictions that are complete stay"):
        predict_cases(classes, find_cases(images), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").glob("*.nii.gz")) == ["a.nii.gz", "b.nii.gz"]


def test_a_folder_that_cannot_be_made_is_told_before_any_prediction(
    classes, images, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(batch, "predict_labels", None)
    (tmp_path / "file").touch()
    for out in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(FileError, match=r"is a file|cannot be written"):
            predict_cases(classes, find_cases(images), out)


def test_inputs_and_strangers_are_never_replaced(classes, images, tmp_path) -> None:
    with pytest.raises(FileError, match="where the images are"):
        check_apart(images, images / "out")
    with pytest.raises(FileError, match="where images or labels are"):
        predict_cases(classes, find_cases(images), images)
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(images / "a.nii.gz", out / "a.nii.gz")
    with pytest.raises(
        FileError, match=r"holds files that its predict\.json does not know: a\.nii"
    ):
        predict_cases(classes, find_cases(images), out)
    with pytest.raises(FileError, match="is one of the inputs"):
        predict_cases(classes, find_cases(images / "d.png"), images)
    assert not (images / "predict.json").exists()


def test_prompts_and_models_must_go_together(classes, clicks, images, tmp_path) -> None:
    (tmp_path / "p.csv").write_text("case,kind,i,j,k\na,point,3,3,1\n")
    prompts = read_prompts(tmp_path / "p.csv")
    with pytest.raises(PromptError, match="answers prompts and labels nothing without them"):
        predict_cases(clicks, find_cases(images), tmp_path / "out")
    with pytest.raises(PromptError, match=r"takes no prompts: leave out .*p\.csv"):
        predict_cases(classes, find_cases(images), tmp_path / "out", prompts=prompts)
    assert not (tmp_path / "out").exists()


# -- real images ---------------------------------------------------------------------------------


def test_real_images_keep_their_grids(classes, data_dir, tmp_path) -> None:
    scan = read(data_dir / "nnunet_raw/Dataset060_CHAOST2/imagesTr/chaos_01_0000.nii.gz")
    write(scan.window((0, 0, 12), (*scan.shape[:2], 2)), tmp_path / "in" / "chaos_0000.nii.gz")
    picture = next((data_dir / "images2d/kvasir_polyps/images").iterdir())
    shutil.copy(picture, tmp_path / "in" / f"polyp_0000{picture.suffix}")
    done = predict_cases(classes, find_cases(tmp_path / "in"), tmp_path / "out").done
    assert set(done) == {"chaos", "polyp"}
    for case in find_cases(tmp_path / "in"):
        image = read(tmp_path / "in" / case.images[0])
        assert read_labels(done[case.id]).grid.same_as(image.grid)
