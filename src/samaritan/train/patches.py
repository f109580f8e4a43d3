"""Automatic models on nnU-Net's data: which model, which patches, how it is judged; from recipe and plans."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from samaritan.checkpoints import load_model
from samaritan.data.nnunet import splits
from samaritan.data.nnunet.augment import PatchAugment
from samaritan.data.nnunet.cases import stored_digest
from samaritan.data.nnunet.chain import PlannedChain
from samaritan.data.nnunet.labels import LabelSet
from samaritan.data.nnunet.patches import PatchDataset
from samaritan.data.nnunet.planned import PlannedSet, make, shared_patients
from samaritan.data.nnunet.plans import Configuration
from samaritan.data.nnunet.rawset import RawSet
from samaritan.data.sampling import Draw, DrawSampler
from samaritan.errors import ConfigError
from samaritan.recipes import Recipe
from samaritan.set_losses import SetWeights
from samaritan.train.beginning import begin
from samaritan.train.folder import RunFolder
from samaritan.train.keeping import Work
from samaritan.train.machine import Machine
from samaritan.train.mask_classes import mask_classes_step
from samaritan.train.patch_fitting import check_labels, fitted
from samaritan.train.steps import Step
from samaritan.train.voxel_classes import patch_judge, pooled_dice, voxel_classes_step
from samaritan.train.whole import MakeWindows, finish, whole_judge

logger = logging.getLogger(__name__)

Loaded = Callable[[int, int], None]


def open_planned(
    path: Path,
    recipe: Recipe,
    folder: Path,
    *,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> PlannedSet:
    """Open a planned folder, or plan a raw one.

    Args:
        path: of either.
        recipe: its `data` say how to plan.
        folder: that folders of planned data sets lie in, where `data.cache` names none.
        progress: called with (what, done, total).

    Raises:
        ConfigError: if the folder is neither, or the recipe cannot learn such labels.
        FileError: if something in it cannot be read.
    """
    data = recipe.data
    if not path.is_dir():
        raise ConfigError(f"{path} is no folder: give an nnU-Net data set, raw or planned")
    if any(path.glob("*lans*.json")) or not (path / "imagesTr").is_dir():
        return PlannedSet.open(path, plans=data.plans)
    raw = RawSet.open(path, patient=data.patient)
    check_labels(recipe, raw.labels, path)  # measuring takes long
    return make(
        raw,
        folder / raw.name if data.cache is None else Path(data.cache).expanduser(),
        spacing=None if data.spacing_mm is None else data.spacing_mm[::-1],
        by_patient=data.by_patient,
        patient=data.patient,
        progress=progress,
    )


def patch_work(
    recipe: Recipe,
    planned: PlannedSet,
    *,
    from_init: bool,
    windows: MakeWindows | None = None,
    world: int = 1,
) -> tuple[Recipe, Work]:
    """Build all that a run on patches needs; also give the recipe with what the data decided.

    Raises:
        ConfigError: if recipe, plans and labels do not fit together.
    """
    configuration = configuration_of(recipe, planned)
    check_labels(recipe, planned.labels, planned.folder)
    fold = fold_of(recipe, planned, configuration)
    _warn_of_shared(recipe, planned, fold)
    recipe = fitted(recipe, planned, configuration)
    chain = chain_of(recipe, planned, configuration)
    model, init = begin(recipe, from_init)
    learned, held_out = _sets(recipe, planned, configuration, chain, fold, world)
    pooled = recipe.validation.dice == "pooled"
    work = Work(
        model,
        _step(recipe, planned.labels, configuration),
        learned,
        patch_judge(planned.labels, pooled=pooled),
        held_out,
        chain.to_dict(),
        {"labels": {str(v): name for v, name in planned.labels.titles().items()}},
        init,
        finish=pooled_dice if pooled else None,
        whole=whole_judge(planned, chain, fold.val, windows)
        if recipe.validation.on == "volumes"
        else None,
        grid=chain.grid_of,
    )
    return recipe, work


def prepare_cases(recipe: Recipe, planned: PlannedSet, loaded: Loaded) -> None:
    """Preprocess the cases that are not there yet, once it is clear that they can be learned from.

    Raises:
        ConfigError: if recipe, plans and labels do not fit together.
        FileError: telling the cases that cannot be used; the others are done.
    """
    check_labels(recipe, planned.labels, planned.folder)
    configuration = configuration_of(recipe, planned)
    fitted(recipe, planned, configuration)
    if planned.raw is not None:
        planned.make_all(configuration, progress=lambda _, done, total: loaded(done, total))


def finish_fold(
    recipe: Recipe,
    planned: PlannedSet,
    folder: RunFolder,
    machine: Machine,
    windows: MakeWindows,
    *,
    told: Loaded,
) -> dict[str, float]:
    """Label the held-out volumes with the weights that a run kept, into its folder "validation".

    Returns:
        "volumes", the mean Dice, and "volumes_NAME", that of each class.
    """
    machine.wait()
    file = folder.model
    model, header = load_model(file)
    chain = PlannedChain.from_dict(header.preprocess or {})
    fold = fold_of(recipe, planned, chain.configuration)
    model.to(machine.device)
    with machine.autocast():
        found = finish(
            model,
            planned,
            chain,
            fold.val,
            windows,
            machine,
            folder.path / "validation",
            mirror=recipe.validation.mirror,
            told=told,
        )
    logger.info("%s on whole held-out volumes: mean Dice %.4f", file.name, found["dice"])
    return {
        key.replace("class", "volumes").replace("dice", "volumes"): v for key, v in found.items()
    }


def configuration_of(recipe: Recipe, planned: PlannedSet) -> Configuration:
    """The configuration of the plans that a recipe names.

    Raises:
        ConfigError: if there is none, or it needs the result of another one.
    """
    names = planned.plans.names
    usual = "3d_fullres" if "3d_fullres" in names else names[0]
    found = planned.plans.configuration(recipe.data.configuration or usual)
    if found.previous_stage:
        raise ConfigError(
            f"configuration {found.name!r} takes the result of {found.previous_stage!r} as an input, which "
            f"is not done here: choose another of {', '.join(names)} by data.configuration"
        )
    return found


def fold_of(recipe: Recipe, planned: PlannedSet, configuration: Configuration) -> splits.Fold:
    """The cases to learn from, and those to validate on.

    Raises:
        ConfigError: if a part is empty, or a case is missing.
    """
    which, ids = recipe.data.fold, planned.ids(configuration)
    if which == "all":
        return splits.fold_of((), "all", ids)
    folds = planned.folds if (planned.folder / splits.FILE_NAME).is_file() else None
    if folds is None:
        folds = splits.make_folds(ids, count=max(min(splits.FOLDS, len(ids)), 2))
    if which >= len(folds):
        logger.warning(
            "there are folds 0 to %d: as in nnU-Net, fold %d learns from four fifths of the cases",
            len(folds) - 1,
            which,
        )
    return splits.fold_of(folds, which, ids)


def chain_of(recipe: Recipe, planned: PlannedSet, configuration: Configuration) -> PlannedChain:
    """The way from a raw image to patches: for training, validation and the checkpoint."""
    patch = recipe.data.patch_size
    assert patch is not None
    axes = tuple(range(len(patch))) if recipe.data.mirror else ()
    if recipe.data.augment == "none":
        axes = ()
    return PlannedChain.of(
        planned, configuration, patch_size=patch, mirror_axes=axes, fold=recipe.data.fold
    )


def facts_of_planned(recipe: Recipe, planned: PlannedSet) -> dict[str, Any]:
    """What identifies the data of a run."""
    configuration = configuration_of(recipe, planned)
    fold, folder = fold_of(recipe, planned, configuration), planned.cases_folder(configuration)
    digests = [stored_digest(folder, case) for case in planned.ids(configuration)]
    whole = [planned.plans.content, planned.content, fold.train, fold.val, digests]
    return {
        "root": str(planned.folder),
        "raw": None if planned.raw is None else str(planned.raw.cases.root),
        "plans": planned.plans.name,
        "configuration": configuration.name,
        "fold": recipe.data.fold,
        "cases": len(digests),
        "train": list(fold.train),
        "validate": list(fold.val),
        "fingerprint": hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:32],
    }


class PatchTurns:
    """The turns of an epoch, in the order in which they are learned from: the place in a batch counts."""

    ordered = True

    def __init__(
        self, patches: PatchDataset, *, length: int | None, seed: int, moves: bool
    ) -> None:
        self.patches, self.moves = patches, moves
        self.sampler = DrawSampler(patches.cases, length=length, seed=seed, shuffle=moves)
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; patches to validate on are the same in all."""
        self.epoch = epoch if self.moves else 0
        self.order = self.sampler.order(self.epoch)

    def __len__(self) -> int:
        return self.sampler.length

    def __getitem__(self, turn: int) -> dict[str, Tensor]:
        return self.patches[Draw(int(self.order[turn]), self.epoch, turn)]


