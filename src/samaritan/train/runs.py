"""From a recipe and data to a run: the model, the data sets and how they are judged."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from samaritan.assembly import get_blueprint
from samaritan.data import Manifest
from samaritan.data.augment import Geometry, Intensity, SamedAugment, heavy, upright
from samaritan.data.cubes import CubeDataset
from samaritan.data.datasets import Augmentation, ObjectDataset, SliceDataset
from samaritan.data.focus import FocusDataset, Looks
from samaritan.data.nnunet.planned import PlannedSet
from samaritan.data.nnunet.results import describe_run
from samaritan.data.sampling import Draw, DrawSampler
from samaritan.data.volumes import CropDataset
from samaritan.errors import ConfigError
from samaritan.models.config import SamConfig
from samaritan.models.sam import Sam
from samaritan.recipes import Recipe
from samaritan.recipes.schema import PATCH_TASKS
from samaritan.train.beginning import begin, options_of
from samaritan.train.chains import chain_of, with_window
from samaritan.train.folder import RunFolder
from samaritan.train.interactive import interactive_step
from samaritan.train.iterated import iterated_judge, iterated_step
from samaritan.train.judging import interactive_judge, multiclass_judge
from samaritan.train.keeping import Work
from samaritan.train.loop import Seen, Trainer
from samaritan.train.machine import Machine
from samaritan.train.mixed import mixed_step
from samaritan.train.patches import facts_of_planned, finish_fold, patch_work, prepare_cases
from samaritan.train.steps import multiclass_step
from samaritan.train.volumes import crop_sets, cube_chain, cube_sets, window_chain
from samaritan.train.whole import MakeWindows
from samaritan.transforms import CubePreprocess, FocusPreprocess, SlicePreprocess

logger = logging.getLogger(__name__)

Loaded = Callable[[int, int], None]


def train(
    recipe: Recipe,
    source: Manifest | PlannedSet,
    output: str | Path,
    *,
    resume: bool = False,
    device: str | None = None,
    workers: int = 0,
    environment: Mapping[str, Any] | None = None,
    loaded: Loaded = lambda done, total: None,
    report: Callable[[Seen], None] | None = None,
    windows: MakeWindows | None = None,
) -> dict[str, float]:
    """Train as a recipe says, on the pictures of a manifest or a planned data set, into a folder of its own.

    Everything is looked at before the folder is made. With `resume` the run in that folder goes on from
    its last checkpoint, and gives what it would have given without the interruption.

    Args:
        recipe: what to do.
        source: a manifest of pictures with labels; for tasks on patches a planned data set.
        output: the folder.
        resume: go on with the run that is there.
        device: such as "cpu" or "cuda:1"; None: the GPU if there is one.
        workers: processes that load images.
        environment: what the machine is like, to be kept in the folder.
        loaded: called with (images done, images in all) while they are decoded.
        report: called with what happens.
        windows: how whole volumes are gone through, to be scored: `samaritan.infer.sliding.SlidingWindows`;
            None: they are not.

    Returns:
        "iterations", and "best" and "last" held-out Dice; "volumes": that of whole volumes in the end.

    Raises:
        ConfigError: if recipe, data and folder do not fit together.
        FileError: if a file cannot be read or written.
        TrainingError: if training cannot go on.
    """
    folder = RunFolder(Path(output).expanduser())
    machine = Machine(recipe.run.precision, device)
    if resume:
        folder.check_there()
    elif machine.leads:
        folder.check_free()
    if isinstance(source, PlannedSet) and machine.leads:
        prepare_cases(recipe, source, loaded)
    machine.wait()
    recipe, work = prepare(
        recipe,
        source,
        from_init=not resume,
        loaded=loaded,
        windows=windows,
        world=machine.world,
    )
    facts = facts_of_planned(recipe, source) if isinstance(source, PlannedSet) else facts_of(source)
    if resume:
        folder.check_same(recipe, facts)
    elif machine.leads:
        folder.create(recipe, environment or {}, facts, work.init)
        if isinstance(source, PlannedSet) and folder.path.name.startswith("fold_"):
            describe_run(folder.path.parent, source)
    machine.wait()
    trainer = Trainer(recipe, work, folder, machine, workers=workers, report=report)
    done = trainer.run(resume=resume)
    if isinstance(source, PlannedSet) and recipe.validation.finish and windows is not None:
        done |= finish_fold(recipe, source, folder, machine, windows, told=loaded)
    machine.close()
    return done


def prepare(
    recipe: Recipe,
    source: Manifest | PlannedSet,
    *,
    from_init: bool = True,
    loaded: Loaded = lambda *_: None,
    windows: MakeWindows | None = None,
    world: int = 1,
) -> tuple[Recipe, Work]:
    """Build everything that a run needs; also give the recipe with what the data decided.

    Raises:
        ConfigError: if recipe and data do not fit together.
    """
    if isinstance(source, PlannedSet) != (recipe.task in PATCH_TASKS):
        raise ConfigError(
            f"task {recipe.task} learns from a manifest or a data set of `samaritan prepare`, not from plans"
            if isinstance(source, PlannedSet)
            else f"task {recipe.task} learns from an nnU-Net data set, raw or planned, not from a manifest"
        )
    if isinstance(source, PlannedSet):
        return patch_work(recipe, source, from_init=from_init, windows=windows, world=world)
    manifest = source
    learned, held_out = parts(recipe, manifest)
    config = get_blueprint(recipe.model.name, **options_of(recipe)).config
    if recipe.task == "iterated":
        return recipe, _iterated(recipe, config, learned, held_out, from_init, loaded)
    if recipe.data.chain == "focus" and config.ndim == 3:
        return recipe, _cubes(recipe, config, learned, held_out, from_init, loaded)
    chain = chain_of(recipe, config)
    chain = with_window(chain, learned)
    if recipe.task == "interactive":
        return recipe, _interactive(recipe, chain, learned, held_out, from_init, loaded)
    classes = recipe.model.num_classes
    augment = augmentation(recipe)
    shared: dict[str, Any] = {
        "corner_aligned": recipe.compat.corner_aligned_labels,
        "cubic_zoom": recipe.compat.cubic_zoom,
        "progress": loaded,
    }
    train_set = SliceDataset(
        learned, chain, num_classes=classes, augment=augment, seed=recipe.run.seed, **shared
    )
    classes = train_set.num_classes
    recipe = recipe.model_copy(
        update={"model": recipe.model.model_copy(update={"num_classes": classes})}
    )
    validation = SliceDataset(held_out, chain, num_classes=classes, **shared) if held_out else None
    names = dict(learned.names)
    model, init = begin(recipe, from_init)
    work = Work(
        model,
        multiclass_step(recipe.loss, recipe.compat),
        Turns(train_set, recipe),
        multiclass_judge(names),
        validation,
        chain.to_dict(),
        {"labels": {str(value): name for value, name in names.items()}},
        init,
    )
    return recipe, work


def _interactive(
    recipe: Recipe,
    chain: SlicePreprocess,
    learned: Manifest,
    held_out: Manifest | None,
    from_init: bool,
    loaded: Loaded,
) -> Work:
    if isinstance(chain, FocusPreprocess):
        return _focused(recipe, chain, learned, held_out, from_init, loaded)
    data = recipe.data
    model, init = begin(recipe, from_init)  # before pictures are read, which takes long
    shared: dict[str, Any] = {
        "count": data.objects_per_image,
        "objects": data.objects,
        "min_size": data.min_size,
        "progress": loaded,
    }
    train_set = ObjectDataset(
        learned, chain, augment=augmentation(recipe), seed=recipe.run.seed, **shared
    )
    validation = None
    if held_out:
        validation = ObjectDataset(held_out, chain, replacement=False, **shared)
    for name, found in (("training", train_set), ("validation", validation)):
        if found is not None and found.skipped:
            logger.warning("%d images for %s hold no object and are left out", found.skipped, name)
    return Work(
        model,
        interactive_step(recipe.prompts, recipe.loss, recipe.compat),
        Turns(train_set, recipe),
        interactive_judge(recipe.prompts, recipe.validation.clicks),
        validation,
        chain.to_dict(),
        init=init,
    )


def _focused(
    recipe: Recipe,
    chain: FocusPreprocess,
    learned: Manifest,
    held_out: Manifest | None,
    from_init: bool,
    loaded: Loaded,
) -> Work:
    """Windows around single objects of pictures."""
    data = recipe.data
    begun = begin(recipe, from_init)
    shared: dict[str, Any] = {
        "objects": data.objects,
        "min_size": data.min_size,
        "progress": loaded,
    }
    train_set = FocusDataset(
        learned,
        chain,
        looks=None if data.augment == "none" else Looks(),
        intensity=Intensity(data.intensity) if data.augment == "heavy" else None,
        seed=recipe.run.seed,
        **shared,
    )
    validation = FocusDataset(held_out, chain, **shared) if held_out else None
    return _mixed(recipe, chain, begun, train_set, validation)


def _cubes(
    recipe: Recipe,
    config: SamConfig,
    learned: Manifest,
    held_out: Manifest | None,
    from_init: bool,
    loaded: Loaded,
) -> Work:
    """Cubes around single objects of volumes."""
    chain = cube_chain(recipe, config)
    begun = begin(recipe, from_init)
    train_set, validation = cube_sets(recipe, chain, learned, held_out, loaded)
    return _mixed(recipe, chain, begun, train_set, validation)


def _mixed(
    recipe: Recipe,
    chain: FocusPreprocess | CubePreprocess,
    begun: tuple[Sam, dict[str, Any] | None],
    train_set: FocusDataset | CubeDataset,
    validation: FocusDataset | CubeDataset | None,
) -> Work:
    """Single objects, in pictures or volumes, each with its own kind of prompt."""
    model, init = begun
    return Work(
        model,
        mixed_step(recipe.prompts, recipe.loss),
        Turns(train_set, recipe),
        interactive_judge(recipe.prompts, recipe.validation.clicks),
        validation,
        chain.to_dict(),
        init=init,
    )


def _iterated(
    recipe: Recipe,
    config: SamConfig,
    learned: Manifest,
    held_out: Manifest | None,
    from_init: bool,
    loaded: Loaded,
) -> Work:
    """Crops of volumes, and clicks that follow one another."""
    chain = window_chain(recipe, config)
    model, init = begin(recipe, from_init)
    train_set, validation = crop_sets(recipe, chain, learned, held_out, loaded)
    return Work(
        model,
        iterated_step(recipe.clicks, recipe.loss, recipe.compat),
        Turns(train_set, recipe),
        iterated_judge(recipe.clicks, recipe.validation.clicks),
        validation,
        chain.to_dict(),
        init=init,
    )


class Turns:
    """The turns of an epoch: which picture comes, and how it is augmented, by epoch and turn alone."""

    def __init__(
        self, examples: SliceDataset | ObjectDataset | CropDataset | CubeDataset, recipe: Recipe
    ) -> None:
        self.examples = examples
        self.sampler = DrawSampler(
            examples.cases,
            weights=recipe.data.weights or None,
            length=recipe.data.per_epoch,
            seed=recipe.run.seed,
        )
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch."""
        self.epoch, self.order = epoch, self.sampler.order(epoch)

    def __len__(self) -> int:
        return self.sampler.length

    def __getitem__(self, turn: int) -> dict[str, Tensor]:
        return self.examples[Draw(int(self.order[turn]), self.epoch, turn)]


