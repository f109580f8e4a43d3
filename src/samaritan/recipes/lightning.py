"""Recipes from the YAML files of NeuroSAM3D, as Lightning's command line has them: data, model, trainer.

Every key ends up in the recipe or among what was left out, with the reason: nothing is dropped silently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samaritan.errors import ConfigError
from samaritan.recipes.loading import is_lightning, read_yaml, resolve
from samaritan.recipes.schema import Recipe

_BASES = {"dinov2": "neurosam3d_dinov2", "vit_hiera": "neurosam3d_hiera"}
_MODELS = {
    "vit_b": "neurosam3d_vit_b",
    "vit_b_ori": "neurosam3d_vit_b_ori",
    "vit_l": "neurosam3d_vit_l",
    "vit_h": "neurosam3d_vit_h",
    "vit_hiera": "neurosam3d_hiera",
    "dinov2": "neurosam3d_dinov2",
}
_SECTIONS = ("data", "model", "trainer")

Changes = dict[str, Any]
"""Dotted names of our fields, and their values."""


class _Why(str):
    """Why something was left out."""


@dataclass(frozen=True)
class Converted:
    """A recipe, and how it came about."""

    recipe: Recipe
    mapped: tuple[tuple[str, str], ...]
    """What stood there, and what it became."""
    left_out: tuple[tuple[str, str], ...]
    """What stood there, and why it is not in the recipe."""
    training_sets: tuple[str, ...]
    """Names of index files, which no recipe holds: they are data."""
    validation_sets: tuple[str, ...]


def from_lightning(path: str | Path) -> Converted:
    """Turn a configuration of NeuroSAM3D into a recipe on top of the published one.

    Raises:
        ConfigError: if it is none, a reference cannot be followed, or a value makes no recipe; all at once.
        FileError: if it cannot be read.
    """
    path = Path(path).expanduser()
    values = read_yaml(path)
    if not is_lightning(values):
        raise ConfigError(
            f"{path} is no configuration of NeuroSAM3D: expected sections data, model and trainer with "
            f"model.model_type, found {', '.join(map(str, values)) or 'nothing'}"
        )
    flat = _followed(_flat(values), path)
    kind = flat.get("model.model_type")
    if kind not in _MODELS:
        raise ConfigError(
            f"{path}: model.model_type is {kind!r}; expected one of {', '.join(_MODELS)}"
        )
    changes: Changes = {}
    mapped: list[tuple[str, str]] = []
    left_out: list[tuple[str, str]] = []
    for key, value in flat.items():
        if value is None or key in _SETS or key == "trainer.callbacks":
            continue
        found = _rule(key)(value, flat)
        told = f"{key}: {_short(value)}"
        if isinstance(found, _Why):
            left_out.append((told, str(found)))
            continue
        changes |= found
        mapped.append((told, ", ".join(f"{name}={_short(v)}" for name, v in found.items())))
    left_out += _callbacks(flat)
    recipe = resolve(_BASES.get(str(kind), "neurosam3d"), changes=changes)
    train, held_out = (_names(flat.get(key)) for key in _SETS)
    return Converted(recipe, tuple(mapped), tuple(left_out), train, held_out)


def _names(value: Any) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else (str(value),) if value else ()


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put "section.key" in front of every value; a class with init_args is what these say."""
    found: dict[str, Any] = {}
    for section, inside in values.items():
        if section not in _SECTIONS or not isinstance(inside, Mapping):
            found[str(section)] = inside
            continue
        if isinstance(inside.get("init_args"), Mapping):
            inside = {
                **{k: v for k, v in inside.items() if k != "init_args"},
                **inside["init_args"],
            }
        found |= {f"{section}.{key}": value for key, value in inside.items()}
    return found


