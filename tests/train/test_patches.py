"""Automatic models on nnU-Net's data: what is learned from, that it is learned, and that runs are exact."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train.patch_toys import masks, planned_toy, trainer_of, unet
from train.test_loop import Stopped, lines_of, stop_after

from samaritan import Volume, read, read_labels, write
from samaritan.assembly import create_model
from samaritan.checkpoints import load_model, save_weights
from samaritan.checkpoints.sniffing import resolve_folder
from samaritan.data.nnunet.chain import PlannedChain
from samaritan.data.nnunet.planned import PlannedSet
from samaritan.data.nnunet.splits import read_folds
from samaritan.infer.labeller import VolumeLabeller
from samaritan.infer.sliding import SlidingWindows
from samaritan.models import Quirks, get_config
from samaritan.recipes import get_recipe, resolve
from samaritan.train.beginning import build_model
from samaritan.train.log import read_log
from samaritan.train.patches import facts_of_planned
from samaritan.train.runs import prepare, train
from samaritan.train.sampling import plan_epoch

pytest.importorskip("monai")


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> PlannedSet:
    return planned_toy(tmp_path_factory.mktemp("toy"))


# -- learning ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "settings"),
    [
        (
            masks,
            (
                "optim.lr=3e-3",
                "data.per_epoch=160",
                "data.batch_size=4",
                "model.options={patch_size: [4, 4]}",
            ),
        ),
        (unet, ("optim.lr=5e-3", "data.per_epoch=80")),
    ],
)
def test_a_tiny_model_learns_phantoms(planned, tmp_path, make, settings) -> None:
    recipe = make(
        *settings, "run.epochs=1", "run.log_every=10", "data.augment=none", "schedule.kind=constant",
        "validation.mirror=false",
    )  # fmt: skip
    done = train(recipe, planned, tmp_path / "fold_0", device="cpu", windows=SlidingWindows)
    assert done["best"] > 0.55  # 0.05 at first
    assert done["volumes"] > 0.55
    assert set(done) == {
        "iterations",
        "best",
        "last",
        "volumes",
        "volumes_disc",
        "volumes_square",
    }


def test_a_run_leaves_what_prediction_and_nnunet_need(planned, tmp_path) -> None:
    recipe = masks("run.epochs=1", "data.fold=1", "validation.mirror=false")
    train(recipe, planned, tmp_path / "fold_1", device="cpu", windows=SlidingWindows)
    assert {"plans.json", "dataset.json"} <= {p.name for p in tmp_path.iterdir()}
    assert not (tmp_path / "fold_1/best.adapted.safetensors").exists()  # nothing is frozen
    model, header = load_model(tmp_path / "fold_1/last.safetensors")
    chain = PlannedChain.from_dict(header.preprocess)
    assert (chain.patch_size, chain.mirror_axes, chain.fold) == ((3, 24, 24), (0, 1, 2), 1)
    assert header.extra["labels"] == {"1": "disc", "2": "square"}
    assert model.config.mask_classes.frames == 3
    assert model.config.mask_classes.num_classes == 3
    held_out = planned.folds[1].val
    summary = json.loads((tmp_path / "fold_1/validation/summary.json").read_text())
    assert len(summary["metric_per_case"]) == len(held_out)
    for case in held_out:
        found = read_labels(tmp_path / f"fold_1/validation/{case}.nii.gz")
        drawn = read_labels(planned.raw.cases.root / f"labelsTr/{case}.nii.gz")
        found.grid.require_same(drawn.grid)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_volumes_are_labelled_by_the_weights_that_a_run_keeps(
    planned, tmp_path, keep, caplog
) -> None:
    recipe = masks("run.epochs=1", "validation.mirror=false", f"validation.keep={keep}")
    with caplog.at_level("INFO", logger="samaritan"):
        train(recipe, planned, tmp_path / "run", device="cpu", windows=SlidingWindows)
    assert f"{keep}.safetensors on whole held-out volumes" in caplog.text
    assert (tmp_path / "run/best.safetensors").exists() == (keep == "best")
    assert resolve_folder(tmp_path / "run").name == f"{keep}.safetensors"


def test_volumes_may_decide_what_is_best(planned, tmp_path) -> None:
    recipe = unet("run.epochs=2", "validation.on=volumes", "validation.finish=false")
    done = train(recipe, planned, tmp_path / "run", device="cpu", windows=SlidingWindows)
    seen = [x for x in read_log(tmp_path / "run/log.jsonl") if x["kind"] == "validation"]
    assert len(seen) == 2
    assert done["best"] == max(x["dice"] for x in seen)
    assert {"class_disc", "class_square"} <= set(seen[0])


def test_slices_train_a_samed_the_same_way(planned, tmp_path) -> None:
    recipe = resolve(
        "samed_volumes",
        settings=[
            "model.name=samed_tiny", "model.options={rank: 2}", "data.patch_size=[32, 32]",
            "data.batch_size=4", "data.per_epoch=8", "run.epochs=1", "validation.batches=1",
            "validation.mirror=false", "validation.pictures=0",
        ],
    )  # fmt: skip
    done = train(recipe, planned, tmp_path / "fold_0", device="cpu", windows=SlidingWindows)
    assert 0 <= done["volumes"] <= 1
    model, header = load_model(tmp_path / "fold_0/last.safetensors")
    assert model.config.image_size == (32, 32)
    assert PlannedChain.from_dict(header.preprocess).patch_size == (32, 32)
    case = planned.raw.cases.cases[0]
    scan = read(planned.raw.cases.path(case.images[0]))
    found = VolumeLabeller.from_checkpoints([tmp_path / "fold_0"], mirror=False).labels(scan)
    assert found.grid == scan.grid
    assert found.names == {1: "disc", 2: "square"}


# -- exactness ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "at"), [(masks, 1), (unet, 0), (unet, 3)])
def test_a_run_that_died_goes_on_as_if_it_had_not(planned, tmp_path, make, at) -> None:
    recipe = make("run.epochs=2", "run.checkpoint_every=1", "run.ema=0.9")
    whole = trainer_of(recipe, planned, tmp_path / "whole")
    whole.run()
    dying = trainer_of(recipe, planned, tmp_path / "died")
    stop_after(dying, at)
    with pytest.raises(Stopped):
        dying.run()
    resumed = trainer_of(recipe, planned, tmp_path / "died", resume=True)
    resumed.run(resume=True)
    assert lines_of(tmp_path / "died") == lines_of(tmp_path / "whole")
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole.model.state_dict()[name]), name


def test_the_resolved_recipe_makes_the_same_run(planned) -> None:
    once, work = prepare(masks(), planned)
    again, twice = prepare(once, planned)
    assert again == once
    assert (once.model.num_classes, once.model.options["frames"]) == (2, 3)
    assert all(
        torch.equal(a, b)
        for a, b in zip(work.model.parameters(), twice.model.parameters(), strict=True)
    )
    assert torch.equal(work.train[3]["image"], twice.train[3]["image"])


def test_patches_come_in_the_order_of_their_places(planned) -> None:
    work = prepare(unet("data.per_epoch=6", "data.augment=none"), planned)[1]
    assert work.train.ordered
    shared = {"accumulate": 1, "seed": 0, "epoch": 3, "shuffle": False}
    plan = plan_epoch(6, batch_size=2, world=1, rank=0, **shared)
    assert [group.batches for group in plan] == [((0, 1),), ((2, 3),), ((4, 5),)]
    halves = [plan_epoch(6, batch_size=1, world=2, rank=rank, **shared) for rank in (0, 1)]
    assert [group.batches[0] for group in halves[0]] == [(0,), (2,), (4,)]
    for epoch in range(3):
        work.train.set_epoch(epoch)
        assert all((work.train[turn]["label"] > 0).any() for turn in (1, 3, 5))
    before = work.train[0]["image"]
    work.train.set_epoch(0)
    assert not torch.equal(before, work.train[0]["image"])
    first = work.validation[1]["image"]
    work.validation.set_epoch(5)
    assert torch.equal(first, work.validation[1]["image"])


# -- folds -------------------------------------------------------------------------------------------


def test_folds_are_those_of_the_file(planned) -> None:
    folds = read_folds(planned.folder / "splits_final.json")
    for number, fold in enumerate(folds):
        recipe = masks(f"data.fold={number}")
        facts = facts_of_planned(recipe, planned)
        assert (tuple(facts["train"]), tuple(facts["validate"])) == (fold.train, fold.val)
        work = prepare(recipe, planned)[1]
        assert work.train.patches.ids == fold.train
        assert work.validation.patches.ids == fold.val
    prints = {facts_of_planned(masks(f"data.fold={n}"), planned)["fingerprint"] for n in range(5)}
    assert len(prints) == 5


def test_data_are_the_same_where_files_were_copied_and_others_where_values_changed(
    tmp_path,
) -> None:
    planned = planned_toy(tmp_path)
    own = planned.plans.configuration("3d_fullres")
    planned.make_all(own)
    before = facts_of_planned(masks(), planned)["fingerprint"]
    case = planned.raw.cases.cases[0]
    path = planned.raw.cases.path(case.images[0])
    os.utime(path, (1e9, 1e9))
    assert planned.make_all(own) == 1
    assert facts_of_planned(masks(), planned)["fingerprint"] == before
    scan = read(path)
    write(Volume(scan.array * (scan.array > 100), scan.grid), path)
    assert planned.make_all(own) == 1
    assert facts_of_planned(masks(), planned)["fingerprint"] != before


def test_fold_all_learns_from_every_case(planned) -> None:
    facts = facts_of_planned(masks("data.fold=all"), planned)
    assert facts["train"] == facts["validate"]
    assert len(facts["train"]) == 5


def test_patients_that_are_in_both_parts_are_told(planned, tmp_path, caplog) -> None:
    prepare(masks(), planned)
    assert "fold 0 has scans of the same patient in both parts (1 of them)" in caplog.text
    caplog.clear()
    apart = planned_toy(tmp_path, by_patient=True)
    prepare(masks(), apart)
    assert "both parts" not in caplog.text
    for fold in apart.folds:
        assert not {c[:10] for c in fold.train} & {c[:10] for c in fold.val}


def test_a_fold_beyond_the_last_is_drawn_and_told(planned, caplog) -> None:
    facts = facts_of_planned(masks("data.fold=7"), planned)
    assert (len(facts["train"]), len(facts["validate"])) == (4, 1)
    assert "there are folds 0 to 4" in caplog.text


# -- models ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "learning"),
    [("masksam_acdc", 24_095_258), ("masksam_synapse", 65_550_113), ("masksam_amos", 66_151_597)],
)
def test_published_recipes_freeze_what_was_frozen(name, learning) -> None:
    classes = {"masksam_acdc": 3, "masksam_synapse": 8, "masksam_amos": 15}[name]
    recipe = resolve(name, settings=[f"model.num_classes={classes}"])
    with torch.device("meta"):
        model = build_model(recipe)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == learning
    assert get_recipe(name).run.epochs == (500 if name == "masksam_acdc" else 1000)


def test_weights_of_a_sam_begin_a_run_and_are_told(planned, tmp_path) -> None:
    from dataclasses import replace

    recipe = masks("run.epochs=1", "validation.finish=false")
    made = prepare(recipe, planned)[1].model
    plain = create_model(replace(made.config, mask_classes=None, quirks=Quirks(), name="plain"))
    torch.nn.init.normal_(plain.image_encoder.pos_embed)
    save_weights(plain, tmp_path / "sam.safetensors")
    recipe = recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update={"init": str(tmp_path / "sam.safetensors")})
        }
    )
    begun = prepare(recipe, planned)[1]
    assert torch.equal(begun.model.image_encoder.pos_embed, plain.image_encoder.pos_embed)
    train(recipe, planned, tmp_path / "run", device="cpu")
    header = load_model(tmp_path / "run/last.safetensors")[1]
    assert header.provenance["init"]["sha256"] == begun.init["sha256"]


def test_small_patches_are_no_larger_than_planned(planned) -> None:
    most = planned.plans.configuration("3d_fullres").patch_size
    recipe = prepare(resolve("masksam_small"), planned)[0]
    assert recipe.data.patch_size[0] == min(8, most[0])
    assert all(
        n % 4 == 0 and n - p < 4 for n, p in zip(recipe.data.patch_size[1:], most[1:], strict=True)
    )
    assert recipe.model.options["queries"] == len(planned.labels.foreground) + 1
    assert resolve("masksam_acdc").data.patch_size is None
    yardstick = prepare(unet("data.patch_size=null"), planned)[0]
    assert all(n <= m + 3 for n, m in zip(yardstick.data.patch_size, most, strict=True))
    assert get_config("sam_tiny").voxel_classes is None


def test_validation_pictures_show_what_was_found(planned, tmp_path) -> None:
    recipe = unet("run.epochs=1", "validation.pictures=1", "validation.finish=false")
    trainer_of(recipe, planned, tmp_path / "run").run()
    pictures = list((tmp_path / "run/pictures").iterdir())
    assert [p.name for p in pictures] == ["epoch_0001_0.png"]


def told(summary: dict[str, Any], case: Path) -> Any:
    return next(c for c in summary["metric_per_case"] if c["prediction_file"] == str(case))


def test_scores_are_those_of_the_files(planned, tmp_path) -> None:
    recipe = unet("run.epochs=1", "data.fold=2", "validation.mirror=false")
    done = train(recipe, planned, tmp_path / "fold_2", device="cpu", windows=SlidingWindows)
    folder = tmp_path / "fold_2/validation"
    summary = json.loads((folder / "summary.json").read_text())
    (case,) = planned.folds[2].val
    found = read_labels(folder / f"{case}.nii.gz").array
    drawn = read_labels(planned.raw.cases.root / f"labelsTr/{case}.nii.gz").array
    for value, name in ((1, "disc"), (2, "square")):
        both = ((found == value) & (drawn == value)).sum()
        expected = 2 * both / max((found == value).sum() + (drawn == value).sum(), 1)
        one = told(summary, folder / f"{case}.nii.gz")["metrics"][str(value)]["Dice"]
        assert np.isclose(one, expected)
        assert np.isclose(done[f"volumes_{name}"], expected)
