"""Real processes: one that is killed, and two that train together."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from samaritan.train.log import read_log

TOYS = Path(__file__).with_name("toys.py")
GLOO = Path(__file__).with_name("gloo.py")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def start(
    folder: Path, *args: str, program: Path = TOYS, **environment: str
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(program), str(folder), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "PYTHONPATH": str(TOYS.parents[1]), **environment},
    )


def finish(process: subprocess.Popen[str]) -> None:
    _, told = process.communicate(timeout=240)
    assert process.returncode == 0, told


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in line.items() if k != "images_per_s"}
        for line in read_log(folder / "log.jsonl")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multiclass", "interactive"])
def test_a_killed_run_goes_on_with_the_same_losses(tmp_path, task) -> None:
    settings = (
        task,
        "run.epochs=6",
        "run.checkpoint_every=3",
        "validation.clicks=1",
        "validation.every=3",
    )
    whole = start(tmp_path / "whole", "new", *settings)
    rng = random.Random(sum(map(ord, task)))
    mode, kills = "new", 0
    for target in sorted(rng.sample(range(1, 22), 2)):
        process = start(tmp_path / "killed", mode, *settings)
        while process.poll() is None and len(read_log(tmp_path / "killed/log.jsonl")) < target:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
        mode = "resume"
    finish(start(tmp_path / "killed", "resume", *settings))
    finish(whole)
    assert kills
    assert lines_of(tmp_path / "killed") == lines_of(tmp_path / "whole")
    one, two = (load_file(tmp_path / n / "last.safetensors") for n in ("killed", "whole"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not [p for p in (tmp_path / "killed").iterdir() if p.name.startswith(".tmp")]


def together(folder: Path, *args: str, program: Path = TOYS) -> None:
    """Run two processes over gloo, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
        "WORLD_SIZE": "2",
        "ACCELERATE_USE_CPU": "true",
    }
    processes = [
        start(folder, *args, program=program, **shared, RANK=str(rank), LOCAL_RANK=str(rank))
        for rank in (0, 1)
    ]
    try:
        for process in processes:
            finish(process)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["multiclass", "interactive"])
def test_two_processes_learn_as_one_with_twice_the_batch(tmp_path, task) -> None:
    settings = [task, "run.epochs=2", "validation.clicks=1"]
    if task == "multiclass":  # its Dice is of the whole batch, which no single process sees
        settings += ["loss.dice=0", "loss.cross_entropy=1"]
    else:  # one answer to the same boxes: clicks would be drawn for each batch apart
        settings += ["prompts.rounds=0", "prompts.box_part=1", "prompts.box_noise=none"]
    together(tmp_path / "two", "new", *settings, "data.batch_size=2")
    finish(start(tmp_path / "one", "new", *settings, "data.batch_size=4"))
    two, one = lines_of(tmp_path / "two"), lines_of(tmp_path / "one")
    assert len(two) == len(one)
    for a, b in zip(two, one, strict=True):
        assert a["loss" if a["kind"] == "train" else "dice"] == pytest.approx(
            b["loss" if b["kind"] == "train" else "dice"], abs=2e-4
        )
    first, second = (load_file(tmp_path / n / "last.safetensors") for n in ("two", "one"))
    for name in first:
        assert torch.allclose(first[name], second[name], atol=1e-4), name


def kept(folder: Path, what: str) -> list[dict[str, Any]]:
    """What each of two processes found."""
    together(folder, what, program=GLOO)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.slow
def test_two_processes_share_the_gradients_of_iterated_clicks(tmp_path) -> None:
    """T12 of the specification: published code calls parts of what is wrapped, and shares nothing."""
    one, two = kept(tmp_path / "found", "gradients")
    assert one["summed"].keys() == two["summed"].keys() == one["own"].keys()
    assert all(torch.equal(one["summed"][name], two["summed"][name]) for name in one["summed"])
    for name, found in one["summed"].items():
        mean = (one["own"][name] + two["own"][name]) / 2
        assert torch.allclose(found, mean, rtol=1e-4, atol=1e-6), name
    for found in (one, two):  # the wrapper never learns that a step was taken
        assert all(
            torch.equal(found["published"][name], found["own"][name]) for name in found["own"]
        )
    differing = [n for n in one["own"] if not torch.allclose(one["own"][n], two["own"][n])]
    assert len(differing) > 0.9 * len(one["own"])


@pytest.mark.slow
def test_two_processes_have_the_same_statistics_of_batches(tmp_path) -> None:
    one, two = kept(tmp_path / "found", "statistics")
    for name, found in one["averaged"].items():
        assert torch.equal(found, two["averaged"][name])
        if found.is_floating_point():
            assert not torch.allclose(one["own"][name], two["own"][name])
            assert torch.allclose(found, (one["own"][name] + two["own"][name]) / 2)


@pytest.mark.slow
def test_two_processes_end_with_one_model(tmp_path) -> None:
    """Batch norms count what each process saw; what is validated and written is the same in both."""
    one, two = kept(tmp_path / "found", "run")
    for kind in ("held", "averaged"):
        assert any(name.endswith("running_var") for name in one[kind])
        assert all(torch.equal(value, two[kind][name]) for name, value in one[kind].items())


@pytest.mark.slow
def test_two_processes_learn_the_same_patches_as_one(tmp_path) -> None:
    """Foreground lies in the same places of an update, whoever has them."""
    from train.patch_toys import planned_toy

    folder = planned_toy(tmp_path).folder
    settings = ["run.epochs=2", "loss.dice=0", "data.per_epoch=8", "validation.batches=4"]
    program = TOYS.with_name("patch_toys.py")
    for name, run, size in (
        ("two", together, 2),
        ("one", lambda *a, **k: finish(start(*a, **k)), 4),
    ):
        run(tmp_path / name, str(folder), *settings, f"data.batch_size={size}", program=program)
    two, one = lines_of(tmp_path / "two"), lines_of(tmp_path / "one")
    assert len(two) == len(one)
    for a, b in zip(two, one, strict=True):
        if a["kind"] == "train":
            assert a["loss"] == pytest.approx(b["loss"], abs=2e-4)
