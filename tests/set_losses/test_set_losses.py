"""Matching and its losses: published numbers, laws, and loops as second accounts."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from samaritan.errors import ConfigError
from samaritan.models.prompt_generator import boxes_of
from samaritan.recipes import get_recipe
from samaritan.set_losses import (
    Found,
    SetWeights,
    Targets,
    costs,
    giou,
    label_parts,
    match,
    sample,
    set_losses,
    spread_points,
    uncertain_points,
)
from samaritan.set_losses.criterion import class_loss, mask_losses, point_losses
from samaritan.set_losses.matching import UNKNOWN_COST, cross_entropy_table, dice_table
from samaritan.set_losses.sets import AMOS

CPU = torch.device("cpu")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def targets_of(labels, classes):
    masks = labels[:, None] == torch.arange(classes)[:, None, None]
    boxes, present = boxes_of(masks)
    return Targets(labels, present, boxes)


def random_problem(generator, n=2, q=5, classes=4, size=(12, 10)):
    def randn(*shape):
        return torch.randn(shape, generator=generator)

    labels = torch.randint(0, classes, (n, *size), generator=generator)
    labels[labels == 2] = 0  # a class that is absent
    low = torch.rand(n, q, 2, generator=generator) / 2
    boxes = torch.cat([low, low + torch.rand(n, q, 2, generator=generator) / 2], dim=-1)
    found = Found(randn(n, q, classes + 1), 3 * randn(n, q, *size), 3 * randn(n, q, *size), boxes)
    return found, targets_of(labels, classes)


# -- Published numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((0, 0, 0.5, 0.5), (0, 0, 0.5, 0.5), 0.999996),
        ((0, 0, 0, 0), (0.2, 0.2, 0.5, 0.5), -0.640),
        ((0, 0, 0.4, 0.4), (0.2, 0.2, 0.6, 0.6), -0.07936),
    ],
)
def test_overlap_of_boxes(a, b, expected):
    assert float(giou(torch.tensor(a), torch.tensor(b))) == pytest.approx(expected, abs=5e-6)


def test_class_loss():
    uniform = class_loss(torch.zeros(1, 6, 5), torch.tensor([[0, 3, -1, -1, 1, -1]]), no_object=0.1)
    assert float(uniform) == pytest.approx(math.log(5))
    logits = torch.tensor([[[0.0, 0, 2], [0, 1, 0]]])
    found = class_loss(logits, torch.tensor([[-1, 1]]), no_object=0.1)
    assert float(found) == pytest.approx(0.52309, abs=1e-5)


def test_mask_losses_and_costs():
    logits, target = torch.tensor([[2.0, -1, 0.5, -3]]), torch.tensor([[1.0, 0, 1, 0]])
    for t, expected in ((target, (0.240714, 0.168708)), (1 - target, (1.865713, 0.661232))):
        ce, dice = mask_losses(logits, t)
        assert (float(ce), float(dice)) == pytest.approx(expected, abs=1e-6)
        table = cross_entropy_table(logits[None], t[None]), dice_table(logits[None], t[None])
        assert tuple(map(float, table)) == pytest.approx(expected, abs=1e-6)


def test_a_second_sigmoid_leaves_a_floor_under_perfect_masks():
    mask = torch.zeros(1, 100_000)
    mask[:, :10_986] = 1
    ce, dice = mask_losses(mask, mask)
    assert (float(ce), float(dice)) == pytest.approx((0.65141, 0.74712), abs=1e-5)
    ce, dice = mask_losses(20 * (2 * mask - 1), mask)
    assert max(float(ce), float(dice)) < 1e-3


# -- Points --------------------------------------------------------------------------------------------


def test_label_maps_are_sampled_as_masks_would_be(generator):
    labels = torch.randint(0, 4, (3, 9, 7), generator=generator)
    points = spread_points(3, 200, generator, CPU)
    masks = F.one_hot(labels, 4).movedim(-1, 1).float()
    torch.testing.assert_close(label_parts(labels, points, 4), sample(masks, points))


def test_pixel_centres_hold_the_pixels():
    image = torch.arange(12.0).reshape(1, 1, 3, 4)
    centres = torch.tensor([[[(x + 0.5) / 4, (y + 0.5) / 3] for y in range(3) for x in range(4)]])
    torch.testing.assert_close(sample(image, centres)[0, 0], torch.arange(12.0))


def test_three_quarters_of_the_points_are_the_most_uncertain_of_twice_as_many(generator):
    logits = torch.randn(2, 16, 16, generator=generator)
    state = generator.get_state()
    points = uncertain_points(logits, 40, generator)
    assert points.shape == (2, 40, 2)
    assert ((points >= 0) & (points <= 1)).all()
    generator.set_state(state)
    candidates = spread_points(2, 80, generator, CPU)
    doubt = sample(logits[:, None], candidates)[:, 0].abs().sort(dim=1).values[:, :30]
    chosen = sample(logits[:, None], points[:, :30])[:, 0].abs().sort(dim=1).values
    torch.testing.assert_close(chosen, doubt)
    generator.set_state(state)
    assert torch.equal(uncertain_points(logits, 40, generator), points)


# -- Matching ------------------------------------------------------------------------------------------


def cost_by_hand(found, targets, weights, points, slice_, query, target):
    """One entry of the table, term by term."""
    labels = (targets.labels[slice_] == target).float()[None, None]
    t = sample(labels, points[slice_ : slice_ + 1])[0, 0]
    total = -weights.classes * found.class_logits[slice_, query].softmax(-1)[target]
    for logits, w_mask, w_dice in (
        (found.mask_logits, weights.mask, weights.dice),
        (found.aux_logits, weights.aux_mask, weights.aux_dice),
    ):
        v = sample(logits[slice_, query][None, None], points[slice_ : slice_ + 1])[0, 0]
        total += w_mask * F.binary_cross_entropy_with_logits(v, t)
        total += w_dice * (
            1 - (2 * (v.sigmoid() * t).sum() + 1) / (v.sigmoid().sum() + t.sum() + 1)
        )
    ours, theirs = found.boxes[slice_, query], targets.boxes[slice_, target]
    total += weights.box * (ours - theirs).abs().sum()
    return total - weights.giou * giou(ours, theirs)


@pytest.mark.parametrize("seed", range(25))  # two slices each
def test_matching_is_the_best_of_all_assignments_of_costs_by_hand(seed):
    generator = torch.Generator().manual_seed(seed)
    found, targets = random_problem(generator, q=4)
    weights = SetWeights(points=50)
    points = spread_points(2, 50, generator, CPU)
    matched = match(found, targets, weights, generator, points=points)
    for i in range(2):
        there = targets.present[i].nonzero().flatten().tolist()
        assert there == [0, 1, 3]
        table = {
            (q, c): float(cost_by_hand(found, targets, weights, points, i, q, c))
            for q in range(4)
            for c in there
        }
        best = min(
            permutations(range(4), 3),
            key=lambda order: sum(table[q, c] for q, c in zip(order, there, strict=True)),
        )
        expected = [-1] * 4
        for q, c in zip(best, there, strict=True):
            expected[q] = c
        assert matched[i].tolist() == expected


def test_costs_that_are_no_numbers_count_as_a_hundred(generator):
    found, targets = random_problem(generator, n=1, q=3)
    weights, points = SetWeights(points=20), spread_points(1, 20, generator, CPU)
    found.class_logits[0, 1] = float("nan")
    matched = match(found, targets, weights, generator, points=points)
    assert sorted(matched[0].tolist()) == [0, 1, 3]  # three are needed, so it is taken all the same
    table = costs(found, targets, weights, points)[0][:, [0, 1, 3]]
    assert table[1].isnan().all()
    table[1] = UNKNOWN_COST
    assert UNKNOWN_COST == 100.0
    sums = {p: float(table[list(p), range(3)].sum()) for p in permutations(range(3))}
    best = min(sums, key=sums.get)  # of each class its query
    assert [[0, 1, 3][best.index(query)] for query in range(3)] == matched[0].tolist()
    nothing = found._replace(class_logits=torch.full_like(found.class_logits, float("nan")))
    assert match(nothing, targets, SetWeights(points=20), generator).tolist() == [[-1] * 3]


def test_more_classes_than_proposals_leave_some_out(generator):
    found, targets = random_problem(generator, q=2)
    matched = match(found, targets, SetWeights(points=20), generator)
    assert (matched >= 0).all()


def test_matching_by_class_gives_each_query_its_class_where_that_is(generator):
    found, targets = random_problem(generator)
    targets.present[1, 3] = False
    matched = match(found, targets, SetWeights(by_class=True), generator)
    assert matched.tolist() == [[0, 1, -1, 3, -1], [0, 1, -1, -1, -1]]
    fewer = found._replace(boxes=found.boxes[:, :3])
    with pytest.raises(ConfigError, match=r"each of 4 classes.*has 3: create it with queries=4"):
        match(fewer, targets, SetWeights(by_class=True), generator)


def test_perfect_proposals_are_matched_in_any_order(generator):
    blocks = torch.tensor([[0, 1], [3, 0]]).repeat_interleave(16, 0).repeat_interleave(16, 1)
    targets = targets_of(blocks.expand(3, -1, -1), 4)
    order = torch.tensor([3, 0, 2, 1])
    masks = 20 * (2.0 * F.one_hot(targets.labels, 4).movedim(-1, 1)[:, order] - 1)
    logits = 20.0 * F.one_hot(order, 5).expand(3, -1, -1)
    found = Found(logits, masks, masks, targets.boxes[:, order])
    weights = SetWeights(points=500)
    losses = set_losses(found, targets, weights, generator)
    assert losses.matched.tolist() == [[3, 0, -1, 1]] * 3
    for name in ("box", "giou", "mask_ce", "aux_ce"):
        assert float(losses.parts[name]) < (0.5 if "ce" in name else 1e-3), name
    wrong = set_losses(found, targets, weights, generator, matched=losses.matched.roll(1, dims=1))
    assert float(wrong.total) > 5 * float(losses.total)


# -- The whole -----------------------------------------------------------------------------------------


def test_total_is_the_weighted_sum_over_the_number_of_targets(generator):
    found, targets = random_problem(generator)
    weights = SetWeights(points=64)
    state = generator.get_state()
    losses = set_losses(found, targets, weights, generator)
    p = losses.parts
    by_hand = (
        0.2 * p["class"]
        + 1.5 * (p["mask_ce"] + p["mask_dice"])
        + 0.5 * (p["aux_ce"] + p["aux_dice"])
    )
    by_hand = by_hand + 0.5 * p["box"] + 0.2 * p["giou"]
    torch.testing.assert_close(losses.total, by_hand)
    generator.set_state(state)
    again = set_losses(found, targets, weights, generator)
    assert torch.equal(again.total, losses.total)
    pairs = [(i, q) for i in range(2) for q in range(5) if losses.matched[i, q] >= 0]
    distance = sum(
        (found.boxes[i, q] - targets.boxes[i, losses.matched[i, q]]).abs().sum() for i, q in pairs
    )
    assert len(pairs) == int(targets.present.sum()) == 6
    torch.testing.assert_close(p["box"], distance / 6)


def test_the_second_sigmoid_changes_auxiliary_terms_alone(generator):
    found, targets = random_problem(generator)
    matched = match(found, targets, SetWeights(points=64), generator)
    state = generator.get_state()
    told = {"targets": targets, "weights": SetWeights(points=64), "matched": matched}
    right = set_losses(found, generator=generator, **told).parts
    generator.set_state(state)
    published = set_losses(found, generator=generator, double_sigmoid=True, **told).parts
    changed = {k for k in right if not torch.allclose(right[k], published[k])}
    assert changed == {"aux_ce", "aux_dice"}


def test_gradients_reach_every_proposal_by_its_class_and_matched_ones_by_all(generator):
    found, targets = random_problem(generator)
    found = Found(*(x.requires_grad_() for x in found))
    losses = set_losses(found, targets, SetWeights(points=64), generator)
    losses.total.backward()
    assert found.class_logits.grad.abs().sum(-1).min() > 0
    for x in found[1:]:
        touched = x.grad.abs().flatten(2).sum(-1) > 0
        assert torch.equal(touched, losses.matched >= 0)


class Calls(TorchDispatchMode):
    """Counts what is asked of the device."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.name()] += 1
        return func(*args, **(kwargs or {}))


WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::item", "aten::is_nonzero"}
"""What makes a program wait for its device."""


def test_no_call_is_made_and_nothing_waited_for_mask_by_mask(generator):
    seen = []
    for n, q, classes in ((1, 4, 4), (6, 9, 7)):
        found, targets = random_problem(generator, n=n, q=q, classes=classes)
        with Calls() as calls:
            set_losses(found, targets, SetWeights(points=64), generator)
        seen.append(calls.seen)
    assert seen[0] == seen[1]
    assert sum(seen[0][name] for name in WAITING) == 1  # which proposals stand for something


def test_weights_of_the_presets_are_the_published_ones():
    shared = {
        "classes": 0.2,
        "no_object": 0.1,
        "aux_mask": 0.5,
        "aux_dice": 0.5,
        "box": 0.5,
        "giou": 0.2,
    }
    acdc = {**shared, "mask": 1.5, "dice": 1.5, "points": 128 * 128 * 2}
    amos = {**shared, "mask": 1.2, "dice": 1.2, "points": 256 * 256 * 2}
    for name, wanted in (("acdc", acdc), ("synapse", acdc), ("amos", amos)):
        assert SetWeights(**dict(get_recipe(f"masksam_{name}").matching)) == SetWeights(**wanted)
    assert SetWeights(**amos) == AMOS


def test_losses_of_half_precision_are_taken_in_single(generator):
    found, targets = random_problem(generator)
    low = Found(*(x.bfloat16() for x in found))
    losses = set_losses(low, targets, SetWeights(points=64), generator)
    assert losses.total.dtype == torch.float32
    assert costs(low, targets, SetWeights(), torch.rand(2, 9, 2)).dtype == torch.float32


def test_point_losses_of_a_confident_mask_are_small(generator):
    labels = torch.zeros(1, 32, 32, dtype=torch.long)
    labels[:, 8:20, 4:16] = 2
    logits = 60 * ((labels == 2).float() - 0.5)
    ce, dice = point_losses(logits, labels, torch.tensor([2]), 2000, generator)
    off, _ = point_losses(-logits, labels, torch.tensor([2]), 2000, generator)
    assert float(ce) < float(off) / 5
    assert float(dice) < 0.25