def augmentation(recipe: Recipe) -> Augmentation | None:
    """The augmentation of a recipe."""
    kind = recipe.data.augment
    if kind == "samed":
        return SamedAugment(image="nearest" if recipe.compat.nearest_rotation else "linear")
    made: dict[str, Callable[[], Augmentation]] = {
        "geometry": Geometry,
        "heavy": heavy,
        "upright": upright,
    }
    return made[kind]() if kind in made else None


def parts(recipe: Recipe, manifest: Manifest) -> tuple[Manifest, Manifest | None]:
    """What to learn from and what to hold out, by patient.

    Raises:
        ConfigError: if a patient is in several parts, or there is nothing to learn from.
    """
    leaks = manifest.leaks()
    if leaks:
        told = "; ".join(f"{who} of {group!r} in {found}" for (group, who), found in leaks.items())
        raise ConfigError(
            f"patients are in several parts of the data: {told[:600]}. Mend the manifest"
        )
    data = recipe.data
    if not any(case.split in (data.train, data.validate_on) for case in manifest):
        shares = {data.train: 1 - data.val_fraction, data.validate_on: data.val_fraction}
        manifest = manifest.split(shares, seed=recipe.run.seed)
    found = manifest.splits()
    if not found.get(data.train):
        raise ConfigError(
            f"no case is in part {data.train!r}: there are {dict(found)}. Set data.train, or prepare a "
            "manifest with --split train=0.8,val=0.2"
        )
    held_out = manifest.select(split=data.validate_on) if found.get(data.validate_on) else None
    if held_out is None:
        logger.warning("no case is in part %r: nothing is validated on", data.validate_on)
    return manifest.select(split=data.train), held_out


def facts_of(manifest: Manifest) -> dict[str, Any]:
    """What identifies the data of a run."""
    return {
        "root": str(manifest.root),
        "cases": len(manifest),
        "patients": len(manifest.patients()),
        "parts": {str(name): count for name, count in manifest.splits().items()},
        "groups": {name: dict(group.labels) for name, group in manifest.groups.items()},
        "fingerprint": manifest.fingerprint(),
    }
