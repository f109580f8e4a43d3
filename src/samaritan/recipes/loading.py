"""Recipes from YAML and single settings, and back: every wrong field is told at once, with near names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from samaritan.errors import ConfigError, FileError
from samaritan.recipes.published import get_recipe, recipe_names
from samaritan.recipes.schema import Recipe

MAX_BYTES = 1 << 20
"""No recipe is longer than this."""


def resolve(
    name: str | None = None,
    *,
    file: str | Path | None = None,
    settings: Iterable[str] = (),
    changes: Mapping[str, Any] | None = None,
) -> Recipe:
    """Put a file, then single settings, then changes on top of a named recipe.

    Args:
        name: of a recipe; without it, the one that the file's `name` says, or plain defaults.
        file: YAML with some or all fields.
        settings: such as "optim.lr=1e-4" or "optim.groups=[{match: '**.adapters.**', lr: 2}]". A mapping is
            put into the one that is there, and an empty one takes its place.
        changes: dotted names and values that are already of their type.

    Raises:
        ConfigError: telling every field that is not known or not valid.
        FileError: if the file cannot be read.

    >>> resolve("samed", settings=["optim.lr=1e-4"]).optim.lr
    0.0001
    """
    own = {} if file is None else read_yaml(Path(file).expanduser())
    if is_lightning(own):
        raise ConfigError(
            f"{file} is a configuration of NeuroSAM3D. Make a recipe of it, which tells what has no place in "
            f"one: samaritan prepare recipe {file} -o recipe.yaml"
        )
    base = name or (own.get("name") if own.get("name") in recipe_names() else None)
    values = {} if base is None else get_recipe(str(base)).model_dump()
    if name is not None:
        own.pop("name", None)
    _merge(values, own)
    problems: list[str] = []
    for setting in settings:
        dotted, equals, text = setting.partition("=")
        if not equals or not dotted.strip():
            problems.append(f"{setting!r} is no setting; write name=value, as in optim.lr=1e-4")
            continue
        _put(values, dotted.strip(), _value(text), problems)
    for dotted, value in (changes or {}).items():
        _put(values, dotted, value, problems)
    return _checked(values, problems)


def load(path: str | Path) -> Recipe:
    """Read a recipe that `dump` wrote.

    Raises:
        ConfigError: telling every field that is not known or not valid.
        FileError: if the file cannot be read.
    """
    return _checked(read_yaml(Path(path)), [])


def dump(recipe: Recipe) -> str:
    """The recipe as YAML, every field included; `load` and `resolve` read it.

    >>> "lr: 0.005" in dump(get_recipe("samed"))
    True
    """
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


def is_lightning(values: Mapping[str, Any]) -> bool:
    """Whether a YAML file is laid out as Lightning's command line writes it."""
    model = values.get("model")
    inner = model.get("init_args", model) if isinstance(model, Mapping) else None
    return "trainer" in values or (isinstance(inner, Mapping) and "model_type" in inner)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the sections of a YAML file; nothing in it is executed.

    Raises:
        ConfigError: if it is not valid or holds no sections.
        FileError: if it cannot be read.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(f"{path} has more than {MAX_BYTES} bytes: it is no recipe")
        values = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {error}. Give a YAML file") from error
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"{path} is not valid YAML: {told}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(
            f"{path} holds no recipe: expected sections such as 'optim:', got a {type(values).__name__}"
        )
    return values


def _value(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _merge(into: dict[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in new.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _put(values: dict[str, Any], dotted: str, value: Any, problems: list[str]) -> None:
    *sections, last = dotted.split(".")
    at: Any = values
    for section in sections:
        at = at.setdefault(section, {})
        if not isinstance(at, dict):
            problems.append(f"{dotted}: {section} is no section")
            return
    if value == {}:
        at.pop(last, None)  # or nothing could be taken away
    _merge(at, {last: value})


def _checked(values: Mapping[str, Any], problems: list[str]) -> Recipe:
    recipe = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        problems += [_told(problem) for problem in error.errors(include_url=False)]
    if recipe is None or problems:
        raise ConfigError(
            f"the recipe cannot be used ({len(problems)} problem{'s' * (len(problems) > 1)}):\n  "
            + "\n  ".join(problems)
        )
    return recipe


def _told(problem: Any) -> str:
    """One problem of pydantic in our words."""
    where = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        return f"{where} is not known. {_near(problem['loc'])}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not where:
        return message
    return f"{where}: {message[0].lower()}{message[1:]}, got {problem['input']!r}"


def _near(loc: tuple[Any, ...]) -> str:
    """Which names there are, those that look alike first."""
    fields = _fields(loc[:-1])
    last = str(loc[-1])
    here = difflib.get_close_matches(last, fields, n=2)
    if here:
        return (
            f"Did you mean {' or '.join('.'.join([*map(str, loc[:-1]), name]) for name in here)}?"
        )
    everywhere = [
        f"{section}.{name}"
        for section, info in Recipe.model_fields.items()
        for name in _fields((section,))
        if info is not None
    ]
    far = [dotted for dotted in everywhere if dotted.split(".")[1] == last]
    return f"Did you mean {' or '.join(far)}?" if far else f"There are {', '.join(fields)}"


def _fields(loc: tuple[Any, ...]) -> list[str]:
    at: Any = Recipe
    for part in loc:
        if isinstance(part, int):
            continue
        kind = at.model_fields[part].annotation
        inner = [a for a in getattr(kind, "__args__", ()) if isinstance(a, type)]
        at = next(
            (k for k in (kind, *inner) if isinstance(k, type) and issubclass(k, BaseModel)), None
        )
        if at is None:
            return []
    return list(at.model_fields)
