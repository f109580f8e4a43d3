"""Every layout in which weights are found loads to the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from samaritan.checkpoints import load_weights
from samaritan.checkpoints.huggingface import to_hugging_face
from samaritan.checkpoints.layouts import find_weights
from samaritan.errors import CheckpointError


def prefixed(state, prefix):
    return {prefix + key: value for key, value in state.items()}


LAYOUTS = {
    "bare": (lambda s: s, "bare state dict"),
    "model": (lambda s: {"model": s, "epoch": 3}, "model"),
    "model_state_dict": (lambda s: {"model_state_dict": s, "losses": [0.1]}, "model_state_dict"),
    "lightning": (
        lambda s: {"state_dict": prefixed(s, "model."), "pytorch-lightning_version": "2.2"},
        "state_dict + model.",
    ),
    "lightning sam_model": (
        lambda s: {"state_dict": prefixed(s, "sam_model.")},
        "state_dict + sam_model.",
    ),
    "ddp": (lambda s: prefixed(s, "module."), "module."),
    "ddp inside": (
        lambda s: {k.replace("image_encoder.", "image_encoder.module."): v for k, v in s.items()},
        "module.",
    ),
    "compiled": (lambda s: prefixed(s, "_orig_mod."), "_orig_mod."),
    "compiled ddp in training file": (
        lambda s: {"model_state_dict": prefixed(s, "module._orig_mod.")},
        "model_state_dict + _orig_mod. + module.",
    ),
    "hugging face": (
        lambda s: {to_hugging_face(k): v for k, v in s.items()},
        "Hugging Face SAM",
    ),
    "hugging face under lightning": (
        lambda s: {"state_dict": {f"model.{to_hugging_face(k)}": v for k, v in s.items()}},
        "state_dict + model. + Hugging Face SAM",
    ),
    "numpy arrays": (lambda s: {k: v.numpy() for k, v in s.items()}, "bare state dict"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_loads_to_the_same_weights(name, make, same):
    wrap, words = LAYOUTS[name]
    there, here = make(seed=1), make(seed=2)
    report = load_weights(here, wrap(there.state_dict()))
    assert same(here.state_dict(), there.state_dict())
    assert report.layout == words
    assert not report.missing
    assert not report.unexpected
    assert report.file is None
    assert len(report.loaded) == len(there.state_dict())


@pytest.mark.parametrize("name", sorted(set(LAYOUTS) - {"numpy arrays"}))
@pytest.mark.parametrize("legacy", [False, True])
def test_layout_loads_from_files_of_torch(name, legacy, make, same, tmp_path):
    wrap, words = LAYOUTS[name]
    there, here = make(seed=1), make(seed=2)
    file = tmp_path / "weights.pth"
    content = wrap(there.state_dict())
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    report = load_weights(here, file)
    assert same(here.state_dict(), there.state_dict())
    assert report.layout == words
    assert report.file == file
    assert len(report.sha256) == 64


def test_safetensors_load_bare_and_in_hugging_face_folders(make, same, tmp_path):
    there = make(seed=1)
    save_file(there.state_dict(), tmp_path / "plain.safetensors")
    here = make(seed=2)
    assert load_weights(here, tmp_path / "plain.safetensors").source == "plain"
    assert same(here.state_dict(), there.state_dict())

    folder = tmp_path / "sam-vit-tiny"
    folder.mkdir()
    state = {to_hugging_face(k): v for k, v in there.state_dict().items()}
    gaussian = "prompt_encoder.shared_embedding.positional_embedding"
    state["shared_image_embedding.positional_embedding"] = state[gaussian].clone()
    save_file(state, folder / "model.safetensors")
    here = make(seed=3)
    report = load_weights(here, folder)
    assert report.source == "sam-hf"
    assert report.quirks == ("window_padding",)
    assert same(here.state_dict(), there.state_dict())


def test_hugging_face_files_with_the_position_code_under_its_other_name_alone(make, same):
    there, here = make(seed=1), make(seed=2)
    state = {to_hugging_face(k): v for k, v in there.state_dict().items()}
    gaussian = "prompt_encoder.shared_embedding.positional_embedding"
    state["shared_image_embedding.positional_embedding"] = state.pop(gaussian)
    load_weights(here, state)
    assert same(here.state_dict(), there.state_dict())


def test_entries_that_are_no_weights_are_named(make):
    model = make()
    content = {"model": model.state_dict(), "optimizer": {"lr": 1.0}, "epoch": 3}
    assert find_weights(content).ignored == ("optimizer", "epoch")
    assert "optimizer, epoch" in str(load_weights(model, content))


def test_preprocessing_constants_among_weights_are_left_out_with_a_note(make):
    model = make()
    state = {**model.state_dict(), "pixel_mean": torch.zeros(3, 1, 1)}
    report = load_weights(model, state)
    assert report.unexpected == ("pixel_mean",)
    assert any("pixel_mean" in note for note in report.notes)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([1, 2], "an object 'list'"),
        (None, "nothing"),
        ({}, "no tensors among its 0 entries"),
        ({"epoch": 1, "loss": 0.5}, "'epoch', 'loss'"),
        ({"x": np.array(["a"])}, "array of <U1"),
    ],
)
def test_content_without_weights_says_what_it_is(content, text):
    with pytest.raises(CheckpointError, match=text):
        find_weights(content)
