"""What a batch teaches: which parameters move in which update, and what each compat switch changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from train.toys import Objects, Slices, interactive, multiclass

from samaritan.assembly import create_model
from samaritan.recipes import Recipe
from samaritan.recipes.sections import Compat, Loss, Prompts
from samaritan.train import interactive_step, multiclass_step
from samaritan.train.interactive import box_prompts, first_prompts
from samaritan.train.optim import build_optimizer, decayed_names, hold_still
from samaritan.train.steps import class_dice, corner_aligned, mean_dice, pixel_aligned


def batch_of(kind: type[Slices], n: int = 2) -> dict[str, Tensor]:
    items = [kind(n)[i] for i in range(n)]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def moved(recipe: Recipe, *, seed: int = 0) -> list[set[str]]:
    """Names of the parameters that each update of one batch changes."""
    torch.manual_seed(0)
    model = create_model(recipe.model.name).train()
    hold_still(model, recipe.compat)
    optimizer = build_optimizer(model, recipe.optim, recipe.compat)
    before = {k: v.detach().clone() for k, v in model.named_parameters()}
    found = []
    step = interactive_step(recipe.prompts, recipe.loss, recipe.compat)
    for loss in step(model, batch_of(Objects), draws(seed)):
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        now = {k: v.detach().clone() for k, v in model.named_parameters()}
        found.append({k for k in now if not torch.equal(now[k], before[k])})
        before = now
    return found


def parts(names: set[str]) -> set[str]:
    return {"adapters" if ".adapters." in name else name.split(".")[0] for name in names}


# -- SAM-Med2D -----------------------------------------------------------------------------------


@pytest.mark.parametrize("box_part", [0, 1])
def test_a_batch_is_worth_nine_updates_and_only_the_first_reaches_the_encoder(box_part) -> None:
    updates = moved(interactive("prompts.rounds=8", f"prompts.box_part={box_part}"))
    assert len(updates) == 9
    assert parts(updates[0]) == {"adapters", "prompt_encoder", "mask_decoder"}
    for update in updates[1:]:
        assert parts(update) == {"prompt_encoder", "mask_decoder"}
    assert any("mask_downscaling" in name for name in updates[1])
    assert any("point_embeddings.1" in name for update in updates for name in update)
    assert any("not_a_point" in name for update in updates for name in update)


@pytest.mark.parametrize("box_part", [0, 1])
def test_published_corrections_train_the_decoder_alone(box_part) -> None:
    recipe = interactive(
        "prompts.rounds=8",
        f"prompts.box_part={box_part}",
        "compat.frozen_point_embeddings=true",
        "compat.prompts_without_gradient=true",
    )
    updates = moved(recipe)
    assert len(updates) == 9
    first = {name for name in updates[0] if name.startswith("prompt_encoder")}
    corners = {f"prompt_encoder.point_embeddings.{i}.weight" for i in (2, 3)} if box_part else set()
    assert first == {"prompt_encoder.no_mask_embed.weight"} | corners
    for update in updates[1:]:
        assert parts(update) == {"mask_decoder"}


def test_the_quality_target_sends_no_gradient_into_masks_unless_published() -> None:
    loss = Loss(focal=0, dice=0, iou=1)
    for compat, reached in ((Compat(), False), (Compat(batch_losses=True), True)):
        torch.manual_seed(0)
        model = create_model("sammed2d_tiny")
        first = next(
            interactive_step(Prompts(rounds=0), loss, compat)(model, batch_of(Objects), draws())
        )
        first.total.backward()
        gradient = model.mask_decoder.output_upscaling[0].weight.grad
        assert (gradient is not None and bool(gradient.any())) == reached


def test_the_best_mask_is_trained_if_wanted() -> None:
    losses = {}
    for choose in ("predicted_iou", "lowest_loss"):
        torch.manual_seed(0)
        model = create_model("sammed2d_tiny")
        step = interactive_step(
            Prompts(rounds=0, choose=choose), Loss(focal=20, dice=1, iou=0), Compat()
        )
        losses[choose] = float(next(step(model, batch_of(Objects), draws())).total.detach())
    assert losses["lowest_loss"] < losses["predicted_iou"]


@pytest.mark.parametrize("rounds", [0, 1, 2, 3])
def test_few_rounds_work(rounds) -> None:
    assert len(moved(interactive(f"prompts.rounds={rounds}"))) == 1 + rounds


def test_steps_repeat_with_their_generator() -> None:
    def totals(seed: int) -> list[float]:
        torch.manual_seed(0)
        model = create_model("sammed2d_tiny")
        step = interactive_step(Prompts(rounds=3), Loss(), Compat())
        return [float(x.total.detach()) for x in step(model, batch_of(Objects), draws(seed))]

    assert totals(1) == totals(1) != totals(2)


def test_boxes_have_their_corners_on_outermost_pixels_unless_published() -> None:
    masks = torch.zeros(1, 20, 30, dtype=torch.bool)
    masks[0, 4:10, 7:19] = True
    exact = Prompts(box_noise="none")
    assert box_prompts(masks, exact, Compat(), draws()).tolist() == [[7, 4, 18, 9]]
    published = Compat(exclusive_box_corners=True)
    assert box_prompts(masks, exact, published, draws()).tolist() == [[7, 4, 19, 10]]


def test_boxes_hold_all_of_an_object_or_its_largest_part_as_published() -> None:
    masks = torch.zeros(1, 20, 30, dtype=torch.bool)
    masks[0, 4:10, 7:19] = True
    masks[0, 15:17, 24:28] = True
    around = [
        box_prompts(masks, Prompts(box_noise="none", box_around=a), Compat(), draws()).tolist()
        for a in ("all", "largest")
    ]
    assert around == [[[7, 4, 27, 16]], [[7, 4, 18, 9]]]


def test_points_are_given_as_x_and_y() -> None:
    masks = torch.zeros(1, 20, 30, dtype=torch.bool)
    masks[0, 4, 25] = True
    given = first_prompts(masks, Prompts(box_part=0), Compat(), draws())
    assert given.points is not None
    assert given.points[0].tolist() == [[[25, 4]]]
    assert given.points[1].tolist() == [[1]]


# -- SAMed ---------------------------------------------------------------------------------------


def test_one_prompt_free_update_reaches_what_it_should() -> None:
    torch.manual_seed(0)
    model = create_model("samed_tiny", num_classes=2).train()
    recipe = multiclass()
    losses = list(multiclass_step(recipe.loss, recipe.compat)(model, batch_of(Slices), draws()))
    assert len(losses) == 1
    losses[0].total.backward()
    reached = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    idle = ("point_embeddings", "not_a_point", "mask_downscaling", "iou_prediction_head")
    assert {n for n in learning if any(word in n for word in idle)} == learning - reached
    assert parts(reached) == {"adapters", "prompt_encoder", "mask_decoder"}


def test_labels_are_sampled_where_the_logits_are_unless_published() -> None:
    label = (torch.arange(512) >= 400).long().expand(1, 512, 512)
    ours, theirs = (shrink(label, (128, 128)) for shrink in (pixel_aligned, corner_aligned))
    first = [int(x[0, 0].argmax()) for x in (ours, theirs)]
    assert first == [100, 100]
    edge = (torch.arange(512) >= 2).long().expand(1, 512, 512)
    assert [int(f(edge, (128, 128))[0, 0, 0]) for f in (pixel_aligned, corner_aligned)] == [1, 0]
    at = [round(i * 511 / 127 + 1e-9) for i in range(128)]
    ramp = torch.arange(512).expand(1, 512, 512)
    assert corner_aligned(ramp, (128, 128))[0, 0].tolist() == at
    assert pixel_aligned(ramp, (128, 128))[0, 0].tolist() == [4 * i + 2 for i in range(128)]


def test_the_compat_switch_changes_the_labels_of_the_loss() -> None:
    totals = []
    for compat in (Compat(), Compat(corner_aligned_labels=True)):
        torch.manual_seed(0)
        model = create_model("sam_tiny", num_classes=2)
        loss = next(
            multiclass_step(Loss(cross_entropy=1), compat)(model, batch_of(Slices), draws())
        )
        totals.append(float(loss.total.detach()))
    assert totals[0] != totals[1]


def test_dice_counts_what_there_is() -> None:
    label = torch.tensor([[[1, 1], [0, 0]]])
    dice = class_dice(label, label, 3)
    assert dice[0, 0] == 1
    assert dice[0, 1].isnan()
    assert float(mean_dice(label, label, 3)) == 1
    empty = torch.zeros_like(label)
    assert float(mean_dice(empty, empty, 3)) == 1
    assert float(mean_dice(empty, label, 3)) == 0


# -- optimisers ----------------------------------------------------------------------------------


def test_weight_decay_is_for_matrices_and_kernels_unless_published() -> None:
    model = create_model("samed_tiny", num_classes=2)
    optim = multiclass("optim.weight_decay=0.1").optim
    names = {id(p): n for n, p in model.named_parameters()}
    for compat, everything in ((Compat(), False), (Compat(decay_everything=True), True)):
        groups = build_optimizer(model, optim, compat).param_groups
        spared = {names[id(p)] for g in groups if g["weight_decay"] == 0 for p in g["params"]}
        assert bool(spared) != everything
        if not everything:
            assert "mask_decoder.mask_tokens.weight" in spared
            assert all(not n.endswith(".weight") or n not in decayed_names(model) for n in spared)


def test_groups_have_their_own_rates() -> None:
    model = create_model("samed_tiny", num_classes=2)
    recipe = multiclass("optim.groups=[{match: '**.adapters.**', lr: 10}]", "optim.lr=0.001")
    groups = build_optimizer(model, recipe.optim, recipe.compat).param_groups
    assert {g["full_lr"] for g in groups} == {0.001, 0.01}


def test_unused_parameters_do_not_shrink() -> None:
    torch.manual_seed(0)
    model = create_model("samed_tiny", num_classes=2)
    recipe = multiclass("compat.decay_everything=true", "optim.weight_decay=0.5", "optim.lr=0.1")
    optimizer = build_optimizer(model, recipe.optim, recipe.compat)
    before = model.prompt_encoder.point_embeddings[1].weight.detach().clone()
    next(
        multiclass_step(recipe.loss, recipe.compat)(model, batch_of(Slices), draws())
    ).total.backward()
    optimizer.step()
    assert torch.equal(model.prompt_encoder.point_embeddings[1].weight, before)
