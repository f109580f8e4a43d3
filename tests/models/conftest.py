"""Golden weights, random weights and small inputs for the model tests."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from samaritan.models import Sam, create_model


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden(parity_dir: Path) -> ModuleType:
    """The functions that rebuild golden weights and inputs from names and shapes."""
    spec = importlib.util.spec_from_file_location("golden", parity_dir / "golden.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def build(generator: torch.Generator) -> Callable[..., Sam]:
    """`create_model` with every parameter and buffer random, position tables and norms included."""

    def make(name: str, **options: object) -> Sam:
        model = create_model(name, **options)  # type: ignore[arg-type]
        with torch.no_grad():
            for buffer in model.buffers():
                buffer.copy_(torch.randn(buffer.shape, generator=generator))
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                if parameter.ndim == 1:
                    parameter.add_(0.2 * noise)
                else:
                    scale = parameter[0].numel() ** -0.5 if parameter.ndim != 2 else 0.3
                    parameter.copy_(scale * noise)
        return model

    return make


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture
def randn(generator: torch.Generator) -> Callable[..., Tensor]:
    return lambda *shape: torch.randn(shape, generator=generator)


@pytest.fixture(scope="session")
def check_statistics() -> Callable[..., None]:
    """Compare the statistics of a tensor with those that were published."""

    def check(ours: Tensor, told: Mapping[str, float], **tolerance: float) -> None:
        flat = ours.detach().double().flatten()
        seen = {
            "mean": flat.mean(),
            "std": flat.std(unbiased="min" not in told) if len(flat) > 1 else 0,
            "min": flat.min(),
            "max": flat.max(),
            "absmax": flat.abs().max(),
            "first": flat[0],
            "mid": flat[len(flat) // 2],
            "last": flat[-1],
        }
        names = [name for name in told if name in seen and told[name] is not None]
        assert len(names) >= 5
        np.testing.assert_allclose([seen[n] for n in names], [told[n] for n in names], **tolerance)
        if "shape" in told:
            assert list(ours.shape) == told["shape"]

    return check
