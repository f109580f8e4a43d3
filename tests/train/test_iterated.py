"""Clicks that follow one another: what is shown, where gradients go, what is summed, and that it learns."""

from __future__ import annotations

import json

import pytest
import torch
from train.volume_toys import batch, folder, phantom

from samaritan import Grid, Volume, write
from samaritan.assembly import create_model
from samaritan.data import load_manifest
from samaritan.errors import ConfigError
from samaritan.losses import dice_ce_loss
from samaritan.models.config import get_config
from samaritan.recipes import get_recipe, rate, resolve
from samaritan.recipes.sections import Clicks, Compat, Loss, Schedule
from samaritan.train import iterated_judge, iterated_step
from samaritan.train.interactive import enlarged
from samaritan.train.iterated import answers, click, turns_of_masks_alone
from samaritan.train.optim import build_optimizer
from samaritan.train.runs import parts, train
from samaritan.train.volumes import window_chain
from samaritan.transforms import (
    Preprocess,
    WindowPreprocess,
    neurosam3d_windows,
    sam_med3d_windows,
)

LOSS = Loss(cross_entropy=1, dice=1, focal=0, iou=0)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def model_of(name="sam3d_tiny", **options):
    torch.manual_seed(0)
    return create_model(name, **options).train()


class Watched:
    """A prompt encoder that remembers what it was shown."""

    def __init__(self, model):
        self.seen = []
        inner = model.prompt_encoder.forward

        def forward(points=None, boxes=None, masks=None, *, image_size=None):
            self.seen.append((points, boxes, masks))
            return inner(points, boxes, masks, image_size=image_size)

        model.prompt_encoder.forward = forward


def conversation(clicks, *, boxed=False, seed=0, name="sam3d_tiny", n=2):
    model, data = model_of(name), batch(n)
    watched = Watched(model)
    masks = data["masks"].flatten(0, 1)
    embeddings = model.image_encoder(data["image"])
    found = list(answers(model, embeddings, masks, clicks, draws(seed), boxed=boxed))
    return found, watched.seen, masks


def test_the_total_is_the_sum_over_answers() -> None:
    model, data = model_of(), batch()
    clicks = Clicks(count=(4, 4))
    (found,) = iterated_step(clicks, LOSS, Compat())(model, data, draws())
    masks = data["masks"].flatten(0, 1)
    again = draws()
    torch.rand((), generator=again)  # whether it begins with a box
    given = answers(model, model.image_encoder(data["image"]), masks, clicks, again)
    losses = [float(dice_ce_loss(a.logits, masks[:, None])["total"].detach()) for a in given]
    assert len(losses) == 4
    assert float(found.total.detach()) == pytest.approx(sum(losses), rel=1e-5)
    mean = (found.logs["ce"] + found.logs["dice_loss"]).detach()
    assert float(mean) == pytest.approx(sum(losses) / 4, rel=1e-5)


def test_the_first_click_lies_on_the_object_and_the_mask_is_zeros() -> None:
    _, seen, masks = conversation(Clicks(count=(3, 3), mask_only="none"))
    (coords, labels), boxes, low_res = seen[0]
    assert boxes is None
    assert torch.count_nonzero(low_res) == 0
    assert low_res.shape == (2, 1, *get_config("sam3d_tiny").low_res_size)
    assert labels.tolist() == [[1], [1]]
    i, j, k = coords[:, 0].long().unbind(1)
    assert bool(masks[torch.arange(2), i, j, k].all())


def test_later_clicks_lie_on_errors_of_the_last_answer() -> None:
    found, seen, masks = conversation(Clicks(count=(5, 5), mask_only="none"))
    for answer, (points, _, low_res) in zip(found, seen[1:], strict=False):
        assert low_res is answer.low_res
        coords, labels = points
        predicted = answer.logits[:, 0] > 0
        for i in range(len(masks)):
            at = tuple(coords[i, 0].long().tolist())
            assert bool(predicted[i][at]) != bool(masks[i][at])
            assert int(labels[i, 0]) == int(masks[i][at])


