"""The recipe: what a training run is made of, section by section, and what must fit together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator

from samaritan.recipes.sections import (
    Compat,
    Data,
    Loss,
    Model,
    Optim,
    Prompts,
    Run,
    Schedule,
    Section,
    Validation,
)

Task = Literal["multiclass", "interactive"]

_ONLY_INTERACTIVE = (
    "frozen_point_embeddings",
    "prompts_without_gradient",
    "batch_losses",
    "exclusive_box_corners",
)
_ONLY_MULTICLASS = ("corner_aligned_labels", "nearest_rotation", "cubic_zoom")


class Recipe(Section):
    """A training run, complete: the same recipe, data and weights give the same model."""

    name: str = "mine"
    """What it is called; a published recipe's name makes that the base of a file."""
    task: Task = "interactive"
    """Label the whole image without prompts, or answer prompts about one object."""
    model: Model = Model()
    data: Data = Data()
    prompts: Prompts = Prompts()
    loss: Loss = Loss()
    optim: Optim = Optim()
    schedule: Schedule = Schedule()
    run: Run = Run()
    validation: Validation = Validation()
    compat: Compat = Compat()

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        interactive = self.task == "interactive"
        if interactive and self.model.num_classes is not None:
            yield "model.num_classes is for task multiclass: an interactive model has no classes"
        if interactive and self.loss.cross_entropy and self.prompts.each == "batch":
            yield "loss.cross_entropy is for task multiclass or prompts.each object: set it to 0"
        if interactive and self.loss.focal and self.prompts.each == "object":
            yield "loss.focal is for prompts.each batch: set it to 0 and loss.cross_entropy to 1"
        if (self.data.chain == "focus") != (interactive and self.prompts.each == "object"):
            yield "data.chain focus and prompts.each object go together, in task interactive"
        if not interactive and (self.loss.focal or self.loss.iou):
            yield "loss.focal and loss.iou are for task interactive: set them to 0"
        if not any(value for value in dict(self.loss).values()):
            yield "every weight in loss is 0: nothing would be learned"
        for name in _ONLY_MULTICLASS if interactive else _ONLY_INTERACTIVE:
            if getattr(self.compat, name):
                yield f"compat.{name} changes nothing in task {self.task}: set it to false"
        if self.compat.nearest_rotation and self.data.augment != "samed":
            yield "compat.nearest_rotation is for data.augment samed"
        if self.compat.cubic_zoom and not interactive and self.data.chain != "samed":
            yield "compat.cubic_zoom is for data.chain samed, which fills the input"
        if self.schedule.kind == "multistep" and not self.schedule.milestones:
            yield "schedule.milestones is empty: a multistep schedule needs epochs"
