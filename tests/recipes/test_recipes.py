"""Recipes are typed, complete and frozen; everything wrong is told at once; rates are the published ones."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import yaml
from pydantic import ValidationError

from samaritan.errors import ConfigError, FileError
from samaritan.recipes import Recipe, dump, get_recipe, load, rate, recipe_names, resolve
from samaritan.recipes.sections import Schedule


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_survives_its_yaml(name, tmp_path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(get_recipe(name)), "utf-8")
    assert load(path) == get_recipe(name) == resolve(file=path) == resolve(name, file=path)
    assert get_recipe(name).name == name


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError):
        get_recipe("samed").optim.lr = 1.0


def test_recipes_bring_no_torch() -> None:
    code = "import sys, samaritan.recipes as r; r.get_recipe('samed'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_file_changes_a_recipe_and_settings_change_the_file(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lr: 3e-4}\nrun: {epochs: 7}\n", "utf-8")
    recipe = resolve("samed", file=path, settings=["run.epochs=9", "model.options.rank=8"])
    assert (recipe.optim.lr, recipe.run.epochs, recipe.model.options["rank"]) == (3e-4, 9, 8)
    assert recipe.schedule == get_recipe("samed").schedule


@pytest.mark.parametrize(
    ("setting", "read"),
    [
        ("optim.lr=1e-4", lambda r: r.optim.lr == 1e-4),
        ("prompts.multimask=false", lambda r: r.prompts.multimask is False),
        ("schedule.milestones=[5, 10]", lambda r: r.schedule.milestones == (5, 10)),
        ("model.init=null", lambda r: r.model.init is None),
        ("optim.groups=[{match: '**.bias', lr: 2}]", lambda r: r.optim.groups[0].lr == 2.0),
        ("model.options.image_size=[64, 96]", lambda r: r.model.options["image_size"] == [64, 96]),
    ],
)
def test_settings_have_the_types_of_their_fields(setting, read) -> None:
    assert read(resolve("sam_med2d", settings=[setting]))


def test_a_mapping_is_put_into_the_one_there_and_an_empty_one_takes_its_place() -> None:
    own = resolve("samaritan_2d").data.weights
    assert own
    more = resolve("samaritan_2d", settings=["data.weights={mine: 2}"]).data.weights
    assert more == {**own, "mine": 2}
    settings = ["data.weights={}", "data.weights.mine=2"]
    assert resolve("samaritan_2d", settings=settings).data.weights == {"mine": 2}


def test_everything_wrong_is_told_at_once() -> None:
    settings = [
        "optm.lr=1", "lr=3", "optim.lr=fast", "run.epochs=0", "data.batch_size=2.5",
        "compat.frozen_point_embedding=true", "nonsense", "validation.patience.x=1",
    ]  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        resolve("sam_med2d", settings=settings)
    told = str(caught.value)
    assert "Did you mean optim?" in told
    assert "Did you mean optim.lr?" in told
    assert "optim.lr: input should be a valid number" in told
    assert "'fast'" in told
    assert "run.epochs" in told
    assert "data.batch_size" in told
    assert "Did you mean compat.frozen_point_embeddings?" in told
    assert "'nonsense' is no setting" in told
    assert "8 problems" in told


@pytest.mark.parametrize(
    ("base", "setting", "match"),
    [
        ("samed", "loss.iou=1", "task interactive"),
        ("samed", "compat.batch_losses=true", "changes nothing in task multiclass"),
        ("sam_med2d", "compat.corner_aligned_labels=true", "changes nothing in task interactive"),
        ("sam_med2d", "compat.cubic_zoom=true", "changes nothing in task interactive"),
        ("toy_2d", "compat.cubic_zoom=true", "data.chain samed"),
        ("samed", "compat.padded_small_pictures=true", "changes nothing in task multiclass"),
        ("sam_med2d", "model.num_classes=3", "has no classes"),
        ("samed", "loss={cross_entropy: 0, dice: 0}", "nothing would be learned"),
        ("samed", "schedule.kind=multistep", "milestones"),
        ("samed", "data.augment=sideways", "data.augment"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(base, setting, match) -> None:
    with pytest.raises(ConfigError, match=match):
        resolve(base, settings=[setting])


def test_an_unknown_recipe_names_near_ones() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'samed'"):
        get_recipe("samd")


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [", "just words"])
def test_files_that_are_no_recipes_are_refused(tmp_path, text) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=r"mine\.yaml"):
        resolve(file=path)


def test_a_missing_file_is_told(tmp_path) -> None:
    with pytest.raises(FileError, match="cannot be read"):
        resolve(file=tmp_path / "none.yaml")


def test_yaml_holds_every_field() -> None:
    values = yaml.safe_load(dump(Recipe()))
    assert set(values) == set(Recipe.model_fields)
    for name, section in values.items():
        if isinstance(section, dict):
            assert set(section) == set(type(getattr(Recipe(), name)).model_fields)


# -- rates ---------------------------------------------------------------------------------------


def samed(iteration: int, **changes: object) -> float:
    schedule = get_recipe("samed").schedule.model_copy(update=changes)
    return 0.005 * rate(schedule, iteration, per_epoch=93, epochs=160)


def test_samed_learns_at_the_published_rates() -> None:
    assert samed(0) == samed(1) == pytest.approx(2e-5)
    assert samed(250) == samed(251) == pytest.approx(0.005)
    assert samed(14_879) == pytest.approx(0.0012460, abs=5e-8)


def test_samed_h_learns_at_the_published_rates() -> None:
    assert samed(1000, power=7.0, horizon=400) == pytest.approx(0.0043365, abs=5e-8)
    assert samed(10_000, power=7.0, horizon=400) == pytest.approx(0.0005958, abs=5e-8)


def test_multistep_halves_after_its_milestones() -> None:
    schedule = Schedule(kind="multistep", milestones=(5, 10), gamma=0.5)
    rates = [rate(schedule, i, per_epoch=3, epochs=15) for i in (0, 14, 15, 29, 30, 44)]
    assert rates == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_cosine_ends_at_its_floor() -> None:
    schedule = Schedule(kind="cosine", warmup=4, floor=0.1)
    rates = [rate(schedule, i, per_epoch=10, epochs=2) for i in range(21)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[20] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates[4:]))


def test_a_rate_is_never_negative_beyond_the_horizon() -> None:
    schedule = Schedule(kind="polynomial", horizon=1)
    assert rate(schedule, 10_000, per_epoch=3, epochs=9) == 0


@pytest.mark.parametrize(("name", "epochs"), [("acdc", 500), ("synapse", 1000), ("amos", 1000)])
def test_masksam_learns_at_the_published_rates_epoch_by_epoch(name, epochs) -> None:
    recipe = get_recipe(f"masksam_{name}")
    each = recipe.data.per_epoch // recipe.data.batch_size
    assert (recipe.run.epochs, recipe.data.batch_size, each) == (epochs, 2, 250)
    middle = epochs // 2 * each
    rates = [
        recipe.optim.lr * rate(recipe.schedule, i, per_epoch=each, epochs=epochs)
        for i in (0, each - 1, each, middle, middle + 17, epochs * each - 1)
    ]
    assert rates[0] == rates[1] == 1e-3
    assert rates[2] == pytest.approx(1e-3 * (1 - 1 / epochs) ** 0.9)
    assert rates[3] == rates[4] == pytest.approx(1e-3 * 0.5**0.9)
    assert rates[3] == pytest.approx(5.359e-4, abs=5e-8)
    assert rates[5] == pytest.approx(1e-3 * (1 / epochs) ** 0.9)


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("masksam_small", "data.chain=sam", "go together"),
        ("toy_2d", "data.augment=nnunet", "data.augment nnunet is for data.chain nnunet"),
        ("masksam_small", "data.augment=heavy", "choose nnunet or none"),
        ("unet_small", "matching.points=3", "matching is for task mask_classes"),
        ("masksam_small", "data.patch_size=[8]", "two or three sides"),
        ("masksam_small", "data.fold=-1", "data.fold"),
        ("masksam_small", "data.fold=last", "data.fold"),
        ("unet_small", "loss.focal=1", "loss.focal and loss.iou are for task interactive"),
        ("masksam_small", "data.weights={a: 1}", "learns from one"),
    ],
)
def test_what_patches_need_is_told(name, setting, message) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve(name, settings=[setting])
