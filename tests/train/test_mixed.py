"""Steps in which every object of a batch has a prompt of its own kind."""

from __future__ import annotations

import pytest
import torch
from train.toys import Slices
from train.volume_toys import batch as volume_batch
from train.volume_toys import folder

from samaritan.assembly import create_model
from samaritan.checkpoints import load_model
from samaritan.data import load_manifest
from samaritan.errors import ConfigError
from samaritan.models.config import get_config
from samaritan.recipes import resolve
from samaritan.recipes.sections import Loss, Prompts
from samaritan.train import Machine, RunFolder, Trainer, Work, interactive_judge
from samaritan.train.mixed import corrected, first, mixed_step, rough_masks
from samaritan.train.runs import train
from samaritan.train.state import moving, still
from samaritan.transforms import CubePreprocess, FocusPreprocess, Preprocess

PROMPTS = Prompts(each="object", rounds=2, points=(1, 2), multimask=False, mask_values="logits")
LOSS = Loss(cross_entropy=1, dice=1, focal=0, iou=1)


class Discs(Slices):
    """The disc of each slice."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        return {"image": item["image"], "masks": (item["label"] == 1)[None]}


def batch(n=6):
    items = [Discs(n)[i] for i in range(n)]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_kind_of_prompt_is_among_the_first():
    masks = batch()["masks"].flatten(0, 1).repeat(40, 1, 1)
    told = first(masks, PROMPTS, draws())
    boxed = (told.boxes[:, 2:] > told.boxes[:, :2]).all(dim=1)
    clicked = told.labels[:, 0] == 1
    rough = told.masks.flatten(1).abs().amax(dim=1) > 0
    assert float(boxed.float().mean()) == pytest.approx(0.5, abs=0.1)
    assert bool((boxed | clicked).all())
    assert bool((boxed & clicked).any())
    assert float(rough.float().mean()) == pytest.approx(PROMPTS.mask_part, abs=0.06)
    rows, columns = told.coords[:, 0].long().unbind(1)
    assert bool(masks[torch.arange(len(masks)), rows, columns].all())


def test_corrections_lie_on_errors_and_keep_what_was_told():
    masks = batch()["masks"].flatten(0, 1)
    told = first(masks, PROMPTS, draws())
    answer = torch.where(masks.roll(6, 2), 4.0, -4.0)
    then = corrected(told, answer, masks, PROMPTS, draws(1))
    assert torch.equal(then.coords[:, :1], told.coords)
    assert torch.equal(then.boxes, told.boxes)
    wrong = (answer > 0) != masks
    for i in range(len(masks)):
        for at, label in zip(then.coords[i, 1:].long(), then.labels[i, 1:], strict=True):
            assert bool(wrong[i, at[0], at[1]])
            assert int(label) == int(masks[i, at[0], at[1]])


def test_rough_masks_are_like_the_object_and_not_the_same():
    masks = batch()["masks"].flatten(0, 1)
    rough = rough_masks(masks, draws())[:, 0] > 0
    both = (rough & masks).flatten(1).sum(dim=1)
    dice = 2 * both / (rough.flatten(1).sum(dim=1) + masks.flatten(1).sum(dim=1))
    assert bool((dice > 0.6).all())
    assert bool((dice < 1).any())


def test_a_batch_is_worth_an_update_for_each_answer_and_every_parameter_moves():
    torch.manual_seed(0)
    model = create_model("unet_tiny").train()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    updates = 0
    for loss in mixed_step(PROMPTS, LOSS)(model, batch(), draws()):
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        updates += 1
    assert updates == 3
    still_there = [n for n, p in model.named_parameters() if torch.equal(p, before[n])]
    assert still_there == []


def test_other_models_are_refused():
    model = create_model("sam_tiny")
    with pytest.raises(ConfigError, match="backbone unet"):
        next(mixed_step(PROMPTS, LOSS)(model, batch(), draws()))


def run(path, *settings, resume=False, n=12):
    recipe = resolve(
        "samaritan_2d",
        settings=["model.name=unet_tiny", "data.batch_size=4", "data.weights={}", "run.log_every=1",
                  "data.per_epoch=null", "run.precision=float32", "validation.pictures=0", *settings],
    )  # fmt: skip
    torch.manual_seed(0)
    model = create_model("unet_tiny")
    judge = interactive_judge(recipe.prompts, 2)
    step = mixed_step(recipe.prompts, recipe.loss)
    work = Work(model, step, Discs(n), judge, Discs(4, seed=7), FocusPreprocess().to_dict())
    folder, machine = RunFolder(path), Machine("float32", "cpu")
    if not resume and machine.leads:
        folder.create(recipe, {}, {"fingerprint": "toy"})
    machine.wait()
    trainer = Trainer(recipe, work, folder, machine)
    return trainer, trainer.run(resume=resume)


def test_discs_are_learned(tmp_path):
    _, done = run(
        tmp_path / "run",
        "run.epochs=16",
        "validation.every=16",
        "optim.lr=4e-3",
        "run.ema=null",
        "schedule.warmup=20",
    )
    assert done["best"] > 0.7


def test_a_run_that_goes_on_is_the_one_that_was_not_stopped(tmp_path):
    whole, _ = run(tmp_path / "whole", "run.epochs=3", "schedule.kind=constant")
    run(tmp_path / "parts", "run.epochs=3", "schedule.kind=constant", "run.max_iterations=4")
    folder = RunFolder(tmp_path / "parts")
    text = folder.recipe.read_text("utf-8").replace("max_iterations: 4", "max_iterations: null")
    folder.recipe.write_text(text, "utf-8")
    parts, _ = run(tmp_path / "parts", "run.epochs=3", "schedule.kind=constant", resume=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
    for name, value in whole.average.values.items():
        assert torch.equal(value, parts.average.values[name]), name


def test_statistics_of_batches_belong_to_what_moves():
    model = create_model("unet_tiny")
    assert any(name.endswith("running_var") for name in moving(model))
    assert still(model) == {}
    assert get_config("samaritan_2d").backbone == "unet"


def test_volumes_are_learned_from_as_pictures_are():
    model = create_model("unet3d_tiny").train()
    given = volume_batch()
    losses = list(mixed_step(PROMPTS, LOSS)(model, given, draws()))
    assert len(losses) == 3
    for loss in losses:
        loss.total.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_clicks_on_errors_of_volumes_lie_on_errors():
    masks = volume_batch(4)["masks"].flatten(0, 1)
    told = first(masks, PROMPTS, draws())
    answer = torch.where(masks.roll(3, 2), 4.0, -4.0)
    for seed in range(4):
        then = corrected(told, answer, masks, PROMPTS, draws(seed))
        wrong = (answer > 0) != masks
        for i in range(len(masks)):
            for at, label in zip(then.coords[i, 1:].long(), then.labels[i, 1:], strict=True):
                assert bool(wrong[i][tuple(at)])
                assert int(label) == int(masks[i][tuple(at)])


def test_cubes_are_learned_from_and_the_chain_is_kept(tmp_path):
    changes = {
        "model": {"name": "unet3d_tiny"},
        "data": {
            "chain": "focus",
            "objects": "both",
            "batch_size": 2,
            "augment": "heavy",
            "per_epoch": 4,
        },
        "prompts": PROMPTS.model_dump(),
        "loss": LOSS.model_dump(),
        "run": {"epochs": 1, "precision": "float32"},
        "validation": {"batches": 1, "clicks": 2},
    }
    recipe = resolve(changes=changes)
    done = train(recipe, load_manifest(folder(tmp_path, count=4)), tmp_path / "run", device="cpu")
    assert done["iterations"] == 2
    model, header = load_model(tmp_path / "run" / "last.safetensors")
    assert Preprocess.from_dict(header.preprocess) == CubePreprocess(size=model.config.image_size)
