"""MaskSAM's adapters beside plain second accounts of them; who sees whom among slices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from samaritan.adapt import DepthConv, DepthMlp, describe, eject, insert
from samaritan.adapt.methods import SLICES
from samaritan.errors import ConfigError


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_they_have_as_many_parameters_as_published():
    assert [count(DepthConv(width)) for width in (768, 1280, 256)] == [301_632, 830_400, 35_008]
    assert [count(DepthMlp(256, frames=t)) for t in (4, 9, 26)] == [33_236, 33_781, 38_626]


@torch.no_grad()
def test_the_convolution_is_the_published_formula():
    adapter = DepthConv(16, frames=3, scale=0.5, sees="input")
    x, output = torch.randn(2 * 3, 4, 5, 16), torch.randn(2 * 3, 4, 5, 16)
    narrow = F.gelu(F.linear(x, adapter.down.weight, adapter.down.bias))
    volume = narrow.reshape(2, 3, 4, 5, 4).permute(0, 4, 1, 2, 3)
    side = F.conv3d(volume, adapter.conv.weight, adapter.conv.bias, padding=1, groups=4)
    mean, var = side.mean(1, keepdim=True), side.var(1, keepdim=True, unbiased=False)
    side = (side - mean) / (var + 1e-6).sqrt()
    side = side * adapter.norm.weight[:, None, None, None] + adapter.norm.bias[:, None, None, None]
    back = F.gelu(side).permute(0, 2, 3, 4, 1).reshape(6, 4, 5, 4)
    expected = output + 0.5 * F.linear(narrow + back, adapter.up.weight, adapter.up.bias)
    torch.testing.assert_close(adapter(x, output), expected)


@torch.no_grad()
def test_the_mlp_is_the_published_formula():
    adapter = DepthMlp(16, frames=3)
    output = torch.randn(2 * 3 * 5, 7, 16)
    adapter.layout = (3, 5, ())
    narrow = F.gelu(F.linear(output, adapter.down.weight, adapter.down.bias))
    per_slice = narrow.reshape(2, 3, 5, 7, 4).permute(0, 2, 3, 4, 1)
    side = adapter.depth_out(F.gelu(adapter.depth_in(per_slice)))
    back = side.permute(0, 4, 1, 2, 3).reshape(30, 7, 4)
    expected = output + F.linear(narrow + back, adapter.up.weight, adapter.up.bias)
    torch.testing.assert_close(adapter(None, output), expected)


@torch.no_grad()
def test_a_token_reaches_itself_in_all_slices_of_its_query_and_nothing_else():
    adapter = DepthMlp(16, frames=3)
    adapter.layout = (3, 4, ())
    x = torch.randn(2, 3, 4, 5, 16)
    changed = x.clone()
    changed[1, 0, 2, 3] += 1
    a, b = (adapter(None, v.flatten(0, 2)) for v in (x, changed))
    differs = (a != b).any(-1).reshape(2, 3, 4, 5)
    expected = torch.zeros(2, 3, 4, 5, dtype=torch.bool)
    expected[1, :, 2, 3] = True
    assert torch.equal(differs, expected)


@torch.no_grad()
def test_a_pixel_reaches_its_neighbourhood_in_the_next_slices_of_its_query():
    adapter = DepthConv(16, frames=4)
    adapter.layout = (4, 3, (6, 5))
    x = torch.randn(2, 4, 3, 6, 5, 16)
    changed = x.clone()
    changed[0, 1, 2, 3, 2] += 1
    a, b = (adapter(None, v.flatten(0, 2).flatten(1, 2)) for v in (x, changed))
    differs = (a != b).any(-1).reshape(2, 4, 3, 6, 5)
    expected = torch.zeros(2, 4, 3, 6, 5, dtype=torch.bool)
    expected[0, :3, 2, 2:5, 1:4] = True
    assert torch.equal(differs, expected)


@torch.no_grad()
def test_the_mlp_stretches_other_numbers_of_slices():
    adapter = DepthMlp(16, frames=4)
    still = torch.randn(1, 1, 7, 16)  # the same in every slice: so is what comes out
    adapter.layout = (4, 1, ())
    four = adapter(None, still.expand(4, 1, 7, 16).flatten(0, 1)).reshape(4, 7, 16)
    adapter.layout = (8, 1, ())
    eight = adapter(None, still.expand(8, 1, 7, 16).flatten(0, 1)).reshape(8, 7, 16)
    torch.testing.assert_close(eight.mean(0), four.mean(0), atol=0.05, rtol=0)
    torch.testing.assert_close(eight[0], four[0])
    torch.testing.assert_close(eight[-1], four[-1])


@torch.no_grad()
def test_they_change_nothing_at_first_unless_asked_to(plain, image):
    model = plain("sam_tiny")
    pictures = image(model).repeat(4, 1, 1, 1)
    before = model(pictures).low_res_logits
    for plan in SLICES.insertions:
        insert(model, plan.targets, plan.kind, **plan.options)
    assert torch.equal(model(pictures).low_res_logits, before)
    assert {i.kind for i in describe(model)} == {"depth_conv", "depth_mlp"}
    assert eject(model) == 2 * 2 + 2 * 4 + 1
    assert torch.equal(model(pictures).low_res_logits, before)
    for plan in SLICES.with_options(start="published").insertions:
        insert(model, plan.targets, plan.kind, **plan.options)
    assert not torch.equal(model(pictures).low_res_logits, before)


def test_first_values_come_from_the_generator_that_is_given(plain):
    drawn = []
    for _ in range(2):
        model = plain("sam_tiny")
        seeded = torch.Generator().manual_seed(3)
        insert(model, "image_encoder.blocks.0.mlp", "depth_conv", generator=seeded, sees="input")
        drawn.append(model.image_encoder.blocks[0].mlp.adapters["depth_conv"].conv.weight)
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 0}, "from 1 to 1024, not 0"),
        ({"frames": True}, "from 1 to 1024, not True"),
        ({"ratio": 2.0}, "above 0 and up to 1, not 2.0"),
        ({"sees": "all"}, "sees one of"),
        ({"start": "zero"}, "start of an adapter is one of"),
        ({"scale": "half"}, "scale of an adapter must be a number"),
    ],
)
def test_bad_options_are_told(options, message, plain):
    with pytest.raises(ConfigError, match=message):
        insert(plain("sam_tiny"), "image_encoder.blocks.0.mlp", "depth_mlp", **options)


def test_they_stand_in_models_for_pictures_and_see_whole_volumes(plain):
    with pytest.raises(ConfigError, match="of a model in 3D"):
        insert(plain("sam3d_tiny"), "image_encoder.blocks.*.attn", "depth_conv")
    adapter = DepthMlp(8, frames=4)
    with pytest.raises(ConfigError, match="batch of 6 cannot be cut into volumes of 4 slices"):
        adapter(None, torch.zeros(6, 3, 8))
    with pytest.raises(ConfigError, match="nobody has said what their grid is"):
        DepthConv(8, frames=1)(None, torch.zeros(1, 7, 8))
