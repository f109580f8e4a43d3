"""Files of NeuroSAM3D, 3DINO and M-SAM in their own layouts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import partial

import pytest
import torch

from samaritan.adapt import adapters_of, describe
from samaritan.assembly import create_model
from samaritan.checkpoints import (
    inspect,
    load_model,
    load_weights,
    save_official,
    save_weights,
)
from samaritan.checkpoints.adapted import guess_blueprint
from samaritan.checkpoints.systems import guess_config, recognise
from samaritan.checkpoints.volumes import our_names
from samaritan.errors import CheckpointError
from samaritan.models import get_config
from samaritan.models.config import (
    NEUROSAM3D_DINOV2_QUIRKS,
    NEUROSAM3D_HIERA_QUIRKS,
    NEUROSAM3D_QUIRKS,
    SAMMED3D_QUIRKS,
    Quirks,
)

from .conftest import randomise

MEA = "mask_decoder.fuse.adapters.mask_enhanced."


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def shapes_of(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def dino_names(state, *, chunks=4, depth=24):
    """Ours -> theirs, blocks in chunks as it is trained or without."""

    def rename(key):
        if not key.startswith("image_encoder.") or ".neck." in key:
            return key
        key = key.replace("image_encoder.", "image_encoder.model.", 1)
        if chunks:
            key = re.sub(
                r"blocks\.(\d+)", lambda m: f"blocks.{int(m[1]) * chunks // depth}.{m[1]}", key
            )
        return re.sub(r"mlp\.lin([12])", r"mlp.fc\1", key)

    return {rename(key): value for key, value in state.items()}


def hiera_names(state):
    def rename(key):
        if not key.startswith("image_encoder."):
            return key
        key = re.sub(r"image_encoder\.neck\.(\d)", r"image_encoder.neck.convs.\1.conv", key)
        if ".neck." not in key:
            key = key.replace("image_encoder.", "image_encoder.trunk.", 1)
        return key.replace("mlp.lin1", "mlp.layers.0").replace("mlp.lin2", "mlp.layers.1")

    return {rename(key): value for key, value in state.items()}


def msam_names(state):
    """Ours -> theirs, as their program saves it."""
    theirs = {}
    for key, value in state.items():
        if key.startswith(MEA):
            name = key.removeprefix(MEA).replace("attend.attn.", "attend.")
            name = re.sub(r"^blocks\.(\d+)\.image\.mlp", r"bidirectional_attentions.\1.mlp1", name)
            name = re.sub(r"^blocks\.(\d+)\.prompt\.mlp", r"bidirectional_attentions.\1.mlp2", name)
            name = re.sub(r"^blocks\.(\d+)\.(\w+)\.", r"bidirectional_attentions.\1.\2_", name)
            name = re.sub(r"^attend", "multi_head_self_attention", name)
            name = name.replace("_attend.", "_multiheadattn.")
            for ours, old in (("norm_mask", 2), ("norm_image", 3), ("unused_norm", 4)):
                name = re.sub(rf"^{ours}\b", f"add_norm{old}", name)
            theirs["bidatt." + re.sub(r"^norm\.", "add_norm.", name)] = value
            continue
        key = key.replace(".attn.qkv.weight", ".attn.qkv.qkv.weight")
        key = key.replace(".attn.qkv.bias", ".attn.qkv.qkv.bias")
        key = re.sub(r"\.adapters\.lora\.([ab]_[qv])$", r".linear_\1.weight", key)
        theirs[f"lora_sam.sam.{key}"] = value
    return theirs


# -- NeuroSAM3D ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "theirs", "system", "quirks"),
    [
        ("neurosam3d_vit_b", dict, "neurosam3d", NEUROSAM3D_QUIRKS),
        ("neurosam3d_vit_l", dict, "neurosam3d", NEUROSAM3D_QUIRKS),
        ("neurosam3d_dinov2", dino_names, "neurosam3d-dinov2", NEUROSAM3D_DINOV2_QUIRKS),
        ("neurosam3d_hiera", hiera_names, "neurosam3d-hiera", NEUROSAM3D_HIERA_QUIRKS),
    ],
)
def test_names_of_neurosam3d_are_recognised_and_read(name, theirs, system, quirks):
    state = on_meta(name).state_dict()
    official = theirs(state)
    found = recognise(shapes_of(official))
    assert (found.name, found.quirks) == (system, quirks)
    assert not found.why_not
    ours = our_names(found.name, official)
    assert list(ours) == list(state)
    assert guess_config(shapes_of(ours)) == get_config(name)
    assert "image_encoder.model.blocks.3.23.mlp.fc2.bias" in official or "dinov2" not in name


def test_the_size_of_the_input_is_told_from_the_weights():
    for size in (112, 128):
        state = on_meta("neurosam3d_vit_b_ori", image_size=size).state_dict()
        assert guess_config(shapes_of(state)).image_size == (size, size, size)
    state = on_meta("neurosam3d_dinov2", image_size=96).state_dict()
    assert guess_config(shapes_of(state)).image_size == (96, 96, 96)


FINE = {"image_size": (64, 64, 64), "patch_size": (16, 16, 16), "mask_steps": 4}
DINO_FINE = replace(get_config("neurosam3d_dinov2_tiny"), **FINE)
VIT_FINE = replace(get_config("neurosam3d_tiny"), **FINE)
HIERA_FINE = replace(
    get_config("neurosam3d_hiera_tiny"), stages=(1, 1, 1, 1), stage_windows=(4, 6, 2, 3), **FINE
)


@pytest.mark.parametrize(
    ("config", "theirs", "system", "quirks"),
    [
        (DINO_FINE, partial(dino_names, chunks=2, depth=2), "dinov2", NEUROSAM3D_DINOV2_QUIRKS),
        (HIERA_FINE, hiera_names, "hiera", NEUROSAM3D_HIERA_QUIRKS),
    ],
)
def test_a_lightning_file_comes_back(config, theirs, system, quirks, same, tmp_path):
    model = randomise(create_model(config), 1)
    content = {
        "state_dict": {f"model.{key}": value for key, value in theirs(model.state_dict()).items()},
        "epoch": 3,
        "hyper_parameters": {"model_type": "any"},
    }
    torch.save(content, tmp_path / "last.ckpt")
    other = create_model(config)
    report = load_weights(other, tmp_path / "last.ckpt")
    assert report.layout == "state_dict + model."
    assert report.source == f"neurosam3d-{system}"
    assert other.config.quirks == quirks
    assert same(other.state_dict(), model.state_dict())


def test_weights_for_another_encoder_are_told(tmp_path):
    shapes = shapes_of(dino_names(on_meta("neurosam3d_dinov2_tiny").state_dict(), depth=2))
    shapes["prompt_encoder.mask_downscaling.9.weight"] = (48, 16, 1, 1, 1)
    weights = {key: torch.zeros(shape) for key, shape in shapes.items()}
    with pytest.raises(CheckpointError, match=r"'dinov2'; that of 'sam3d_tiny' is 'vit'.*_dinov2'"):
        load_weights(create_model("sam3d_tiny"), weights)


@pytest.mark.slow
def test_sammed3d_does_not_fit_neurosam3d_and_the_error_says_what_it_is(parity_dir):
    schema = json.loads((parity_dir / "sammed3d_vit_b_ori.schema.json").read_text())
    weights = {k: torch.zeros(shape, dtype=torch.float16) for k, shape in schema.items()}
    with pytest.raises(CheckpointError, match=r"use create_model\('sammed3d_vit_b_ori'\)"):
        load_weights(on_meta("neurosam3d_vit_b_ori"), weights)


# -- 3DINO -----------------------------------------------------------------------------------------


def teacher(model, *, chunks=2, prefix="backbone."):
    names = dino_names(model.state_dict(), chunks=chunks, depth=2)
    own = {k: v for k, v in names.items() if k.startswith("image_encoder.model.")}
    return {k.replace("image_encoder.model.", prefix): v for k, v in own.items()}


def test_the_backbone_of_3dino_has_343_tensors():
    state = on_meta("neurosam3d_dinov2").state_dict()
    backbone = {k for k in dino_names(state) if k.startswith("image_encoder.model.")}
    assert len([k for k in backbone if not k.endswith("mask_token")]) == 342
    assert len(backbone) == 343


@pytest.mark.parametrize("prefix", ["backbone.", "module.backbone.", ""])
@pytest.mark.parametrize("chunks", [0, 2])
def test_a_teacher_fills_the_image_encoder_and_nothing_else(prefix, chunks, tmp_path):
    model = randomise(create_model("neurosam3d_dinov2_tiny"), 1)
    other = randomise(create_model("neurosam3d_dinov2_tiny"), 2)
    other.set_quirks(Quirks(mask_corner=True))
    before = {k: v.clone() for k, v in other.state_dict().items()}
    weights = teacher(model, chunks=chunks, prefix=prefix)
    heads = {f"{prefix.replace('backbone.', '')}dino_head.mlp.0.weight": torch.zeros(3, 3)}
    torch.save({"teacher": {**weights, **heads}, "iteration": 9}, tmp_path / "teacher.pth")
    report = load_weights(other, tmp_path / "teacher.pth")
    assert report.source == "dino"
    assert report.licence == "CC-BY-NC-ND-4.0"
    assert report.quirks == ("mask_corner", "position_scale")
    assert report.unexpected == ("image_encoder.dino_head.mlp.0.weight",)
    assert any("not for commercial use" in note for note in report.notes)
    assert any("image encoder alone" in note for note in report.notes)
    assert len(report.loaded) == len(weights)
    for key, value in other.state_dict().items():
        taken = key.startswith("image_encoder.") and ".neck." not in key
        assert torch.equal(value, (model.state_dict() if taken else before)[key])


def test_a_teacher_must_be_whole():
    model = create_model("neurosam3d_dinov2_tiny")
    weights = teacher(model)
    weights.pop("backbone.blocks.1.1.norm2.weight")
    with pytest.raises(CheckpointError, match=r"1 missing[^:]*:\s+image_encoder\.blocks\.1\.norm2"):
        load_weights(model, {"teacher": weights})
    with pytest.raises(
        CheckpointError, match=r"a DINO backbone \(an image encoder alone\), whose image encoder"
    ):
        load_weights(create_model("sam3d_tiny"), {"teacher": weights})


def test_positions_of_a_teacher_are_stretched_to_the_grid():
    small = create_model("neurosam3d_dinov2_tiny")
    large = create_model("neurosam3d_dinov2_tiny", image_size=48)
    report = load_weights(large, {"teacher": teacher(small)})
    assert report.resized == ("image_encoder.pos_embed: (1, 65, 48) -> (1, 217, 48)",)
    load_weights(small, {"teacher": teacher(small)})  # its quirk, on the fly
    image = torch.randn(1, 1, 48, 48, 48)
    with torch.no_grad():
        pairs = zip(
            small.image_encoder.features(image), large.image_encoder.features(image), strict=True
        )
        for ours, theirs in pairs:
            torch.testing.assert_close(ours, theirs)


def test_a_teacher_tells_its_model_but_cannot_segment(tmp_path):
    torch.save({"teacher": teacher(create_model("neurosam3d_dinov2_tiny"))}, tmp_path / "t.pth")
    found = inspect(tmp_path / "t.pth")
    assert found.ok
    assert (found.model, found.licence) == ("neurosam3d_dinov2_tiny", "CC-BY-NC-ND-4.0")
    with pytest.raises(CheckpointError, match="no mask decoder, so nothing can be segmented"):
        load_model(tmp_path / "t.pth")


# -- M-SAM -----------------------------------------------------------------------------------------


def test_official_names_of_msam_are_461_and_read_without_rest():
    state = on_meta("msam_vit_b_ori").state_dict()
    official = msam_names(state)
    assert len(official) == 461
    assert sum(key.startswith("bidatt.") for key in official) == 89
    assert recognise(shapes_of(official)).name == "m-sam"
    assert list(our_names("m-sam", official)) == list(state)


def test_the_golden_names_are_read_as_well(parity_dir):
    schema = json.loads((parity_dir / "msam_vit_b_ori.schema.json").read_text())
    ours = our_names("m-sam", schema)
    own = shapes_of(on_meta("msam_vit_b_ori").state_dict())
    assert {k: tuple(v) for k, v in ours.items()} == {k: own[k] for k in ours}
    assert len(own) - len(ours) == 48
    blueprint = guess_blueprint({k: tuple(v) for k, v in ours.items()}, "m-sam")
    assert blueprint.config == get_config("sammed3d_vit_b_ori").__class__.from_dict(
        {**get_config("sammed3d_vit_b_ori").to_dict(), "name": "msam_vit_b_ori"}
    )


def test_a_training_file_of_msam_comes_back(same, tmp_path):
    model = randomise(create_model("msam_tiny", rank=2, attention_heads=3), 1)
    content = {"model_state_dict": msam_names(model.state_dict()), "epoch": 2, "losses": [0.5]}
    torch.save(content, tmp_path / "sam_model_dice_best.pth")
    again, header = load_model(tmp_path / "sam_model_dice_best.pth")
    assert same(again.state_dict(), model.state_dict())
    assert again.config.name == "msam_tiny"
    assert again.config.quirks == SAMMED3D_QUIRKS
    assert header.adapters == describe(again) == describe(model)
    assert header.provenance["source"] == "m-sam"
    learning = {k for k, p in again.named_parameters() if p.requires_grad}
    assert not any(k.startswith("image_encoder.") and ".adapters." not in k for k in learning)
    plain, _ = load_model(tmp_path / "sam_model_dice_best.pth", adapters=False)
    assert adapters_of(plain) == ()
    assert inspect(tmp_path / "sam_model_dice_best.pth").ok


def test_msam_starts_from_sammed3d_with_fresh_adapters():
    model = randomise(create_model("msam_tiny", num_point_embeddings=2), 1)
    base = randomise(create_model("sam3d_tiny", num_point_embeddings=2), 2).state_dict()
    report = load_weights(model, base)
    assert set(report.missing) == {k for k in model.state_dict() if ".adapters." in k}
    assert torch.equal(
        model.state_dict()["image_encoder.pos_embed"], base["image_encoder.pos_embed"]
    )


def test_plain_weights_with_the_adapter_alone_leave_lora_fresh():
    model = randomise(create_model("msam_tiny"), 1)
    weights = {k: v for k, v in model.state_dict().items() if ".lora." not in k}
    other = create_model("msam_tiny")
    report = load_weights(other, {k.replace(MEA, MEA): v for k, v in weights.items()})
    assert all(".adapters.lora." in key for key in report.missing)


def test_an_msam_file_for_a_plain_model_says_what_it_is():
    theirs = msam_names(create_model("msam_tiny").state_dict())
    with pytest.raises(
        CheckpointError, match=r"It holds M-SAM.*create_model\('msam_tiny'"
    ) as caught:
        load_weights(create_model("sam3d_tiny"), theirs)
    assert "drop_adapters=True" in str(caught.value)
    report = load_weights(create_model("sam3d_tiny"), theirs, drop_adapters=True)
    assert len(report.unexpected) == 89 + 2 * 4


def test_two_names_for_one_tensor_are_refused():
    theirs = msam_names(create_model("msam_tiny").state_dict())
    theirs["image_encoder.pos_embed"] = torch.zeros(1)
    with pytest.raises(CheckpointError, match="under two names"):
        load_weights(create_model("msam_tiny"), theirs)


@pytest.mark.parametrize("name", ["msam_tiny", "neurosam3d_tiny", "neurosam3d_hiera_tiny"])
def test_these_models_survive_our_own_files(name, same, tmp_path):
    model = randomise(create_model(name), 1).resized((32, 48, 64))
    model.set_quirks(replace(model.config.quirks, mask_corner=True))
    path = save_weights(model, tmp_path / "m.safetensors")
    again, _ = load_model(path)
    assert again.config == model.config
    assert same(again.state_dict(), model.state_dict())
    resized, _ = load_model(path, image_size=32)
    assert resized.config.image_size == (32, 32, 32)


# -- the way back ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "theirs"),
    [(DINO_FINE, partial(dino_names, depth=2)), (HIERA_FINE, hiera_names), (VIT_FINE, dict)],
)
def test_neurosam3d_is_written_as_its_program_does(config, theirs, same, tmp_path):
    model = randomise(create_model(config), 1)
    path = save_official(model, tmp_path / "last.ckpt")
    content = torch.load(path, weights_only=True)
    assert list(content) == ["state_dict"]
    assert list(content["state_dict"]) == [f"model.{key}" for key in theirs(model.state_dict())]
    other = create_model(config)
    load_weights(other, path)
    assert same(other.state_dict(), model.state_dict())


def test_msam_is_written_as_its_program_does(same, tmp_path):
    model = randomise(create_model("msam_tiny", blocks=2), 1)
    path = save_official(model, tmp_path / "sam_model_latest.pth")
    content = torch.load(path, weights_only=True)
    assert list(content["model_state_dict"]) == list(msam_names(model.state_dict()))
    again, _ = load_model(path)
    assert same(again.state_dict(), model.state_dict())


def test_what_no_program_reads_is_not_written(tmp_path):
    for name, options in (
        ("neurosam3d_dinov2_tiny", {}),
        ("neurosam3d_hiera_tiny", {"method": "lora"}),
    ):
        with pytest.raises(CheckpointError, match="cannot be written in the layout of any system"):
            save_official(create_model(name, **options), tmp_path / "x.pth")
    assert list(tmp_path.iterdir()) == []
