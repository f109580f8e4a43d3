"""Folders of volumes labelled in windows: probabilities, largest parts, nnU-Net's files, stopped runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from infer.planned import ByGrey, Convolved, chain, scene
from limits import no_more_than

from samaritan.errors import ConfigError, CorruptFile, FileError, PromptError
from samaritan.geometry import Grid
from samaritan.infer.batch import PredictOptions, predict_cases
from samaritan.infer.cleaning import Cleaning, determine, largest_only
from samaritan.infer.inputs import find_cases
from samaritan.infer.labeller import Member, VolumeLabeller
from samaritan.infer.prompt_files import read_prompts
from samaritan.io import read, read_labels, write
from samaritan.volume import LabelMap, Volume


@pytest.fixture
def labeller() -> VolumeLabeller:
    return VolumeLabeller((Member(Convolved(), chain(orientation="LPS")),))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two volumes named as nnU-Net names them, stored in different orders."""
    for case, code in {"p1": "LPS", "p2": "SRA"}.items():
        volume, _ = scene()
        write(volume.reorient(code), tmp_path / f"imagesTs/{case}_0000.nii.gz")
    return tmp_path / "imagesTs"


def test_nnunets_folders_give_nnunets_folders(labeller, images, tmp_path) -> None:
    out = tmp_path / "out"
    done = predict_cases(labeller, find_cases(images), out).done
    assert {case: path.name for case, path in done.items()} == {
        "p1": "p1.nii.gz",
        "p2": "p2.nii.gz",
    }
    assert json.loads((out / "dataset.json").read_text("utf-8"))["labels"]["far"] == 2
    assert "toy" in json.loads((out / "plans.json").read_text("utf-8"))["configurations"]
    one, two = (read_labels(done[case]) for case in ("p1", "p2"))
    assert one.names == {1: "near", 2: "far"}
    assert two.grid.same_as(read(images / "p2_0000.nii.gz").grid)
    assert np.array_equal(two.to_grid(one.grid).array, one.array)
    again = predict_cases(labeller, find_cases(images), out)
    assert set(again.there) == {"p1", "p2"}


def test_probabilities_of_nnunets_kind(labeller, images, tmp_path) -> None:
    out, options = tmp_path / "out", PredictOptions(probabilities="npz")
    done = predict_cases(labeller, find_cases(images), out, options=options).done
    for case, path in done.items():
        with np.load(out / f"{case}.npz") as file:
            found = file["probabilities"]
        labels = read_labels(path)
        assert found.dtype == np.float32
        assert found.shape == (3, *labels.shape[::-1])
        assert found.sum(axis=0) == pytest.approx(1, abs=1e-5)
        assert np.array_equal(found.argmax(axis=0).T, labels.array)
    assert not list(out.glob(".tmp*"))


def test_probabilities_as_volumes_lie_on_the_scan(labeller, images, tmp_path) -> None:
    out, options = tmp_path / "out", PredictOptions(probabilities="nii.gz")
    done = predict_cases(labeller, find_cases(images), out, options=options).done
    names = ("background", "near", "far")
    for case, path in done.items():
        volumes = [read(out / f"probabilities/{case}/{name}.nii.gz") for name in names]
        labels = read_labels(path)
        assert all(v.grid.same_as(labels.grid) for v in volumes)
        stacked = np.stack([v.array for v in volumes])
        assert stacked.sum(axis=0) == pytest.approx(1, abs=1e-5)
        assert np.array_equal(stacked.argmax(axis=0), labels.array)


def test_what_was_cropped_away_is_certain(tmp_path) -> None:
    volume, _ = scene()
    write(volume, tmp_path / "in/p1_0000.nii.gz")
    labeller = VolumeLabeller((Member(Convolved(), chain()),))
    options = PredictOptions(probabilities="npz")
    predict_cases(labeller, find_cases(tmp_path / "in"), tmp_path / "out", options=options)
    with np.load(tmp_path / "out/p1.npz") as file:
        found = file["probabilities"].T
    assert (found[:3, ..., 0] == 1).all()
    assert (found[..., :2, 0] == 1).all()
    assert (found[6:12, 8:14, 3:6, 0] < 1).all()


