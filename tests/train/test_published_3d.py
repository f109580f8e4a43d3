"""What SAM-Med3D trains as: rates of its parts, when it updates, where clicks lie (see docs/fidelity.md)."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from samaritan import simulate
from samaritan.assembly import create_model
from samaritan.recipes import get_recipe, rate
from samaritan.recipes.sections import Compat
from samaritan.train.iterated import click
from samaritan.train.optim import build_optimizer
from samaritan.train.sampling import plan_epoch


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("compat", [Compat(), Compat(decay_everything=True)])
def test_the_parts_of_sam_med3d_have_189_14_and_120_tensors_at_their_rates(compat) -> None:
    """T10: the encoder at the full rate, the others at a tenth; what decays is a switch."""
    recipe = get_recipe("sam_med3d")
    with torch.device("meta"):
        model = create_model("sammed3d_vit_b_ori", num_point_embeddings=2)
    names = {id(p): n.split(".")[0] for n, p in model.named_parameters()}
    counts, rates, decays = Counter(), {}, {}
    for group in build_optimizer(model, recipe.optim, compat).param_groups:
        for parameter in group["params"]:
            part = names[id(parameter)]
            counts[part] += 1
            rates.setdefault(part, set()).add(round(group["lr"], 9))
            decays.setdefault(part, set()).add(group["weight_decay"])
    assert counts == {"image_encoder": 189, "prompt_encoder": 14, "mask_decoder": 120}
    assert rates == {"image_encoder": {8e-4}, "prompt_encoder": {8e-5}, "mask_decoder": {8e-5}}
    everywhere = {0.1} if compat.decay_everything else {0.0, 0.1}
    assert all(found == everywhere for found in decays.values())
    marks = [rate(recipe.schedule, 45 * e, per_epoch=45, epochs=200) for e in (0, 119, 120, 180)]
    assert marks == pytest.approx([1, 1, 0.1, 0.01])


def test_of_45_batches_20_20_and_the_last_5_make_an_update() -> None:
    """T11: nothing is thrown away at the end of an epoch, and no update takes one batch more."""
    recipe = get_recipe("sam_med3d")
    size, accumulate = recipe.data.batch_size, recipe.run.accumulate
    plan = plan_epoch(
        45 * size, batch_size=size, accumulate=accumulate, world=1, rank=0, seed=0, epoch=0
    )
    assert [len(group.batches) for group in plan] == [20, 20, 5]
    assert [group.total for group in plan] == [240, 240, 60]
    every = [index for group in plan for batch in group.batches for index in batch]
    assert sorted(every) == list(range(45 * size))


def a_box(*where) -> torch.Tensor:
    mask = torch.zeros(1, 9, 10, 11, dtype=torch.bool)
    mask[(0, *[slice(a, b) for a, b in where])] = True
    return mask


OBJECT, BLOB = a_box((1, 4), (2, 5), (3, 7)), a_box((6, 8), (6, 9), (8, 10))


def test_a_first_click_is_on_the_object() -> None:
    """T13: of an empty prediction."""
    for seed in range(50):
        coords, labels = click(torch.zeros_like(OBJECT), OBJECT, "random", draws(seed))
        assert labels.tolist() == [[1]]
        assert bool(OBJECT[0][tuple(coords[0, 0].long())])


def test_what_is_too_much_gets_negative_clicks() -> None:
    """T13: the object is found, and a blob beside it."""
    for seed in range(50):
        coords, labels = click(OBJECT | BLOB, OBJECT, "random", draws(seed))
        assert labels.tolist() == [[0]]
        assert bool(BLOB[0][tuple(coords[0, 0].long())])


def test_a_perfect_answer_gets_no_point_whatever_the_others_get() -> None:
    """T13: published code fails here; ours gives that object the label of no point."""
    predicted = torch.cat([OBJECT, BLOB])
    _, labels = click(predicted, torch.cat([OBJECT, OBJECT]), "random", draws())
    assert labels[0].tolist() == [simulate.NO_POINT]
    assert labels[1].tolist() != [simulate.NO_POINT]


def test_clicks_are_spread_evenly_over_all_that_is_wrong() -> None:
    """T13: what is missing and what is too much in one draw, each voxel as often as any other."""
    missing, too_much = a_box((1, 3), (1, 4), (2, 4)), a_box((6, 8), (6, 8), (8, 10))
    wrong, count = missing | too_much, 6000
    coords, labels = click(
        too_much.expand(count, -1, -1, -1), missing.expand(count, -1, -1, -1), "random", draws(3)
    )
    seen = Counter(tuple(at) for at in coords[:, 0].long().tolist())
    places = {tuple(at) for at in wrong[0].nonzero().tolist()}
    assert set(seen) == places
    expected = count / len(places)
    chi_square = sum((seen[at] - expected) ** 2 / expected for at in places)
    assert len(places) == 20
    assert chi_square < 43.8  # of 19 degrees of freedom, one in a thousand is larger
    on = [bool(missing[0][tuple(at)]) for at in coords[:, 0].long().tolist()]
    assert on == (labels[:, 0] == 1).tolist()
