"""Phantom volumes with something to learn: a bright ball and a dark bar in noise, as an nnU-Net folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from samaritan import Grid, LabelMap, Volume, write


def phantom(seed: int, side: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    at = np.indices((side,) * 3)
    middle = rng.uniform(12, side - 12, 3)
    ball = sum((a - m) ** 2 for a, m in zip(at, middle, strict=True)) < rng.uniform(6, 9) ** 2
    other = (middle + side / 2) % side
    half = rng.uniform((4, 4, 7), (6, 6, 10))
    bar = np.all([abs(a - m) < h for a, m, h in zip(at, other, half, strict=True)], axis=0) & ~ball
    labels = np.where(ball, 1, np.where(bar, 2, 0)).astype(np.uint8)
    image = 100 + 8 * rng.standard_normal(labels.shape) + np.where(ball, 60, np.where(bar, -50, 0))
    return image.astype(np.float32), labels


def folder(root: Path, count: int = 8) -> Path:
    """Write phantoms of 1.5 mm as Dataset001_Phantoms."""
    path = root / "Dataset001_Phantoms"
    for number in range(count):
        image, labels = phantom(number)
        grid = Grid.from_spacing(image.shape, (1.5, 1.5, 1.5))
        write(Volume(image, grid), path / f"imagesTr/p{number}_0000.nii.gz")
        write(LabelMap(labels, grid), path / f"labelsTr/p{number}.nii.gz")
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "ball": 1, "bar": 2},
        "numTraining": count,
        "file_ending": ".nii.gz",
    }
    (path / "dataset.json").write_text(json.dumps(content), "utf-8")
    return path


def batch(n: int = 2, side: int = 32) -> dict[str, torch.Tensor]:
    """Crops of phantoms in the size of the tiny model, one object each."""
    images, masks = [], []
    for number in range(n):
        image, labels = phantom(number, side)
        images.append(torch.from_numpy((image - image.mean()) / image.std())[None])
        masks.append(torch.from_numpy(labels == 1 + number % 2)[None])
    return {"image": torch.stack(images), "masks": torch.stack(masks)}
