"""SAM-Med2D's adapter beside a loop-free second account of it, on even and odd grids."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from samaritan.adapt import Bottleneck


def published(adapter, x):
    """The formula for grids of even sides, in 2D."""
    c1, c2 = adapter.channel[0].weight, adapter.channel[2].weight
    first = x.permute(0, 3, 1, 2)
    gate = torch.sigmoid(F.relu(first.mean((2, 3)) @ c1.T) @ c2.T)[:, :, None, None]
    inner = F.relu(F.conv2d(gate * first, adapter.spatial[0].weight, stride=2, padding=1))
    spatial = F.relu(F.conv_transpose2d(inner, adapter.spatial[2].weight, stride=2, padding=1))
    summed = (first + spatial).permute(0, 2, 3, 1)
    return F.layer_norm(summed, summed.shape[-1:], adapter.norm.weight, adapter.norm.bias, 1e-5)


def test_it_is_the_published_formula():
    adapter = Bottleneck(12)
    x, output = torch.randn(2, 4, 6, 12), torch.randn(2, 4, 6, 12)
    torch.testing.assert_close(adapter(x, output), output + published(adapter, x))


def test_names_and_shapes_are_the_published_ones():
    shapes = {key: tuple(value.shape) for key, value in Bottleneck(768).state_dict().items()}
    assert shapes == {
        "norm.weight": (768,),
        "norm.bias": (768,),
        "channel.0.weight": (192, 768),
        "channel.2.weight": (768, 192),
        "spatial.0.weight": (768, 768, 3, 3),
        "spatial.2.weight": (768, 768, 4, 4),
    }


@pytest.mark.parametrize("grid", [(4, 5), (3, 4, 5), (1, 5, 3), (1, 1)])
def test_odd_grids_keep_every_token_in_its_place(grid):
    adapter = Bottleneck(6, ndim=len(grid))
    x = torch.randn(2, *grid, 6)
    out = adapter(x, torch.zeros_like(x))
    assert out.shape == x.shape
    with torch.no_grad():  # a gate that is open everywhere leaves the convolutions alone
        adapter.channel[2].weight.zero_()
    even = F.pad(x, [0, 0] + [v for n in reversed(grid) for v in (0, n % 2)])
    padded = adapter(even, torch.zeros_like(even))
    inside = padded[(slice(None), *(slice(0, n) for n in grid))]
    torch.testing.assert_close(adapter(x, torch.zeros_like(x)), inside)


def test_depthwise_takes_a_small_part_of_the_parameters():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(Bottleneck(768)) == 15_042_048
    assert count(Bottleneck(768, depthwise=True)) == 2 * 768 * 192 + 2 * 768 + 768 * (9 + 16)


def test_a_start_as_the_identity_can_leave_it():
    adapter = Bottleneck(16, start="identity")
    x = torch.randn(2, 4, 4, 16)
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        (adapter(x, x) - 1).square().mean().backward()
        optimizer.step()
    still = [key for key, p in adapter.named_parameters() if not p.grad.abs().max() > 0]
    assert still == []
