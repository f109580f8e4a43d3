"""What is learned from volumes: the chain of the model, and crops, or cubes around objects."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from samaritan.data import Manifest
from samaritan.data.cubes import CubeDataset, CubeLooks
from samaritan.data.volume_augment import VolumeAugment
from samaritan.data.volumes import CropDataset, Place
from samaritan.errors import ConfigError
from samaritan.models.config import SamConfig
from samaritan.recipes import Recipe
from samaritan.transforms import (
    CubePreprocess,
    WindowPreprocess,
    neurosam3d_windows,
    sam_med3d_windows,
)

logger = logging.getLogger(__name__)

_AUGMENT: dict[str, VolumeAugment] = {
    "geometry": VolumeAugment(flips=0.5),
    "heavy": VolumeAugment(flips=0.3, turns=0.3, intensity=0.5),
    "upright": VolumeAugment(flips=0, intensity=0.5),
}
"""As SAM-Med3D; as NeuroSAM3D; without flips, for organs that are told apart by their side."""


def window_chain(recipe: Recipe, config: SamConfig) -> WindowPreprocess:
    """The way from a volume to the input: one object for training, validation and the checkpoint.

    Raises:
        ConfigError: if the model is not for volumes, or does not take the boxes that are asked for.
    """
    if config.ndim != 3:
        raise ConfigError(f"{config.name!r} is a 2D model; task iterated trains 3D models")
    if recipe.clicks.box_part and config.num_point_embeddings < 4:
        raise ConfigError(
            f"{config.name!r} takes no boxes: set clicks.box_part=0, or give it the embeddings of their "
            "corners with model.options.num_point_embeddings=4"
        )
    data, clicks = recipe.data, recipe.clicks
    made = {"sam_med3d": sam_med3d_windows, "neurosam3d": neurosam3d_windows}[data.chain]()
    prompting = replace(
        made.prompting,
        clicks=clicks.show,
        refine="prompts" if clicks.mask_only == "none" else "mask",
        feedback=clicks.feedback,
    )
    size = (config.image_size[0], config.image_size[1], config.image_size[2])
    chain = replace(made, size=size, measure=data.measure, prompting=prompting)
    if data.spacing_mm is not None:
        chain = replace(chain, spacing_mm=data.spacing_mm)
    if data.window is not None:
        chain = replace(chain, clamp=data.window, clamp_modalities=())
    return chain


def crop_sets(
    recipe: Recipe,
    chain: WindowPreprocess,
    learned: Manifest,
    held_out: Manifest | None,
    loaded: Callable[[int, int], None],
) -> tuple[CropDataset, CropDataset | None]:
    """Crops to learn from, and others that are the same in every validation.

    Those lie around the object where training has published crops, else where a first click would place them.
    """
    data = recipe.data
    shared: dict[str, Any] = {
        "channel": data.channel,
        "min_size": data.min_size,
        "min_volume_mm3": data.min_volume_mm3,
        "normalise": not recipe.compat.pooled_statistics,
        "cache": None if data.cache is None else Path(data.cache).expanduser(),
        "progress": loaded,
    }
    train_set = CropDataset(
        learned,
        chain,
        place=data.crop,
        augment=_AUGMENT.get(data.augment),
        seed=recipe.run.seed,
        **shared,
    )
    validation = None
    if held_out:
        place: Place = "object" if data.crop == "object" else "voxel"
        own = {**shared, "normalise": True, "seed": recipe.validation.seed}
        validation = CropDataset(held_out, chain, place=place, **own)
    for name, found in (("training", train_set), ("validation", validation)):
        if found is not None and found.skipped:
            logger.warning(
                "%d objects for %s have fewer than %d voxels or %g mm3 and are left out; %d are there",
                found.skipped,
                name,
                data.min_size,
                data.min_volume_mm3,
                len(found),
            )
    return train_set, validation


def cube_chain(recipe: Recipe, config: SamConfig) -> CubePreprocess:
    """The way from a volume to a cube around one object."""
    size = (config.image_size[0], config.image_size[1], config.image_size[2])
    return CubePreprocess(size=size, window=recipe.data.window)


def cube_sets(
    recipe: Recipe,
    chain: CubePreprocess,
    learned: Manifest,
    held_out: Manifest | None,
    loaded: Callable[[int, int], None],
) -> tuple[CubeDataset, CubeDataset | None]:
    """Cubes to learn from, and others that are the same in every validation."""
    data = recipe.data
    shared: dict[str, Any] = {
        "channel": data.channel,
        "objects": data.objects,
        "min_size": data.min_size,
        "cache": None if data.cache is None else Path(data.cache).expanduser(),
        "progress": loaded,
    }
    train_set = CubeDataset(
        learned,
        chain,
        looks=None if data.augment == "none" else CubeLooks(),
        intensity=0.5 * data.intensity if data.augment == "heavy" else 0.0,
        seed=recipe.run.seed,
        **shared,
    )
    return train_set, CubeDataset(held_out, chain, **shared) if held_out else None
