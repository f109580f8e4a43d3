"""scripts/train_masksam and what draws its runs: nnU-Net's numbers in a table, a place for every run."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from samaritan.recipes import resolve

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    spec = spec_from_loader(
        "draw_masksam", SourceFileLoader("draw_masksam", str(SCRIPTS / "draw_masksam"))
    )
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def commands() -> dict[str, str]:
    """Runs of the script and the words that each is trained with."""
    text = (SCRIPTS / "train_masksam").read_text("utf-8")
    return dict(re.findall(r'^    (\w+_\w+)\) learn "\$run" (.*) ;;$', text, re.MULTILINE))


def test_every_run_is_a_recipe_and_has_a_place_in_the_table(script: Any) -> None:
    assert set(commands()) == {
        "hippocampus_masksam",
        "hippocampus_reference",
        "hippocampus_unet",
        "acdc_masksam",
        "acdc_unet",
    }
    for run, words in commands().items():
        of, way = run.split("_")
        assert of in script.SETS
        assert way in script.WAYS
        recipe = resolve(
            words.split()[1], settings=[w.strip("'") for w in words.split(" --set ")[1:]]
        )
        assert (recipe.model.options.get("compat") == "reference") == (way == "reference")
        assert recipe.model.name.startswith("dynunet" if way == "unet" else "masksam")


def test_a_run_that_is_not_there_is_told(tmp_path: Path) -> None:
    for name in ("hippocampus", "acdc"):
        (tmp_path / "planned" / name).mkdir(parents=True)
        (tmp_path / "planned" / name / "splits_final.json").touch()
    words = ["bash", SCRIPTS / "train_masksam", tmp_path / "raw", tmp_path, "liver_masksam"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, "no such run: liver_masksam" in done.stderr) == (2, True)


def test_the_table_holds_the_means_of_summary_json(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        script, "names_of", lambda _, of: {1: "head", 2: "tail"} if of == "hippocampus" else {}
    )
    folder = tmp_path / "runs/hippocampus_masksam/fold_0"
    (folder / "validation").mkdir(parents=True)
    told = {
        "mean": {"1": {"Dice": 0.75}, "2": {"Dice": 0.5}},
        "foreground_mean": {"Dice": 0.625},
        "metric_per_case": [],
    }
    (folder / "validation/summary.json").write_text(json.dumps(told))
    lines = [{"kind": "validation", "iteration": n, "dice": 0.1 * n} for n in (3, 7)]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert "| MaskSAM | 7 | 0.750 | 0.500 | **0.625** |" in script.table(tmp_path)
    script.curves(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