def test_a_full_disk_stops_the_run_and_leaves_nothing_half_done(labeller, images, tmp_path) -> None:
    out, options = tmp_path / "out", PredictOptions(probabilities="npz")
    with no_more_than(20_000), pytest.raises(FileError, match="cannot be written"):
        predict_cases(labeller, find_cases(images), out, options=options)
    assert not list(out.glob("*.npz"))
    assert not list(out.glob(".tmp*"))
    assert set(predict_cases(labeller, find_cases(images), out, options=options).done) == {
        "p1",
        "p2",
    }


def test_bad_cases_are_told_and_the_others_go_on(labeller, images, tmp_path) -> None:
    (images / "p3_0000.nii.gz").write_bytes(b"no image")
    broken, _ = scene()
    nothing = np.full(broken.shape, np.nan, np.float32)
    write(broken.with_array(nothing), images / "p4_0000.nii.gz")
    outcome = predict_cases(labeller, find_cases(images), tmp_path / "out")
    assert set(outcome.done) == {"p1", "p2"}
    assert "not finite" in outcome.failed["p4"]
    assert set(outcome.failed) == {"p3", "p4"}
    two = find_cases(images).select(where=lambda c: c.id in ("p1", "p2"))
    members = (Member(ByGrey(), chain(channels=2)),)
    failed = predict_cases(VolumeLabeller(members), two, tmp_path / "other").failed
    assert "1 channel and the model takes 2: MRI 0, MRI 1" in failed["p1"]


def test_what_such_models_do_not_do_is_refused(labeller, images, tmp_path) -> None:
    cases = find_cases(images)
    with pytest.raises(ConfigError, match="as its plans say: leave out --axis and --window"):
        predict_cases(
            labeller, cases, tmp_path / "out", options=PredictOptions(axis=0, window=(0, 1))
        )
    (tmp_path / "clicks.csv").write_text("case,kind,i,j,k\np1,point,1,2,3\n", "utf-8")
    with pytest.raises(PromptError, match=r"takes no prompts: leave out .*clicks\.csv"):
        predict_cases(
            labeller, cases, tmp_path / "out", prompts=read_prompts(tmp_path / "clicks.csv")
        )


# -- largest parts -------------------------------------------------------------------------------------


def spotted(spots: int) -> tuple[np.ndarray, np.ndarray]:
    """A reference, and a prediction with specks of label 1; label 2 has two parts in both."""
    truth = np.zeros((20, 16, 12), np.uint8)
    truth[2:9, 2:9, 2:9] = 1
    truth[12:16, 3:7, 3:7] = 2
    truth[12:16, 11:14, 3:7] = 2
    found = truth.copy()
    for n in range(spots):
        found[18, 2 * n + 1, 10] = 1
    return found, truth


def test_structures_get_clean_where_validation_says_so() -> None:
    labels = chain().labels
    pairs = {f"c{n}": (lambda n=n: spotted(n)) for n in (2, 3)}
    found = determine(pairs, labels)
    assert found.steps == ((1,),)
    assert found.words(labels) == "the largest part of near"
    cleaned = found(spotted(3)[0])
    assert np.array_equal(cleaned, spotted(0)[1])
    assert found.told["postprocessed"]["mean"]["1"]["Dice"] == 1
    assert found.told["input_folder"]["mean"]["1"]["Dice"] < 1
    assert determine({"c": lambda: spotted(0)}, labels).steps == ()


