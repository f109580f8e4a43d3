"""Training files with more than weights in them load through inert stand-ins."""

from __future__ import annotations

import argparse
import collections
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from samaritan.checkpoints import load_weights
from samaritan.checkpoints.reading import read_file
from samaritan.checkpoints.stand_ins import STAND_INS, EmptyDict, Inert
from samaritan.errors import UnsafeFile


def optimiser(model, kind=torch.optim.Adam):
    """An optimiser with a state, as after one step."""
    made = kind(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    made.step()
    return made


def extras(model):
    adam = optimiser(model)
    lightning = types.ModuleType("lightning.fabric.utilities.data")
    scheduler = torch.optim.lr_scheduler.MultiStepLR(adam, milestones=[120, 180])
    return {
        "namespace": argparse.Namespace(lr=8e-4, gpu_ids=[0, 1], device=torch.device("cpu")),
        "optimiser object": optimiser(model),
        "adamw object": optimiser(model, torch.optim.AdamW),
        "sgd object": optimiser(model, torch.optim.SGD),
        "optimiser state": adam.state_dict(),
        "scheduler state": scheduler.state_dict(),
        "set": {1, 2, 3},
        "numpy scalar": np.float64(0.5),
        "numpy whole number": np.int64(7),
        "numpy array": np.arange(5),
        "defaultdict": collections.defaultdict(int, a=1),
        "counter": collections.Counter("aab"),
        "path": Path("x"),
        "nested": {"deep": [argparse.Namespace(a=argparse.Namespace(b=1))]},
        "module": lightning.__name__,
    }


NAMES = [
    *("namespace", "optimiser object", "adamw object", "sgd object", "optimiser state", "set"),
    *("scheduler state", "numpy scalar", "numpy whole number", "numpy array", "defaultdict"),
    *("counter", "path", "nested", "module"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("legacy", [False, True])
def test_weights_load_whatever_lies_beside_them(name, legacy, make, same, tmp_path):
    there, here = make(seed=1), make()
    state = {key: value.clone() for key, value in there.state_dict().items()}
    file = tmp_path / "latest.pth"
    content = {"model": state, "extra": extras(make(seed=3))[name]}
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    report = load_weights(here, file)
    assert same(here.state_dict(), state)
    assert any("extra" in note for note in report.notes)


def test_a_file_as_sam_med2d_writes_it_loads_without_its_optimiser(same, tmp_path):
    from samaritan.assembly import create_model
    from samaritan.checkpoints.official import official_state

    there, here = create_model("sammed2d_tiny"), create_model("sammed2d_tiny")
    content = {"model": official_state(there, "sam_med2d"), "optimizer": optimiser(there)}
    torch.save(content, tmp_path / "epoch15_sam.pth")
    report = load_weights(here, tmp_path / "epoch15_sam.pth")
    assert report.source == "sam-med2d"
    assert same(here.state_dict(), there.state_dict())
    stand_in = read_file(tmp_path / "epoch15_sam.pth").content["optimizer"]
    assert not isinstance(stand_in, torch.optim.Optimizer)


def test_a_file_as_sammed3d_writes_it_loads(make, same, tmp_path):
    there, here = make(seed=1), make()
    adam = optimiser(make(seed=3))
    content = {
        "epoch": 3,
        "model_state_dict": {f"module.{k}": v for k, v in there.state_dict().items()},
        "optimizer_state_dict": adam.state_dict(),
        "lr_scheduler_state_dict": torch.optim.lr_scheduler.StepLR(adam, 10).state_dict(),
        "losses": [np.float64(0.3)],
        "best_dice": np.float32(0.7),
        "args": argparse.Namespace(task_name="union_train", multi_click=False),
        "used_datas": ["data/a", "data/b"],
    }
    torch.save(content, tmp_path / "sam_model_latest.pth")
    assert load_weights(here, tmp_path / "sam_model_latest.pth").layout == (
        "model_state_dict + module."
    )
    assert same(here.state_dict(), there.state_dict())


def test_stand_ins_answer_for_the_real_classes_only_while_reading(tmp_path):
    torch.save({"a": argparse.Namespace(lr=1), "x": torch.zeros(1)}, tmp_path / "w.pth")
    before = set(torch.serialization.get_safe_globals())
    stand_in = read_file(tmp_path / "w.pth").content["a"]
    assert isinstance(stand_in, Inert)
    assert not isinstance(stand_in, argparse.Namespace)
    assert repr(stand_in) == "<Namespace, not loaded>"
    assert set(torch.serialization.get_safe_globals()) == before


def test_stand_ins_do_nothing():
    for stand_in in set(STAND_INS.values()) - {EmptyDict}:
        made = stand_in(1, a=2)
        made.__setstate__({"lr": 1})
        assert not hasattr(made, "lr")
    assert EmptyDict([("a", 1)]) == {}


def test_no_stand_in_is_a_function_or_a_class_of_this_program():
    assert all(issubclass(s, Inert) or s is EmptyDict for s in STAND_INS.values())


def test_an_unlisted_class_beside_the_weights_is_refused_by_name(tmp_path):
    module = types.ModuleType("somebodys_code")
    module.Thing = type("Thing", (), {"__module__": "somebodys_code"})
    sys.modules["somebodys_code"] = module
    try:
        torch.save({"model": {"x": torch.zeros(1)}, "thing": module.Thing()}, tmp_path / "w.pth")
    finally:
        del sys.modules["somebodys_code"]
    with pytest.raises(UnsafeFile, match=r"'somebodys_code.Thing'"):
        read_file(tmp_path / "w.pth")
    assert "somebodys_code" not in sys.modules
