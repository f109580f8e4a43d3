"""Our recipes as trainers of nnU-Net: its cases, changes and loop, with our networks, losses and rates.

nnU-Net looks for a trainer by the name of its class in the folders that `nnUNet_extTrainer` names, and
imports what lies there. The folder of this file is meant to be one of them, and `Samaritan_RECIPE` such a
name: the class is made, and nnunetv2 imported, when it is asked for.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from samaritan.checkpoints.saving import save_weights
from samaritan.data.nnunet.planned import PlannedSet
from samaritan.data.nnunet.plans import Plans
from samaritan.errors import ConfigError, TrainingError
from samaritan.models.patch_classes import patch_logits
from samaritan.models.sam import Sam
from samaritan.optional import require
from samaritan.recipes import Recipe, dump, get_recipe, rate, resolve
from samaritan.recipes.schema import PATCH_TASKS
from samaritan.train.beginning import begin, build_model
from samaritan.train.folder import RunFolder, write_json
from samaritan.train.machine import Machine
from samaritan.train.optim import build_optimizer
from samaritan.train.patches import facts_of_planned, patch_work
from samaritan.train.sampling import generator

if TYPE_CHECKING:
    _Base = Any
else:
    _Base = object

PREFIX = "Samaritan_"
"""Before the name of a recipe: the name of its trainer."""

SETTINGS = "SAMARITAN_CONFIG"
"""The variable that names a YAML file with what differs from the recipe."""

KEY = "samaritan"
"""Where the recipe stands in the plans of the results, for prediction to build the same network."""

_GPU = torch.device("cuda")


def __getattr__(name: str) -> Any:
    """The trainer of a recipe; nnU-Net asks for it."""
    if not name.startswith(PREFIX):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return trainer(name.removeprefix(PREFIX))


@functools.cache
def trainer(name: str) -> type[Any]:
    """The class that nnU-Net trains a recipe with.

    Raises:
        ConfigError: if there is no such recipe, or it does not learn from nnU-Net's data.
        MissingPackage: if nnunetv2 is not installed.
    """
    recipe = get_recipe(name)
    if recipe.task not in PATCH_TASKS:
        raise ConfigError(
            f"{PREFIX}{name}: recipe {name!r} has task {recipe.task} and cannot learn in nnU-Net; those of "
            f"tasks {' and '.join(PATCH_TASKS)} can, such as masksam_small"
        )
    theirs: Any = require(
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
        extra="nnunetv2",
        purpose="train in nnU-Net",
    )
    return type(f"{PREFIX}{name}", (RecipeTrainer, theirs.nnUNetTrainer), {"named": recipe})


class PatchNet(nn.Module):
    """A model of ours as nnU-Net calls a network: normalised patches in, logits of every head out."""

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.model = model

    def forward(self, patches: Tensor) -> Tensor:
        """Logits (b, heads, *patch) of patches (b, c, *patch)."""
        return patch_logits(self.model, patches)


class Rates:
    """The learning rate of every iteration, in the place of nnU-Net's schedule of epochs."""

    def __init__(self, optimizer: Any, recipe: Recipe, per_epoch: int) -> None:
        self.optimizer, self.recipe, self.per_epoch = optimizer, recipe, per_epoch
        self.iteration = 0

    def step(self, epoch: int) -> None:
        """Go to the beginning of an epoch."""
        self.iteration = epoch * self.per_epoch
        self._set()

    def take(self) -> int:
        """Set the rate of the next iteration, and tell its number."""
        self._set()
        self.iteration += 1
        return self.iteration - 1

    def _set(self) -> None:
        part = rate(
            self.recipe.schedule,
            self.iteration,
            per_epoch=self.per_epoch,
            epochs=self.recipe.run.epochs,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * part


class RecipeTrainer(_Base):  # type: ignore[misc] # what nnU-Net has is known to it alone
    """What differs from nnU-Net's own trainer, which is the other base of every class that is made here.

    Patch and batch are the recipe's. They are written with it into the plans that lie beside the results, so
    that validation, prediction and later commands follow them without being told again.
    """

    named: Recipe
    """The recipe as it is known by name."""

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | Literal["all"],
        dataset_json: dict[str, Any],
        device: torch.device = _GPU,
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp:
            raise ConfigError(
                "trainers of Samaritan take -num_gpus 1; on several GPUs use torchrun -m samaritan train"
            )
        recipe = self._asked()
        fixed = {"configuration": configuration, "fold": fold}
        data = recipe.data.model_copy(update=fixed)
        run = recipe.run.model_copy(update={"ema": None})  # nnU-Net keeps one set of weights
        recipe = recipe.model_copy(update={"data": data, "run": run})
        folder = Path(self.preprocessed_dataset_folder_base)
        self.planned = PlannedSet.open(folder, plans=self.plans_manager.plans_name)
        self.recipe, work = patch_work(recipe, self.planned, from_init=False)
        self.learn, self.preprocess, self.told = work.step, work.preprocess, work.extra
        self.folder = RunFolder(Path(self.output_folder))
        self._follow()

    def _asked(self) -> Recipe:
        """The recipe: as a file says, else as earlier commands left it beside the results, else as named."""
        if file := os.environ.get(SETTINGS):
            return resolve(self.named.name, file=file)
        kept = Path(self.output_folder_base) / "plans.json"
        if kept.is_file():
            found = Plans.read(kept).resolved(self.configuration_name).get(KEY)
            if found is not None:
                return resolve(changes=found)
        return self.named

    def _follow(self) -> None:
        """Let nnU-Net do what the recipe says."""
        data, run, optim = self.recipe.data, self.recipe.run, self.recipe.optim
        assert data.patch_size is not None
        changes = {
            "patch_size": list(data.patch_size),
            "batch_size": data.batch_size,
            KEY: self.recipe.model_dump(mode="json"),
        }
        self.plans_manager.plans["configurations"][self.configuration_name].update(changes)
        self.configuration_manager.configuration.update(changes)
        self.enable_deep_supervision = False
        self.initial_lr, self.weight_decay = optim.lr, optim.weight_decay
        self.oversample_foreground_percent = data.foreground
        self.num_epochs = run.epochs
        if data.per_epoch is not None:
            self.num_iterations_per_epoch = max(data.per_epoch // data.batch_size, 1)
        self.num_val_iterations_per_epoch = self.recipe.validation.batches or 50
        self.save_every = max(run.checkpoint_every // self.num_iterations_per_epoch, 1)

    # -- the network -------------------------------------------------------------------------------

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Build what the recipe in the plans says, in training and in prediction."""
        return PatchNet(build_model(resolve(changes=configuration_manager.configuration[KEY])))

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        """Do nothing: a U-Net of ours looks after its coarser outputs itself."""

    def _do_i_compile(self) -> bool:
        return False

    def configure_optimizers(self) -> tuple[Any, Rates]:
        """The recipe's optimiser and rates."""
        recipe = self.recipe
        self.machine = Machine(recipe.run.precision, str(self.device))
        self.grad_scaler = None  # the machine has its own
        optimizer = build_optimizer(self.network.model, recipe.optim, recipe.compat)
        wrapped = self.machine.wrapped(optimizer)
        return wrapped, Rates(wrapped, recipe, self.num_iterations_per_epoch)

    # -- training ----------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Begin with the weights that the recipe names, unless a checkpoint was loaded; note the fold."""
        if not self.was_initialized:
            self.initialize()
            model, init = begin(self.recipe)
            self.network.model.load_state_dict(model.state_dict())
            write_json(self.folder.init, init or {})
        super().on_train_start()
        write_json(self.folder.data, facts_of_planned(self.recipe, self.planned))

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        """How patches are changed: as nnU-Net does, without reversing them where the recipe says so."""
        *found, axes = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.recipe.data.mirror:
            return (*found, axes)
        self.inference_allowed_mirroring_axes = None
        return (*found, ())

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Any:
        """The changes of nnU-Net, with labels as they are drawn: the loss makes regions of them itself."""
        return super().get_training_transforms(*args, **{**kwargs, "regions": None})

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Learn from a batch.

        Raises:
            TrainingError: if the loss is no longer finite.
        """
        iteration = self.lr_scheduler.take()
        shown = {
            "image": batch["data"].to(self.device, non_blocking=True),
            "label": batch["target"][:, 0].to(self.device, non_blocking=True).long(),
        }
        chance = generator(self.recipe.run.seed, "iteration", iteration)
        with self.machine.autocast():
            loss = next(self.learn(self.network.model, shown, chance)).total
        if not bool(loss.isfinite()):
            raise TrainingError(
                f"the loss of iteration {iteration} is {float(loss)}: lower optim.lr or use run.precision: "
                f"float32 in the file of {SETTINGS}, and go on from the last checkpoint with --c"
            )
        self.machine.backward(loss)
        self.machine.clip(self.network.parameters(), self.recipe.run.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": loss.detach().float().cpu().numpy()}

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint; with all but the best one also `last.safetensors`, a model of ours."""
        super().save_checkpoint(filename)
        if self.disable_checkpointing or Path(filename).name == "checkpoint_best.pth":
            return
        init = self.folder.begun()
        facts = {"recipe": self.recipe.name, "iteration": self.lr_scheduler.iteration}
        save_weights(
            self.network.model,
            self.folder.last,
            preprocess=self.preprocess,
            provenance={**facts, "trained_by": "nnunetv2", **({"init": init} if init else {})},
            licence=init.get("licence"),
            extra={**self.told, "recipe": dump(self.recipe)},
        )
