"""LoRA: its first values, its slices, its memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from samaritan.adapt import Lora, adapters_of, insert
from samaritan.adapt.adapter import attach, detach


def test_first_values_are_those_of_a_linear_layer_and_zeros():
    adapter = Lora(768, 3 * 768, parts="qv")
    bound = 1 / math.sqrt(768)
    assert 0.95 * bound < adapter.a_q.abs().max() <= bound
    assert not torch.equal(adapter.a_q, adapter.a_v)
    assert adapter.b_q.abs().max() == adapter.b_v.abs().max() == 0


@pytest.mark.parametrize("part", ["q", "k", "v"])
def test_a_part_changes_its_third_alone(part):
    layer = nn.Linear(4, 12)
    x = torch.randn(2, 5, 4)
    plain = layer(x)
    adapter = Lora(4, 12, rank=2, parts=part)
    attach(layer, "lora", adapter)
    nn.init.ones_(adapter.matrices(part)[1])
    changed = (layer(x) - plain).unflatten(-1, (3, 4)).abs().amax((0, 1, 3)) > 0
    assert changed.tolist() == [p == part for p in "qkv"]
    detach(layer, "lora")
    assert torch.equal(layer(x), plain)


def test_merging_adds_b_a_to_q_and_v_alone():
    torch.manual_seed(0)
    layer, adapter = nn.Linear(4, 12), Lora(4, 12, rank=2, parts="qv")
    nn.init.normal_(adapter.b_q)
    nn.init.normal_(adapter.b_v)
    q, k, v = layer.weight.detach().clone().chunk(3)
    wanted = torch.cat([q + adapter.b_q @ adapter.a_q, k, v + adapter.b_v @ adapter.a_v])
    adapter.merge_into(layer)
    torch.testing.assert_close(layer.weight, wanted, rtol=0, atol=1e-5)


def test_nothing_is_kept_but_the_two_matrices(plain):
    model = plain()
    insert(model, "image_encoder.blocks.*.attn.qkv", "lora", parts="qv", rank=4)
    for placed in adapters_of(model):
        assert placed.n_parameters == 2 * 2 * 4 * 48
        assert list(placed.adapter.buffers()) == []


def test_zeros_stay_zeros_so_that_window_padding_is_not_touched():
    layer = nn.Linear(4, 12)
    expected = layer(torch.zeros(1, 4))
    adapter = Lora(4, 12, rank=2, parts="qv")
    attach(layer, "lora", adapter)
    nn.init.ones_(adapter.b_q)
    assert torch.equal(layer(torch.zeros(1, 4)), expected)


def test_autocast_reaches_the_matrices():
    layer = nn.Linear(4, 12)
    attach(layer, "lora", Lora(4, 12, rank=2))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.randn(1, 4)).dtype == torch.bfloat16
