"""Small data sets with something to learn, and runs on them, also as a program that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from samaritan.assembly import create_model
from samaritan.recipes import Recipe, resolve
from samaritan.train import (
    Machine,
    RunFolder,
    Trainer,
    Work,
    interactive_judge,
    interactive_step,
    multiclass_judge,
    multiclass_step,
)

SIZE = (64, 64)


class Slices:
    """Noise with a bright disc (class 1) and a dark square (class 2)."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.n, self.seed, self.epoch = n, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        draws = torch.Generator().manual_seed(1000 * self.seed + index)
        rows, columns = torch.meshgrid(*map(torch.arange, SIZE), indexing="ij")
        at = torch.randint(14, 50, (4,), generator=draws)
        disc = (rows - at[0]) ** 2 + (columns - at[1]) ** 2 < 100
        square = ((rows - at[2]).abs() < 8) & ((columns - at[3]).abs() < 6)
        label = torch.where(disc, 1, torch.where(square, 2, 0))
        augment = torch.Generator().manual_seed(self.epoch)
        noise = 0.2 * torch.randn(SIZE, generator=draws) + 0.1 * torch.randn(
            SIZE, generator=augment
        )
        image = noise + torch.where(label == 1, 1.5, torch.where(label == 2, -1.5, 0.0))
        return {"image": image.expand(3, *SIZE).clone(), "label": label}


class Objects(Slices):
    """The same, one mask for each of two objects."""

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = super().__getitem__(index)
        masks = torch.stack([item["label"] == 1, item["label"] == 2])
        return {"image": item["image"], "masks": masks}


def multiclass(*settings: str) -> Recipe:
    return resolve(
        "toy_2d",
        settings=[
            "data.batch_size=2",
            "run.log_every=1",
            "validation.pictures=0",
            "validation.every=1",
            *settings,
        ],
    )


def interactive(*settings: str) -> Recipe:
    return resolve(
        "sam_med2d",
        settings=["model.name=sammed2d_tiny", "prompts.rounds=2", "run.log_every=1", *settings,
                  "validation.pictures=0"],
    )  # fmt: skip


def work_of(recipe: Recipe, n: int = 6, held_out: int = 3) -> Work:
    torch.manual_seed(0)
    if recipe.task == "multiclass":
        model = create_model("sam_tiny", num_classes=2)
        return Work(
            model,
            multiclass_step(recipe.loss, recipe.compat),
            Slices(n),
            multiclass_judge({1: "disc", 2: "square"}),
            Slices(held_out, seed=7),
        )
    return Work(
        create_model("sammed2d_tiny"),
        interactive_step(recipe.prompts, recipe.loss, recipe.compat),
        Objects(n),
        interactive_judge(recipe.prompts, recipe.validation.clicks),
        Objects(held_out, seed=7),
    )


def trainer_of(recipe: Recipe, path: Path, *, resume: bool = False, **options: int) -> Trainer:
    folder = RunFolder(path)
    machine = Machine("float32", "cpu")
    if not resume and machine.leads:
        folder.create(recipe, {}, {"fingerprint": "toy"})
    machine.wait()
    return Trainer(recipe, work_of(recipe, **options), folder, machine)


def main() -> None:
    """Train as `toys.py FOLDER RESUME SETTINGS...`, in one process or as torchrun starts several."""
    torch.set_num_threads(1)
    path, resume, task, *settings = sys.argv[1:]
    recipe = (multiclass if task == "multiclass" else interactive)(*settings)
    trainer = trainer_of(recipe, Path(path), resume=resume == "resume", n=8)
    trainer.run(resume=resume == "resume")
    trainer.machine.close()


if __name__ == "__main__":
    main()
