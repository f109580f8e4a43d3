"""Models with adapters by name: counts and names as published, options, and what learns."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import samaritan
from samaritan.adapt import adapters_of, describe, eject
from samaritan.assembly import Blueprint, blueprint_of, create_model, get_blueprint, model_names
from samaritan.errors import ConfigError
from samaritan.models import create_model as create_plain
from samaritan.models import get_config
from samaritan.models.config import SAM_QUIRKS


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def count(model, *, learning=False):
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not learning)


@pytest.mark.parametrize(
    ("name", "options", "total", "learning"),
    [
        ("samed_vit_b", {"rank": 1}, 92_081_877, 4_803_029),
        ("samed_vit_b", {}, 92_192_469, 4_913_621),
        ("samed_vit_b", {"rank": 6}, 92_266_197, 4_987_349),
        ("samed_vit_b", {"rank": 8}, 92_339_925, 5_061_077),
        ("samed_vit_b", {"rank": 16}, 92_634_837, 5_355_989),
        ("samed_vit_b", {"adapters": False}, 92_045_013, 92_045_013),
        ("samed_vit_b", {"image_size": 224, "num_classes": 8, "rank": 4}, 91_538_133, 4_913_621),
        ("samed_s_vit_b", {}, 92_216_021, 1_645_909),
        ("samed_s_vit_b", {"image_size": 224}, 91_561_685, 1_645_909),
        ("samed_vit_h", {}, None, 5_421_525),
        ("sammed2d_vit_b", {}, 271_241_776, 184_569_136),
        ("sammed2d_vit_b", {"adapters": False}, 90_737_200, 90_737_200),
        ("sammed2d_vit_b", {"image_size": 1024}, 274_240_048, 184_569_136),
        ("sammed2d_vit_b", {"image_size": 1024, "adapters": False}, 93_735_472, 93_735_472),
    ],
)
def test_parameters_are_as_many_as_published(name, options, total, learning):
    model = on_meta(name, **options)
    assert total in (None, count(model))
    assert count(model, learning=True) == learning


@pytest.mark.parametrize(
    ("name", "inside"),
    [("vit_b", 180_504_576), ("vit_l", 641_777_664), ("vit_h", 1_337_016_320)],
)
def test_adapters_of_sam_med2d_are_as_large_as_published(name, inside):
    model = on_meta(f"sammed2d_{name}")
    assert sum(placed.n_parameters for placed in adapters_of(model)) == inside


def test_encoders_of_sam_med2d_are_as_large_as_published():
    assert count(on_meta("sammed2d_vit_b").image_encoder) == 267_177_216
    assert count(on_meta("sammed2d_vit_b", adapters=False).image_encoder) == 86_672_640
    assert len(on_meta("sammed2d_vit_b").state_dict()) == 386
    assert len(on_meta("sammed2d_vit_b", adapters=False).state_dict()) == 314


@pytest.mark.parametrize("name", ["samed_vit_b", "samed_s_vit_b"])
def test_plain_names_are_those_of_the_golden_base(name, parity_dir):
    schema = json.loads((parity_dir / f"{name}.schema.json").read_text())
    model = on_meta(name, image_size=224)
    eject(model)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == schema


@pytest.mark.parametrize("name", ["sam_tiny", "sam3d_tiny", "sam_vit_b"])
def test_plain_names_make_the_same_models_as_below(name):
    with torch.device("meta"):
        ours, plain = samaritan.create_model(name), create_plain(name)
    assert type(ours) is type(plain)
    assert ours.config == plain.config
    assert all(p.requires_grad for p in ours.parameters())


def test_any_size_and_dimension_can_be_adapted_by_a_method():
    model = create_model("sam3d_tiny", num_classes=3, method="lora", rank=2)
    assert model.config.classes
    assert model.config.num_mask_tokens == 4
    assert {placed.adapter.rank for placed in adapters_of(model)} == {2}
    light = create_model("sam3d_tiny", method="sam_med2d", depthwise=True, start="identity")
    assert count(light, learning=True) < count(create_model("sam3d_tiny"))


def test_a_blueprint_makes_the_same_model_again():
    model = create_model("sammed2d_tiny", ratio=0.5)
    again = create_model(blueprint_of(model))
    assert again.config == model.config
    assert describe(again) == describe(model)
    assert create_model(Blueprint(get_config("sam_tiny"))).config == get_config("sam_tiny")


def test_every_name_is_listed_and_made_without_memory():
    names = model_names()
    assert {"sam_vit_b", "samed_vit_b", "samed_s_vit_b", "sammed2d_vit_b"} <= set(names)
    for name in names:
        assert on_meta(name).config.name == name
    assert samaritan.model_names() == names


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("samed_vitb", {}, "Did you mean 'samed_vit_b'"),
        ("samed_tiny", {"num_classes": 0}, "num_classes must be a whole number from 1"),
        ("samed_tiny", {"num_classes": 2.5}, "not 2.5"),
        ("samed_tiny", {"num_classes": 10**9}, "num_classes must be"),
        ("samed_tiny", {"rank": 1000}, "rank of LoRA"),
        ("samed_tiny", {"ratio": 0.5}, "'lora' has no option 'ratio'; it has rank, scale"),
        ("samed_tiny", {"method": "sam_med2d"}, "is adapted already"),
        ("sam_tiny", {"rank": 3}, "no field 'rank'"),
        ("sam_tiny", {"method": "lorra"}, "Did you mean 'lora'"),
        ("sam_tiny", {"in_chans": 1}, "Did you mean 'in_channels'"),
    ],
)
def test_wrong_options_are_told(name, options, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, **options)


def test_blueprints_are_listed_without_torch():
    code = (
        "import sys, samaritan; samaritan.model_names();"
        "from samaritan.assembly import get_blueprint; get_blueprint('samed_vit_b');"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_options_of_a_named_model_reach_its_blueprint():
    blueprint = get_blueprint("samed_s_vit_l", num_classes=13, rank=6, image_size=224)
    assert blueprint.config.num_mask_tokens == 14
    assert blueprint.config.image_size == (224, 224)
    assert [i.options["rank"] for i in blueprint.insertions] == [6, 6]


def test_samed_labels_each_image_of_a_batch_by_itself():
    torch.manual_seed(0)
    model = create_model("samed_tiny")
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        both, one = model(images), model(images[1:])
    assert both.masks.shape == (2, 9, 64, 64)
    torch.testing.assert_close(one.masks[0], both.masks[1], rtol=0, atol=1e-6)


def test_samed_gives_every_class_at_the_published_sizes():
    torch.manual_seed(0)
    model = create_model("samed_tiny", image_size=512)
    with torch.no_grad():
        out = model(torch.rand(2, 3, 512, 512))
    assert out.masks.shape == (2, 9, 512, 512)
    assert out.iou_predictions.shape == (2, 9)
    assert out.low_res_logits.shape == (2, 9, 128, 128)


@pytest.mark.parametrize("name", ["samed_tiny", "samed_s_tiny"])
def test_samed_begins_as_its_base(name):
    torch.manual_seed(0)
    model, images = create_model(name), torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        adapted = model(images)
        eject(model)
        plain = model(images)
    assert all(torch.equal(a, b) for a, b in zip(adapted, plain, strict=True))


def test_samed_gives_gradients_to_what_its_forward_pass_uses():
    torch.manual_seed(0)
    model = create_model("samed_tiny")
    model(torch.rand(1, 3, 64, 64)).low_res_logits.square().mean().backward()
    unused = {k for k, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert all(k.startswith(("prompt_encoder.", "mask_decoder.iou_pred")) for k in unused)
    assert "prompt_encoder.no_mask_embed.weight" not in unused
    for placed in adapters_of(model):
        for part in "qv":
            a, b = placed.adapter.matrices(part)
            assert a.grad.abs().max() == 0
            assert b.grad.abs().max() > 0


@pytest.mark.slow
def test_samed_uses_as_many_numbers_as_published():
    model = create_model("samed_vit_b", image_size=224)
    model(torch.rand(1, 3, 224, 224)).low_res_logits.square().mean().backward()
    learning = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in learning if p.grad is not None) == 4_773_760
    assert sum(p.numel() for p in learning if p.grad is None) == 139_861


@pytest.mark.parametrize("size", ["vit_l", "vit_h"])
def test_tables_of_global_blocks_alone_are_resized_at_every_depth(size):
    from samaritan.models import resize_positions

    big, small = get_config(f"sam_{size}"), on_meta(f"samed_{size}")
    with torch.device("meta"):
        state = create_plain(big).state_dict()
    tables = {k: torch.zeros(v.shape) for k, v in state.items() if "rel_pos" in k}
    wanted = small.state_dict()
    new = resize_positions(tables, big, small.config)
    assert all(new[key].shape == wanted[key].shape for key in tables)
    assert sum(new[key] is not tables[key] for key in tables) == 2 * 4


def test_padded_window_tokens_matter_at_the_size_of_sam_med2d():
    torch.manual_seed(0)
    model = create_model("sammed2d_tiny", image_size=256, window_size=14)
    images = torch.rand(1, 3, 256, 256)
    with torch.no_grad():
        model.image_encoder.blocks[0].attn.qkv.bias.normal_()
        before = model.image_encoder(images)
        model.set_quirks(SAM_QUIRKS)
        after = model.image_encoder(images)
    assert (before - after).abs().max() > 1e-3
