"""`samaritan doctor` prints what is found; the exit code says whether something is broken."""

from __future__ import annotations

import dataclasses
import json

import pytest
import typer
from typer.testing import CliRunner

from samaritan import environment
from samaritan.cli.doctor import doctor
from samaritan.environment import Package, Problem

app = typer.Typer()
app.command()(doctor)


@pytest.fixture(scope="module")
def healthy() -> environment.Environment:
    return dataclasses.replace(environment.examine(), problems=())


def run(monkeypatch, found: environment.Environment, *args: str):
    monkeypatch.setattr(environment, "examine", lambda: found)
    return CliRunner().invoke(app, list(args))


def test_healthy_machines_exit_0(monkeypatch, healthy) -> None:
    done = run(monkeypatch, healthy)
    assert done.exit_code == 0
    for text in ("device", "precision", "float32", "torch", "no problems found"):
        assert text in done.output


def test_notes_exit_0_and_what_is_broken_exits_1(monkeypatch, healthy) -> None:
    note, broken = (
        Problem("little memory [x]", "Close programs"),
        Problem("no torch", "Install it", True),
    )
    done = run(monkeypatch, dataclasses.replace(healthy, problems=(note,)))
    assert (done.exit_code, "note: little memory [x]." in done.output) == (0, True)
    done = run(monkeypatch, dataclasses.replace(healthy, problems=(note, broken)))
    assert done.exit_code == 1
    assert "broken: no torch.\n  Install it." in done.output


def test_missing_extras_say_how_to_get_them(monkeypatch, healthy) -> None:
    found = dataclasses.replace(healthy, packages=(Package("h5py", None, ">=3.11", "minc"),))
    assert 'pip install "samaritan[minc]"' in run(monkeypatch, found).output


def test_json_holds_everything(monkeypatch, healthy) -> None:
    broken = dataclasses.replace(healthy, problems=(Problem("no torch", "Install it", True),))
    done = run(monkeypatch, broken, "--json")
    found = json.loads(done.output)
    assert done.exit_code == 1
    assert found["usable"] is False
    assert found["problems"] == [{"what": "no torch", "do": "Install it", "breaks": True}]
    assert found["device"] == healthy.device