def _followed(flat: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Put in what references such as ${model.work_dir} mean.

    Raises:
        ConfigError: telling those that lead nowhere or in circles. Nothing is asked of the environment.
    """
    problems: list[str] = []

    def follow(value: Any, seen: tuple[str, ...]) -> Any:
        if isinstance(value, list):
            return [follow(v, seen) for v in value]
        if isinstance(value, Mapping):
            return {k: follow(v, seen) for k, v in value.items()}
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = re.fullmatch(r"\$\{([^{}]+)\}", value)
        if whole:
            return look_up(whole[1], seen)
        return re.sub(r"\$\{([^{}]+)\}", lambda m: str(look_up(m[1], seen)), value)

    def look_up(name: str, seen: tuple[str, ...]) -> Any:
        name = name.strip()
        if name in seen:
            problems.append(f"{seen[0]} refers to itself by ${{{name}}}")
        elif name not in flat:
            problems.append(f"{seen[0]}: ${{{name}}} is not in the file; write its value")
        else:
            return follow(flat[name], (*seen, name))
        return None

    made = {key: follow(value, (key,)) for key, value in flat.items()}
    if problems:
        raise ConfigError(f"{path} cannot be understood:\n  " + "\n  ".join(problems))
    return made


# -- what each key becomes ---------------------------------------------------------------------------

_SETS = ("data.training_sets", "data.validation_sets")

_SAME = {
    "seed_everything": "run.seed",
    "data.img_size": "model.image_size",
    "model.img_size": "model.image_size",
    "data.batch_size": "data.batch_size",
    "data.volume_threshold": "data.min_volume_mm3",
    "data.cache_dir": "data.cache",
    "model.task_name": "name",
    "model.lr": "optim.lr",
    "model.weight_decay": "optim.weight_decay",
    "model.checkpoint": "model.init",
    "trainer.max_epochs": "run.epochs",
    "trainer.accumulate_grad_batches": "run.accumulate",
    "trainer.check_val_every_n_epoch": "validation.every",
    "trainer.log_every_n_steps": "run.log_every",
}

_ELSEWHERE = {
    "data.num_workers": "give it to the program: samaritan train --workers {}",
    "model.work_dir": "give the folder of the run to the program: samaritan train --output",
    "trainer.default_root_dir": "give it to the program: samaritan train --output {}",
    "trainer.accelerator": "give it to the program: samaritan train --device",
    "trainer.devices": "processes are started by torchrun or accelerate launch",
    "trainer.num_nodes": "machines are named to torchrun or accelerate launch",
    "trainer.strategy": "gradients are always summed over processes, unused parameters included",
    "trainer.use_distributed_sampler": "examples are always shared out among processes",
    "trainer.val_check_interval": "a run validates at the ends of epochs: validation.every",
    "trainer.benchmark": "it changes speed alone, and is left as PyTorch has it",
    "trainer.enable_progress_bar": "a terminal gets a bar, a log file lines",
    "trainer.enable_model_summary": "samaritan models show tells what a model is made of",
    "trainer.enable_checkpointing": "runs always keep best.safetensors, last.safetensors and their state",
    "trainer.logger": "runs write log.jsonl and TensorBoard's files, and send nothing anywhere",
    "ckpt_path": "go on with a run of samaritan by --resume",
}


def _rule(key: str) -> Callable[[Any, Mapping[str, Any]], Changes | _Why]:
    if key in _SAME:
        return lambda value, flat: {_SAME[key]: value}
    if key in _ELSEWHERE:
        return lambda value, flat: _Why(_ELSEWHERE[key].format(_short(value)))
    return _RULES.get(key, lambda value, flat: _Why("not known here, and without effect"))


def _model_type(value: Any, flat: Mapping[str, Any]) -> Changes:
    return {"model.name": _MODELS[str(value)]}


def _scheduler(value: Any, flat: Mapping[str, Any]) -> Changes | _Why:
    steps = flat.get("model.step_size") or [1]
    steps = steps if isinstance(steps, list) else [steps]
    gamma = flat.get("model.gamma", 0.1)
    none = {"schedule.every": None}
    if value == "steplr":
        return {"schedule.kind": "step", "schedule.every": steps[0], "schedule.gamma": gamma}
    if value == "multisteplr":
        points = {"schedule.milestones": steps, "schedule.milestones_in": "iterations"}
        return {"schedule.kind": "multistep", **none, **points, "schedule.gamma": gamma}
    if value == "coswarm":
        return _Why(
            "no schedule here restarts every 10 updates; the published one was kept: see schedule"
        )
    return {"schedule.kind": "constant", **none, "schedule.warmup": 5}


def _step_size(value: Any, flat: Mapping[str, Any]) -> Changes | _Why:
    if flat.get("model.lr_scheduler") == "steplr" and isinstance(value, list) and len(value) > 1:
        return _Why("lr_scheduler steplr takes the first one alone")
    return _with_scheduler(value, flat)


def _with_scheduler(value: Any, flat: Mapping[str, Any]) -> Changes | _Why:
    known = flat.get("model.lr_scheduler") in ("steplr", "multisteplr")
    return {} if known else _Why("it goes with lr_scheduler steplr and multisteplr")


def _click_type(value: Any, flat: Mapping[str, Any]) -> Changes | _Why:
    return {"clicks.at": value} if value == "random" else _Why("known is random; see clicks.at")


def _bbox_first(value: Any, flat: Mapping[str, Any]) -> Changes:
    part = float(bool(value))
    return {"clicks.box_part": part, "clicks.box_loss": not value, "clicks.box_noise": "none"}


def _pretrained(value: Any, flat: Mapping[str, Any]) -> Changes | _Why:
    if flat.get("model.model_type") != "dinov2":
        return _Why("it is for model_type dinov2")
    if flat.get("model.checkpoint"):
        return _Why("model.checkpoint is a whole model, and comes after it")
    return {"model.init": value}


def _model_cfg(value: Any, flat: Mapping[str, Any]) -> Changes | _Why:
    if flat.get("model.model_type") == "dinov2" and str(value).endswith("vit3d_highres"):
        return {"model.name": _MODELS["dinov2"]}
    return _Why("the encoder is that of vit3d_highres; others are model.options")


def _precision(value: Any, flat: Mapping[str, Any]) -> Changes | _Why:
    for name, known in (("bfloat16", "bf16"), ("float16", "16"), ("float32", "32")):
        if str(value).split("-")[0] == known:
            return {"run.precision": name}
    return _Why("known are bf16-mixed, 16-mixed and 32-true; see run.precision")


def _clip(value: Any, flat: Mapping[str, Any]) -> Changes | _Why:
    if flat.get("trainer.gradient_clip_algorithm") in (None, "norm"):
        return {"run.clip_norm": value}
    return _Why("gradients are clipped by their norm: run.clip_norm")


def _clip_algorithm(value: Any, flat: Mapping[str, Any]) -> Changes | _Why:
    return {} if value == "norm" else _Why("gradients are clipped by their norm: run.clip_norm")


def _max_steps(value: Any, flat: Mapping[str, Any]) -> Changes:
    return {} if value == -1 else {"run.max_iterations": value}


def _val_batches(value: Any, flat: Mapping[str, Any]) -> Changes | _Why:
    if isinstance(value, int):
        return {"validation.batches": value}
    return _Why("validation.batches is a number of batches, not a part of them")


_RULES: dict[str, Callable[[Any, Mapping[str, Any]], Changes | _Why]] = {
    "model.model_type": _model_type,
    "model.lr_scheduler": _scheduler,
    "model.step_size": _step_size,
    "model.gamma": _with_scheduler,
    "model.largest_first": lambda value, flat: {
        "clicks.first_at": "largest" if value else "random"
    },
    "model.click_type": _click_type,
    "model.multi_click": lambda value, flat: {"clicks.show": "all" if value else "newest"},
    "model.bbox_first": _bbox_first,
    "model.num_clicks": lambda value, flat: {"clicks.count": [value, value]},
    "model.logging_batches_idx": lambda value, flat: {"validation.pictures": len(_names(value))},
    "model.model_cfg": _model_cfg,
    "model.pretrained_weights": _pretrained,
    "trainer.precision": _precision,
    "trainer.gradient_clip_val": _clip,
    "trainer.gradient_clip_algorithm": _clip_algorithm,
    "trainer.max_steps": _max_steps,
    "trainer.limit_val_batches": _val_batches,
}


def _callbacks(flat: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name each callback and say what is there in its place."""
    known = {
        "ModelCheckpoint": "best.safetensors has the best held-out Dice, last.safetensors the end",
        "LearningRateMonitor": "the rate is in log.jsonl and TensorBoard",
        "EarlyStopping": "set validation.patience",
    }
    found = []
    listed = flat.get("trainer.callbacks") or ()
    for one in listed if isinstance(listed, list) else [listed]:
        kind = str(one.get("class_path", one) if isinstance(one, Mapping) else one).split(".")[-1]
        options = one.get("init_args") if isinstance(one, Mapping) else None
        found.append((f"{kind}: {_short(options)}", known.get(kind, "not known here")))
    return found


def _short(value: Any, most: int = 60) -> str:
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."
