"""The model that a run begins with: random as its seed says, or with weights that were trained before."""

from __future__ import annotations

import logging
from typing import Any

import torch

from samaritan.assembly import create_model, masksam
from samaritan.checkpoints.loading import load_weights
from samaritan.models.sam import Sam
from samaritan.recipes import Recipe

logger = logging.getLogger(__name__)

_UNFREE = ("-NC", "-ND")
"""Parts of the names of licences that bind what is made of the weights."""


def build_model(recipe: Recipe) -> Sam:
    """Build the model of a recipe, random as its seed says."""
    wanted = recipe.model
    classes = wanted.num_classes
    if classes is not None and wanted.name in masksam.NAMES:
        classes += 1  # there the background is counted, as its publishers do
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.run.seed)
        return create_model(
            wanted.name, num_classes=classes, method=wanted.method, **options_of(recipe)
        )


def begin(recipe: Recipe, from_init: bool = True) -> tuple[Sam, dict[str, Any] | None]:
    """Build the model with the weights it begins with, and say what these are.

    Weights of a 2D SAM start a 3D model as far as they go; those of an image encoder alone, such as
    3DINO's teacher, fill that.

    Raises:
        CheckpointError: if the weights do not fit.
        FileError: if they cannot be read.
    """
    model, wanted = build_model(recipe), recipe.model
    if wanted.init is None or not from_init:
        return model, None
    report = load_weights(
        model, wanted.init, init_extra_classes=wanted.init_extra_classes, inflate=None
    )
    logger.info("%s", report)
    inflated = model.config.ndim == 3 and any(n.startswith("2D weights") for n in report.notes)
    if inflated or "mask_decoder.iou_token.weight" in report.missing:
        logger.warning(
            "the run begins with %d tensors of %s; %d others are as a new model has them%s",
            len(report.loaded),
            wanted.init,
            len(report.missing),
            ". These are 2D weights, spread over the third axis" if inflated else "",
        )
    if report.licence and any(part in report.licence for part in _UNFREE):
        logger.warning(
            "%s is under %s, which binds what is made of it: the weights of this run will say so",
            wanted.init,
            report.licence,
        )
    facts = {"file": wanted.init, "source": report.source, "sha256": report.sha256}
    return model, {**facts, "licence": report.licence, "notes": list(report.notes)}


def options_of(recipe: Recipe) -> dict[str, Any]:
    """Further options of the model of a recipe."""
    wanted = recipe.model
    size = {} if wanted.image_size is None else {"image_size": wanted.image_size}
    return {**size, **wanted.options}