def test_all_structures_together_come_first() -> None:
    def pair() -> tuple[np.ndarray, np.ndarray]:
        truth = np.zeros((20, 8, 8), np.uint8)
        truth[2:6, 2:6, 2:6], truth[6:10, 2:6, 2:6] = 1, 2
        found = truth.copy()
        found[15:17, 1:3, 1:3], found[15:17, 5:7, 5:7] = 1, 2
        return found, truth

    found = determine({"c": pair}, chain().labels)
    assert found.steps == ((1, 2),)
    assert np.array_equal(found(pair()[0]), pair()[1])


def test_the_file_is_nnunets_and_back(tmp_path) -> None:
    made = Cleaning(((1, 2), (2,)), {"postprocessed": {"mean": {}}})
    path = made.write(tmp_path / "postprocessing.json")
    assert Cleaning.read(path) == made
    theirs = json.loads(path.read_text("utf-8"))
    assert theirs["postprocessing_kwargs"] == [
        {"labels_or_regions": [1, 2]},
        {"labels_or_regions": [2]},
    ]
    theirs["postprocessing_kwargs"][1]["labels_or_regions"] = 2  # as nnU-Net has it
    path.write_text(json.dumps(theirs), "utf-8")
    assert Cleaning.read(path).steps == made.steps
    theirs["postprocessing_fns"][0] = "eval"
    path.write_text(json.dumps(theirs), "utf-8")
    with pytest.raises(CorruptFile, match=r"eval.*--clean"):
        Cleaning.read(path)


def test_parts_that_touch_at_a_corner_are_one() -> None:
    array = np.zeros((4, 4, 4), np.uint8)
    array[0, 0, 0] = array[1, 1, 1] = array[3, 3, 3] = 1
    assert np.argwhere(largest_only(array, (1,))).tolist() == [[0, 0, 0], [1, 1, 1]]


def test_predictions_are_cleaned(images, tmp_path) -> None:
    volume, truth = scene()
    speck = volume.array.copy()
    speck[2:4, 28:30, 9:11] = 100
    write(volume.with_array(speck), tmp_path / "in/p1_0000.nii.gz")
    labeller = VolumeLabeller((Member(ByGrey(), chain()),))
    cases = find_cases(tmp_path / "in")
    plain = predict_cases(labeller, cases, tmp_path / "plain").done["p1"]
    clean = Cleaning(((1,),))
    cleaned = predict_cases(labeller, cases, tmp_path / "clean", clean=clean).done["p1"]
    assert read_labels(plain).array[3, 28, 9] == 1
    assert not (read_labels(cleaned).array[:, 27:] == 1).any()
    assert (read_labels(cleaned).array[truth.array == 1] == 1).mean() > 0.8
    with pytest.raises(ConfigError, match="largest_parts was"):
        predict_cases(labeller, cases, tmp_path / "clean")


def test_a_volume_of_many_classes_is_streamed(tmp_path, monkeypatch) -> None:
    """Logits of all classes are held for as many slices as a window is deep."""
    import samaritan.infer.sliding as sliding

    held = []
    add = sliding._Board.add

    def watched(self, place, logits, weights) -> None:
        add(self, place, logits, weights)
        held.append(self.total.numel())

    monkeypatch.setattr(sliding._Board, "add", watched)
    greys = tuple(float(g) for g in range(0, 610, 10))
    labels = {"background": 0, **{f"l{n}": n for n in range(1, 61)}}
    grid = Grid.from_spacing((24, 20, 50), (1.0, 1.0, 2.0))
    truth = np.zeros(grid.shape, np.uint8)
    truth[2:22, 2:18, :] = np.arange(50) + 1
    made = chain(labels=labels, spacing=(2.0, 1.0, 1.0), patch=(4, 10, 12))
    one = VolumeLabeller((Member(ByGrey(greys), made),))
    found = one.labels(Volume(truth.astype(np.int16) * 10, grid))
    assert np.array_equal(found.array, truth)
    assert max(held) <= 61 * 4 * 20 * 24
    assert isinstance(found, LabelMap)