@pytest.mark.parametrize(("show", "counts"), [("newest", [1, 1, 1, 1]), ("all", [1, 2, 3, 4])])
def test_newest_or_all_clicks_are_shown(show, counts) -> None:
    _, seen, _ = conversation(Clicks(count=(4, 4), mask_only="none", show=show))
    assert [points[0].shape[1] for points, _, _ in seen] == counts


def test_two_of_eleven_turns_show_the_mask_alone() -> None:
    """T9 of the specification: one turn from 2 to 8, and the last."""
    middles = set()
    for seed in range(60):
        alone = turns_of_masks_alone(Clicks(), 11, draws(seed))
        assert 10 in alone
        (middle,) = alone - {10}
        middles.add(middle)
    assert middles == set(range(2, 9))
    _, seen, _ = conversation(Clicks())
    assert sum(points is None for points, _, _ in seen) == 2
    assert seen[-1][0] is None
    assert turns_of_masks_alone(Clicks(mask_only="middle"), 11, draws()) <= set(range(2, 9))
    assert turns_of_masks_alone(Clicks(mask_only="none"), 11, draws()) == set()
    assert turns_of_masks_alone(Clicks(), 1, draws()) == set()


def test_the_number_of_answers_is_drawn_for_each_batch() -> None:
    clicks = Clicks(count=(1, 3), mask_only="none")
    counts = {len(conversation(clicks, seed=seed, n=1)[0]) for seed in range(12)}
    assert counts == {1, 2, 3}


def test_a_box_comes_first_and_stays() -> None:
    found, seen, masks = conversation(Clicks(count=(3, 3), mask_only="none"), boxed=True)
    points, boxes, _ = seen[0]
    assert points is None
    where = masks[0].nonzero()
    assert boxes[0].tolist() == [*where.amin(dim=0).tolist(), *where.amax(dim=0).tolist()]
    assert all(torch.equal(b, boxes) and p is not None for p, b, _ in seen[1:])
    model, data = model_of(), batch()
    clicks = Clicks(count=(3, 3), mask_only="none", box_part=1)
    (whole,) = iterated_step(clicks, LOSS, Compat())(model, data, draws())
    silent = clicks.model_copy(update={"box_loss": False})
    (rest,) = iterated_step(silent, LOSS, Compat())(model, data, draws())
    assert float(whole.total.detach()) > float(rest.total.detach()) > 0
    assert len(found) == 3


def test_where_nothing_is_wrong_no_point_is_given() -> None:
    masks = batch()["masks"].flatten(0, 1)
    predicted = masks.clone()
    predicted[1] = masks[1].roll(4, 0)
    for at in ("random", "largest", "core"):
        coords, labels = click(predicted, masks, at, draws())
        assert coords.shape == (2, 1, 3)
        assert int(labels[0]) == -1
        assert int(labels[1]) in (0, 1)
    model = model_of()
    good = torch.full((2, 1, *model.low_res_size), 5.0)
    sparse, _ = model.prompt_encoder((coords, labels), None, good)
    elsewhere = torch.zeros_like(coords), labels
    assert torch.equal(sparse[0], model.prompt_encoder(elsewhere, None, good)[0][0])


def test_the_largest_error_comes_first() -> None:
    masks = torch.zeros(1, 12, 12, 12, dtype=torch.bool)
    masks[:, 1:3, 1:3, 1:3] = True
    masks[:, 6:11, 6:11, 6:11] = True
    predicted = torch.zeros_like(masks)
    hits = [click(predicted, masks, "largest", draws(s))[0][0, 0] for s in range(20)]
    assert all(bool((at >= 6).all()) for at in hits)
    deep = [click(predicted, masks, "core", draws(s))[0][0, 0] for s in range(20)]
    assert all(bool(((at >= 7) & (at <= 9)).all()) for at in deep)
    anywhere = [click(predicted, masks, "random", draws(s))[0][0, 0] for s in range(80)]
    assert any(bool((at < 3).all()) for at in anywhere)


