"""`samaritan train`, from a folder of pictures to a model that predicts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from cli.run import samaritan
from PIL import Image

pytest.importorskip("accelerate")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Models as small as these are slower with more, most of all beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SMALL = ["--set", "model.image_size=32", "--set", "data.batch_size=4", "--set", "data.augment=none",
         "--set", "validation.pictures=1", "--device", "cpu"]  # fmt: skip


@pytest.fixture
def pictures(tmp_path) -> Path:
    """Discs (1) and squares (2) of six patients."""
    rng = np.random.default_rng(0)
    root = tmp_path / "pictures"
    rows, columns = np.mgrid[:40, :48]
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for case in range(6):
        i, j = rng.integers(10, 30, 2)
        label = ((rows - i) ** 2 + (columns - j) ** 2 < 49).astype(np.uint8)
        label[2:8, 38:46] = 2
        image = (
            100 + 80 * (label == 1) - 60.0 * (label == 2) + rng.normal(0, 5, label.shape)
        ).astype(np.uint8)
        Image.fromarray(image).save(root / f"images/p{case}.png")
        Image.fromarray(label).save(root / f"labels/p{case}.png")
    return root


def test_pictures_become_a_model(capsys, tmp_path, pictures) -> None:
    run = tmp_path / "run"
    args = ["train", "-r", "toy_2d", "-d", pictures, "-o", run, "--set", "run.epochs=2", *SMALL]
    done = samaritan(capsys, *args)
    assert done.code == 0, done.err
    assert "held-out Dice" in done.out
    last = done.err.strip().splitlines()[-1]  # no terminal: lines in place of a bar
    assert re.search(
        r"^\d+/\d+, epoch 2, loss [\d.]+, Dice [\d.]+(, held out [\d.]+)?, [\d.]+ images/s, .* left$",
        last,
    ), done.err
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    assert recipe["model"]["num_classes"] == 2
    assert json.loads((run / "data.json").read_text())["parts"] == {"None": 6}
    assert json.loads((run / "environment.json").read_text())["samaritan"]
    again = samaritan(capsys, *args)
    assert again.code == 1
    assert "--resume" in again.err
    more = samaritan(capsys, "train", "--resume", "-d", pictures, "-o", run, "--set", "run.epochs=3",
                     "--device", "cpu", "--json")  # fmt: skip
    assert more.code == 0, more.err
    assert json.loads(more.out.splitlines()[-1])["iterations"] > 2
    from samaritan.checkpoints import load_model

    model, header = load_model(run / "best.safetensors")
    assert model.config.num_mask_tokens == 3
    assert header.preprocess is not None
    assert header.preprocess["size"] == [32, 32]


def test_prompts_are_learned_from_the_same_pictures(capsys, tmp_path, pictures) -> None:
    args = ["train", "-r", "sam_med2d", "-d", pictures, "-o", tmp_path / "run", *SMALL,
            "--set", "model.name=sammed2d_tiny", "--set", "run.epochs=1",
            "--set", "prompts.rounds=2"]  # fmt: skip
    done = samaritan(capsys, *args)
    assert done.code == 0, done.err
    from samaritan.checkpoints import load_model

    _, header = load_model(tmp_path / "run/best.safetensors")
    assert header.preprocess is not None
    assert header.preprocess["prompting"]["mask_values"] == "probabilities"
    assert header.preprocess["channel_order"] == "bgr"


def test_the_configuration_is_printed_and_can_be_used_again(capsys, tmp_path) -> None:
    first = samaritan(capsys, "train", "-r", "samed", "--set", "optim.lr=1e-4", "--init", "sam.pth",
                      "--print-config")  # fmt: skip
    assert first.code == 0
    values = yaml.safe_load(first.out)
    assert values["optim"]["lr"] == 1e-4
    assert values["model"]["init"] == "sam.pth"
    (tmp_path / "mine.yaml").write_text(first.out)
    second = samaritan(capsys, "train", "-c", tmp_path / "mine.yaml", "--print-config")
    assert second.out == first.out


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["-r", "samd", "-d", "DATA"], "Did you mean 'samed'"),
        (["-d", "DATA"], "no recipe"),
        (["-r", "toy_2d"], "no data"),
        (["-r", "toy_2d", "-d", "nowhere"], "does not exist"),
        (["-r", "toy_2d", "-d", "DATA", "--set", "run.epoch=1", "--set", "optim.lr=x"], "2 problems"),
        (["-r", "toy_2d", "-d", "DATA", "--set", "model.num_classes=1"], "holds label 2"),
        (["-r", "toy_2d", "-d", "DATA", "--set", "model.name=sam3d_tiny"], "3 axes"),
        (["-r", "toy_2d", "-d", "DATA", "--init", "missing.pth"], "missing.pth"),
        (["-r", "toy_2d", "-d", "DATA", "--resume"], "no run to go on with"),
        (["-r", "sam_med2d", "-d", "DATA", "--set", "data.min_size=9999"], "9999"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_before_a_folder_is_made(
    capsys, tmp_path, pictures, args, told
) -> None:
    args = [pictures if arg == "DATA" else arg for arg in args]
    done = samaritan(capsys, "train", *args, "-o", tmp_path / "run", *SMALL)
    assert done.code == 1
    assert told in done.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("switch", ["cubic_zoom", "corner_aligned_labels"])
def test_a_compat_switch_reaches_the_examples(pictures, switch) -> None:
    from samaritan.data import load_manifest
    from samaritan.recipes import resolve
    from samaritan.train.runs import prepare

    small = ["model.name=samed_tiny", "model.image_size=64", "data.augment=none"]
    found = []
    for value in ("false", "true"):
        recipe = resolve("samed", settings=[*small, f"compat.{switch}={value}"])
        found.append(prepare(recipe, load_manifest(pictures))[1].train[0])
    changed = {name for name in found[0] if not torch.equal(found[0][name], found[1][name])}
    assert changed >= ({"image"} if switch == "cubic_zoom" else {"low_res_label"})


def test_small_pictures_are_padded_only_if_wanted(pictures) -> None:
    from samaritan.data import load_manifest
    from samaritan.recipes import resolve
    from samaritan.train.runs import prepare

    small = ["model.name=sammed2d_tiny", "model.image_size=64", "data.min_size=1"]
    borders = []
    for value in ("false", "true"):
        recipe = resolve("sam_med2d", settings=[*small, f"compat.padded_small_pictures={value}"])
        work = prepare(recipe, load_manifest(pictures))[1]
        borders.append(bool((work.train[0]["image"][:, :12] == 0).all()))
        assert work.preprocess is not None
        assert work.preprocess["resize"] == ("pad" if value == "true" else "stretch")
    assert borders == [False, True]  # 40 of 64 rows are the picture's own


def test_patients_in_two_parts_are_refused(capsys, tmp_path, pictures) -> None:
    from samaritan.data import load_manifest

    manifest = load_manifest(pictures)
    from dataclasses import replace

    cases = [
        replace(c, patient="same", split=("train", "val")[i % 2]) for i, c in enumerate(manifest)
    ]
    replace(manifest, cases=tuple(cases)).write(pictures / "leak.json")
    done = samaritan(
        capsys,
        "train",
        "-r",
        "toy_2d",
        "-d",
        pictures / "leak.json",
        "-o",
        tmp_path / "run",
        *SMALL,
    )
    assert done.code == 1
    assert "several parts" in done.err
    assert not (tmp_path / "run").exists()
