"""The step of mask classification: what it reads off labels, and that a tiny model learns two phantoms."""

from __future__ import annotations

import pytest
import torch

from samaritan.assembly import create_model
from samaritan.errors import ConfigError
from samaritan.set_losses import SetWeights
from samaritan.train import mask_classes_step
from samaritan.train.machine import saving_memory
from samaritan.train.mask_classes import targets_of

FEW = SetWeights(points=256)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def phantoms():
    """Two volumes of three slices: a bright disc and a dark square, elsewhere in each slice."""
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    labels = torch.zeros(2, 3, 32, 32, dtype=torch.long)
    for b in range(2):
        for t in range(3):
            disc = (rows - 10 - 2 * t).square() + (columns - 10 - 3 * b).square() < 40
            square = (rows - 21 + t).abs().maximum((columns - 20 + 4 * b).abs()) < 5
            labels[b, t][disc] = 1
            labels[b, t][square] = 2
    values = torch.tensor([0.0, 1.5, -1.5])[labels]
    return {"image": (values + 0.3 * torch.randn_like(values))[:, None], "label": labels}


def test_targets_are_read_off_label_maps():
    labels = torch.zeros(2, 8, 16, dtype=torch.long)
    labels[0, 2:4, 4:12] = 2
    targets = targets_of(labels, 3)
    assert targets.present.tolist() == [[True, False, True], [True, False, False]]
    assert targets.boxes[0, 2].tolist() == [0.25, 0.25, 0.75, 0.5]
    assert targets_of(labels, 3, closed=True).boxes[0, 2].tolist() == [0.25, 0.25, 11 / 16, 0.375]
    with pytest.raises(ConfigError, match=r"labels go up to 2, but the model has 2 classes"):
        targets_of(labels, 2)


def losses(model, batch, generator, step=None, count=1):
    # without decay, so that what gets no gradient stays
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 2e-3)
    step, seen = step or mask_classes_step(FEW), []
    for _ in range(count):
        for loss in step(model, batch, generator):
            optimizer.zero_grad()
            loss.total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 12.0)
            optimizer.step()
            seen.append(loss)
    return seen


@pytest.mark.parametrize("compat", ["fixed", "reference"])
def test_a_tiny_model_learns_two_phantoms(compat, generator):
    model = create_model("masksam_tiny", compat=compat).train()
    seen = losses(model, phantoms(), generator, count=40)
    totals = [float(loss.total.detach()) for loss in seen]
    assert max(totals[-5:]) < 0.8 * totals[0]
    assert max(float(loss.logs["dice"]) for loss in seen[-10:]) > 0.5


def test_class_scores_are_judged_besides_if_wanted():
    model, batch = create_model("masksam_tiny"), phantoms()
    one, both = (
        next(mask_classes_step(FEW, **besides)(model, batch, torch.Generator().manual_seed(0)))
        for besides in ({}, {"cross_entropy": 2.0, "dice": 0.5})
    )
    assert set(both.logs) - set(one.logs) == {"ce", "dice_loss"}
    assert {"class", "mask_ce", "mask_dice", "aux_ce", "aux_dice", "box", "giou", "dice"} == set(
        one.logs
    )
    scores = model(batch["image"]).probabilities
    ce = torch.nn.functional.nll_loss(scores.clamp(min=1e-6).log(), batch["label"])
    torch.testing.assert_close(both.logs["ce"], ce.detach(), rtol=1e-3, atol=1e-4)
    extra = 2.0 * both.logs["ce"] + 0.5 * both.logs["dice_loss"]
    torch.testing.assert_close(both.total, one.total + extra)


def test_the_same_generator_gives_the_same_loss():
    model, batch = create_model("masksam_tiny"), phantoms()
    step = mask_classes_step(FEW)
    first, second = (
        next(step(model, batch, torch.Generator().manual_seed(1))).total for _ in range(2)
    )
    assert torch.equal(first, second)


@pytest.mark.parametrize("compat", ["fixed", "reference"])
def test_frozen_parameters_stay_and_all_others_move(compat, generator):
    model = create_model("masksam_tiny", compat=compat, start="published").train()
    learns = ("adapters", "stem", "generator", "class_", "slice_")
    for key, parameter in model.named_parameters():
        parameter.requires_grad_(any(word in key for word in learns))
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    losses(model, phantoms(), generator)
    moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert moved == {key for key, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("compat", ["fixed", "reference"])
def test_computing_blocks_again_gives_the_same_gradients(compat):
    model, batch = create_model("masksam_tiny", compat=compat, start="published"), phantoms()
    gradients = []
    for wanted in (False, True):
        model.zero_grad()
        with saving_memory(model, wanted):
            next(
                mask_classes_step(FEW)(model, batch, torch.Generator().manual_seed(0))
            ).total.backward()
        gradients.append({k: p.grad for k, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for key, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], gradient, rtol=1e-4, atol=1e-6, msg=key)


def test_undecided_voxels_count_as_background(generator):
    model, batch = create_model("masksam_tiny"), phantoms()
    step = mask_classes_step(FEW)
    state = generator.get_state()
    plain = next(step(model, batch, generator)).total
    generator.set_state(state)
    odd = batch["label"].clone()
    odd[odd == 0] = -1
    assert torch.equal(next(step(model, {**batch, "label": odd}, generator)).total, plain)


def test_other_models_are_refused(generator):
    model = create_model("samed_tiny", num_classes=2)
    batch = {"image": torch.zeros(1, 3, 64, 64), "label": torch.zeros(1, 64, 64)}
    with pytest.raises(ConfigError, match="gives no classes of masks"):
        next(mask_classes_step()(model, batch, generator))