def requires_grad(clicks) -> list[bool]:
    _, seen, _ = conversation(clicks)
    return [masks.requires_grad for _, _, masks in seen]


def test_gradients_go_through_the_loop_or_so_far_back_as_is_said() -> None:
    plain = Clicks(count=(6, 6), mask_only="none")
    assert requires_grad(plain) == [False, True, True, True, True, True]
    assert requires_grad(plain.model_copy(update={"reach": 0})) == [False] * 6
    truncated = plain.model_copy(update={"reach": 2})
    assert requires_grad(truncated) == [False, True, True, False, True, True]


def test_gradients_reach_all_that_learns_and_nothing_else() -> None:
    """T9: as published, the quality head, the embedding of no mask and the other masks learn nothing.

    There the other masks get gradients of zero, and shrink by weight decay; here they get none.
    """
    model, data = model_of(num_point_embeddings=2), batch()
    (found,) = iterated_step(Clicks(count=(5, 5)), LOSS, Compat())(model, data, draws())
    found.total.backward()
    none = {n for n, p in model.named_parameters() if p.grad is None}
    unused = {"prompt_encoder.no_mask_embed.weight"}
    for name, _ in model.named_parameters():
        other = name.startswith("mask_decoder.output_hypernetworks_mlps")
        if "iou_prediction_head" in name or (other and name.split(".")[2] != "0"):
            unused.add(name)
    assert none == unused
    moving = [p for n, p in model.named_parameters() if n.startswith("image_encoder.")]
    assert all(bool(p.grad.any()) for p in moving)


def test_the_quality_head_learns_if_it_is_asked_to() -> None:
    model, data = model_of(), batch()
    loss = Loss(cross_entropy=1, dice=1, focal=0, iou=1)
    (found,) = iterated_step(Clicks(count=(2, 2)), loss, Compat())(model, data, draws())
    found.total.backward()
    head = model.mask_decoder.iou_prediction_head
    assert all(p.grad is not None for p in head.parameters())
    assert "iou_mse" in found.logs


def test_the_image_is_the_same_at_each_turn_or_what_the_last_mask_made_of_it() -> None:
    """T24 of the specification: the reference loop, and the paper's."""
    for feedback, same in ((False, True), (True, False)):
        model, data = model_of(), batch()
        seen, inner = [], model.mask_decoder.join

        def join(image, sparse, dense, seen=seen, inner=inner):
            seen.append(image)
            return inner(image, sparse, dense)

        model.mask_decoder.join = join
        clicks = Clicks(count=(3, 3), mask_only="none", feedback=feedback)
        embeddings = model.image_encoder(data["image"])
        masks = data["masks"].flatten(0, 1)
        list(answers(model, embeddings, masks, clicks, draws()))
        assert all(one is embeddings for one in seen) is same
        assert seen[0] is embeddings


def test_a_batch_is_the_same_as_its_parts() -> None:
    """Nothing but the draws depends on the others of a batch."""
    model, data = model_of().eval(), batch(2)
    masks = data["masks"].flatten(0, 1)
    clicks = Clicks(count=(1, 1), first_at="core")
    both = next(answers(model, model.image_encoder(data["image"]), masks, clicks, draws()))
    coords, labels = click(torch.zeros_like(masks), masks, "core", draws(0))
    assert labels.tolist() == [[1], [1]]
    alone = next(answers(model, model.image_encoder(data["image"][:1]), masks[:1], clicks, draws()))
    assert both.low_res.shape[0] == 2 * alone.low_res.shape[0]
    assert len(coords) == 2


def test_published_oddities_are_switches() -> None:
    model, data = model_of(), batch()
    clicks = Clicks(count=(3, 3), mask_only="none")
    plain, half, whole = (
        next(iterated_step(clicks, LOSS, compat)(model, data, draws()))
        for compat in (Compat(), Compat(half_logit_errors=True), Compat(pooled_statistics=True))
    )
    assert not torch.equal(plain.total, whole.total)
    shown = []
    for threshold in (0.0, 0.5):
        masks = data["masks"].flatten(0, 1)
        watched = Watched(model)
        embeddings = model.image_encoder(data["image"])
        list(answers(model, embeddings, masks, clicks, draws(), threshold=threshold))
        shown.append(watched.seen[-2][0])
    assert half.total.isfinite()
    assert not torch.equal(shown[0][0], shown[1][0])


