"""Adapters come and go without a trace, in 2D and 3D, alone and together."""

from __future__ import annotations

import copy
import json
import pickle
from dataclasses import asdict

import pytest
import torch

from samaritan.adapt import (
    Insertion,
    adapter_state,
    adapters_of,
    apply_method,
    describe,
    eject,
    freeze,
    insert,
    load_adapter_state,
    merge,
)
from samaritan.adapt.inject import insert_all
from samaritan.errors import ConfigError

QKV, MLP = "image_encoder.blocks.*.attn.qkv", "image_encoder.blocks.*.mlp"
MODELS = [("sam_tiny", {}), ("sam3d_tiny", {"image_size": (32, 40, 48)})]


def randomise_adapters(model):
    with torch.no_grad():
        for value in adapter_state(model).values():
            value.add_(0.3 * torch.randn(value.shape))


def encode(model, images):
    with torch.no_grad():
        return model.image_encoder(images)


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_inject_then_eject_restores_the_plain_model_bit_for_bit(name, options, plain, image):
    model = plain(name, **options)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modules, printed = dict(model.named_modules()), repr(model)
    expected = encode(model, image(model))
    insert(model, QKV, "lora", parts="qv")
    insert(model, MLP, "bottleneck")
    randomise_adapters(model)
    assert not torch.equal(encode(model, image(model)), expected)
    assert eject(model) == 4
    assert torch.equal(encode(model, image(model)), expected)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert dict(model.named_modules()) == modules
    assert repr(model) == printed
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_plain_names_stay_so_that_plain_weights_load(name, options, plain):
    model, other = plain(name, **options), plain(name, **options)
    insert(model, QKV, "lora", parts="qv")
    insert(model, MLP, "bottleneck")
    keys = model.load_state_dict(other.state_dict(), strict=False)
    assert keys.unexpected_keys == []
    assert set(keys.missing_keys) == set(adapter_state(model))


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_lora_starts_as_the_identity(name, options, plain, image):
    model = plain(name, **options)
    expected = encode(model, image(model))
    insert(model, QKV, "lora", parts="qv", rank=3)
    assert torch.equal(encode(model, image(model)), expected)


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_the_bottleneck_starts_as_the_identity_where_told(name, options, plain, image):
    model = plain(name, **options)
    expected = encode(model, image(model))
    insert(model, MLP, "bottleneck", start="identity")
    assert torch.equal(encode(model, image(model)), expected)
    eject(model)
    insert(model, MLP, "bottleneck")  # as published: it ends in a norm
    assert (encode(model, image(model)) - expected).abs().max() > 0.1


@pytest.mark.parametrize(("name", "options"), MODELS)
def test_merged_lora_is_the_same_function(name, options, plain, image):
    model = plain(name, **options)
    insert(model, QKV, "lora", parts="qv", rank=3, scale=0.5)
    insert(model, "mask_decoder.transformer.**.{q_proj,v_proj}", "lora")
    insert(model, "image_encoder.blocks.*.mlp.lin1", "lora", name="wide")
    randomise_adapters(model)
    keys = set(model.state_dict()) - set(adapter_state(model))
    with torch.no_grad():
        expected = model(image(model))
    assert merge(model) == len(adapters_of(model)) + 18
    assert set(model.state_dict()) == keys
    with torch.no_grad():
        merged = model(image(model))
    torch.testing.assert_close(merged, expected, rtol=1e-4, atol=1e-5)


def test_only_what_can_be_folded_is_merged(plain):
    model = plain()
    insert(model, QKV, "lora", parts="qv")
    insert(model, MLP, "bottleneck")
    with pytest.raises(ConfigError, match="2 adapters cannot be folded"):
        merge(model)
    assert len(adapters_of(model)) == 4
    assert merge(model, name="lora") == 2
    assert [placed.name for placed in adapters_of(model)] == ["bottleneck"] * 2


def test_lora_and_bottleneck_act_together(plain, image):
    model, both = plain(), plain()
    insert(both, QKV, "lora", parts="qv")
    insert(both, MLP, "bottleneck")
    randomise_adapters(both)
    merged = copy.deepcopy(both)
    merge(merged, name="lora")
    torch.testing.assert_close(
        encode(merged, image(model)), encode(both, image(model)), rtol=1e-4, atol=1e-4
    )
    eject(both, name="bottleneck")
    assert {placed.name for placed in adapters_of(both)} == {"lora"}


def test_two_adapters_of_one_kind_add_up(plain, image):
    model = plain()
    insert(model, QKV, "lora", parts="qv", name="first")
    insert(model, QKV, "lora", name="second", rank=2)
    randomise_adapters(model)
    expected = encode(model, image(model))
    merge(model)
    torch.testing.assert_close(encode(model, image(model)), expected, rtol=1e-4, atol=1e-5)


def test_some_blocks_alone_can_be_adapted(plain):
    model = plain()
    assert insert(model, "image_encoder.blocks.1.attn.qkv", "lora") == (
        "image_encoder.blocks.1.attn.qkv",
    )
    assert list(adapter_state(model)) == [
        f"image_encoder.blocks.1.attn.qkv.adapters.lora.{part}" for part in "ab"
    ]
    (placed,) = adapters_of(model)
    assert placed.n_parameters == 4 * 48 + 144 * 4


