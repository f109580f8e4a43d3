"""Losses have the published values, their oddities are switches, and they keep float32."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch

from samaritan.losses import (
    dice_ce_loss,
    focal_loss,
    multiclass_dice_loss,
    sam_med2d_loss,
    samed_loss,
)

PUBLISHED = {"batch_dice": True, "batch_iou_target": True, "detach_iou_target": False}


@pytest.fixture(scope="module")
def golden(parity_dir):
    """The recipe of golden inputs, and the values of the published losses on them."""
    spec = importlib.util.spec_from_file_location("golden_recipe", parity_dir / "golden.py")
    recipe = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recipe)
    values = json.loads((parity_dir / "losses.json").read_text("utf-8"))
    return lambda name, shape: torch.from_numpy(recipe.noise(name, shape)), values


def noise(seed, *shape):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape).astype("float32"))


def wave(count):
    return torch.arange(count, dtype=torch.float64)


def case(n=3, m=1, size=(6, 7)):
    logits = 2 * noise(0, n, m, *size)
    return logits, noise(1, n, m, *size) > 0.5, noise(2, n, m).abs()


# -- published values ----------------------------------------------------------------------------


def test_samed_loss_has_the_published_values(golden) -> None:
    noise_of, values = golden
    logits = noise_of("loss.samed.logits", (2, 9, 56, 56))
    labels = (noise_of("loss.samed.label", (2, 56, 56)) * 4).abs().int() % 9
    for part, value in samed_loss(logits, labels).items():
        assert float(value) == pytest.approx(values["samed"][part], abs=1e-6)


def test_sam_med2d_loss_has_the_published_values(golden) -> None:
    noise_of, values = golden
    logits = 2 * noise_of("loss.sammed2d.logits", (3, 1, 64, 64))
    masks = noise_of("loss.sammed2d.mask", (3, 1, 64, 64)) > 0.7
    iou = 0.3 * noise_of("loss.sammed2d.iou", (3, 1)).abs()
    for part, value in sam_med2d_loss(logits, masks, iou, **PUBLISHED).items():
        assert float(value) == pytest.approx(values["sammed2d"][part], rel=1e-6, abs=1e-6)


def test_dice_ce_loss_has_the_published_value(golden) -> None:
    noise_of, values = golden
    logits = 2 * noise_of("loss.sammed3d.logits", (2, 1, 24, 24, 24))
    masks = noise_of("loss.sammed3d.mask", (2, 1, 24, 24, 24)) > 0.7
    total = float(dice_ce_loss(logits, masks)["total"])
    assert total == pytest.approx(values["sammed3d"]["total"], abs=1e-6)


def test_sam_med2d_loss_meets_the_specification() -> None:
    n = wave(2 * 64 * 64).reshape(2, 1, 64, 64)
    logits, masks = (3 * torch.sin(n / 37)).float(), torch.cos(n / 53) > 0.3
    parts = sam_med2d_loss(logits, masks, torch.tensor([[0.4], [0.7]]), **PUBLISHED)
    wanted = {"focal": 0.448121, "dice": 0.543704, "iou_mse": 0.087258, "total": 9.593391}
    assert {part: float(value) for part, value in parts.items()} == pytest.approx(wanted, abs=2e-6)


def test_dice_ce_loss_meets_the_specification() -> None:
    parts = dice_ce_loss(noise(4, 2, 1, 16, 16, 16), noise(5, 2, 1, 16, 16, 16) > 1)
    wanted = {"total": 1.448143, "dice": 0.641836, "ce": 0.806307}
    assert {part: float(value) for part, value in parts.items()} == pytest.approx(wanted, abs=1e-6)


def test_untrained_logits_cost_what_chance_costs() -> None:
    labels = torch.arange(9 * 8).reshape(1, 8, 9) % 9
    parts = samed_loss(torch.zeros(1, 9, 8, 9), labels)
    assert float(parts["ce"]) == pytest.approx(np.log(9))
    assert float(parts["dice"]) == pytest.approx(1 - 2 / 9 / (1 / 9 + 1), abs=1e-5)


# -- laws ----------------------------------------------------------------------------------------


def test_perfect_logits_cost_nothing() -> None:
    _, masks, _ = case()
    logits = 40.0 * (2 * masks.float() - 1)
    assert float(dice_ce_loss(logits, masks)["total"]) == pytest.approx(0, abs=1e-6)
    parts = sam_med2d_loss(logits, masks, torch.ones(3, 1))
    assert float(parts["total"]) == pytest.approx(0, abs=1e-6)
    labels = masks[:, 0].long()
    both = torch.cat((-logits, logits), dim=1)
    assert float(samed_loss(both, labels)["total"]) == pytest.approx(0, abs=1e-6)


def test_samples_count_alike_by_default_and_by_size_as_published() -> None:
    logits, masks, iou = case(n=2)
    masks[1] = False
    masks[1, 0, 0, 0] = True
    each = [sam_med2d_loss(logits[i : i + 1], masks[i : i + 1], iou[i : i + 1]) for i in range(2)]
    together = sam_med2d_loss(logits, masks, iou)
    for part in together:
        assert float(together[part]) == pytest.approx(float(each[0][part] + each[1][part]) / 2)
    published = sam_med2d_loss(logits, masks, iou, batch_dice=True)
    assert abs(float(published["dice"] - together["dice"])) > 0.01


def test_the_iou_target_sends_no_gradient_unless_as_published() -> None:
    logits, masks, iou = case()
    for detach in (True, False):
        leaf = logits.clone().requires_grad_()
        parts = sam_med2d_loss(leaf, masks, iou.requires_grad_(), detach_iou_target=detach)
        (gradient,) = torch.autograd.grad(parts["iou_mse"], leaf, allow_unused=True)
        assert (gradient is None) == detach


def test_each_mask_is_judged_by_its_own_iou() -> None:
    logits, masks, _ = case()
    probs = logits.sigmoid()
    both = (probs * masks).sum(dim=(2, 3))
    own = both / (probs.sum(dim=(2, 3)) + masks.sum(dim=(2, 3)) - both)
    assert float(sam_med2d_loss(logits, masks, own)["iou_mse"]) == pytest.approx(0, abs=1e-10)
    scalar = sam_med2d_loss(logits, masks, own, batch_iou_target=True)
    assert float(scalar["iou_mse"]) > 1e-4
    hard = logits > 0
    union = (hard | masks).sum(dim=(2, 3))
    exact = (hard & masks).sum(dim=(2, 3)) / union
    told = sam_med2d_loss(logits, masks, exact, iou_target="hard")
    assert float(told["iou_mse"]) == pytest.approx(0, abs=1e-10)


def test_confident_mistakes_keep_their_gradient() -> None:
    logits = torch.full((1, 1, 2, 2), -60.0, requires_grad=True)
    focal_loss(logits, torch.ones(1, 1, 2, 2)).backward()
    assert float(logits.grad.abs().min()) > 0.01


@pytest.mark.parametrize("size", [(6, 7), (3, 4, 5)])
def test_losses_take_pictures_and_volumes_and_several_masks(size) -> None:
    logits, masks, iou = case(m=2, size=size)
    assert sam_med2d_loss(logits, masks, iou)["total"].shape == ()
    assert dice_ce_loss(logits, masks)["total"].shape == ()
    labels = masks[:, 0].long()
    assert multiclass_dice_loss(logits, labels).shape == ()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_summed_in_float32(dtype) -> None:
    logits, masks, iou = case(size=(64, 64))
    low = logits.to(dtype)
    two = torch.cat((-low, low), dim=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = [
            sam_med2d_loss(low, masks, iou),
            dice_ce_loss(low, masks),
            samed_loss(two, masks[:, 0].long()),
        ]
    plain = [
        sam_med2d_loss(low.float(), masks, iou),
        dice_ce_loss(low.float(), masks),
        samed_loss(two.float(), masks[:, 0].long()),
    ]
    for found, wanted in zip(parts, plain, strict=True):
        assert {value.dtype for value in found.values()} == {torch.float32}
        assert float(found["total"]) == pytest.approx(float(wanted["total"]), abs=1e-7)


def test_empty_masks_have_finite_losses_and_gradients() -> None:
    logits, masks, iou = case()
    leaf = logits.requires_grad_()
    empty = torch.zeros_like(masks)
    total = sam_med2d_loss(leaf, empty, iou)["total"] + dice_ce_loss(leaf, empty)["total"]
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(leaf.grad).all()


def test_dice_ce_equals_monai() -> None:
    from monai.losses import DiceCELoss

    logits, masks, _ = case(n=2, size=(5, 6, 7))
    wanted = DiceCELoss(sigmoid=True, squared_pred=True)(logits, masks.float())
    assert float(dice_ce_loss(logits, masks)["total"]) == pytest.approx(float(wanted), abs=1e-6)
