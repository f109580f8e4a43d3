"""Small models with random weights, and pictures for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from samaritan.assembly import create_model
from samaritan.models.sam import Sam


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def plain() -> Callable[..., Sam]:
    """A tiny model, every number of it random: plain("sam3d_tiny", image_size=(32, 40, 48))."""

    def build(name: str = "sam_tiny", **options: object) -> Sam:
        torch.manual_seed(0)
        return randomise(create_model(name, **options))  # type: ignore[arg-type, return-value]

    return build


@pytest.fixture
def image() -> Callable[[Sam, int], Tensor]:
    """A batch of noise that fits a model."""

    def make(model: Sam, batch: int = 1) -> Tensor:
        shape = (batch, model.config.in_channels, *model.config.image_size)
        return torch.randn(shape, generator=torch.Generator().manual_seed(1))

    return make


@torch.no_grad()
def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return model
