"""The yardstick of benchmarks/encode.py computes the same function as the model."""

import importlib.util
from pathlib import Path

import pytest
import torch

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


def test_plain_formulation_needs_padded_windows(plain, build):
    model = build("sam_tiny")
    with pytest.raises(ValueError, match="window_padding"):
        plain.encode(model.state_dict(), model.config, torch.zeros(1, 3, 64, 64))
