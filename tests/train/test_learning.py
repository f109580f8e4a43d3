"""Training learns: organs of phantoms that it has not seen, in a minute on two cores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from samaritan.data import Case, Group, Manifest
from samaritan.phantoms import phantom
from samaritan.recipes import resolve
from samaritan.train.beginning import build_model
from samaritan.train.log import read_log
from samaritan.train.runs import train

ORGANS = {1: "liver", 2: "spleen", 3: "left kidney", 4: "right kidney"}


def phantom_slices(root: Path, patients: int) -> Manifest:
    """Axial slices of phantoms, windowed to 8 bits, with the labels of four organs."""
    cases = []
    for patient in range(patients):
        made = phantom("ct", shape=(64, 64, 24), spacing_mm=(6, 6, 12), seed=patient)
        values = {name: value for value, name in made.labels.names.items()}
        for k in range(6, 20, 2):
            stem = f"p{patient:02d}_{k:02d}"
            image = np.clip((made.image.array[:, :, k].T + 200) / 500 * 255, 0, 255)
            found = made.labels.array[:, :, k].T
            label = sum(value * (found == values[name]) for value, name in ORGANS.items())
            Image.fromarray(image.astype(np.uint8)).save(root / f"{stem}.png")
            Image.fromarray(np.asarray(label, np.uint8)).save(root / f"{stem}_label.png")
            part = "train" if patient % 3 else "val"
            cases.append(
                Case(
                    stem, (f"{stem}.png",), (f"{stem}_label.png",),
                    modality="CT", patient=str(patient), group="phantoms", split=part,
                )
            )  # fmt: skip
    return Manifest(root, tuple(cases), {"phantoms": Group(labels=ORGANS)})


def test_the_small_samed_is_as_small_as_it_says() -> None:
    model = build_model(resolve("samed_small", settings=["model.num_classes=4"]))
    assert 2_000_000 < sum(p.numel() for p in model.parameters()) < 2_200_000
    with torch.no_grad():
        out = model(torch.zeros(1, 3, 160, 160))
    assert out.low_res_logits.shape == (1, 5, 80, 80)


@pytest.mark.slow
def test_a_small_model_learns_organs_without_prompts(tmp_path) -> None:
    (tmp_path / "slices").mkdir()
    manifest = phantom_slices(tmp_path / "slices", 9)
    recipe = resolve("toy_2d", settings=["run.epochs=30", "validation.pictures=1"])
    result = train(recipe, manifest, tmp_path / "run", device="cpu")
    lines = read_log(tmp_path / "run/log.jsonl")
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < 0.25 * losses[0]
    assert result["best"] > 0.5
    last = [line for line in lines if line["kind"] == "validation"][-1]
    assert {f"class_{name}" for name in ORGANS.values()} <= set(last)