# -- parts -------------------------------------------------------------------------------------------


def _sets(
    recipe: Recipe,
    planned: PlannedSet,
    configuration: Configuration,
    chain: PlannedChain,
    fold: splits.Fold,
    world: int,
) -> tuple[PatchTurns, PatchTurns]:
    """Patches to learn from, and others that are the same in every validation."""
    data, size = recipe.data, recipe.data.batch_size
    shared: dict[str, Any] = {
        "batch_size": size * recipe.run.accumulate * world,  # all that make one update
        "patch_size": chain.patch_size,
        "foreground": data.foreground,
    }
    augment = None
    if data.augment == "nnunet":
        augment = PatchAugment(mirror_axes=chain.mirror_axes)
    learned = PatchDataset(
        planned, configuration, fold.train, augment=augment, seed=recipe.run.seed, **shared
    )
    held_out = PatchDataset(planned, configuration, fold.val, seed=recipe.validation.seed, **shared)
    batches = recipe.validation.batches or -(-2 * len(fold.val) // size)
    return (
        PatchTurns(learned, length=data.per_epoch, seed=recipe.run.seed, moves=True),
        PatchTurns(held_out, length=batches * size, seed=recipe.validation.seed, moves=False),
    )


def _warn_of_shared(recipe: Recipe, planned: PlannedSet, fold: splits.Fold) -> None:
    if recipe.data.fold == "all" or planned.raw is None:
        return
    if count := shared_patients(planned.raw, (fold,)):
        logger.warning(
            "fold %s has scans of the same patient in both parts (%d of them): held-out scores flatter. "
            "Plan into another folder with data.by_patient=true, or samaritan prepare plan --by-patient",
            recipe.data.fold,
            count,
        )


def _step(recipe: Recipe, labels: LabelSet, configuration: Configuration) -> Step:
    loss = recipe.loss
    if recipe.task == "mask_classes":
        weights = SetWeights(**dict(recipe.matching))
        return mask_classes_step(weights, cross_entropy=loss.cross_entropy, dice=loss.dice)
    return voxel_classes_step(loss, labels, batch_dice=configuration.batch_dice)
