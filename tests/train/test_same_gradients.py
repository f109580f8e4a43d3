"""Quick ways of going back give the gradients of the plain ways."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samaritan.adapt import insert
from samaritan.losses import dice_ce_loss
from samaritan.train.at_once import apart, at_once
from samaritan.train.interactive import enlarged

MODES = {2: "bilinear", 3: "trilinear"}


def close(ours: Tensor, theirs: Tensor, part: float = 1e-5) -> bool:
    return ours.shape == theirs.shape and bool((ours - theirs).norm() <= part * theirs.norm())


@pytest.mark.parametrize(
    ("low", "size"), [((5, 7), (20, 28)), ((3, 4, 5), (12, 16, 20)), ((4, 5), (4, 13))]
)
def test_enlarging_and_its_gradient_are_those_of_torch(low, size) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *low, requires_grad=True)
    way_back = torch.randn(2, 3, *size)
    theirs = F.interpolate(x, size, mode=MODES[len(size)], align_corners=False)
    ours = enlarged(x, size)
    assert close(ours, theirs)
    gradients = [torch.autograd.grad(y, x, way_back)[0] for y in (ours, theirs)]
    assert close(*gradients)


def test_enlarging_keeps_float32_under_autocast() -> None:
    x = torch.randn(1, 1, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(enlarged(x, (8, 10)), enlarged(x, (8, 10)).float())
        assert close(enlarged(x, (8, 10)), F.interpolate(x, (8, 10), mode="bilinear"))


@pytest.mark.parametrize("shape", [(2, 3, 9, 11), (2, 1, 50, 60, 90)])
def test_dice_and_cross_entropy_go_back_as_their_formula(shape) -> None:
    torch.manual_seed(0)
    logits = (4 * torch.randn(shape)).requires_grad_()
    masks = torch.rand(shape) < 0.3
    parts = dice_ce_loss(logits, masks, dice_weight=0.7, ce_weight=1.9)
    probs, target, axes = logits.sigmoid(), masks.float(), tuple(range(2, len(shape)))
    both = (probs * target).sum(dim=axes)
    whole = probs.square().sum(dim=axes) + target.sum(dim=axes)
    dice = (1 - (2 * both + 1e-5) / (whole + 1e-5)).mean()
    ce = F.binary_cross_entropy_with_logits(logits, target)
    torch.testing.assert_close(parts["dice"], dice)
    torch.testing.assert_close(parts["ce"], ce)
    torch.testing.assert_close(parts["total"], 0.7 * dice + 1.9 * ce)
    for one, other in ((parts["total"], 0.7 * dice + 1.9 * ce), (parts["ce"], ce)):
        assert close(*(torch.autograd.grad(y, logits, retain_graph=True)[0] for y in (one, other)))


def test_a_loss_gone_back_at_once_has_the_same_gradient_and_keeps_nothing_large() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 1, 4, 4, 4, requires_grad=True)
    low = 2 * x  # what came before stays in the graph
    start = apart(low)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: kept.append(t.numel()) or t, lambda t: t
    ):
        (gradient,) = torch.autograd.grad(
            3 * at_once(enlarged(start, (32, 32, 32)).sigmoid().square().mean(), start, low), x
        )
    (wanted,) = torch.autograd.grad(3 * enlarged(2 * x, (32, 32, 32)).sigmoid().square().mean(), x)
    assert close(gradient, wanted)
    assert kept[-1] == low.numel()


def test_a_loss_without_gradient_stays_one() -> None:
    with torch.no_grad():
        x = torch.ones(2, requires_grad=True) * 2
        loss = at_once(apart(x).sum(), apart(x), x)
    assert loss.item() == 4
    assert not loss.requires_grad


@pytest.mark.parametrize("parts", ["", "qv", "k"])
@pytest.mark.parametrize("inputs_learn", [False, True])
def test_lora_goes_back_as_its_formula(parts: str, inputs_learn: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 36)).requires_grad_(False)
    weight, bias = (p.clone() for p in model[0].parameters())
    insert(model, "0", "lora", rank=3, scale=0.5, parts=parts)
    learned = [p for p in model.parameters() if p.requires_grad]
    for p in learned:
        nn.init.normal_(p)
    x = torch.randn(2, 5, 24, requires_grad=inputs_learn)
    change = torch.zeros_like(weight)
    for i in range(0, len(learned), 2):
        at = 12 * "qkv".index(parts[i // 2]) if parts else 0
        rows = F.pad(learned[i + 1] @ learned[i], (0, 0, at, 36 - at - len(learned[i + 1])))
        change = change + 0.5 * rows
    way_back = torch.randn(2, 5, 36)
    wanted = [*learned, x] if inputs_learn else learned
    ours, theirs = model(x), F.linear(x, weight + change, bias)
    assert close(ours, theirs)
    for one, other in zip(
        torch.autograd.grad(ours, wanted, way_back),
        torch.autograd.grad(theirs, wanted, way_back),
        strict=True,
    ):
        assert close(one, other)


def test_fused_update_is_that_of_one_tensor_after_another() -> None:
    from samaritan.recipes.sections import Compat, Optim
    from samaritan.train.optim import build_optimizer

    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7))
    other = copy.deepcopy(one)
    ours = build_optimizer(one, Optim(lr=0.1, weight_decay=0.1), Compat(decay_everything=True))
    theirs = torch.optim.AdamW(other.parameters(), lr=0.1, weight_decay=0.1, foreach=False)
    for _ in range(3):
        for model, optimizer in ((one, ours), (other, theirs)):
            optimizer.zero_grad()
            model(torch.ones(2, 5)).square().sum().backward()
            optimizer.step()
    assert ours.param_groups[0]["fused"]
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q)
