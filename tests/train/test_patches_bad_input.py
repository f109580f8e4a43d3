"""What cannot be learned from is told before anything is made: labels, folds, patches, models, folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.run import samaritan
from train.patch_toys import LABELS, masks, planned_toy, unet, write_raw

from samaritan.data import Manifest
from samaritan.data.nnunet import fingerprint
from samaritan.errors import ConfigError, FileError
from samaritan.recipes import resolve
from samaritan.train.patches import open_planned
from samaritan.train.runs import prepare, train

pytest.importorskip("monai")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(fingerprint, "VOXELS", 10_000)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    return planned_toy(tmp_path_factory.mktemp("toy"))


def planned_with(folder: Path, recipe=None, **content):
    raw = write_raw(folder / "Dataset007_Toy", content.pop("cases", 2), **content)
    return open_planned(raw, recipe or masks(), folder / "planned")


REGIONS = {
    "labels": {"background": 0, "both": [1, 2], "square": 2},
    "regions_class_order": [1, 2],
}


def test_regions_are_refused_by_mask_sam_and_learned_by_a_unet(tmp_path) -> None:
    planned = planned_with(tmp_path, unet(), **REGIONS)
    with pytest.raises(ConfigError, match=r"regions that overlap \(both, square\).*unet_nnunet"):
        train(masks(), planned, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    done = train(unet("run.epochs=1"), planned, tmp_path / "run", device="cpu")
    assert done["iterations"] == 2


def test_ignored_labels_are_refused_by_mask_sam_and_left_out_by_a_unet(tmp_path) -> None:
    planned = planned_with(tmp_path, unet(), labels={"background": 0, "disc": 1, "ignore": 2})
    with pytest.raises(ConfigError, match=r"ignored label \(2\)"):
        prepare(masks(), planned)
    work = prepare(unet(), planned)[1]
    assert work.model.own.heads == 2


def test_labels_with_gaps_are_told(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"numbered without gaps, but nothing is called \[2\]"):
        planned_with(tmp_path, labels={"background": 0, "disc": 1, "square": 3})


def test_values_without_a_name_are_told_with_their_case(tmp_path) -> None:
    with pytest.raises(FileError, match=r"patient000_frame00.*values \[2\]"):
        planned_with(tmp_path, labels={"background": 0, "disc": 1})


def test_too_few_cases_for_folds_are_told(tmp_path) -> None:
    with pytest.raises(ConfigError, match="2 folds need at least 2"):
        planned_with(tmp_path, cases=1)
    apart = masks("data.by_patient=true")
    with pytest.raises(ConfigError, match="patients, and there are 1"):
        planned_with(tmp_path / "patients", apart, cases=2)


def test_an_empty_fold_is_told(planned, tmp_path) -> None:
    other = planned_with(tmp_path)
    file = other.folder / "splits_final.json"
    file.write_text(json.dumps([{"train": ["patient000_frame00"], "val": []}]), "utf-8")
    with pytest.raises(ConfigError, match="fold 0 has 1 cases to train on and 0 to validate on"):
        prepare(masks(), other)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (masks("model.name=dynunet_tiny"), "task mask_classes does not train 'dynunet_tiny'"),
        (unet("model.name=masksam_tiny"), "task voxel_classes does not train 'masksam_tiny'"),
        (masks("data.configuration=2d"), "takes patches of 3 axes"),
        (masks("data.configuration=3d_lowres"), "no configuration '3d_lowres'; expected one of"),
        (masks("data.patch_size=[3, 24, 30]"), "must be a multiple of patch_size"),
        (unet("data.patch_size=[4, 24, 26]"), "must be a multiple of"),
        (masks("model.num_classes=5"), "model.num_classes is 5, but .* has 2 labels"),
        (masks("model.options.frames=9"), "frames=9 is not 3"),
        (unet("model.options.in_channels=2"), "in_channels=2 is not 1"),
    ],
)
def test_what_does_not_fit_is_told(planned, tmp_path, recipe, message) -> None:
    with pytest.raises(ConfigError, match=message):
        train(recipe, planned, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_manifest_is_no_planned_set_nor_the_other_way(planned, tmp_path) -> None:
    with pytest.raises(ConfigError, match="not from a manifest"):
        prepare(masks(), Manifest(tmp_path, (), {}))
    with pytest.raises(ConfigError, match="task multiclass learns from a manifest"):
        prepare(resolve("toy_2d"), planned)


def test_the_command_line_plans_trains_and_goes_on(tmp_path, capsys) -> None:
    raw = write_raw(tmp_path / "Dataset007_Toy", 4, labels=LABELS)
    common = [
        "train", "--data", raw, "--output", tmp_path / "run", "--device", "cpu", "--fold", "1",
    ]  # fmt: skip
    settings = [
        "model.name=masksam_tiny", "data.patch_size=[3, 24, 24]", f"data.cache={tmp_path / 'planned'}",
        "data.per_epoch=2", "validation.batches=1", "validation.mirror=false", "validation.pictures=0",
        "matching.points=64", "run.epochs=1",
    ]  # fmt: skip
    flags = [word for setting in settings for word in ("--set", setting)]
    done = samaritan(capsys, *common, "--recipe", "masksam_small", *flags)
    assert done.code == 0, done.err
    assert "whole held-out volumes: Dice" in done.out
    assert "held-out volumes labelled: 2/2" in done.err
    assert (tmp_path / "run/fold_1/validation/summary.json").is_file()
    assert (tmp_path / "planned/splits_final.json").is_file()
    again = samaritan(capsys, *common, "--resume", "--set", "run.epochs=2")
    assert again.code == 0, again.err
    assert "iterations: 2" in again.out
    from_plans = ["train", "--data", tmp_path / "planned", "--output", tmp_path / "other"]
    last = samaritan(
        capsys, *from_plans, "--recipe", "masksam_small", *flags, "--fold", "all", "--device", "cpu"
    )
    assert last.code == 0, last.err
    assert (tmp_path / "other/fold_all/last.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fold", "last"], "data.fold"),
        (["--data", "nowhere"], "nowhere is no folder"),
    ],
)
def test_the_command_line_tells_what_is_wrong(tmp_path, capsys, options, message) -> None:
    given = ["train", "--recipe", "masksam_small", "--data", tmp_path, "-o", tmp_path / "run"]
    done = samaritan(capsys, *given, *options)
    assert done.code != 0
    assert message in done.err
