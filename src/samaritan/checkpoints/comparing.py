"""Compare weights with a model, and say in one text everything that does not fit."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from samaritan.checkpoints import adapted
from samaritan.checkpoints.systems import Shapes, System, creating, guess_config
from samaritan.models.config import SamConfig

IGNORABLE = ("pixel_mean", "pixel_std")
"""Constants of preprocessing that some programs store among the weights."""

CORNERS = (
    "prompt_encoder.point_embeddings.2.weight",
    "prompt_encoder.point_embeddings.3.weight",
)
"""The two embeddings of box corners, which SAM-Med3D's first weights lack."""

_SHOWN = 6


@dataclass
class Comparison:
    """Names sorted by how they fit. Only what is not allowed is an error."""

    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    """Missing, and allowed to be."""
    left_out: list[str] = field(default_factory=list)
    """Unexpected, and allowed to be."""

    @property
    def fits(self) -> bool:
        """Whether the weights may be loaded."""
        return not (self.missing or self.unexpected or self.misshaped)


def compare(
    given: Shapes,
    wanted: Shapes,
    *,
    ndim: int,
    kept: Collection[str] = (),
    fresh: Collection[str] = (),
    dropped: Collection[str] = (),
) -> Comparison:
    """Sort the names of weights and of a model by how they fit.

    Args:
        given: the weights.
        wanted: the model.
        ndim: its number of axes.
        kept: names that the weights need not have, because they belong to others.
        fresh: names that the weights may lack, which then keep their values.
        dropped: names that may be left out.
    """
    result = Comparison()
    allowed = {*fresh, *(CORNERS if ndim == 3 and not any(c in given for c in CORNERS) else ())}
    for key in wanted:
        if key in kept and key not in given:
            continue
        if key not in given:
            (result.fresh if key in allowed else result.missing).append(key)
        elif given[key] != wanted[key]:
            result.misshaped.append(f"{key}: {_shape(given[key])}, expected {_shape(wanted[key])}")
    for key in given:
        if key not in wanted:
            expected = key in IGNORABLE or key in dropped
            (result.left_out if expected else result.unexpected).append(key)
    return result


def explain(
    result: Comparison, given: Shapes, wanted: Shapes, config: SamConfig, system: System, where: str
) -> str:
    """The text of the error: the likely cause first, then the names by kind."""
    lines = [f"{where} does not fit the model {config.name!r}; nothing was loaded."]
    cause = _cause(given, config, system)
    if cause:
        lines.append(cause)
    hints = {
        "missing from the weights": _with_hints(result.missing, result.unexpected),
        "not in the model": result.unexpected,
        "of another shape": result.misshaped,
    }
    for title, names in hints.items():
        if names:
            lines.append(f"{len(names)} {title}:")
            lines += [f"    {name}" for name in names[:_SHOWN]]
            if len(names) > _SHOWN:
                lines.append(f"    and {len(names) - _SHOWN} more")
    shared = sum(1 for key in given if given[key] == wanted.get(key))
    lines.append(f"{shared} of the model's {len(wanted)} tensors fit.")
    return "\n".join(lines)


def _cause(given: Shapes, config: SamConfig, system: System) -> str:
    """Why weights most likely do not fit, and what to do."""
    if system.name in (*adapted.TABLES, "m-sam", "masksam"):
        return _adapted_cause(given, system)
    guess = guess_config(given)
    if guess is None:
        return ""
    call = creating(guess)
    if not _same_architecture(guess, config):
        deep = guess.ndim == 2 and config.ndim == 3 and guess.width == config.width
        also = ", or start this 3D model from them with inflate=True" if deep else ""
        return f"They are weights of {system.title}, {_words(guess)}: use {call}{also}."
    if guess.num_mask_tokens != config.num_mask_tokens:
        tokens = f"{guess.num_mask_tokens} mask tokens, the model {config.num_mask_tokens}"
        return f"They have {tokens}: use {call}."
    if guess.num_point_embeddings > config.num_point_embeddings:
        return (
            f"They have {guess.num_point_embeddings} point embeddings (points and boxes), the model "
            f"{config.num_point_embeddings}: use {call}."
        )
    if guess.image_size != config.image_size:
        return (
            f"They are for images of {_shape(guess.image_size)}, the model for "
            f"{_shape(config.image_size)}: load them with resize_positions=True, or use {call}."
        )
    return ""


def _adapted_cause(given: Shapes, system: System) -> str:
    blueprint = adapted.guess_blueprint(given, system.name)
    if blueprint is None:
        return ""
    config = blueprint.config
    words = [f"encoder width {config.width}, {config.depth} blocks"]
    if config.mask_classes is not None:
        own = config.mask_classes
        words.append(f"{own.frames} slices, {own.queries} queries, {own.num_classes} classes")
    if config.classes:
        rank = blueprint.insertions[0].options["rank"]
        words.append(f"{config.num_mask_tokens - 1} classes and background, rank {rank}")
    also = ""
    if system.name in ("sam-med2d", "m-sam"):
        also = ", or leave the adapters out with drop_adapters=True"
    return f"It holds {system.title}: {', '.join(words)}. Use {adapted.creating(blueprint)}{also}."


def _same_architecture(a: SamConfig, b: SamConfig) -> bool:
    keys = (
        "ndim",
        "in_channels",
        "patch_size",
        "width",
        "depth",
        "heads",
        "embed_dim",
        "window_size",
        "backbone",
        "mask_steps",
    )
    return all(getattr(a, key) == getattr(b, key) for key in keys)


def _words(config: SamConfig) -> str:
    return f"{config.ndim}D, encoder width {config.width}, {config.depth} blocks"


def _with_hints(missing: Sequence[str], unexpected: Iterable[str]) -> list[str]:
    """Missing names, the first of them with the nearest name that is there instead."""
    others = list(unexpected)
    shown = []
    for key in missing[:_SHOWN]:
        near = (
            difflib.get_close_matches(key, others, n=1, cutoff=0.85) if len(others) < 2000 else []
        )
        shown.append(f"{key} (is it {near[0]!r}?)" if near else key)
    return [*shown, *missing[_SHOWN:]]


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(str(n) for n in shape) if shape else "a single number"


def shapes_of(state: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor."""
    return {key: tuple(getattr(value, "shape", ())) for key, value in state.items()}
