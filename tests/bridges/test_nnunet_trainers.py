"""Recipes as trainers of nnU-Net: found by name, trained, gone on with, and alike in both programs."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import samaritan.bridges
from samaritan.bridges import nnunet_trainers
from samaritan.bridges.nnunet_trainers import Rates, trainer
from samaritan.errors import ConfigError, MissingPackage
from samaritan.recipes import rate, resolve


def test_nnunet_asks_for_names_and_gets_recipes_alone(monkeypatch) -> None:
    monkeypatch.setattr(nnunet_trainers, "trainer", lambda name: f"the trainer of {name}")
    assert nnunet_trainers.Samaritan_masksam_small == "the trainer of masksam_small"
    assert not hasattr(nnunet_trainers, "nnUNetTrainerNoMirroring")


def test_recipes_that_cannot_learn_there_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"'samed' has task multiclass and cannot learn in nnU-Net"
    ):
        trainer("samed")
    with pytest.raises(ConfigError, match=r"unknown recipe 'masksam_smal'.*'masksam_small'"):
        trainer("masksam_smal")


def test_without_nnunet_the_extra_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "nnunetv2.training.nnUNetTrainer.nnUNetTrainer", None)
    trainer.cache_clear()
    with pytest.raises(MissingPackage, match=r"samaritan\[nnunetv2\]"):
        trainer("masksam_small")


def test_the_folder_holds_one_module_under_any_name() -> None:
    (folder,) = map(Path, samaritan.bridges.__path__)
    assert {path.stem for path in folder.glob("*.py")} == {"__init__", "nnunet_trainers"}


def test_rates_are_those_of_our_own_loop_wherever_a_run_goes_on() -> None:
    recipe = resolve("masksam_small", settings=["run.epochs=3", "schedule.warmup=4"])
    groups = [{"lr": 0.0, "full_lr": 0.5}]
    rates = Rates(SimpleNamespace(param_groups=groups), recipe, per_epoch=5)
    seen = []
    for epoch in (1, 2):  # epoch 0 was another command's
        rates.step(epoch)
        for _ in range(5):
            seen.append((rates.take(), groups[0]["lr"]))
    wanted = [0.5 * rate(recipe.schedule, i, per_epoch=5, epochs=3) for i in range(5, 15)]
    assert [number for number, _ in seen] == list(range(5, 15))
    assert [lr for _, lr in seen] == pytest.approx(wanted)
    assert len(set(wanted)) > 5
