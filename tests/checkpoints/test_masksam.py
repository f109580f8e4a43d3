"""MaskSAM's files and ours: official names, copies, the SAM inside, what learned alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from samaritan.adapt.inject import describe, insert_all
from samaritan.assembly import create_model
from samaritan.checkpoints import (
    load_model,
    load_weights,
    read_header,
    save_official,
    save_weights,
)
from samaritan.checkpoints.adapted import guess_blueprint
from samaritan.checkpoints.fitting import fit
from samaritan.checkpoints.masksam import creating, our_name, our_state, their_names
from samaritan.checkpoints.sources import find_source
from samaritan.errors import CheckpointError
from samaritan.models import Quirks
from samaritan.models.config import MASKSAM_QUIRKS, SAM_QUIRKS

GOLDEN = [
    ("masksam_acdc", "masksam_acdc", {}),
    ("masksam_synapse_t2", "masksam_synapse", {"frames": 2}),
    ("masksam_amos_t2", "masksam_amos", {"frames": 2}),
]


@pytest.fixture
def official(parity_dir):
    """Official names and shapes as tensors without memory."""

    def read(name):
        schema = json.loads((parity_dir / f"{name}.schema.json").read_text())
        return {key: torch.empty(shape, device="meta") for key, shape in schema.items()}

    return read


@pytest.mark.parametrize(("file", "name", "options"), GOLDEN)
def test_official_names_are_exactly_those_of_the_model(file, name, options, official):
    theirs = {key: tuple(v.shape) for key, v in our_state(official(file)).items()}
    with torch.device("meta"):  # ways to the finest grid are each held for themselves there
        model = create_model(name, **options)
    assert theirs == {key: tuple(v.shape) for key, v in model.state_dict().items()}


@pytest.mark.parametrize(("file", "name", "options"), GOLDEN)
def test_the_preset_is_told_from_shapes(file, name, options, official):
    shapes = {key: tuple(v.shape) for key, v in our_state(official(file)).items()}
    blueprint = guess_blueprint(shapes, "masksam")
    with torch.device("meta"):
        expected = create_model(name, compat="reference", **options).config
    assert blueprint.config == expected
    frames, classes = expected.mask_classes.frames, expected.mask_classes.num_classes
    call = f"create_model({name!r}, frames={frames}, num_classes={classes}, compat='reference')"
    assert creating(blueprint) == call


@pytest.mark.parametrize(("name", "missing"), [("masksam_acdc", 269), ("masksam_amos", 589)])
def test_what_is_missing_from_official_sam_is_what_learns(name, missing):
    with torch.device("meta"):
        model = create_model(name)
        sam = create_model("sam_vit_b" if name == "masksam_acdc" else "sam_vit_h")
    learns = {key for key, p in model.named_parameters() if p.requires_grad}
    assert set(model.state_dict()) - set(sam.state_dict()) == learns
    inside = [k for k in learns if not k.startswith(("stem", "generator", "mask_head"))]
    assert len(inside) == missing


def test_official_sam_starts_it():
    with torch.device("meta"):
        model, sam = create_model("masksam_acdc"), create_model("sam_vit_b")
    state = {key: torch.zeros(v.shape) for key, v in sam.state_dict().items()}
    fitted = fit(model, find_source(state), resize_positions=True)
    assert set(fitted.state) == set(state)
    assert set(fitted.fresh) == set(model.state_dict()) - set(state)
    assert fitted.left_out == fitted.resized == ()
    assert fitted.quirks == SAM_QUIRKS


def test_loading_sam_keeps_what_was_asked_for():
    model = create_model("masksam_tiny", compat="reference")
    load_weights(model, plain_of(model).state_dict())
    assert model.config.quirks == MASKSAM_QUIRKS


def plain_of(model, **changes):
    """A SAM of the same size with weights of its own."""
    config = replace(model.config, mask_classes=None, quirks=Quirks(**changes), name="plain")
    sam = create_model(config)
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return sam


def trained(**options):
    model = create_model("masksam_tiny", **options)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def same(a, b):
    volume = torch.randn(1, 1, a.own.frames, 32, 32)
    return torch.equal(a(volume).semantic, b(volume).semantic)


@pytest.mark.parametrize("compat", ["fixed", "reference"])
def test_slices_and_quirks_are_part_of_the_file(compat, tmp_path):
    model = trained(compat=compat, frames=5, num_classes=4, queries=6)
    path = save_weights(model, tmp_path / "model.safetensors")
    again, header = load_model(path)
    assert again.own.frames == header.config.mask_classes.frames == 5
    assert again.config == model.config
    assert same(model, again)


def test_what_learned_goes_alone_with_the_sam_that_it_changes(tmp_path):
    model = trained()
    sam = plain_of(model)
    load_weights(model, sam.state_dict())
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(key not in dict(sam.named_parameters()))
    base = save_weights(sam, tmp_path / "sam.safetensors")
    part = save_weights(model, tmp_path / "part.safetensors", only="trainable")
    assert read_header(part).holds == "trainable"
    again, _ = load_model(part, base=base)
    assert same(model, again)
    with pytest.raises(CheckpointError, match="Give those as well: base="):
        load_model(part)


def test_another_base_than_that_of_training_is_told(tmp_path, caplog):
    model, sams = trained(), [plain_of(trained()) for _ in range(2)]
    bases = [save_weights(sam, tmp_path / f"sam{i}.safetensors") for i, sam in enumerate(sams)]
    report = load_weights(model, bases[0])
    init = {"file": "sam0.safetensors", "sha256": report.sha256}
    part = tmp_path / "part.safetensors"
    save_weights(model, part, only="trainable", provenance={"init": init})
    load_model(part, base=bases[0])
    assert not caplog.records
    load_model(part, base=bases[1])
    assert "was trained on sam0.safetensors" in caplog.text


def test_a_file_for_other_slices_is_refused_by_name(tmp_path):
    path = save_weights(trained(frames=5), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"slice_embedding: 1 x 5 x 48, expected 1 x 3 x 48"):
        load_weights(create_model("masksam_tiny"), path)


def test_copies_that_differ_are_refused():
    conv = torch.zeros(3, 3, 3, 3, 3)
    state = {
        "first_conv.0.convs.0.conv.weight": conv,
        "first_conv.0.convs.0.all_modules.0.weight": conv,
    }
    assert list(our_state(state)) == ["stem.0.0.weight"]
    state["first_conv.0.convs.0.all_modules.0.weight"] = conv + 1
    with pytest.raises(CheckpointError, match=r"'stem\.0\.0\.weight' under several names"):
        our_state(state)


@pytest.mark.parametrize(("file", "name", "options"), GOLDEN)
def test_official_names_are_written_with_all_copies(file, name, options, official, parity_dir):
    with torch.device("meta"):
        model = create_model(name, compat="reference", **options)
    names = their_names(model.state_dict(), model.own)
    assert {theirs for each in names.values() for theirs in each} == set(official(file))
    aliases = json.loads((parity_dir / f"{file}.aliases.json").read_text())
    of = {theirs: each for each in names.values() for theirs in each}
    assert all(first in of[copy] for copy, first in aliases.items())


def like_acdc(**options):
    return trained(
        depth=4, global_blocks=(0, 1, 2, 3), generator=(16, 16, 16, 16), frames=2, **options
    )


def test_what_was_trained_is_written_as_published_and_read_back(tmp_path, caplog):
    model = like_acdc(compat="reference", shared_skips=True)
    path = save_official(model, tmp_path / "checkpoint_final.pth")
    assert not caplog.records
    again = create_model(model.config)
    insert_all(again, describe(model))
    report = load_weights(again, path)
    assert (report.source, report.layout) == ("masksam", "network_weights + sam_model.")
    assert same(model, again)
    save_official(like_acdc(shared_skips=True), path)
    assert "will give other answers" in caplog.text


def test_a_model_unlike_the_published_one_is_not_written_as_such(tmp_path):
    with pytest.raises(CheckpointError, match="cannot be written in the layout"):
        save_official(like_acdc(), tmp_path / "own_ways.pth")
    with pytest.raises(CheckpointError, match="cannot be written in the layout"):
        save_official(trained(), tmp_path / "two_stages.pth")


def test_leaves_of_adapters_are_renamed_only_there():
    assert our_name("sam_model.image_encoder.neck.1.weight") == "image_encoder.neck.1.weight"
    place = "mask_decoder.transformer.layers.1.mlp.adapters.depth_mlp"
    theirs = "sam_model.mask_decoder.transformer.layers.1.MLP_Queries_Adapter.T_fc2.bias"
    assert our_name(theirs) == f"{place}.depth_out.bias"