def test_masks_as_fine_as_the_image_are_not_enlarged() -> None:
    found, seen, masks = conversation(Clicks(count=(2, 2)), name="neurosam3d_tiny")
    assert seen[1][2].shape[2:] == masks.shape[1:]
    assert torch.equal(found[0].logits, found[0].low_res)


def test_low_resolution_answers_are_enlarged_linearly() -> None:
    found, _, masks = conversation(Clicks(count=(1, 1)))
    wanted = enlarged(found[0].low_res, tuple(masks.shape[1:]))
    assert torch.equal(found[0].logits, wanted)


def test_judging_is_seeded_and_scores_every_click() -> None:
    model, data = model_of().eval(), batch()
    judge = iterated_judge(Clicks(), 4)
    with torch.no_grad():
        one, masks = judge(model, data, draws())
        two, _ = judge(model, data, draws())
    assert set(one) == {"dice", "dice_box", *(f"dice_{i}" for i in range(1, 5))}
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert masks.shape == data["masks"].shape


# -- recipes -----------------------------------------------------------------------------------------


def test_sam_med3d_has_the_published_numbers() -> None:
    recipe = get_recipe("sam_med3d")
    assert (recipe.optim.lr, recipe.optim.weight_decay) == (8e-4, 0.1)
    assert (recipe.data.batch_size, recipe.run.accumulate, recipe.run.epochs) == (12, 20, 200)
    assert recipe.clicks.count == (11, 11)
    for epoch, part in ((0, 1), (119, 1), (120, 0.1), (179, 0.1), (180, 0.01)):
        found = rate(recipe.schedule, 7 * epoch, per_epoch=7, epochs=200)
        assert found == pytest.approx(part)
    config = get_config("sammed3d_vit_b_ori")
    assert window_chain(recipe, config) == sam_med3d_windows(128)


def test_neurosam3d_and_m_sam_have_the_published_numbers() -> None:
    known = {
        "neurosam3d": ("neurosam3d_vit_l", 4, 2),
        "neurosam3d_dinov2": ("neurosam3d_dinov2", 2, 4),
        "neurosam3d_hiera": ("neurosam3d_hiera", 4, 4),
    }
    for name, (model, size, accumulate) in known.items():
        recipe = get_recipe(name)
        assert (recipe.model.name, recipe.data.batch_size, recipe.run.accumulate) == (
            model, size, accumulate,
        )  # fmt: skip
        assert (recipe.optim.lr, recipe.optim.weight_decay) == (1e-3, 0.005)
        chain = window_chain(recipe, get_config(model))
        side = 128 if name == "neurosam3d_hiera" else 112
        assert chain == neurosam3d_windows(side)
    recipe = get_recipe("m_sam")
    assert (recipe.optim.lr, recipe.data.batch_size, recipe.run.accumulate) == (8e-4, 2, 1)
    assert recipe.clicks.mask_only == "none"


def test_what_m_sam_adds_learns_at_the_full_rate() -> None:
    recipe, model = get_recipe("m_sam"), model_of("msam_tiny")
    rates = {}
    optimizer = build_optimizer(model, recipe.optim, Compat())
    names = {id(p): n for n, p in model.named_parameters()}
    for group in optimizer.param_groups:
        for p in group["params"]:
            rates[names[id(p)]] = round(group["lr"] / recipe.optim.lr, 6)
    full = {n for n, part in rates.items() if part == 1}
    assert full == {n for n in rates if n.startswith(("image_encoder.", "mask_decoder.fuse."))}
    assert set(rates.values()) == {1.0, 0.1}


