"""M-SAM's mask-enhanced adapter, and the other adapters on every encoder in 3D."""

from __future__ import annotations

import pytest
import torch

from samaritan.adapt import (
    MaskEnhanced,
    adapter_state,
    adapters_of,
    apply_method,
    eject,
    freeze,
    insert,
    load_adapter_state,
    merge,
)
from samaritan.assembly import create_model
from samaritan.errors import ConfigError
from samaritan.models import Quirks

FUSE = "mask_decoder.fuse"
TINY = ("sam3d_tiny", "neurosam3d_tiny", "neurosam3d_dinov2_tiny", "neurosam3d_hiera_tiny")


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def joined(model, seed=1):
    generator = torch.Generator().manual_seed(seed)
    shape = (2, model.config.embed_dim, *model.config.grid)
    image, dense = (torch.randn(shape, generator=generator) for _ in range(2))
    return image, dense, model.mask_decoder.fuse(image, dense)


def test_published_sizes():
    with torch.device("meta"):
        model = create_model("msam_vit_b_ori")
    (fuse,) = (p for p in adapters_of(model) if p.name == "mask_enhanced")
    count = lambda m: sum(p.numel() for p in m.parameters())  # noqa: E731
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert fuse.n_parameters == 17_145_024
    assert count(fuse.adapter.blocks[0]) == 14_183_040
    assert count(fuse.adapter.attend) == 1_777_344
    assert sum(p.n_parameters for p in adapters_of(model) if p.name == "lora") == 147_456
    assert (count(model), learning, len(model.state_dict())) == (117_801_712, 24_876_784, 461)
    assert round(100 * learning / count(model), 2) == 21.12


def test_it_replaces_the_sum_and_ejecting_brings_it_back():
    model = create_model("sam3d_tiny")
    image, dense, before = joined(model)
    assert torch.equal(before, image + dense)
    insert(model, FUSE, "mask_enhanced")
    after = joined(model)[2]
    assert after.shape == before.shape
    assert (after - before).abs().max() > 0.1
    model.mask_decoder.fuse.register_forward_hook(lambda *_: None)
    adapter = adapters_of(model)[0].adapter
    assert torch.equal(adapter((image, dense), torch.full_like(image, 7)), after)
    eject(model)
    assert torch.equal(joined(model)[2], before)


def test_each_of_its_parameters_learns_but_the_norm_that_is_never_used():
    model = create_model("msam_tiny")
    adapter = next(p.adapter for p in adapters_of(model) if p.name == "mask_enhanced")
    (joined(model)[2] * torch.randn(2, 48, 4, 4, 4)).mean().backward()
    silent = {k for k, p in adapter.named_parameters() if p.grad is None or not p.grad.any()}
    assert silent == {"unused_norm.weight", "unused_norm.bias"}


def test_lora_of_a_new_msam_is_the_identity():
    model = create_model("msam_tiny")
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        adapted = model.image_encoder(image)
        eject(model)
        assert torch.equal(model.image_encoder(image), adapted)


def test_its_attention_has_the_quirks_of_the_model():
    model = create_model("msam_tiny", quirks=Quirks(rel_pos_axes=True))
    adapter = next(p.adapter for p in adapters_of(model) if p.name == "mask_enhanced")
    with torch.no_grad():
        for key, parameter in adapter.named_parameters():
            if "rel_pos" in key:
                parameter.normal_()
        scrambled = joined(model)[2]
        model.set_quirks(Quirks())
        assert (joined(model)[2] - scrambled).abs().max() > 1e-2


def test_without_quirks_swapping_axes_swaps_what_it_gives():
    order = (2, 0, 1)
    model = create_model("msam_tiny", image_size=(16, 32, 24))
    other = create_model("msam_tiny", image_size=(24, 16, 32))
    state = {k: torch.randn_like(v) * 0.3 for k, v in adapter_state(model).items()}
    turned = {}
    for key, value in state.items():
        if ".rel_pos_" in key:
            value = state[key[:-1] + "dhw"[order["dhw".index(key[-1])]]]
        elif value.ndim == 5:
            value = value.permute(0, 1, *(2 + i for i in order))
        turned[key] = value
    load_adapter_state(model, state)
    load_adapter_state(other, turned)
    with torch.no_grad():
        image, dense, expected = joined(model)
        spatial = [0, 1, *(2 + i for i in order)]
        ours = other.mask_decoder.fuse(image.permute(spatial), dense.permute(spatial))
    torch.testing.assert_close(ours, expected.permute(spatial), rtol=1e-3, atol=1e-4)


