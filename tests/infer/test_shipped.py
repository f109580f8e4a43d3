"""The compact models that come with the package: they are there, small, and earn their place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from samaritan import Predictor, read
from samaritan.checkpoints import fetch, load_model, published_weights
from samaritan.checkpoints.header import read_header
from samaritan.metrics import dice
from samaritan.phantoms import phantom
from samaritan.transforms import CubePreprocess, FocusPreprocess, Preprocess

HELD_OUT = ("hippocampus_152", "hippocampus_252")
"""Patients of the part `test` of scripts/open_volumes.py."""


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.from_checkpoint("samaritan_2d", device="cpu")


def box_of(mask):
    where = np.argwhere(mask)
    return where.min(axis=0), where.max(axis=0) + 1


def ellipse_in(low, high, shape):
    """Fill a box of two axes with an ellipse: what a model has to be better than."""
    index = np.indices(shape).transpose(1, 2, 0)
    return ((((index - (low + high - 1) / 2) / ((high - low) / 2)) ** 2).sum(axis=-1)) <= 1


def largest(mask):
    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    return parts == np.bincount(parts.ravel())[1:].argmax() + 1


@pytest.mark.parametrize(
    ("name", "chain"), [("samaritan_2d", FocusPreprocess), ("samaritan_3d", CubePreprocess)]
)
def test_the_file_is_small_free_and_complete(name, chain):
    (published,) = (p for p in published_weights() if p.shipped and p.name == name)
    path = fetch(name)
    header = read_header(path)
    assert path.stat().st_size <= 15_000_000
    assert path.stat().st_size == pytest.approx(published.size, rel=0.02)
    assert header.licence == "Apache-2.0"
    assert header.holds == "all"
    assert f"name: {name}" in header.extra["recipe"]
    preprocess = Preprocess.from_dict(header.preprocess)
    assert isinstance(preprocess, chain)
    model, _ = load_model(name, download=False)
    assert model.config.name == name
    assert tuple(model.config.image_size) == preprocess.size
    assert Path(__file__).parents[2].joinpath(published.page).is_file()  # the card


@pytest.fixture(scope="module")
def organs():
    """A slice of a phantom that nobody learned from, and its larger organs."""
    made = phantom("ct", seed=777)
    index = made.labels.array.shape[2] // 2
    image = made.image.slice(2, index)
    labels = made.labels.array[:, :, index]
    values, counts = np.unique(labels[labels > 1], return_counts=True)
    return image, [largest(labels == v) for v in values[counts > 60]]


def test_boxes_on_a_phantom_are_answered_better_than_by_ellipses(predictor, organs):
    image, masks = organs
    found, filled = [], []
    for mask in masks:
        low, high = box_of(mask)
        answer = predictor.session(image).box((*low, 0), (*high, 1)).mask.array[:, :, 0] > 0
        found.append(dice(answer, mask))
        filled.append(dice(ellipse_in(low, high, mask.shape), mask))
    assert len(masks) >= 5
    assert np.mean(found) > 0.85
    assert np.mean(found) > np.mean(filled)


def test_clicks_on_a_phantom_make_masks_better(predictor, organs):
    image, masks = organs
    first, last = [], []
    for mask in masks[:5]:
        session = predictor.session(image)
        wrong = mask
        for turn in range(5):
            depth = ndimage.distance_transform_edt(np.pad(wrong, 1))[1:-1, 1:-1]
            at = np.unravel_index(depth.argmax(), mask.shape)
            session = session.click((*at, 0), positive=bool(mask[at]))
            answer = session.mask.array[:, :, 0] > 0
            if turn == 0:
                first.append(dice(answer, mask))
            wrong = answer != mask
            if not wrong.any():
                break
        last.append(dice(answer, mask))
    assert np.mean(last) > np.mean(first)
    assert np.mean(last) > 0.85


@pytest.mark.parametrize(
    ("folder", "label"), [("cxr_lung", 1), ("curvas_ct2d", 2), ("curvas_ct2d", 3)]
)
def test_sets_it_never_saw_are_answered_better_than_by_ellipses(predictor, data_dir, folder, label):
    found, filled = [], []
    for path in sorted((data_dir / "images2d" / folder / "masks").glob("*.png")):
        labels = read(path).array[:, :, 0]
        if (labels == label).sum() < 60 or len(found) == 8:
            continue
        mask = largest(labels == label)
        (picture,) = (data_dir / "images2d" / folder / "images").glob(f"{path.stem}.*")
        low, high = box_of(mask)
        answer = predictor.session(read(picture)).box(tuple(low), tuple(high)).mask
        found.append(dice(answer.array[:, :, 0] > 0, mask))
        filled.append(dice(ellipse_in(low, high, mask.shape), mask))
    assert np.mean(found) > np.mean(filled) + 0.02


@pytest.fixture(scope="module")
def predictor_3d() -> Predictor:
    return Predictor.from_checkpoint("samaritan_3d", device="cpu")


def clicked(session, mask, count):
    """Dice after each click on the depth of the largest error."""
    found, wrong = [], mask
    for _ in range(count):
        parts, _ = ndimage.label(wrong, np.ones((3, 3, 3)))
        worst = parts == np.bincount(parts.ravel())[1:].argmax() + 1
        depth = ndimage.distance_transform_edt(np.pad(worst, 1))[1:-1, 1:-1, 1:-1]
        at = np.unravel_index(depth.argmax(), mask.shape)
        session = session.click(at, positive=bool(mask[at]))
        answer = session.mask.array > 0
        found.append(dice(answer, mask))
        wrong = answer != mask
    return found


def test_a_click_finds_parts_of_hippocampi_that_nobody_learned_from(predictor_3d, data_dir):
    folder = data_dir / "nnunet_raw" / "Dataset004_Hippocampus"
    curves = []
    for case in HELD_OUT:
        image = read(folder / "imagesTr" / f"{case}_0000.nii.gz")
        labels = read(folder / "labelsTr" / f"{case}.nii.gz").array
        for label in (1, 2):
            curves.append(clicked(predictor_3d.session(image), labels == label, 5))
    first, last = np.mean(curves, axis=0)[[0, -1]]
    assert first > 0.75
    assert last > 0.85


def test_boxes_in_a_phantom_volume_are_answered_better_than_by_ellipsoids(predictor_3d):
    made = phantom("mr", seed=777)
    found, filled = [], []
    for name in ("liver", "spleen", "heart", "bladder", "right kidney"):
        mask = made.labels.array == next(v for v, n in made.labels.names.items() if n == name)
        low, high = box_of(mask)
        answer = predictor_3d.session(made.image).box(low, high).mask
        assert answer.grid.same_as(made.image.grid)
        found.append(dice(answer.array > 0, mask))
        index = np.indices(mask.shape).transpose(1, 2, 3, 0)
        half = (high - low) / 2
        filled.append(dice((((index - (low + high - 1) / 2) / half) ** 2).sum(axis=-1) <= 1, mask))
    assert np.mean(found) > 0.85
    assert np.mean(found) > np.mean(filled) + 0.05