@pytest.mark.parametrize("name", ["msam_tiny", "neurosam3d_tiny", "neurosam3d_hiera_tiny"])
def test_every_3d_system_takes_the_step(name) -> None:
    model, data = model_of(name), batch()
    (found,) = iterated_step(Clicks(count=(3, 3)), LOSS, Compat())(model, data, draws())
    found.total.backward()
    learning = [p for p in model.parameters() if p.requires_grad]
    assert found.total.isfinite()
    assert sum(p.grad is not None for p in learning) > 0.5 * len(learning)


def test_prompts_and_decoder_learn_at_a_tenth_of_the_rate() -> None:
    """T10 of the specification, on the tiny model: groups by part, whatever their decay."""
    recipe = get_recipe("sam_med3d")
    model = model_of()
    optimizer = build_optimizer(model, recipe.optim, Compat(decay_everything=True))
    names = {id(p): n.split(".")[0] for n, p in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            found.setdefault(names[id(p)], set()).add(round(group["lr"] / recipe.optim.lr, 6))
    assert found == {"image_encoder": {1.0}, "prompt_encoder": {0.1}, "mask_decoder": {0.1}}


def test_the_rate_can_fall_every_so_many_iterations() -> None:
    schedule = Schedule(kind="step", every=2000, gamma=0.9)
    rates = [rate(schedule, i, per_epoch=10, epochs=1) for i in (0, 1999, 2000, 4000)]
    assert rates == pytest.approx([1, 1, 0.9, 0.81])


@pytest.mark.parametrize(
    ("name", "setting", "text"),
    [
        ("sam_med3d", "data.chain=sam", "task iterated go together"),
        ("sam_med2d", "data.chain=sam_med3d", "task iterated go together"),
        ("sam_med3d", "loss.focal=20", "loss.focal is for task interactive"),
        ("sam_med3d", "clicks.count=[5, 2]", "fewest and the most"),
        ("sam_med3d", "compat.batch_losses=true", "changes nothing in task iterated"),
        ("samed", "compat.half_logit_errors=true", "changes nothing in task multiclass"),
        ("sam_med3d", "schedule.every=5", "schedule.every and schedule.kind step go together"),
        ("sam_med3d", "data.augment=samed", "is for pictures"),
        ("sam_med3d", "model.num_classes=3", "model.num_classes is for task multiclass"),
    ],
)
def test_what_does_not_fit_is_told(name, setting, text) -> None:
    with pytest.raises(ConfigError, match=text):
        resolve(name, settings=[setting])


def test_models_that_do_not_fit_are_told_before_anything_is_written(tmp_path) -> None:
    manifest = load_manifest(folder(tmp_path, 2))
    flat = ["model.name=sam_tiny", "model.options={patch_size: [4, 4]}"]
    with pytest.raises(ConfigError, match="is a 2D model"):
        train(resolve("toy_3d", settings=flat), manifest, tmp_path / "run")
    few = ["model.options={num_point_embeddings: 2}", "clicks.box_part=0.5"]
    with pytest.raises(ConfigError, match="takes no boxes"):
        train(resolve("toy_3d", settings=few), manifest, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# -- runs --------------------------------------------------------------------------------------------

SMALL = (
    "model.image_size=16",
    "model.options={patch_size: [4, 4, 4]}",
    "data.spacing_mm=[3, 3, 3]",
    "data.min_size=20",
    "validation.pictures=1",
    "run.precision=float32",
)
"""Voxels of 3 mm, so that a phantom is seen whole in 16 of them."""


def test_phantoms_are_learned_and_the_model_can_be_used(tmp_path) -> None:
    manifest = load_manifest(folder(tmp_path, 8))
    settings = [
        *SMALL, "run.epochs=5", "validation.every=5", "optim.lr=5e-3", "data.crop=object",
        "data.per_epoch=64", "clicks.count=[2, 2]",
    ]  # fmt: skip
    done = train(resolve("toy_3d", settings=settings), manifest, tmp_path / "run", device="cpu")
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < 0.6 * losses[0]
    assert done["best"] > 0.3
    assert list((tmp_path / "run/pictures").glob("*.png"))


def two_balls(n, seed):
    """Crops of 16 with two balls that look alike; the object is one of them."""
    draw, at = draws(seed), torch.stack(torch.meshgrid(*[torch.arange(16)] * 3, indexing="ij"))
    images, masks = [], []
    for _ in range(n):
        middles = [m + torch.rand(3, 1, 1, 1, generator=draw) for m in (4.0, 11.0)]
        balls = [((at - m) ** 2).sum(dim=0) < 3.2**2 for m in middles]
        image = 2.0 * (balls[0] | balls[1]) + 0.3 * torch.randn(16, 16, 16, generator=draw)
        axes = [a for a in range(3) if torch.rand((), generator=draw) < 0.5]
        chosen = balls[int(torch.randint(2, (), generator=draw))]
        images.append(image.flip(axes)[None])
        masks.append(chosen.flip(axes)[None])
    return {"image": torch.stack(images), "masks": torch.stack(masks)}


@pytest.mark.slow
def test_a_click_says_which_of_two_that_look_alike() -> None:
    """Who does not look at the click marks both, whose Dice is two thirds, or none."""
    model = model_of(image_size=16, patch_size=[4, 4, 4])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    step = iterated_step(Clicks(count=(1, 1)), LOSS, Compat())
    for iteration in range(200):
        for found in step(model, two_balls(8, iteration), draws(iteration)):
            found.total.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    with torch.no_grad():
        scores, _ = iterated_judge(Clicks(), 1)(model.eval(), two_balls(16, 10**6), draws())
    assert float(scores["dice_1"].mean()) > 0.7


def test_what_is_not_the_test_part_is_split_for_training(tmp_path) -> None:
    path = folder(tmp_path, 4)
    image, _ = phantom(9)
    grid = Grid.from_spacing(image.shape, (1.5, 1.5, 1.5))
    write(Volume(image, grid), path / "imagesTs/q_0000.nii.gz")
    manifest = load_manifest(path)
    assert manifest.splits() == {None: 4, "test": 1}
    learned, held_out = parts(get_recipe("toy_3d"), manifest)
    assert (len(learned), len(held_out)) == (3, 1)
    assert "q" not in {case.id for case in (*learned, *held_out)}


def test_a_run_that_goes_on_is_the_one_that_was_not_stopped(tmp_path) -> None:
    manifest = load_manifest(folder(tmp_path, 4))
    few = [*SMALL, "run.epochs=2", "validation.every=2", "clicks.count=[1, 2]", "data.batch_size=2"]
    few += ["schedule.kind=constant", f"data.cache={tmp_path / 'cache'}", "run.log_every=1"]
    whole = resolve("toy_3d", settings=few)
    train(whole, manifest, tmp_path / "whole", device="cpu")
    part = resolve("toy_3d", settings=[*few, "run.max_iterations=2"])
    train(part, manifest, tmp_path / "parts", device="cpu")
    train(whole, manifest, tmp_path / "parts", resume=True, device="cpu")
    logs = [
        [json.loads(line)["loss"] for line in (tmp_path / f"{name}/log.jsonl").read_text().splitlines()
         if '"train"' in line]
        for name in ("whole", "parts")
    ]  # fmt: skip
    assert logs[0] == logs[1]


def test_the_chain_of_training_is_stored_with_the_weights(tmp_path) -> None:
    from samaritan.checkpoints.loading import load_model

    manifest = load_manifest(folder(tmp_path, 3))
    settings = [*SMALL, "run.epochs=1", "clicks.count=[1, 1]", "data.measure=volume"]
    recipe = resolve("toy_3d", settings=settings)
    train(recipe, manifest, tmp_path / "run", device="cpu")
    model, header = load_model(tmp_path / "run/last.safetensors")
    chain = Preprocess.from_dict(header.preprocess)
    assert chain == window_chain(recipe, model.config)
    assert isinstance(chain, WindowPreprocess)
    assert (chain.measure, chain.size) == ("volume", (16, 16, 16))
