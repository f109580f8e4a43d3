"""The recipe: what a training run is made of, section by section, and what must fit together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import model_validator

from samaritan.recipes.sections import (
    Clicks,
    Compat,
    Data,
    Loss,
    Matching,
    Model,
    Optim,
    Prompts,
    Run,
    Schedule,
    Section,
    Validation,
)

Task = Literal["multiclass", "interactive", "iterated", "mask_classes", "voxel_classes"]

_COMPAT: dict[Task, tuple[str, ...]] = {
    "interactive": (
        "frozen_point_embeddings",
        "prompts_without_gradient",
        "batch_losses",
        "exclusive_box_corners",
        "padded_small_pictures",
    ),
    "multiclass": ("corner_aligned_labels", "nearest_rotation", "cubic_zoom"),
    "iterated": ("pooled_statistics", "half_logit_errors"),
}
"""Switches that mean something in one task only."""

_VOLUME_CHAINS = ("sam_med3d", "neurosam3d")

PATCH_TASKS: tuple[Task, ...] = ("mask_classes", "voxel_classes")
"""Tasks that learn to label volumes from patches of nnU-Net's data."""

_CLASSES: tuple[Task, ...] = ("multiclass", *PATCH_TASKS)
"""Tasks that need no prompts."""


class Recipe(Section):
    """A training run, complete: the same recipe, data and weights give the same model."""

    name: str = "mine"
    """What it is called; a published recipe's name makes that the base of a file."""
    task: Task = "interactive"
    """Label the whole image without prompts, answer prompts about one object of a picture, or answer clicks
    that follow one another on one object of a volume. With nnU-Net's data: label patches by masks with
    classes (MaskSAM), or voxel by voxel (a U-Net, or SAMed on slices)."""
    model: Model = Model()
    data: Data = Data()
    prompts: Prompts = Prompts()
    clicks: Clicks = Clicks()
    matching: Matching = Matching()
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
        if self.task not in _CLASSES and self.model.num_classes is not None:
            yield "model.num_classes is for task multiclass: an interactive model has no classes"
        if interactive and self.loss.cross_entropy and self.prompts.each == "batch":
            yield "loss.cross_entropy is for task multiclass or prompts.each object: set it to 0"
        if interactive and self.loss.focal and self.prompts.each == "object":
            yield "loss.focal is for prompts.each batch: set it to 0 and loss.cross_entropy to 1"
        if (self.data.chain == "focus") != (interactive and self.prompts.each == "object"):
            yield "data.chain focus and prompts.each object go together, in task interactive"
        if self.task in _CLASSES and (self.loss.focal or self.loss.iou):
            yield "loss.focal and loss.iou are for task interactive: set them to 0"
        yield from self._iterated_problems()
        yield from self._patch_problems()
        if self.task != "mask_classes" and not any(dict(self.loss).values()):
            yield "every weight in loss is 0: nothing would be learned"
        for task, names in _COMPAT.items():
            for name in names if task != self.task else ():
                if getattr(self.compat, name):
                    yield f"compat.{name} changes nothing in task {self.task}: set it to false"
        if self.compat.nearest_rotation and self.data.augment != "samed":
            yield "compat.nearest_rotation is for data.augment samed"
        if self.compat.cubic_zoom and not interactive and self.data.chain != "samed":
            yield "compat.cubic_zoom is for data.chain samed, which fills the input"
        if self.compat.padded_small_pictures and interactive and self.data.chain != "sam_med2d":
            yield "compat.padded_small_pictures is for data.chain sam_med2d, which stretches them"
        if self.schedule.kind == "multistep" and not self.schedule.milestones:
            yield "schedule.milestones is empty: a multistep schedule needs epochs"
        if (self.schedule.kind == "step") != (self.schedule.every is not None):
            yield "schedule.every and schedule.kind step go together: it is counted in iterations"

    def _patch_problems(self) -> Iterator[str]:
        """What does not fit together where patches of nnU-Net's data are learned from, or are not."""
        patches, data = self.task in PATCH_TASKS, self.data
        if patches != (data.chain == "nnunet"):
            yield f"data.chain nnunet and task {' or '.join(PATCH_TASKS)} go together"
        if (data.augment == "nnunet") > patches:
            yield "data.augment nnunet is for data.chain nnunet: choose geometry, heavy, upright or none"
        if self.task != "mask_classes" and self.matching != Matching():
            yield f"matching is for task mask_classes: leave it out in task {self.task}"
        if not patches:
            return
        if data.augment not in ("none", "nnunet"):
            yield f"data.augment {data.augment} is not for data.chain nnunet: choose nnunet or none"
        if data.patch_size is not None and len(data.patch_size) not in (2, 3):
            yield f"data.patch_size has two or three sides, got {list(data.patch_size)}"
        if data.weights:
            yield "data.weights are for several data sets, and chain nnunet learns from one"
        others = ("points", "no_object", "by_class")
        terms = {k: v for k, v in dict(self.matching).items() if k not in others}
        if (
            self.task == "mask_classes"
            and not any(terms.values())
            and not any(dict(self.loss).values())
        ):
            yield "every weight in matching and loss is 0: nothing would be learned"

    def _iterated_problems(self) -> Iterator[str]:
        iterated = self.task == "iterated"
        if iterated != (self.data.chain in _VOLUME_CHAINS):
            yield f"data.chain {' or '.join(_VOLUME_CHAINS)} and task iterated go together"
        if not iterated:
            return
        if self.loss.focal:
            yield "loss.focal is for task interactive: set it to 0 and loss.cross_entropy to 1"
        if self.clicks.count[0] > self.clicks.count[1]:
            yield f"clicks.count is the fewest and the most answers, got {list(self.clicks.count)}"
        if not self.clicks.box_loss and self.clicks.box_part and self.clicks.count[0] < 2:
            yield "clicks.box_loss false needs clicks.count of 2 or more: else nothing is learned"
        if self.data.augment == "samed":
            yield "data.augment samed is for pictures: choose geometry, heavy, upright or none"
