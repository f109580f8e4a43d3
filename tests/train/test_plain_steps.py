"""A step gives the loss and the gradients of the published formulation, which the benchmarks keep."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from samaritan.assembly import create_model
from samaritan.models.config import SAM_QUIRKS, SAMMED3D_QUIRKS
from samaritan.recipes.sections import Clicks, Compat, Loss
from samaritan.train import iterated_step, multiclass_step

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def plain_training():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        yield pytest.importorskip("plain_training")
    finally:
        sys.path.remove(str(BENCHMARKS))


def lively(name: str, **options):
    """A model whose position tables and adapters say something."""
    torch.manual_seed(0)
    model = create_model(name, **options)
    for key, parameter in model.named_parameters():
        if "pos" in key or "adapters" in key:
            torch.nn.init.normal_(parameter, std=0.1)
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return model, weights


def same(model, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
    learned = {key: p for key, p in model.named_parameters() if p.requires_grad}
    found = [
        torch.autograd.grad(loss, list(learned.values()), allow_unused=True)
        for loss in (ours, theirs)
    ]
    whole = torch.cat([g.flatten() for g in found[1] if g is not None]).norm()
    for key, one, other in zip(learned, *found, strict=True):
        zero = torch.zeros_like(learned[key])
        difference = (zero if one is None else one) - (zero if other is None else other)
        assert difference.norm() < 1e-5 * whole, key


def test_step_of_samed_is_the_published_one(plain_training) -> None:
    model, weights = lively("samed_tiny", quirks=SAM_QUIRKS)
    side = model.config.low_res_size[0]
    images = torch.rand(2, 3, *model.config.image_size)
    labels = torch.randint(model.config.num_mask_tokens, (2, side, side))
    step = multiclass_step(Loss(cross_entropy=0.2, dice=0.8, focal=0, iou=0), Compat())
    batch = {"image": images, "low_res_label": labels}
    ours = next(step(model, batch, torch.Generator())).total
    same(model, ours, plain_training.samed(weights, model.config, images, labels))


def test_step_of_sam_med3d_is_the_published_one(plain_training) -> None:
    model, weights = lively("sam3d_tiny", quirks=replace(SAMMED3D_QUIRKS))
    size = model.config.image_size
    squares = [(torch.arange(n) - 0.4 * n).square() for n in size]
    ball = squares[0][:, None, None] + squares[1][:, None] + squares[2] < (size[0] / 4) ** 2
    images, masks = torch.randn(1, 1, *size), ball[None, None]
    clicks = Clicks(count=(4, 4))
    step = iterated_step(clicks, Loss(cross_entropy=1, dice=1, focal=0, iou=0), Compat())
    batch = {"image": images, "masks": masks}
    ours = next(step(model, batch, torch.Generator().manual_seed(3))).total
    theirs = plain_training.sammed3d(
        weights, model.config, images, masks[0], clicks, torch.Generator().manual_seed(3)
    )
    same(model, ours, theirs)
