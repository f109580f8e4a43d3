"""`samaritan prepare recipe`, on the configuration of a published system."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from cli.run import samaritan
from recipes.test_lightning import ALL

from samaritan import Grid, LabelMap, Volume, write
from samaritan.data import Manifest
from samaritan.recipes import from_lightning, resolve


@pytest.fixture
def config(tmp_path):
    (tmp_path / "all.yaml").write_text(ALL, "utf-8")
    return tmp_path / "all.yaml"


def test_a_recipe_is_written_that_says_what_is_missing(capsys, tmp_path, config) -> None:
    done = samaritan(capsys, "prepare", "recipe", config, "-o", tmp_path / "mine.yaml")
    assert done.code == 0, done.err
    assert "data.batch_size: 4  ->  data.batch_size=4" in done.err
    assert "2 training sets and 2 validation sets (they are data" in done.err
    assert resolve(file=tmp_path / "mine.yaml") == from_lightning(config).recipe
    head = [line for line in (tmp_path / "mine.yaml").read_text().splitlines() if line[0] == "#"]
    assert any("samaritan train --workers 8" in line for line in head)


def test_without_a_file_it_is_printed(capsys, config) -> None:
    done = samaritan(capsys, "prepare", "recipe", config)
    assert yaml.safe_load(done.out)["model"]["name"] == "neurosam3d_vit_l"


def test_sets_become_a_manifest(capsys, tmp_path, config) -> None:
    root = tmp_path / "preprocessed"
    grid = Grid.from_spacing((5, 6, 7), (1.0, 1.0, 2.0))
    for name in ("AMOS_Tr", "WORD_Tr", "BRATS_Tr", "WORD_Val"):
        group, part = name.split("_")
        image, label = f"{group}/images{part}/a.nii.gz", f"{group}/labels{part}/liver/a.nii.gz"
        write(Volume(np.zeros(grid.shape, np.float32), grid), root / image)
        write(LabelMap(np.ones(grid.shape, np.uint8), grid), root / label)
        row = {"image": image, "label": label, "class": "liver", "volume": 1, "spacing": ""}
        (root / f"{name}.json").write_text(json.dumps([row]))
    args = ["prepare", "recipe", config, "-o", tmp_path / "mine.yaml", "--data", root]
    alone = samaritan(capsys, *args)
    assert alone.code == 1
    assert "--data and --manifest go together" in alone.err
    done = samaritan(capsys, *args, "--manifest", tmp_path / "sets.json")
    assert done.code == 0, done.err
    made = Manifest.read(tmp_path / "sets.json")
    assert {c.id: c.split for c in made} == {
        "AMOS_Tr/a": "train", "WORD_Tr/a": "train", "BRATS_Tr/a": "val", "WORD_Val/a": "val",
    }  # fmt: skip
    assert all(made.path(c.images[0]).exists() for c in made)


def test_a_missing_list_stops_before_anything_is_written(capsys, tmp_path, config) -> None:
    done = samaritan(capsys, "prepare", "recipe", config, "-o", tmp_path / "mine.yaml",
                     "--data", tmp_path, "--manifest", tmp_path / "sets.json")  # fmt: skip
    assert done.code == 1
    assert "AMOS_Tr.json" in done.err
    assert "WORD_Val.json" in done.err
    assert not (tmp_path / "mine.yaml").exists()
