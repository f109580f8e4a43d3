"""What goes wrong is told, and nothing is left half written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from limits import no_more_than, refuse_more_than
from torch import Tensor
from train.toys import Slices, multiclass, trainer_of

from samaritan.checkpoints import load_model
from samaritan.errors import CheckpointError, ConfigError, FileError, TrainingError
from samaritan.train import Machine, RunFolder
from samaritan.train.loading import load
from samaritan.train.state import read_state, write_state


class Poisoned(Slices):
    """From some epoch on, an image with a value that is not finite."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = super().__getitem__(index)
        if self.epoch >= 1:
            item["image"][0, 0, 0] = torch.nan
        return item


def test_a_loss_that_is_not_finite_stops_and_the_last_good_checkpoint_stays(tmp_path) -> None:
    trainer = trainer_of(multiclass("run.epochs=3", "run.checkpoint_every=1"), tmp_path / "run")
    object.__setattr__(trainer.work, "train", Poisoned(6))
    with pytest.raises(TrainingError, match=r"iteration 3 is not a finite number.*optim\.lr"):
        trainer.run()
    state = read_state(tmp_path / "run/state.pt")
    assert state["progress"]["iteration"] == 3
    assert all(value.isfinite().all() for value in state["model"].values())


def test_an_update_that_ruins_the_weights_is_not_kept(tmp_path) -> None:
    recipe = multiclass("run.epochs=1", "run.checkpoint_every=1", "optim.lr=1e38", "schedule.kind=constant",
                        "optim.name=sgd", "schedule.warmup=0")  # fmt: skip
    trainer = trainer_of(recipe, tmp_path / "run")
    with pytest.raises(TrainingError):
        trainer.run()
    state = read_state(tmp_path / "run/state.pt")
    assert all(value.isfinite().all() for value in state["model"].values())


def test_a_full_disk_is_told_and_the_checkpoint_before_stays(tmp_path, monkeypatch) -> None:
    path = tmp_path / "state.pt"
    write_state(path, {"a": torch.ones(3)})

    def full(*_: object, **__: object) -> None:
        raise RuntimeError(
            "PytorchStreamWriter failed writing file data/0: no space left on device"
        )

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(FileError, match="no space left"):
        write_state(path, {"a": torch.zeros(3)})
    assert torch.equal(read_state(path)["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_disk_that_is_full_halfway_is_told_by_the_reason_of_the_system(tmp_path) -> None:
    path = tmp_path / "state.pt"
    write_state(path, {"a": torch.ones(3)})
    with no_more_than(20_000), pytest.raises(FileError, match=r"File too large.*free some space"):
        write_state(path, {"a": torch.zeros(100_000)})
    assert torch.equal(read_state(path)["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_run_on_a_full_disk_goes_on_when_there_is_space(tmp_path) -> None:
    recipe = multiclass("run.epochs=3")
    whole = trainer_of(recipe, tmp_path / "whole").run()
    run = trainer_of(recipe, tmp_path / "run")
    validate, room = run._validate, (tmp_path / "whole/last.safetensors").stat().st_size // 2

    def validate_once() -> None:
        if run.progress.epoch == 2:
            refuse_more_than(room)
        validate()

    object.__setattr__(run, "_validate", validate_once)
    with no_more_than(-1), pytest.raises(FileError, match="File too large"):
        run.run()
    assert not [p.name for p in (tmp_path / "run").iterdir() if "tmp" in p.name]
    load_model(tmp_path / "run/best.safetensors")
    again = trainer_of(recipe, tmp_path / "run", resume=True).run(resume=True)
    assert again == whole


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="cannot be made"):
        RunFolder(tmp_path / "file/run").create(multiclass(), {}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_written_is_told_before_images_are_read(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(FileError, match=f"{tmp_path} cannot be written. Choose another --output"):
        RunFolder(tmp_path / "some/run").check_free()


def test_a_failure_while_the_folder_is_made_leaves_nothing(tmp_path, monkeypatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "write_text", read_only)
    with pytest.raises(FileError, match="Read-only file system"):
        RunFolder(tmp_path / "run").create(multiclass(), {}, {})
    assert list(tmp_path.iterdir()) == []


def test_resuming_what_is_not_there_is_told(tmp_path) -> None:
    with pytest.raises(FileError, match="Start it without --resume"):
        read_state(tmp_path / "state.pt")


def test_a_damaged_state_is_told(tmp_path) -> None:
    (tmp_path / "state.pt").write_bytes(b"PK\x03\x04nonsense")
    with pytest.raises(CheckpointError, match="damaged"):
        read_state(tmp_path / "state.pt")


def test_a_state_that_would_execute_code_is_refused(tmp_path) -> None:
    torch.save({"version": 1, "x": Path("/")}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError):
        read_state(tmp_path / "state.pt")


def test_too_few_examples_are_told(tmp_path) -> None:
    with pytest.raises(TrainingError, match="0 examples"):
        trainer_of(multiclass(), tmp_path / "run", n=0)


def test_nothing_that_learns_is_told(tmp_path) -> None:
    from samaritan.train.optim import build_optimizer

    model = torch.nn.Linear(2, 2).requires_grad_(False)
    recipe = multiclass()
    with pytest.raises(TrainingError, match="no parameter"):
        build_optimizer(model, recipe.optim, recipe.compat)


def test_a_pattern_that_fits_nothing_is_told(tmp_path) -> None:
    with pytest.raises(ConfigError, match="parameter that learns"):
        trainer_of(multiclass("optim.groups=[{match: 'image_encodr.**'}]"), tmp_path / "run")


def test_half_precision_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="needs a GPU"):
        Machine("float16", "cpu")


def test_workers_load_the_same() -> None:
    device = torch.device("cpu")
    plan = [[0, 1], [2]]
    one, two = (list(load(Slices(3), plan, device=device, workers=w, epoch=2)) for w in (0, 2))
    for a, b in zip(one, two, strict=True):
        assert all(torch.equal(a[name], b[name]) for name in a)
