"""Small volumes of bright shapes with their labels, however they lie, and models that see brightness."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from infer.oracle import BrightnessOracle

from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.io import write
from samaritan.transforms import WindowPreprocess
from samaritan.volume import LabelMap, Volume


def ball(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    at = np.indices(shape)
    return sum((a - c) ** 2 for a, c in zip(at, centre, strict=True)) <= radius**2


def solid(
    size: int = 32, spacing: float | None = 1.5, *, low: int | None = None,
    kind: type[BrightnessOracle] = BrightnessOracle,
) -> Predictor:  # fmt: skip
    """A predictor for volumes, whose masks may be coarser than its input."""
    chain = WindowPreprocess(size=(size,) * 3, spacing_mm=spacing and (spacing,) * 3)
    model = kind((size,) * 3)
    model.config.low_res_size = (low or size,) * 3
    return Predictor(model, chain, device="cpu")


def turned(labels: LabelMap, order: tuple[int, ...], flips: tuple[int, ...]) -> LabelMap:
    """The same object, its file's axes permuted and reversed."""
    return labels.permute(order).flip(flips)


def oblique(labels: LabelMap, degrees: float = 17.0) -> LabelMap:
    """The same voxels, lying obliquely in the patient."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.eye(4)
    turn[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, c, -s], [0, s, c]]
    return replace(labels, grid=Grid(labels.shape, turn @ labels.grid.affine))


def near(labels: LabelMap, margin: int = 4) -> LabelMap:
    """A volume cut to what is in it."""
    where = np.argwhere(labels.array)
    low = np.maximum(where.min(axis=0) - margin, 0)
    high = np.minimum(where.max(axis=0) + 1 + margin, labels.shape)
    return labels.crop(low.tolist(), high.tolist())


def write_case(folder: Path, labels: LabelMap, name: str = "a") -> Path:
    """A pair of files: whatever has a label at 200 on 0, and the labels."""
    image = 200 * (labels.array > 0).astype(np.float32)
    write(Volume(image, labels.grid), folder / "images" / f"{name}.nii.gz")
    write(labels, folder / "masks" / f"{name}.nii.gz")
    return folder
