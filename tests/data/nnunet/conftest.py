"""Golden numbers of nnunetv2, real data sets, and tiny ones that are planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from samaritan import Grid, LabelMap, Volume, write
from samaritan.data.nnunet import fingerprint
from samaritan.data.nnunet.planned import PlannedSet, make
from samaritan.data.nnunet.rawset import RawSet

TOYS = ("pat1_frame01", "pat1_frame02", "pat2_frame01", "pat2_frame02", "pat3_frame01")


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    """What nnunetv2 2.8.1 made, as numbers; see oracle.py."""
    found: dict[str, Any] = json.loads((Path(__file__).parent / "golden.json").read_text("utf-8"))
    return found


@pytest.fixture(scope="session")
def raw_dir(data_dir) -> Path:
    """The nnU-Net raw folders."""
    folder: Path = data_dir / "nnunet_raw"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


@pytest.fixture
def toy_raw(tmp_path, monkeypatch) -> Path:
    """Dataset007_Toy: five cases of three patients, thick slices, unequal sides, zeros around."""
    monkeypatch.setattr(fingerprint, "VOXELS", 10_000)  # the full number takes seconds
    folder = tmp_path / "Dataset007_Toy"
    for number, case in enumerate(TOYS):
        rng = np.random.default_rng(number)
        shape = (20 + number, 24, 9)
        grid = Grid.from_spacing(shape, (1.0, 1.5, 5.0), orientation="LPS", origin_mm=(1, 2, 3))
        image = np.zeros(shape, np.int16)
        image[2:-3, 3:-1] = rng.integers(50, 200, image[2:-3, 3:-1].shape)
        drawn = np.zeros(shape, np.uint8)
        drawn[5:10, 6:12, 2:6] = 1
        drawn[11:15, 6:12, 4:8] = 2
        write(Volume(image + drawn * 100, grid), folder / f"imagesTr/{case}_0000.nii.gz")
        write(LabelMap(drawn, grid), folder / f"labelsTr/{case}.nii.gz")
    content = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "near": 1, "far": 2},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(content), "utf-8")
    return folder


@pytest.fixture
def planned(toy_raw, tmp_path) -> PlannedSet:
    """The toy, planned for voxels that are not its own."""
    return make(RawSet.open(toy_raw), tmp_path / "planned", spacing=(4.0, 1.2, 1.1), workers=1)