def test_resizing_a_model_resizes_its_tables():
    model = create_model("msam_tiny").resized((32, 48, 64))
    tables = {k: len(v) for k, v in adapter_state(model).items() if "attend.attn.rel_pos" in k}
    assert {tables[k] for k in tables if k.endswith("_d")} == {7}
    assert {tables[k] for k in tables if k.endswith("_w")} == {15}
    assert joined(model)[2].shape == (2, 48, 4, 6, 8)


def test_it_works_in_2d_and_draws_from_a_given_generator():
    models = [create_model("sam_tiny") for _ in range(2)]
    for model in models:
        insert(
            model,
            FUSE,
            "mask_enhanced",
            attention_heads=4,
            generator=torch.Generator().manual_seed(7),
        )
    states = [adapter_state(model) for model in models]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert joined(models[0])[2].shape == (2, 32, 4, 4)


def test_it_follows_the_type_of_the_model():
    model = create_model("sam3d_tiny").to(torch.bfloat16)
    insert(model, FUSE, "mask_enhanced")
    assert {v.dtype for v in adapter_state(model).values()} == {torch.bfloat16}


@pytest.mark.parametrize(("name", "heads"), [("sam3d_small", 6), ("sam_small", 4), ("sam_tiny", 1)])
def test_heads_have_about_64_channels_unless_told(name, heads):
    with torch.device("meta"):
        model = create_model(name)
        insert(model, FUSE, "mask_enhanced")
    assert adapters_of(model)[0].adapter.options["attention_heads"] == heads


def test_several_blocks_are_described_and_made_again():
    model = create_model("sam3d_tiny", method="mask_enhanced", blocks=2, attention_heads=3, rank=2)
    options = {p.name: p.adapter.options for p in adapters_of(model)}
    assert options["mask_enhanced"] == {"blocks": 2, "attention_heads": 3}
    assert options["lora"]["rank"] == 2
    again = create_model("sam3d_tiny", method="mask_enhanced", blocks=2, attention_heads=3, rank=2)
    assert {k: v.shape for k, v in model.state_dict().items()} == {
        k: v.shape for k, v in again.state_dict().items()
    }


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("image_encoder.blocks.0.mlp", {}, "Use mask_decoder.fuse"),
        (FUSE, {"attention_heads": 5}, "must divide the width 48"),
        (FUSE, {"attention_heads": 0}, "from 1 to 48, not 0"),
        (FUSE, {"blocks": 10**9}, "from 1 to 24, not 1000000000"),
        (FUSE, {"rank": 3}, "no option 'rank'"),
    ],
)
def test_what_cannot_be_is_told(target, options, message):
    with pytest.raises(ConfigError, match=message):
        insert(create_model("sam3d_tiny"), target, "mask_enhanced", **options)


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("method", ["lora", "sam_med2d", "mask_enhanced"])
def test_adapters_work_on_every_encoder(name, method):
    """In, used, learning, out again: the plain model is what it was."""
    model = create_model(name)
    for key, parameter in model.named_parameters():
        if key.endswith("gamma"):  # DINOv2 begins with branches that count for next to nothing
            torch.nn.init.ones_(parameter)
    image = torch.randn(1, 1, *model.config.image_size)
    points = torch.full((1, 1, 3), 9.0), torch.ones(1, 1)
    with torch.no_grad():
        plain = model(image, points).low_res_logits
    apply_method(model, method)
    adapters = adapters_of(model)
    assert len({p.target for p in adapters}) == model.config.depth + (method == "mask_enhanced")
    with torch.no_grad():
        for placed in adapters:
            for parameter in placed.adapter.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
    masks = model(image, points).low_res_logits
    assert (masks - plain).abs().max() > 1e-4
    masks.square().mean().backward()
    for placed in adapters:
        learning = {k for k, p in placed.adapter.named_parameters() if p.grad is not None}
        assert len(learning) >= len(list(placed.adapter.parameters())) - 2
    frozen = [p for k, p in model.image_encoder.named_parameters() if ".adapters." not in k]
    assert all(p.grad is None for p in frozen)
    if method == "lora":
        merge(model)
        torch.testing.assert_close(model(image, points).low_res_logits, masks, rtol=1e-3, atol=1e-4)
    else:
        eject(model)
        freeze(model, "**")
        with torch.no_grad():
            assert torch.equal(model(image, points).low_res_logits, plain)


def test_a_model_in_training_shows_it_the_mode():
    model = create_model("msam_tiny").train()
    assert all(p.adapter.training for p in adapters_of(model))
    assert any(isinstance(p.adapter, MaskEnhanced) for p in adapters_of(model))
