"""Runs on a frozen SAM: what stays, what moves, what is written, and that no other file is needed later."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train.patch_toys import planned_toy

from samaritan.assembly import create_model
from samaritan.checkpoints import load_model, read_header, save_weights
from samaritan.infer.labeller import VolumeLabeller
from samaritan.io import read
from samaritan.io.files import sha256_of
from samaritan.models import Quirks
from samaritan.recipes import get_recipe, resolve
from samaritan.train.beginning import build_model
from samaritan.train.optim import build_optimizer
from samaritan.train.runs import prepare, train

OPTIONS = (
    "{image_size: 128, width: 24, depth: 4, heads: 2, global_blocks: [0, 1, 2, 3], window_size: 3, "
    "generator: [8, 8, 8, 8], embed_dim: 64, pe_features: 32, decoder_mlp: 32, queries: 4, start: published}"
)
"""Of a MaskSAM for ACDC, with everything in its place, that takes moments."""


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    return planned_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def sam(planned, tmp_path_factory) -> Path:
    """A plain SAM of the same sizes, with weights of its own."""
    config = build_model(recipe("model.num_classes=2", "model.options.frames=2")).config
    torch.manual_seed(1)
    plain = create_model(replace(config, mask_classes=None, quirks=Quirks(), name="plain"))
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return save_weights(plain, tmp_path_factory.mktemp("sam") / "sam.safetensors")


def recipe(*settings: str):
    return resolve(
        "masksam_acdc",
        settings=[
            f"model.options={OPTIONS}", "data.patch_size=[2, 32, 32]", "data.per_epoch=4",
            "data.by_patient=false", "matching.points=64", "run.epochs=1", "run.log_every=1",
            "validation.batches=1", "validation.pictures=0", "validation.finish=false", *settings,
        ],
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(planned, sam, tmp_path_factory):
    """The folder of a run of two updates, and the names of what learned in it."""
    folder = tmp_path_factory.mktemp("run") / "fold_0"
    chosen = recipe(f"model.init={sam}", "optim.lr=0.01")
    model = prepare(chosen, planned)[1].model  # the same that the run begins with
    train(chosen, planned, folder, device="cpu")
    learns = {k for k, p in model.named_parameters() if p.requires_grad}
    return folder, model.state_dict(), learns


def test_the_sam_stays_bit_for_bit_and_all_that_was_added_moves(done, sam) -> None:
    folder, before, learns = done
    plain, after = load_file(sam), load_file(folder / "last.safetensors")
    for key, value in plain.items():
        assert torch.equal(after[key], value), key
    assert set(after) - set(plain) == learns
    still = {key for key in learns if torch.equal(after[key], before[key])}
    before_norms = {
        key for key in still if key.startswith(("stem.", "generator.")) and "bias" in key
    }
    assert still == before_norms  # whose norm takes them away again


def test_what_learned_is_kept_alone_with_the_sam_it_goes_on(done, sam, caplog) -> None:
    folder, _, learns = done
    alone = folder / "last.adapted.safetensors"
    assert set(load_file(alone)) == learns
    assert read_header(alone).holds == "trainable"
    init = read_header(alone).provenance["init"]
    assert Path(init["file"]).name == "sam.safetensors"
    assert init["sha256"] == sha256_of(sam)
    joined, _ = load_model(alone, base=sam)
    whole, _ = load_model(folder / "last.safetensors")
    assert not caplog.records
    for key, value in whole.state_dict().items():
        assert torch.equal(joined.state_dict()[key], value), key


def test_whole_weights_label_without_the_sam_a_gpu_or_nnunet(
    done, planned, tmp_path, monkeypatch
) -> None:
    for package in (
        "nnunetv2",
        "batchgenerators",
        "batchgeneratorsv2",
        "blosc2",
        "monai",
        "torchvision",
    ):
        monkeypatch.setitem(sys.modules, package, None)  # importing one fails
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    alone = tmp_path / "moved.safetensors"
    alone.write_bytes((done[0] / "last.safetensors").read_bytes())
    scan = read(planned.raw.cases.path(planned.raw.cases.cases[0].images[0]))
    found = VolumeLabeller.from_checkpoints([alone], mirror=False).labels(scan)
    assert found.grid == scan.grid
    assert found.names == {1: "disc", 2: "square"}


def test_published_optimisers_are_built() -> None:
    for name in ("acdc", "synapse"):
        chosen = get_recipe(f"masksam_{name}")
        made = build_optimizer(torch.nn.Linear(2, 2), chosen.optim, chosen.compat)
        assert isinstance(made, torch.optim.SGD)
        assert (made.defaults["momentum"], made.defaults["nesterov"]) == (0.99, True)
        assert made.param_groups[0]["weight_decay"] == 3e-5
        assert chosen.run.clip_norm == 12.0
    chosen = get_recipe("masksam_amos")
    made = build_optimizer(torch.nn.Linear(2, 2), chosen.optim, chosen.compat)
    assert isinstance(made, torch.optim.AdamW)
    assert made.param_groups[0]["eps"] == 1e-4
    assert (made.param_groups[0]["lr"], made.param_groups[0]["weight_decay"]) == (1e-3, 3e-5)
