"""Fixtures of tiny data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.toys import dataset_json, labels, picture, shapes, volume


@pytest.fixture
def nnunet(tmp_path) -> Path:
    """Two patients with two scans each, two channels, two labels: Dataset001_Toy."""
    folder = tmp_path / "Dataset001_Toy"
    for number, case in enumerate(("p1_a", "p1_b", "p2_a", "p2_b")):
        volume(folder / f"imagesTr/{case}_0000.nii.gz", seed=2 * number)
        volume(folder / f"imagesTr/{case}_0001.nii.gz", seed=2 * number + 1)
        labels(folder / f"labelsTr/{case}.nii.gz")
    dataset_json(folder)
    return folder


@pytest.fixture
def pairs(tmp_path) -> Path:
    """Six grey pictures of unequal sizes with label maps of two labels: toy/images, toy/masks."""
    folder = tmp_path / "toy"
    for number in range(6):
        image, drawn = shapes(40 + 3 * number, 50 - 2 * number, number)
        picture(folder / f"images/{number:02d}_x.png", image)
        picture(folder / f"masks/{number:02d}_x.png", drawn)
    return folder
