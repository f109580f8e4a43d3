"""NeuroSAM3D's configurations become recipes: every key is mapped, or left out with a reason."""

from __future__ import annotations

import pytest
import yaml

from samaritan.errors import ConfigError
from samaritan.recipes import from_lightning, get_recipe, resolve

ALL = """
seed_everything: 2024
data:
  img_size: 112
  batch_size: 4
  num_workers: 8
  volume_threshold: 100
  cache_dir: null
  training_sets: [AMOS_Tr, WORD_Tr]
  validation_sets: [BRATS_Tr, WORD_Val]
model:
  model_type: vit_l
  work_dir: ./work_dir
  task_name: scratch
  lr: 1e-3
  weight_decay: 0.005
  lr_scheduler: steplr
  step_size: [2000]
  gamma: 0.9
  largest_first: true
  click_type: random
  multi_click: true
  bbox_first: false
  num_clicks: 11
  logging_batches_idx: [1, 2, 3, 4, 5]
  checkpoint: null
  model_cfg: null
  pretrained_weights: null
trainer:
  default_root_dir: ${model.work_dir}/${model.task_name}
  accelerator: auto
  devices: auto
  accumulate_grad_batches: 2
  check_val_every_n_epoch: 1
  max_epochs: 200
  precision: bf16-mixed
  num_nodes: 1
  gradient_clip_val: null
  gradient_clip_algorithm: null
  benchmark: true
  enable_progress_bar: true
  use_distributed_sampler: true
  strategy: ddp_find_unused_parameters_true
  log_every_n_steps: 1
  val_check_interval: 0.2
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {monitor: train_loss, dirpath: "${trainer.default_root_dir}"}
    - class_path: lightning.pytorch.callbacks.LearningRateMonitor
  logger: {class_path: lightning.pytorch.loggers.WandbLogger, init_args: {name: "${model.task_name}"}}
"""
"""The layout and the values of the published configs/all.yaml."""


def converted(tmp_path, **changes):
    values = yaml.safe_load(ALL)
    for dotted, value in changes.items():
        section, _, key = dotted.partition("__")
        if key:
            values[section][key] = value
        else:
            values[section] = value
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump(values), "utf-8")
    return from_lightning(path)


def test_the_published_configuration_is_the_recipe_of_its_name(tmp_path) -> None:
    found = converted(tmp_path)
    known = get_recipe("neurosam3d")
    assert found.recipe == known.model_copy(
        update={
            "name": "scratch",
            "model": known.model.model_copy(update={"image_size": 112}),
            "run": known.run.model_copy(update={"log_every": 1}),
            "validation": known.validation.model_copy(update={"every": 1, "pictures": 5}),
        }
    )
    assert found.training_sets == ("AMOS_Tr", "WORD_Tr")
    assert found.validation_sets == ("BRATS_Tr", "WORD_Val")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model__model_type": "dinov2", "data__batch_size": 2, "trainer__accumulate_grad_batches": 4,
          "model__model_cfg": "../configs/train/vit3d_highres"}, "neurosam3d_dinov2"),
        ({"model__model_type": "vit_hiera", "data__img_size": 128,
          "trainer__accumulate_grad_batches": 4}, "neurosam3d_hiera"),
    ],
)  # fmt: skip
def test_other_encoders_are_the_other_recipes(tmp_path, changes, name) -> None:
    found, known = converted(tmp_path, **changes).recipe, get_recipe(name)
    for section in ("clicks", "loss", "optim", "schedule", "compat", "data"):
        assert getattr(found, section) == getattr(known, section)
    assert found.model.name == known.model.name
    assert found.run.accumulate == known.run.accumulate == 4


