"""Weights that a run begins with: 2D ones for a 3D model, an image encoder alone, what is told of them."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file
from train.volume_toys import folder

from samaritan.assembly import create_model
from samaritan.checkpoints.loading import load_model
from samaritan.data import load_manifest
from samaritan.errors import CheckpointError
from samaritan.recipes import resolve
from samaritan.train.beginning import begin, build_model
from samaritan.train.runs import train

PATCH = "image_encoder.patch_embed.proj.weight"


def recipe_of(*settings):
    return resolve("toy_3d", settings=["model.image_size=16", *settings])


def weights(tmp_path, name, **options):
    torch.manual_seed(1)
    model = create_model(name, **options)
    torch.save(model.state_dict(), tmp_path / f"{name}.pth")
    return model, tmp_path / f"{name}.pth"


def test_without_weights_a_model_is_random_as_its_seed_says() -> None:
    model, init = begin(recipe_of())
    assert init is None
    assert torch.equal(model.state_dict()[PATCH], build_model(recipe_of()).state_dict()[PATCH])


def test_weights_of_a_2d_sam_start_a_3d_model(tmp_path, caplog) -> None:
    flat, file = weights(tmp_path, "sam_tiny", patch_size=[4, 4])
    with caplog.at_level(logging.WARNING):
        model, init = begin(recipe_of(f"model.init={file}"))
    kernel = flat.state_dict()[PATCH].sum(dim=1, keepdim=True)
    assert torch.allclose(model.state_dict()[PATCH].sum(dim=2), kernel, atol=1e-6)
    assert "2D weights, spread over the third axis" in caplog.text
    assert init["file"] == str(file)
    assert len(init["sha256"]) == 64
    _, deep = weights(tmp_path, "sam3d_tiny", image_size=16, patch_size=[4, 4, 4])
    caplog.clear()
    begin(recipe_of(f"model.init={deep}"))
    assert caplog.text == ""


def test_2d_weights_of_another_width_are_refused_before_volumes_are_read(tmp_path) -> None:
    _, file = weights(tmp_path, "sam_tiny", width=96)
    manifest = load_manifest(folder(tmp_path, 2))
    seen = []
    with pytest.raises(CheckpointError, match="blocks of width 96"):
        train(recipe_of(f"model.init={file}"), manifest, tmp_path / "run", device="cpu",
              loaded=lambda *told: seen.append(told))  # fmt: skip
    assert seen == []
    assert not (tmp_path / "run").exists()


def teacher(tmp_path):
    """A file as 3DINO publishes it: the backbone alone, under "teacher", in blocks of chunks."""
    model = create_model("neurosam3d_dinov2_tiny")
    torch.manual_seed(3)
    state = {}
    for key, value in model.state_dict().items():
        if key.startswith("image_encoder.") and ".neck." not in key:
            state[key] = torch.randn_like(value)
    from samaritan.checkpoints.volumes import their_names

    names = their_names("neurosam3d-dinov2", model.state_dict(), depth=model.config.depth)
    held = {
        "backbone." + names[key].removeprefix("image_encoder.model."): value
        for key, value in state.items()
    }
    torch.save({"teacher": held}, tmp_path / "teacher.pth")
    return state, tmp_path / "teacher.pth"


def test_a_teacher_starts_the_image_encoder_and_its_licence_stays(tmp_path, caplog) -> None:
    known, file = teacher(tmp_path)
    settings = [
        "model.name=neurosam3d_dinov2_tiny", "model.image_size=null", "model.options={patch_size: [8, 8, 8]}",
        "run.max_iterations=1", "data.batch_size=1", "clicks.count=[1, 1]", "optim.lr=1e-9",
        "validation.batches=1", "validation.clicks=1", "validation.pictures=0", "data.per_epoch=2",
    ]  # fmt: skip
    recipe = recipe_of(*settings, f"model.init={file}")
    manifest = load_manifest(folder(tmp_path, 2))
    with caplog.at_level(logging.WARNING):
        train(recipe, manifest, tmp_path / "run", device="cpu")
    assert "is under CC-BY-NC-ND-4.0" in caplog.text
    held = load_file(tmp_path / "run/last.safetensors")
    assert all(torch.allclose(held[key], value, atol=1e-5) for key, value in known.items())
    _, header = load_model(tmp_path / "run/last.safetensors")
    assert header.licence == "CC-BY-NC-ND-4.0"
    assert header.provenance["init"]["file"] == str(file)
    file.unlink()
    more = recipe.model_copy(update={"run": recipe.run.model_copy(update={"max_iterations": 2})})
    train(more, manifest, tmp_path / "run", device="cpu", resume=True)
    _, header = load_model(tmp_path / "run/last.safetensors")
    assert header.licence == "CC-BY-NC-ND-4.0"
    assert json.loads((tmp_path / "run/init.json").read_text())["source"] == "dino"
