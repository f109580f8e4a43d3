"""Published systems are told apart by their official names, and get the quirks that they need."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from samaritan.checkpoints import load_model, load_weights
from samaritan.checkpoints.adapted import TABLES
from samaritan.checkpoints.systems import FOREIGN, creating, guess_config, recognise
from samaritan.checkpoints.volumes import SYSTEMS as VOLUMES
from samaritan.errors import CheckpointError
from samaritan.models import create_model, get_config
from samaritan.models.config import SAM_QUIRKS, SAMMED3D_QUIRKS


@pytest.fixture
def schema(parity_dir):
    """The names and shapes of an official checkpoint."""

    def read(name):
        table = json.loads((parity_dir / f"{name}.schema.json").read_text())
        return {key: tuple(shape) for key, shape in table.items()}

    return read


def zeros(shapes):
    """Weights that take memory only when they are copied."""
    return {key: torch.zeros(shape, dtype=torch.float16) for key, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("sam_vit_b", "sam"),
        ("sammed3d_vit_b_ori", "sam-med3d"),
        ("sammed2d_vit_b", "sam-med2d"),
        ("samed_lora", "samed-lora"),
        ("samed_s_lora", "samed-s-lora"),
        ("msam_vit_b_ori", "m-sam"),
        ("masksam_acdc", "masksam"),
        ("masksam_synapse_t2", "masksam"),
    ],
)
def test_official_names_are_recognised(name, system, schema):
    assert recognise(schema(name)).name == system


@pytest.mark.parametrize(
    ("key", "system"),
    [
        ("image_encoder.trunk.blocks.0.attn.qkv.weight", "sam2"),
        ("mask_decoder.hf_token.weight", "sam-hq"),
        ("image_encoder.layers.0.blocks.0.conv1.c.weight", "mobile-sam"),
        ("layer1.0.weight", "unknown"),
    ],
)
def test_further_systems_are_known_by_one_name(key, system):
    found = recognise({key: (1,)})
    assert found.name == system
    assert found.why_not


@pytest.mark.parametrize(
    ("keys", "system"),
    [
        (("lora_sam.sam.image_encoder.pos_embed",), "m-sam"),
        (("prompt_encoder.mask_downscaling.9.weight",), "neurosam3d"),
        (("image_encoder.model.cls_token",), "neurosam3d-dinov2"),
        (("image_encoder.trunk.pos_embed_window",), "neurosam3d-hiera"),
        (("backbone.blocks.0.norm1.weight",), "dino"),
    ],
)
def test_systems_that_differ_in_one_part_are_known_by_it(keys, system):
    fine = ("prompt_encoder.mask_downscaling.9.weight",) if "neuro" in system else ()
    found = recognise({key: (1,) for key in (*keys, *fine)})
    assert found.name == system
    assert not found.why_not


def test_every_foreign_system_is_loaded_by_a_table_or_says_why_not():
    assert all(system.marks for system in FOREIGN)
    known = {system.name for system in FOREIGN if not system.why_not}
    assert known == set(TABLES) | VOLUMES | {"masksam"}
    assert all(s.quirks == SAM_QUIRKS for s in FOREIGN if s.name in TABLES)


@pytest.mark.slow
def test_official_sam_loads_strictly_and_switches_on_window_padding(schema):
    model = create_model("sam_vit_b")
    report = load_weights(model, zeros(schema("sam_vit_b")))
    assert (report.source, report.quirks) == ("sam", ("window_padding",))
    assert len(report.loaded) == 314
    assert model.config.quirks.window_padding
    assert model.image_encoder.blocks[0].attn.quirks.window_padding


@pytest.mark.slow
def test_official_sammed3d_loads_strictly_from_its_training_file(schema, tmp_path):
    torch.save({"model_state_dict": zeros(schema("sammed3d_vit_b_ori"))}, tmp_path / "turbo.pth")
    model, header = load_model(tmp_path / "turbo.pth")
    assert model.config == replace(get_config("sammed3d_vit_b_ori"), quirks=model.config.quirks)
    assert model.config.quirks == header.config.quirks
    assert model.config.quirks == SAMMED3D_QUIRKS
    assert header.provenance["source"] == "sam-med3d"
    assert header.provenance["file"] == "turbo.pth"
    assert len(model.state_dict()) == 324


@pytest.mark.slow
def test_sammed3d_with_boxes_loads_into_a_model_with_boxes(schema):
    shapes = schema("sammed3d_vit_b_ori")
    for i in (2, 3):
        shapes[f"prompt_encoder.point_embeddings.{i}.weight"] = (1, 384)
    assert recognise(shapes).name == "sam-med3d-boxes"
    model = create_model("sammed3d_vit_b_ori", num_point_embeddings=4)
    report = load_weights(model, zeros(shapes))
    assert report.source == "sam-med3d-boxes"
    assert len(report.quirks) == 3


@pytest.mark.parametrize("name", ["sam_vit_b", "sam_vit_l", "sam_vit_h", "sammed3d_vit_h"])
def test_sizes_are_told_from_shapes(name):
    with torch.device("meta"):
        model = create_model(name)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert guess_config(shapes) == get_config(name)
    assert recognise(shapes).name == ("sam" if name.startswith("sam_") else "sam-med3d")


def test_input_size_and_tokens_are_told_from_shapes(make):
    model = make("sam3d_tiny", image_size=(32, 40, 48), num_point_embeddings=2, num_mask_tokens=6)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert guess_config(shapes) == model.config
    call = creating(model.config)
    assert call.startswith("create_model('sam3d_tiny', image_size=(32, 40, 48), num_point_")


def test_load_model_builds_what_the_weights_tell(make, same, tmp_path):
    there = make("sam3d_tiny", seed=1, image_size=40, num_point_embeddings=2)
    torch.save(there.state_dict(), tmp_path / "w.pth")
    here, header = load_model(tmp_path / "w.pth")
    assert here.config == there.config == header.config
    assert same(here.state_dict(), there.state_dict())
    assert not here.training
    smaller, _ = load_model(tmp_path / "w.pth", image_size=32)
    assert smaller.config.image_size == (32, 32, 32)


def test_load_model_needs_a_known_size(make, tmp_path):
    torch.save(make(width=60).state_dict(), tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="does not tell what model"):
        load_model(tmp_path / "w.pth")


def test_load_model_refuses_foreign_systems_by_name(tmp_path):
    torch.save({"mask_decoder.hf_token.weight": torch.zeros(4, 8)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth holds SAM-HQ"):
        load_model(tmp_path / "other.pth")