def test_every_key_is_mapped_or_left_out(tmp_path) -> None:
    found = converted(tmp_path, data__new_key=3, trainer__odd=True, extra={"a": 1})
    told = [theirs.split(": ")[0] for theirs, _ in (*found.mapped, *found.left_out)]
    values = yaml.safe_load(ALL)
    for section in ("data", "model", "trainer"):
        for key, value in values[section].items():
            known = key in ("training_sets", "validation_sets", "callbacks") or value is None
            assert known or f"{section}.{key}" in told, key
    assert {
        "data.new_key",
        "trainer.odd",
        "extra",
        "ModelCheckpoint",
        "LearningRateMonitor",
    } <= set(told)
    why = dict(found.left_out)
    assert "--output ./work_dir/scratch" in why["trainer.default_root_dir: ./work_dir/scratch"]
    assert why["data.new_key: 3"] == "not known here, and without effect"


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        ({"model__bbox_first": True}, ["clicks.box_part=1", "clicks.box_loss=false"]),
        ({"model__multi_click": False}, ["clicks.show=newest"]),
        ({"model__largest_first": False}, ["clicks.first_at=random"]),
        ({"model__checkpoint": "a.ckpt"}, ["model.init=a.ckpt"]),
        ({"trainer__gradient_clip_val": 0.5}, ["run.clip_norm=0.5"]),
        ({"trainer__precision": "16-mixed"}, ["run.precision=float16"]),
        ({"trainer__max_steps": 70}, ["run.max_iterations=70"]),
        ({"data__cache_dir": "/tmp/x"}, ["data.cache=/tmp/x"]),
        ({"model__lr_scheduler": "multisteplr", "model__step_size": [5, 9]},
         ["schedule.kind=multistep", "schedule.every=null", "schedule.milestones=[5, 9]",
          "schedule.milestones_in=iterations"]),
        ({"model__model_type": "dinov2", "model__pretrained_weights": "teacher.pth"},
         ["model.name=neurosam3d_dinov2", "model.init=teacher.pth", "name=scratch"]),
    ],
)  # fmt: skip
def test_settings_have_their_places(tmp_path, changes, settings) -> None:
    plain = tmp_path / "plain.yaml"
    from samaritan.recipes import dump

    plain.write_text(dump(converted(tmp_path).recipe), "utf-8")
    assert converted(tmp_path, **changes).recipe == resolve(file=plain, settings=settings)


def test_what_is_no_setting_here_is_told_with_the_reason(tmp_path) -> None:
    changes = {"model__lr_scheduler": "coswarm", "model__pretrained_weights": "t.pth",
               "trainer__precision": "64", "trainer__gradient_clip_val": 1.0,
               "trainer__gradient_clip_algorithm": "value"}  # fmt: skip
    why = dict(converted(tmp_path, **changes).left_out)
    assert "restarts" in why["model.lr_scheduler: coswarm"]
    assert "dinov2" in why["model.pretrained_weights: t.pth"]
    assert "run.precision" in why["trainer.precision: 64"]
    assert "by their norm" in why["trainer.gradient_clip_val: 1.0"]


def test_classes_with_arguments_are_their_arguments(tmp_path) -> None:
    model = yaml.safe_load(ALL)["model"]
    found = converted(tmp_path, model={"class_path": "NeuroSam", "init_args": model})
    assert found.recipe == converted(tmp_path).recipe
    assert ("model.class_path: NeuroSam", "not known here, and without effect") in found.left_out


def test_references_lead_somewhere_and_ask_nothing_of_the_environment(tmp_path) -> None:
    changes = {"model__lr": "${model.weight_decay}", "model__weight_decay": "${model.lr}"}
    with pytest.raises(ConfigError, match=r"model\.lr refers to itself"):
        converted(tmp_path, **changes)
    with pytest.raises(
        ConfigError, match=r"data\.cache_dir: \$\{oc\.env:HOME\} is not in the file"
    ):
        converted(tmp_path, data__cache_dir="${oc.env:HOME}")
    assert converted(tmp_path, model__lr="${model.weight_decay}").recipe.optim.lr == 0.005


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optim: {lr: 1}", "is no configuration of NeuroSAM3D"),
        ("trainer: {}", "model.model_type is None"),
        ("model: {model_type: vit_x}", "'vit_x'; expected one of vit_b"),
        ("model: {model_type: vit_b, lr: fast, num_clicks: 0}", "3 problems"),
        ("model: !!python/object/apply:os.system [ls]", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, text, told) -> None:
    (tmp_path / "a.yaml").write_text(text, "utf-8")
    with pytest.raises(ConfigError, match=told):
        from_lightning(tmp_path / "a.yaml")


def test_training_with_it_as_it_is_tells_the_way(tmp_path) -> None:
    (tmp_path / "a.yaml").write_text(ALL, "utf-8")
    with pytest.raises(ConfigError, match=r"samaritan prepare recipe .*a\.yaml"):
        resolve(file=tmp_path / "a.yaml")
