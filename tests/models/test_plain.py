"""The yardstick of benchmarks/encode.py computes the same function as the model."""

import importlib.util
from pathlib import Path

import pytest
import torch

from samaritan.adapt import insert
from samaritan.models import Quirks


@pytest.fixture(scope="module")
def plain():
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "plain.py"
    spec = importlib.util.spec_from_file_location("plain", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "size", "quirks"),
    [
        ("sam_tiny", (64, 112), Quirks(window_padding=True)),
        ("sam3d_tiny", (32, 24, 40), Quirks(window_padding=True)),
        ("sam3d_tiny", (32, 32, 32), Quirks(window_padding=True, rel_pos_axes=True)),
    ],
)
def test_encoder_equals_the_plain_formulation(plain, build, randn, no_grad, name, size, quirks):
    model = build(name, image_size=size, quirks=quirks)
    image = randn(2, model.config.in_channels, *size)
    expected = plain.encode(model.state_dict(), model.config, image)
    torch.testing.assert_close(model.image_encoder(image), expected, rtol=1e-4, atol=1e-4)


def test_encoder_with_adapters_equals_the_plain_formulation(plain, build, randn, no_grad):
    model = build("sam_tiny", quirks=Quirks(window_padding=True))
    insert(model, "image_encoder.blocks.*.mlp", "bottleneck")
    image = randn(2, 3, *model.config.image_size)
    expected = plain.encode(model.state_dict(), model.config, image)
    torch.testing.assert_close(model.image_encoder(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_windows_larger_than_the_grid_equal_the_plain_formulation(
    plain, build, randn, no_grad, precision
):
    """T6 of the specification: SAM-Med3D's windows of 14 on a grid of 8, here of 7 on a grid of 4."""
    quirks = Quirks(window_padding=True, rel_pos_axes=True)
    model = build("sam3d_tiny", image_size=32, window_size=7, quirks=quirks)
    assert all(side < 7 for side in model.config.grid)
    for parameter in model.parameters():
        if parameter.ndim == 2:  # as large as the golden weights are
            parameter.mul_(parameter[0].numel() ** -0.5 / 0.3)
    image = randn(2, 1, 32, 32, 32)
    expected = plain.encode(model.state_dict(), model.config, image)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        found = model.image_encoder(image).float()
    off = float((found - expected).abs().max() / expected.abs().max())
    assert off < (1e-5 if precision == torch.float32 else 2e-2)


def test_plain_formulation_needs_padded_windows(plain, build):
    model = build("sam_tiny")
    with pytest.raises(ValueError, match="window_padding"):
        plain.encode(model.state_dict(), model.config, torch.zeros(1, 3, 64, 64))
