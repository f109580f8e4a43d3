"""What the data decide of a recipe for patches: classes, channels, the patch, and stages of a U-Net."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from samaritan.assembly import get_blueprint, masksam, unets
from samaritan.data.nnunet.labels import LabelSet
from samaritan.data.nnunet.planned import PlannedSet
from samaritan.data.nnunet.plans import Configuration
from samaritan.data.nnunet.topology import topology_for
from samaritan.errors import ConfigError
from samaritan.recipes import Recipe


def fitted(recipe: Recipe, planned: PlannedSet, configuration: Configuration) -> Recipe:
    """The recipe with classes, channels and patch as the data have them.

    Raises:
        ConfigError: if it says otherwise.
    """
    labels, name = planned.labels, recipe.model.name
    classes = len(labels.foreground)
    if recipe.model.num_classes not in (None, classes):
        raise ConfigError(
            f"model.num_classes is {recipe.model.num_classes}, but {planned.folder} has {classes} labels"
        )
    patch = patch_of(recipe, configuration)
    channels = len(configuration.normalization)
    if name in masksam.NAMES:
        own: dict[str, Any] = {
            "frames": patch[0],
            "slice_size": list(patch[1:]),
            "channels": channels,
        }
        if recipe.matching.by_class:
            own["queries"] = recipe.model.options.get("queries", classes + 1)
    elif name in unets.NAMES:
        own = _unet_options(recipe, labels, configuration, patch, channels)
    else:
        own = {"image_size": list(patch)}
    differ = [
        f"{key}={recipe.model.options[key]} is not {value}"
        for key, value in own.items()
        if key in ("frames", "slice_size", "channels", "in_channels", "image_size")
        and recipe.model.options.get(key, value) != value
    ]
    if differ:
        raise ConfigError(
            f"model.options say otherwise than the data and the patch: {'; '.join(differ)}. Leave these out, "
            "and set data.patch_size"
        )
    model = recipe.model.model_copy(
        update={"num_classes": classes, "options": {**own, **recipe.model.options}}
    )
    data = recipe.data.model_copy(update={"patch_size": patch, "configuration": configuration.name})
    return recipe.model_copy(update={"model": model, "data": data})


def patch_of(recipe: Recipe, configuration: Configuration) -> tuple[int, ...]:
    """The sides of patches: those of the recipe, else of the model; small ones no larger than planned.

    Raises:
        ConfigError: if model and configuration have different numbers of axes.
    """
    planned, name = configuration.patch_size, recipe.model.name
    dims = 2 if name not in (*masksam.NAMES, *unets.NAMES) else 3 if name in masksam.NAMES else None
    if dims is not None and len(planned) != dims:
        raise ConfigError(
            f"{name!r} takes patches of {dims} axes, and those of configuration {configuration.name!r} have "
            f"{len(planned)}: choose another by data.configuration"
        )
    if recipe.data.patch_size is not None:
        return recipe.data.patch_size
    options = dict(recipe.model.options)
    if name in masksam.NAMES:
        config, _ = masksam.plan(name, options)
        assert config.mask_classes is not None
        own = (config.mask_classes.frames, *config.mask_classes.slice_size)
        steps = (1, *(-(-p // config.mask_classes.enlarge) for p in config.patch_size))
        return own if masksam.trainable(name) is not None else _within(own, planned, steps)
    if name in unets.NAMES:
        most = unets.plan(name, {}).image_size[-len(planned) :]
        sides = planned if name == "dynunet" else tuple(map(min, planned, most))
        return topology_for(configuration.spacing[-len(sides) :], sides).patch_size
    config = get_blueprint(name).config
    steps = config.patch_size
    return tuple(-(-n // s) * s for n, s in zip(planned, steps, strict=True))


def check_labels(recipe: Recipe, labels: LabelSet, where: Path) -> None:
    """Refuse regions and ignored labels for models that cannot have them.

    Raises:
        ConfigError: saying which, and what to do.
    """
    name = recipe.model.name
    if (recipe.task == "mask_classes") != (name in masksam.NAMES):
        wanted = (
            ", ".join(masksam.NAMES) if recipe.task == "mask_classes" else ", ".join(unets.NAMES)
        )
        raise ConfigError(
            f"task {recipe.task} does not train {name!r}: choose a model.name such as {wanted}"
        )
    if labels.has_regions and name not in unets.NAMES:
        raise ConfigError(
            f"{where} has regions that overlap ({', '.join(labels.names)}), and {name!r} gives every voxel "
            "one class. Write labels that exclude each other into dataset.json, or train recipe unet_nnunet"
        )
    if labels.ignore is not None and recipe.task == "mask_classes":
        raise ConfigError(
            f"{where} has an ignored label ({labels.ignore}), and {name!r} would learn it as background. "
            "Train recipe unet_nnunet, or leave those cases out"
        )
    if not labels.foreground:
        raise ConfigError(f"{where} names no label beside the background")


def _unet_options(
    recipe: Recipe,
    labels: LabelSet,
    configuration: Configuration,
    patch: Sequence[int],
    channels: int,
) -> dict[str, Any]:
    """Stages of a U-Net as nnU-Net plans them for a patch of these voxels."""
    most = unets.plan(recipe.model.name, {}).voxel_classes
    assert most is not None
    found = topology_for(configuration.spacing[-len(patch) :], patch)
    stages = len(found.strides)
    filters = [min(most.filters[0] * 2**s, most.filters[-1]) for s in range(stages)]
    return {
        "image_size": list(patch),
        "in_channels": channels,
        "heads": labels.heads,
        "regions": labels.has_regions,
        "strides": [list(s) for s in found.strides],
        "kernels": [list(k) for k in found.kernels],
        "filters": filters,
        "supervised": min(most.supervised, max(stages - 2, 0)),
    }


def _within(own: Sequence[int], planned: Sequence[int], steps: Sequence[int]) -> tuple[int, ...]:
    """Sides no larger than planned, rounded up to what the model divides them into."""
    return tuple(
        min(a, -(-b // step) * step) for a, b, step in zip(own, planned, steps, strict=True)
    )
