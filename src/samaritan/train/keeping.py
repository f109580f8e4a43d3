"""What a run is made of, and how it is kept: its state for going on, its weights for use."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from samaritan.adapt.inject import adapters_of
from samaritan.checkpoints.saving import save_weights
from samaritan.errors import FileError
from samaritan.geometry import Grid
from samaritan.io.files import replacing
from samaritan.models.sam import Sam
from samaritan.recipes import Recipe, dump
from samaritan.train.average import MovingAverage
from samaritan.train.folder import RunFolder
from samaritan.train.judging import Judge
from samaritan.train.loading import Examples
from samaritan.train.machine import Machine
from samaritan.train.state import fill, moving, read_state, still, write_state
from samaritan.train.steps import Step

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a run is: what resuming needs to know beside weights and optimiser."""

    iteration: int = 0
    """Iterations that are done."""
    epoch: int = 0
    within: int = 0
    """Iterations that are done of this epoch."""
    best: float = -math.inf
    """The best validation so far."""
    worse: int = 0
    """Validations since then."""
    last: float | None = None
    """The last validation."""
    lines: int = 0
    """Lines of the log."""


@dataclass(frozen=True)
class Work:
    """What is to be trained, on what, and how it is judged."""

    model: Sam
    step: Step
    train: Examples
    judge: Judge | None = None
    validation: Examples | None = None
    preprocess: Mapping[str, Any] | None = None
    """The chain from image to input, for the header of the weights."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """What else belongs into that header."""
    init: Mapping[str, Any] | None = None
    """Which weights the model begins with; none: random ones."""
    finish: Callable[[dict[str, float]], dict[str, float]] | None = None
    """Makes scores of the means over a validation, where these are counts."""
    whole: Callable[[Sam, Machine], dict[str, float]] | None = None
    """Judges the model on whole volumes instead of examples."""
    grid: Callable[[tuple[int, ...]], Grid] | None = None
    """How a volume of examples lies, by its shape, for pictures of it."""


@dataclass
class Live:
    """A run that is going on."""

    recipe: Recipe
    work: Work
    folder: RunFolder
    machine: Machine
    optimizer: Any
    average: MovingAverage | None
    progress: Progress = field(default_factory=Progress)

    @property
    def model(self) -> Sam:
        """What learns."""
        return self.work.model

    def shown(self) -> contextlib.AbstractContextManager[None]:
        """Let the model have the weights that are validated and exported."""
        return contextlib.nullcontext() if self.average is None else self.average.shown(self.model)


def keep(live: Live) -> None:
    """Write the state.

    Raises:
        FileError: if it cannot be written; the one that was there stays.
    """
    scaler = live.machine.accelerator.scaler
    write_state(
        live.folder.state,
        {
            "progress": vars(live.progress),
            "world": live.machine.world,
            "model": moving(live.model),
            "average": None if live.average is None else live.average.state(),
            "optimizer": live.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
        },
    )


def take_up(live: Live) -> None:
    """Go back to the state that was kept last.

    Raises:
        CheckpointError: if it does not fit the model.
        FileError: if there is none.
    """
    state = read_state(live.folder.state)
    if state["world"] != live.machine.world:
        logger.warning(
            "the run began with %d processes and goes on with %d: losses will differ a little",
            state["world"],
            live.machine.world,
        )
    if live.folder.frozen.exists():
        fill(live.model, load_file(live.folder.frozen), live.folder.frozen)
    fill(live.model, state["model"], live.folder.state)
    live.optimizer.load_state_dict(state["optimizer"])
    if live.average is not None and state["average"] is not None:
        live.average.restore(state["average"])
    if live.machine.accelerator.scaler is not None and state["scaler"]:
        live.machine.accelerator.scaler.load_state_dict(state["scaler"])
    live.progress = Progress(**state["progress"])


def keep_frozen(live: Live) -> None:
    """Write once what never changes, so that going on does not depend on other files."""
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in still(live.model).items()}
    if not tensors:
        return
    path = live.folder.frozen
    with replacing(path) as (temporary,):
        try:
            save_file(tensors, temporary)
        except SafetensorError as error:
            raise FileError(f"{path} could not be written: {error}. Free some space") from error


def export(live: Live, path: Path) -> None:
    """Write the weights as a model that can be used; what learned alone beside it, if others are frozen."""
    recipe, init = live.recipe, live.folder.begun()
    provenance = {"recipe": recipe.name, "iteration": live.progress.iteration}
    told: dict[str, Any] = {
        "preprocess": live.work.preprocess,
        "provenance": {**provenance, **({"init": init} if init else {})},
        "licence": init.get("licence"),
        "extra": {**live.work.extra, "recipe": dump(recipe)},
    }
    with live.shown():
        save_weights(live.model, path, **told)
        if adapters_of(live.model) and not all(p.requires_grad for p in live.model.parameters()):
            save_weights(
                live.model, path.with_suffix(".adapted.safetensors"), only="trainable", **told
            )
