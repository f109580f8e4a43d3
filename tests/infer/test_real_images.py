"""The whole way on real images: read, click, write, read again; the mask keeps the geometry of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from samaritan.infer import Predictor
from samaritan.io import read, read_labels, write
from samaritan.models import create_model
from samaritan.prompts import Points

SCANS = [
    "nnunet_raw/Dataset004_Hippocampus/imagesTr",
    "nnunet_raw/Dataset027_ACDC/imagesTr",
    "nnunet_raw/Dataset060_CHAOST2/imagesTr",
    "nnunet_raw/Dataset082_BraTS15/imagesTr",
    "volumes/pyradiomics",
    "volumes/sct/t1/t1w.nii.gz",
    "volumes/sct/t2/t2.nii.gz",
    "volumes/sct/t2s/t2s_uncropped.nii.gz",
    "totalsegmentator/example_ct_sm.nii.gz",
    "totalsegmentator/example_ct_dicom",
    "dicom/torchio/dicom",
    "geometry/niivue/AIL.nii.gz",
    "geometry/niivue/shear.nii.gz",
    "geometry/niivue/FLAIR.nrrd",
    "geometry/niivue/mha.mha",
    "geometry/nibabel/anatomical.nii",
]
PICTURES = [
    "hc18",
    "bus_bra",
    "dsb2018_nuclei",
    "skin_ham10000",
    "kvasir_polyps",
    "cxr_lung",
    "curvas_ct2d",
]


@pytest.fixture(scope="module")
def predictors() -> dict[int, Predictor]:
    torch.manual_seed(0)
    models = {2: create_model("sam_tiny"), 3: create_model("sam3d_tiny")}
    return {axes: Predictor(model, device="cpu") for axes, model in models.items()}


def first_image(place: Path) -> Path:
    """Take the place itself if it is an image or a DICOM series, else the first image in it."""
    if place.is_file() or not any(place.glob("*.n*")):
        return place
    return min(p for p in place.iterdir() if "label" not in p.name)


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("place", SCANS)
def test_a_click_in_a_scan(
    data_dir: Path, tmp_path: Path, predictors: dict[int, Predictor], place: str, axes: int
) -> None:
    volume = read(first_image(data_dir / place))
    centre = [n // 2 for n in volume.shape]
    session = (
        predictors[axes]
        .session(volume, max_windows=2)
        .click(centre)
        .click([0, 0, 0], positive=False)
    )
    write(session.mask, tmp_path / "mask.nii.gz")
    again = read_labels(tmp_path / "mask.nii.gz")
    assert again.grid.same_as(volume.grid, voxels=1e-3)
    assert np.array_equal(again.array, session.mask.array)
    click = Points(np.array([centre]), np.array([1]), volume.grid)
    assert np.allclose(click.to_grid(again.grid).coords, [centre], atol=1e-2)


@pytest.mark.parametrize("name", PICTURES)
def test_a_click_in_a_picture(
    data_dir: Path, tmp_path: Path, predictors: dict[int, Predictor], name: str
) -> None:
    file = min((data_dir / "images2d" / name / "images").iterdir())
    picture = read(file)
    rows, columns, _ = picture.shape
    session = (
        predictors[2]
        .session(picture)
        .click((rows // 2, columns // 2))
        .box((2, 3), (rows - 2, columns - 3))
    )
    write(session.mask, tmp_path / "mask.png")
    again = read_labels(tmp_path / "mask.png")
    truth = read_labels(data_dir / "images2d" / name / "masks" / f"{file.stem}.png")
    assert again.shape == picture.shape == truth.shape
    assert np.array_equal(again.array, session.mask.array)
