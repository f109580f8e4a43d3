"""What a model is built from: a configuration, its adapters, and what learns; by name for published systems.

This file knows no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from samaritan.adapt.methods import Insertion, get_method
from samaritan.assembly import masksam, unets
from samaritan.errors import ConfigError
from samaritan.models.config import Quirks, SamConfig, get_config
from samaritan.models.config import model_names as plain_names

MAX_CLASSES = 10_000


@dataclass(frozen=True)
class Blueprint:
    """Everything that fixes a model but its numbers."""

    config: SamConfig
    """The plain model."""
    insertions: tuple[Insertion, ...] = ()
    """Adapters to put into it."""
    trainable: tuple[str, ...] | None = None
    """Patterns of the parameters that learn; None: all."""


@dataclass(frozen=True)
class _Family:
    """A published way to adapt a plain model, at some of its sizes."""

    prefix: str
    plain: str
    """Prefix of the plain models."""
    method: str
    image_size: int
    options: Mapping[str, Any]
    sizes: tuple[str, ...] = ("vit_b", "vit_l", "vit_h", "small", "tiny")


_FAMILIES = (
    _Family("samed_s_", "sam_", "lora_decoder", 512, {"num_classes": 8, "rank": 4}),
    _Family("samed_", "sam_", "lora", 512, {"num_classes": 8, "rank": 4}),
    _Family("sammed2d_", "sam_", "sam_med2d", 256, {}),
    _Family("msam_", "sammed3d_", "mask_enhanced", 128, {}, ("vit_b_ori",)),
    _Family("msam_", "sam3d_", "mask_enhanced", 128, {}, ("small", "tiny")),
)
_ADAPTED = {f.prefix + size: (f, f.plain + size) for f in _FAMILIES for size in f.sizes}


def model_names() -> list[str]:
    """Names that `create_model` knows, adapted ones included."""
    return sorted([*plain_names(), *_ADAPTED, *masksam.NAMES, *unets.NAMES])


def get_blueprint(
    name_or_config: str | SamConfig | Blueprint,
    *,
    quirks: Quirks | None = None,
    num_classes: int | None = None,
    method: str | None = None,
    adapters: bool = True,
    **options: Any,
) -> Blueprint:
    """The blueprint of a named or given model, with options. `create_model` says what they mean.

    Raises:
        ConfigError: if a name or option is not known, or they do not fit together.

    >>> get_blueprint("samed_vit_b", num_classes=3, rank=8).config.num_mask_tokens
    4
    """
    if isinstance(name_or_config, str) and name_or_config in masksam.NAMES:
        return _masksam(
            name_or_config,
            options,
            quirks=quirks,
            num_classes=num_classes,
            method=method,
            adapters=adapters,
        )
    if isinstance(name_or_config, str) and name_or_config in unets.NAMES:
        return _unet(name_or_config, options, num_classes=num_classes, method=method, quirks=quirks)
    blueprint, defaults, method = _start(name_or_config, method)
    own = {f.name for f in fields(SamConfig)}
    changes = {key: options.pop(key) for key in list(options) if key in own}
    options = {**{k: v for k, v in defaults.items() if k != "num_classes"}, **options}
    if num_classes is None:
        num_classes = defaults.get("num_classes")
    if num_classes is not None:
        changes.update(_class_fields(num_classes))
    if quirks is not None:
        changes["quirks"] = quirks
    if changes:
        config = SamConfig.from_dict({**blueprint.config.to_dict(), **changes})
        blueprint = replace(blueprint, config=config)
    if not adapters:
        return replace(blueprint, insertions=(), trainable=None)
    if method is None:
        if options:  # neither a field nor an option of a method: let the configuration say so
            SamConfig.from_dict({**blueprint.config.to_dict(), **options})
        return blueprint
    plan = get_method(method, **options)
    return replace(blueprint, insertions=plan.insertions, trainable=plan.trainable)


def trainable_of(name: str) -> tuple[str, ...] | None:
    """Patterns of what learns in an adapted model of this name; None for others."""
    known = name in _ADAPTED or name in masksam.NAMES
    return get_blueprint(name).trainable if known else None


def _masksam(
    name: str,
    options: dict[str, Any],
    *,
    quirks: Quirks | None,
    num_classes: int | None,
    method: str | None,
    adapters: bool,
) -> Blueprint:
    if method is not None:
        raise ConfigError(
            f"{name!r} is adapted already, by 'slices': method={method!r} cannot be added. "
            f"Use samaritan.adapt.insert"
        )
    if num_classes is not None:
        options = {**options, "num_classes": num_classes}
    config, insertions = masksam.plan(name, options)
    if quirks is not None:
        config = replace(config, quirks=quirks)
    if not adapters:
        return Blueprint(config)
    return Blueprint(config, insertions, masksam.trainable(name))


def _unet(
    name: str,
    options: dict[str, Any],
    *,
    num_classes: int | None,
    method: str | None,
    quirks: Quirks | None,
) -> Blueprint:
    if method is not None or (quirks is not None and quirks != Quirks()):
        raise ConfigError(f"{name!r} is a plain U-Net: it has no adapters and no quirks")
    if num_classes is not None:
        _class_fields(num_classes)
        options = {"heads": num_classes + 1, **options}
    return Blueprint(unets.plan(name, options))


def _start(
    given: str | SamConfig | Blueprint, method: str | None
) -> tuple[Blueprint, Mapping[str, Any], str | None]:
    """Where to begin: a blueprint, default options, and the method."""
    if isinstance(given, Blueprint):
        return given, {}, method
    if isinstance(given, SamConfig):
        return Blueprint(given), {}, method
    if given not in _ADAPTED:
        return Blueprint(_plain(given)), {}, method
    if method is not None:
        raise ConfigError(
            f"{given!r} is adapted already, by {_ADAPTED[given][0].method!r}: method={method!r} cannot be "
            f"added. Use {_ADAPTED[given][1]!r} with a method, or samaritan.adapt.insert"
        )
    family, base = _ADAPTED[given]
    config = replace(get_config(base), name=given)
    if "vit" in given or config.image_size[0] > family.image_size:
        config = replace(config, image_size=(family.image_size,) * config.ndim)
    return Blueprint(config), family.options, family.method


def _plain(name: str) -> SamConfig:
    if name in plain_names():
        return get_config(name)
    near = difflib.get_close_matches(name, model_names(), n=3, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    raise ConfigError(f"unknown model {name!r}. {hint}Known: {', '.join(model_names())}")


def _class_fields(num_classes: int) -> dict[str, Any]:
    whole = isinstance(num_classes, int) and not isinstance(num_classes, bool)
    if not whole or not 1 <= num_classes <= MAX_CLASSES:
        raise ConfigError(
            f"num_classes must be a whole number from 1 (background not counted), not {num_classes!r}"
        )
    return {"classes": True, "num_mask_tokens": num_classes + 1}