def test_copies_and_pickles_have_adapters_of_their_own(plain, image):
    model = plain()
    insert(model, QKV, "lora", parts="qv")
    randomise_adapters(model)
    expected = encode(model, image(model))
    twin, again = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    randomise_adapters(twin)
    assert not torch.equal(encode(twin, image(model)), expected)
    eject(twin)
    assert torch.equal(encode(model, image(model)), expected)
    assert torch.equal(encode(again, image(model)), expected)
    assert len(adapters_of(model.resized(96))) == 2


def test_a_description_makes_the_same_adapters_again(plain, image):
    model, other = plain(), plain()
    insert(model, QKV, "lora", parts="qv", rank=2, scale=0.5)
    insert(model, MLP, "bottleneck", depthwise=True, ratio=0.5)
    randomise_adapters(model)
    plan = json.loads(json.dumps([asdict(one) for one in describe(model)]))
    insert_all(other, [Insertion.from_dict(one) for one in plan])
    assert describe(other) == describe(model)
    load_adapter_state(other, adapter_state(model))
    assert torch.equal(encode(other, image(model)), encode(model, image(model)))


def test_adapter_weights_load_all_or_nothing(plain):
    model = plain()
    insert(model, QKV, "lora", parts="qv")
    state = {key: value + 1 for key, value in adapter_state(model).items()}
    before = {key: value.clone() for key, value in adapter_state(model).items()}
    first = next(iter(state))
    with pytest.raises(ConfigError, match="1 tensors"):
        load_adapter_state(model, {**state, first: state[first][:2]})
    with pytest.raises(ConfigError, match="missing given"):
        load_adapter_state(model, {k: v for k, v in state.items() if k != first})
    assert all(torch.equal(v, before[k]) for k, v in adapter_state(model).items())


@pytest.mark.parametrize(
    ("targets", "kind", "options", "message"),
    [
        ("image_encoder.block.*.attn.qkv", "lora", {}, r"Near it: image_encoder\.blocks\.\*\.attn\.qkv"),
        (QKV, "lorra", {}, "of kind lora or bottleneck or .*, not 'lorra'"),
        (QKV, "lora", {"rang": 3}, "no option 'rang'"),
        (QKV, "lora", {"rank": 0}, "from 1 to 48, not 0"),
        (QKV, "lora", {"rank": 49}, "from 1 to 48, not 49"),
        (QKV, "lora", {"scale": float("nan")}, "must be a number, not nan"),
        (QKV, "lora", {"parts": "vq"}, "not 'vq'"),
        (MLP, "lora", {}, "changes linear layers, and 'image_encoder.blocks.0.mlp' is a TwoLayerMLP"),
        ("image_encoder.blocks.*.mlp.lin2", "lora", {"rank": 2, "name": "items"}, "cannot be the name"),
        ("mask_decoder.transformer.**.self_attn.q_proj", "lora", {"parts": "qv"}, "no fused layer"),
        ("image_encoder.blocks.*.norm1", "bottleneck", {}, "keeps the width"),
        ("image_encoder.blocks.*.mlp.lin1", "bottleneck", {}, "keeps the width"),
        (MLP, "bottleneck", {"ratio": 0}, "ratio of an adapter"),
        (MLP, "bottleneck", {"start": "zero"}, "not 'zero'"),
        (MLP, "bottleneck", {"depthwise": 1}, "true or false"),
    ],
)  # fmt: skip
def test_what_cannot_be_inserted_is_told_and_leaves_the_model_alone(
    targets, kind, options, message, plain
):
    model = plain()
    with pytest.raises(ConfigError, match=message):
        insert(model, targets, kind, **options)
    assert adapters_of(model) == ()


def test_a_place_that_is_taken_is_an_error(plain):
    model = plain()
    insert(model, "image_encoder.blocks.1.attn.qkv", "lora")
    with pytest.raises(ConfigError, match="already has an adapter called 'lora'"):
        apply_method(model, "lora")
    assert len(adapters_of(model)) == 1


def test_a_plan_that_fails_in_its_second_part_leaves_nothing(plain):
    model = plain()
    insert(model, "mask_decoder.transformer.final_attn_token_to_image.q_proj", "lora")
    with pytest.raises(ConfigError, match="already has an adapter"):
        apply_method(model, "lora_decoder")
    assert len(adapters_of(model)) == 1


def test_ejecting_what_is_not_there_is_an_error_unless_all_are_meant(plain):
    model = plain()
    assert eject(model) == 0
    with pytest.raises(ConfigError, match="no adapters called 'lora'; it has none"):
        eject(model, name="lora")
    with pytest.raises(ConfigError, match="no module with adapters"):
        eject(model, QKV)


def test_adapters_follow_type_mode_and_seed_of_the_model(plain):
    model = plain().to(torch.bfloat16)
    seed = torch.Generator().manual_seed(5)
    insert(model, QKV, "lora", parts="qv", generator=seed)
    adapter = adapters_of(model)[0].adapter
    assert adapter.a_q.dtype == torch.bfloat16
    assert not adapter.training
    again = plain().to(torch.bfloat16)
    insert(again, QKV, "lora", parts="qv", generator=seed.manual_seed(5))
    assert torch.equal(adapters_of(again)[0].adapter.a_q, adapter.a_q)


def test_freezing_counts_what_learns(plain):
    model = plain()
    decoder = sum(p.numel() for p in model.mask_decoder.parameters())
    assert freeze(model, "mask_decoder.**") == decoder
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == decoder
    with pytest.raises(ConfigError, match="no parameter is called 'mask_decodr"):
        freeze(model, "mask_decodr.**")
    assert freeze(model, "**") == sum(p.numel() for p in model.parameters())
    assert freeze(model, []) == 0
