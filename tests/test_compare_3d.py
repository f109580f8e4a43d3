"""scripts/compare_3d: ways are compared on equal terms, and differences are those of the same objects."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from samaritan.assembly import get_blueprint
from samaritan.metrics import Row

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(SCRIPTS)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    loader = SourceFileLoader("compare_3d", str(SCRIPTS / "compare_3d"))
    spec = spec_from_loader("compare_3d", loader)
    assert spec is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compare_3d", module)
    loader.exec_module(module)
    return module


def test_ways_differ_in_model_and_beginning_alone(script: Any, tmp_path: Path) -> None:
    recipes = [script.recipe_of(name, tmp_path, 100, ["data.batch_size=4"]) for name in script.WAYS]
    first, *others = (r.model_dump(exclude={"name", "model"}) for r in recipes)
    assert all(other == first for other in others)
    assert first["run"]["max_iterations"] == 100
    assert first["data"]["per_epoch"] * first["run"]["epochs"] == 100 * 4


def test_each_way_begins_with_a_run_of_an_earlier_stage(script: Any) -> None:
    done: set[str] = set()
    for stage in script.STAGES:
        assert all(script.EVERY[name].init in (*done, None) for name in stage)
        done |= set(stage)
    assert done == set(script.EVERY)


def test_models_have_one_size(script: Any, tmp_path: Path) -> None:
    sizes = set()
    for name in script.EVERY:
        model = script.recipe_of(name, tmp_path, 10, []).model
        plan = get_blueprint(
            model.name, image_size=model.image_size, method=model.method, **model.options
        )
        config = plan.config
        sizes.add((config.grid, config.low_res_size, config.width, config.depth, config.embed_dim))
    assert sizes == {((8, 8, 8), (32, 32, 32), 192, 6, 128)}


def test_differences_are_those_of_the_same_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPTS)
    from compared_answers import difference  # type: ignore[import-not-found]

    dice = {"a": 0.2, "b": 0.5, "c": 0.9}

    def rows(shift: float) -> list[Row]:
        return [
            Row(case, label, "", "found", True, {"dice": value + shift}, clicks=clicks)
            for case, value in dice.items()
            for label in (1, 2)
            for clicks in (1, 2)
        ]

    assert difference(rows(0.05), rows(0)[::-1], 2) == "+0.050 (+0.050 to +0.050)"
