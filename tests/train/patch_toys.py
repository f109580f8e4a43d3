"""A small nnU-Net data set with something to learn, and runs on it, also as a program of two processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from samaritan import Grid, LabelMap, Volume, write
from samaritan.data.nnunet import fingerprint
from samaritan.data.nnunet.planned import PlannedSet, make
from samaritan.data.nnunet.rawset import RawSet
from samaritan.recipes import Recipe, resolve
from samaritan.train import Machine, RunFolder, Trainer
from samaritan.train.runs import prepare

SHAPE = (26, 28, 6)
LABELS = {"background": 0, "disc": 1, "square": 2}


def write_raw(
    folder: Path, cases: int = 5, *, labels: dict[str, Any] | None = None, **more: Any
) -> Path:
    """Dataset007_Toy: volumes of thick slices with a bright disc and a dark square, two of each patient."""
    grid = Grid.from_spacing(SHAPE, (1.0, 1.0, 4.0), orientation="LPS")
    rows, columns, slices = np.ogrid[: SHAPE[0], : SHAPE[1], : SHAPE[2]]
    for number in range(cases):
        rng = np.random.default_rng(number)
        at = rng.integers(8, 18, 4)
        drawn = np.zeros(SHAPE, np.uint8)
        middle = (slices > 0) & (slices < 5)
        drawn[((rows - at[0]) ** 2 + (columns - at[1]) ** 2 < 30) & middle] = 1
        drawn[(abs(rows - at[2]) < 5) & (abs(columns - at[3]) < 4) & middle & (drawn == 0)] = 2
        image = 100 + rng.normal(0, 12, SHAPE) + np.array([0, 80, -80])[drawn]
        case = f"patient{number // 2:03d}_frame{number % 2:02d}"
        write(Volume(image.astype(np.float32), grid), folder / f"imagesTr/{case}_0000.nii.gz")
        write(LabelMap(drawn, grid), folder / f"labelsTr/{case}.nii.gz")
    content = {
        "channel_names": {"0": "MRI"},
        "labels": labels or LABELS,
        "numTraining": cases,
        "file_ending": ".nii.gz",
        **more,
    }
    (folder / "dataset.json").write_text(json.dumps(content), "utf-8")
    return folder


def planned_toy(root: Path, **options: Any) -> PlannedSet:
    """The toy, planned quickly."""
    fingerprint.VOXELS, before = 10_000, fingerprint.VOXELS
    try:
        raw = RawSet.open(write_raw(root / "Dataset007_Toy"))
        return make(raw, root / "planned", workers=1, **options)
    finally:
        fingerprint.VOXELS = before


def masks(*settings: str) -> Recipe:
    return resolve(
        "masksam_small",
        settings=[
            "model.name=masksam_tiny",
            "data.patch_size=[3, 24, 24]",
            "matching.points=128",
            *_SHARED,
            *settings,
        ],
    )


def unet(*settings: str) -> Recipe:
    return resolve(
        "unet_small",
        settings=["model.name=dynunet_tiny", "data.patch_size=[4, 24, 24]", *_SHARED, *settings],
    )


_SHARED = (
    "data.per_epoch=4", "data.by_patient=false", "run.log_every=1", "run.ema=null", "schedule.warmup=2",
    "validation.batches=2", "validation.pictures=0", "validation.every=1",
)  # fmt: skip


def trainer_of(recipe: Recipe, planned: PlannedSet, path: Path, *, resume: bool = False) -> Trainer:
    folder, machine = RunFolder(path), Machine("float32", "cpu")
    recipe, work = prepare(recipe, planned, world=machine.world)
    if not resume and machine.leads:
        folder.create(recipe, {}, {"fingerprint": "toy"})
    machine.wait()
    return Trainer(recipe, work, folder, machine)


def main() -> None:
    """Train as `patch_toys.py FOLDER PLANNED SETTINGS...`, in one process or as torchrun starts several."""
    torch.set_num_threads(1)
    path, planned, *settings = sys.argv[1:]
    trainer = trainer_of(unet(*settings), PlannedSet.open(Path(planned)), Path(path))
    trainer.run()
    trainer.machine.close()


if __name__ == "__main__":
    main()
