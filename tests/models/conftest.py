"""Golden weights, random weights and small inputs for the model tests."""

from __future__ import annotations

import importlib.util
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

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


def rnd(seed: int, *shape: int) -> Tensor:
    """An input of the specification of the 3D systems."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype(np.float32))


@pytest.fixture(scope="session")
def told_3d(parity_dir: Path) -> dict[str, Any]:
    """Statistics that come with the specification of the 3D systems, by their own recipe."""
    told: dict[str, Any] = json.loads(
        (parity_dir / "sammed3d_neurosam3d_msam_goldens.json").read_text()
    )
    return told


@pytest.fixture(scope="session")
def weight_3d() -> Callable[[str, Sequence[int]], Tensor]:
    """The weights of that recipe, by official name and shape."""
    tokens = (
        *("point_embeddings", "not_a_point_embed", "no_mask_embed", "iou_token", "mask_tokens"),
        *("cls_token", "mask_token"),
    )

    def weight(key: str, shape: Sequence[int]) -> Tensor:
        drawn = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(shape))
        if "gaussian_matrix" in key:
            scale = 1.0
        elif "rel_pos" in key or "pos_embed" in key:
            scale = 0.2
        elif any(token in key for token in tokens):
            scale = 0.5
        elif len(shape) >= 2:
            scale = 1 / np.sqrt(np.prod(shape[1:]))
        else:
            scale = 0.1
        drawn *= scale
        if scale == 0.1 and not key.endswith("bias"):
            drawn += 1
        return torch.from_numpy(drawn.astype(np.float32))

    return weight


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
