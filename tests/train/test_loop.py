"""The loop is exact: accumulation, checkpointing of gradients, averages, resuming, early stopping."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from train.toys import interactive, multiclass, trainer_of, work_of

from samaritan.checkpoints import load_model, save_weights
from samaritan.errors import ConfigError, FileError
from samaritan.recipes import Recipe, load
from samaritan.train import RunFolder, Trainer
from samaritan.train.average import MovingAverage
from samaritan.train.log import read_log
from samaritan.train.sampling import plan_epoch


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in line.items() if k != "images_per_s"}
        for line in read_log(path / "log.jsonl")
    ]


def weights_of(recipe: Recipe, path: Path) -> dict[str, Tensor]:
    trainer = trainer_of(recipe, path)
    trainer.run()
    return {k: v.detach().clone() for k, v in trainer.model.state_dict().items()}


class Stopped(Exception):
    pass


def stop_after(trainer: Trainer, iterations: int) -> None:
    """Let a run die in the middle of an iteration."""
    update = trainer._update

    def dying(*args: Any) -> Any:
        if trainer.progress.iteration == iterations:
            raise Stopped
        return update(*args)

    trainer._update = dying  # type: ignore[method-assign]


@pytest.mark.parametrize("make", [multiclass, interactive])
@pytest.mark.parametrize("at", [0, 2, 3, 7])
def test_a_run_that_died_goes_on_as_if_it_had_not(tmp_path, make, at) -> None:
    recipe = make(
        "run.epochs=3", "run.checkpoint_every=2", "run.ema=0.9", "validation.clicks=1",
        "schedule.warmup=3", "optim.lr=1e-3",
    )  # fmt: skip
    whole = weights_of(recipe, tmp_path / "whole")
    dying = trainer_of(recipe, tmp_path / "died")
    stop_after(dying, at)
    with pytest.raises(Stopped):
        dying.run()
    resumed = trainer_of(recipe, tmp_path / "died", resume=True)
    resumed.run(resume=True)
    assert lines_of(tmp_path / "died") == lines_of(tmp_path / "whole")
    for name, value in resumed.model.state_dict().items():
        assert torch.equal(value, whole[name])
    exported = [load_model(tmp_path / w / "best.safetensors")[0] for w in ("died", "whole")]
    for a, b in zip(*(m.state_dict().values() for m in exported), strict=True):
        assert torch.equal(a, b)


def test_accumulated_batches_give_the_gradient_of_the_whole(tmp_path) -> None:
    shared = (
        "run.epochs=1",
        "optim.name=sgd",
        "loss.dice=0",
        "loss.cross_entropy=1",
        "validation.every=9",
    )
    once = weights_of(multiclass(*shared, "data.batch_size=4"), tmp_path / "once")
    parts = weights_of(
        multiclass(*shared, "data.batch_size=1", "run.accumulate=4"), tmp_path / "parts"
    )
    for name in once:  # 6 examples: iterations of 4 and 2
        assert torch.allclose(once[name], parts[name], atol=1e-6), name


def test_accumulation_works_for_steps_of_several_updates(tmp_path) -> None:
    recipe = interactive("run.epochs=1", "data.batch_size=1", "run.accumulate=4")
    trainer = trainer_of(recipe, tmp_path / "run")
    assert trainer.per_epoch == 2
    trainer.run()
    assert trainer.progress.iteration == 2


def test_gradient_checkpointing_changes_nothing(tmp_path) -> None:
    plain = weights_of(multiclass("run.epochs=1"), tmp_path / "plain")
    saving = weights_of(
        multiclass("run.epochs=1", "run.gradient_checkpointing=true"), tmp_path / "saving"
    )
    for name in plain:
        assert torch.equal(plain[name], saving[name])


def test_frozen_weights_stay(tmp_path) -> None:
    recipe = interactive("run.epochs=1")
    before = {k: v.clone() for k, v in work_of(recipe).model.state_dict().items()}
    after = weights_of(recipe, tmp_path / "run")
    for name, value in after.items():
        if name.startswith("image_encoder") and ".adapters." not in name:
            assert torch.equal(value, before[name]), name
    assert any(not torch.equal(after[name], before[name]) for name in after)


def test_a_run_folder_holds_everything(tmp_path) -> None:
    recipe = multiclass("run.epochs=2", "validation.pictures=1")
    trainer = trainer_of(recipe, tmp_path / "run")
    trainer.run()
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {
        "recipe.yaml", "environment.json", "data.json", "log.jsonl", "tensorboard", "curves.png",
        "pictures", "best.safetensors", "last.safetensors", "state.pt",
    }  # fmt: skip
    assert not any(name.startswith(".tmp") for name in names)
    assert load(tmp_path / "run/recipe.yaml") == recipe
    assert [p.name for p in sorted((tmp_path / "run/pictures").iterdir())] == [
        "epoch_0001_0.png", "epoch_0002_0.png",
    ]  # fmt: skip
    model, header = load_model(tmp_path / "run/last.safetensors")
    assert "toy_2d" in header.extra["recipe"]
    for a, b in zip(model.state_dict().values(), trainer.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    kinds = [line["kind"] for line in read_log(tmp_path / "run/log.jsonl")]
    assert kinds == ["train"] * 3 + ["validation"] + ["train"] * 3 + ["validation"]


def test_an_adapted_model_also_leaves_what_learned_alone(tmp_path) -> None:
    recipe = interactive("run.epochs=1", "validation.clicks=1")
    trainer = trainer_of(recipe, tmp_path / "run")
    torch.nn.init.normal_(trainer.model.image_encoder.pos_embed)  # as of weights that were trained
    save_weights(trainer.model, tmp_path / "start.safetensors")
    trainer.run()
    whole, part = tmp_path / "run/last.safetensors", tmp_path / "run/last.adapted.safetensors"
    assert part.stat().st_size < whole.stat().st_size
    model, _ = load_model(part, base=tmp_path / "start.safetensors")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_validation_repeats_and_leaves_training_alone(tmp_path) -> None:
    often = interactive("run.epochs=2", "validation.every=1", "validation.clicks=2")
    seldom = interactive("run.epochs=2", "validation.every=2", "validation.clicks=2")
    for name, recipe in (("often", often), ("seldom", seldom)):
        trainer_of(recipe, tmp_path / name).run()
    one, two = (
        [line for line in lines_of(tmp_path / n) if line["kind"] == "train"]
        for n in ("often", "seldom")
    )
    assert one == two
    last = [lines_of(tmp_path / n)[-1] for n in ("often", "seldom")]
    assert last[0] == last[1]


def test_training_stops_early_without_progress(tmp_path) -> None:
    recipe = multiclass("run.epochs=9", "validation.patience=2", "optim.lr=1e-30")
    trainer = trainer_of(recipe, tmp_path / "run")
    trainer.run()
    assert (
        trainer.progress.epoch == 3
    )  # one that is the best by being the first, two that are no better


def test_the_number_of_iterations_can_be_limited(tmp_path) -> None:
    trainer = trainer_of(multiclass("run.epochs=9", "run.max_iterations=4"), tmp_path / "run")
    assert trainer.run()["iterations"] == 4
    assert lines_of(tmp_path / "run")[-1]["kind"] == "validation"


def test_a_longer_run_can_go_on(tmp_path) -> None:
    short = multiclass("run.epochs=1", "schedule.kind=constant")
    trainer_of(short, tmp_path / "run").run()
    longer = multiclass("run.epochs=2", "schedule.kind=constant")
    RunFolder(tmp_path / "run").check_same(longer, {"fingerprint": "toy"})
    trainer = trainer_of(longer, tmp_path / "run", resume=True)
    assert trainer.run(resume=True)["iterations"] == 6


def test_a_run_goes_on_with_its_own_recipe_and_data_only(tmp_path) -> None:
    trainer_of(multiclass("run.epochs=1"), tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"optim\.lr was .* data have changed"):
        folder.check_same(multiclass("run.epochs=1", "optim.lr=1"), {"fingerprint": "other"})


def test_another_run_is_not_overwritten(tmp_path) -> None:
    trainer_of(multiclass(), tmp_path / "run")
    with pytest.raises(FileError, match="holds another run"):
        trainer_of(multiclass(), tmp_path / "run")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("precious")
    with pytest.raises(FileError, match="not an empty folder"):
        trainer_of(multiclass(), tmp_path / "full")
    assert (tmp_path / "full/thesis.txt").read_text() == "precious"


def test_two_processes_do_not_train_in_one_folder(tmp_path) -> None:
    trainer = trainer_of(multiclass("run.epochs=1"), tmp_path / "run")
    with trainer.folder.locked(), pytest.raises(FileError, match="another process"):
        trainer_of(multiclass("run.epochs=1"), tmp_path / "run", resume=True).run()


def test_bfloat16_learns_as_well(tmp_path) -> None:
    from samaritan.train import Machine

    recipe = multiclass("run.epochs=1", "run.clip_norm=0.1")
    folder = RunFolder(tmp_path / "run")
    folder.create(recipe, {}, {})
    trainer = Trainer(recipe, work_of(recipe), folder, Machine("bfloat16", "cpu"))
    trainer.run()
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    assert all(json.dumps(line) for line in lines_of(tmp_path / "run"))


def test_an_update_is_no_larger_than_the_clipped_gradient(tmp_path) -> None:
    plain = ["run.max_iterations=1", "optim.name=sgd", "optim.lr=1", "optim.momentum=0", "schedule.warmup=0",
             "schedule.kind=constant", "optim.weight_decay=0"]  # fmt: skip
    moved = {}
    for norm in ("null", "0.01"):
        trainer = trainer_of(multiclass(*plain, f"run.clip_norm={norm}"), tmp_path / norm)
        before = [p.detach().clone() for p in trainer.model.parameters()]
        trainer.run()
        after = list(trainer.model.parameters())
        steps = [(b - a).detach().norm() for a, b in zip(before, after, strict=True)]
        moved[norm] = float(torch.stack(steps).norm())
    assert moved["null"] > 0.02
    assert moved["0.01"] == pytest.approx(0.01, rel=1e-3)


def test_the_average_is_what_is_exported_and_the_weights_go_on(tmp_path) -> None:
    trainer = trainer_of(multiclass("run.epochs=1", "run.ema=0.99"), tmp_path / "run")
    trainer.run()
    assert trainer.average is not None
    exported = load_model(tmp_path / "run/last.safetensors")[0].state_dict()
    own = trainer.model.state_dict()
    for name, value in trainer.average.values.items():
        assert torch.equal(exported[name], value)
    assert any(not torch.equal(own[name], exported[name]) for name in trainer.average.values)


def test_the_moving_average_follows_and_gives_back() -> None:
    model = torch.nn.Linear(2, 2)
    average = MovingAverage(model, 0.5)
    start = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1
    average.update(model)
    with average.shown(model):
        inside = model.weight.detach().clone()
    assert torch.allclose(inside, start + 1 - 2 / 11)
    assert torch.allclose(model.weight, start + 1)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_out_every_example(world) -> None:
    plans = [
        plan_epoch(23, batch_size=2, accumulate=2, world=world, rank=r, seed=0, epoch=4)
        for r in range(world)
    ]
    seen = [i for plan in plans for group in plan for batch in group.batches for i in batch]
    assert len(set(seen)) == len(seen) >= 23 - (world - 1)
    for groups in zip(*plans, strict=True):
        assert len({group.total for group in groups}) == 1
        assert sum(len(b) for g in groups for b in g.batches) == groups[0].total


def test_synapse_has_93_iterations_of_24_slices() -> None:
    plan = plan_epoch(2211, batch_size=12, accumulate=2, world=1, rank=0, seed=0, epoch=0)
    assert len(plan) == 93
    assert {group.total for group in plan[:-1]} == {24}


def test_epochs_differ_and_repeat() -> None:
    def order(epoch: int) -> list[int]:
        plan = plan_epoch(9, batch_size=9, accumulate=1, world=1, rank=0, seed=1, epoch=epoch)
        return list(plan[0].batches[0])

    assert order(0) == order(0) != order(1)
