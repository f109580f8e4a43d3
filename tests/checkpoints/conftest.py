"""Tiny models with distinct weights, and a way to compare them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from samaritan.models import create_model
from samaritan.models.sam import Sam


def randomise(model: Sam, seed: int) -> Sam:
    """Fill every parameter and buffer with its own random numbers."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return model


@pytest.fixture
def make() -> Callable[..., Sam]:
    """Build a small model with random weights: make("sam_tiny", seed=1, image_size=96)."""

    def build(name: str = "sam_tiny", seed: int = 0, **overrides: Any) -> Sam:
        return randomise(create_model(name, **overrides), seed)

    return build


@pytest.fixture
def same() -> Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], bool]:
    """Whether two state dicts have the same names and bit-identical numbers."""

    def compare(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
        return list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)

    return compare
