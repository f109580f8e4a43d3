"""Tiny data sets of every kind, written to a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from samaritan import Grid, LabelMap, Volume, write


def dataset_json(folder: Path, **changes) -> None:
    content = {
        "channel_names": {"0": "T1", "1": "FLAIR"},
        "labels": {"background": 0, "left": 1, "right": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    content = {k: v for k, v in {**content, **changes}.items() if v is not None}
    (folder / "dataset.json").write_text(json.dumps(content), "utf-8")


GRID = Grid.from_spacing((5, 6, 4), (1.0, 1.5, 4.0), orientation="LAS", origin_mm=(3, -7, 11))


def volume(path: Path, *, seed: int = 0, grid: Grid = GRID, dtype=np.int16) -> Path:
    array = np.random.default_rng(seed).integers(-100, 300, grid.shape).astype(dtype)
    return write(Volume(array, grid), path)


def labels(path: Path, *, grid: Grid = GRID, array=None) -> Path:
    if array is None:
        array = np.zeros(grid.shape, np.uint8)
        array[1:4, 1:3, 1:3] = 1
        array[1:4, 4:, 2] = 2
    return write(LabelMap(np.asarray(array), grid), path)


def picture(path: Path, array) -> Path:
    array = np.asarray(array)[:, :, None]
    channels = ("R", "G", "B") if array.ndim == 4 else ()
    return write(Volume(array, Grid.pixels(array.shape[:3]), channels), path)


def shapes(rows: int, columns: int, seed: int):
    """A noisy picture of two bright objects, and their labels 1 and 2."""
    drawn = np.zeros((rows, columns), np.uint8)
    drawn[4 : rows // 2, 5 : columns // 2] = 1
    drawn[rows // 2 + 2 : rows - 3, columns // 2 : columns - 4] = 2
    noise = np.random.default_rng(seed).integers(0, 30, drawn.shape)
    return (drawn * 100 + noise).astype(np.uint8), drawn
