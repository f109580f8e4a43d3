"""The compact model that comes with the package: it is there, it is small, and it earns its place."""

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
from samaritan.transforms import FocusPreprocess, Preprocess


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


def test_the_file_is_small_free_and_complete():
    (published,) = (p for p in published_weights() if p.shipped)
    path = fetch(published.name)
    header = read_header(path)
    assert path.stat().st_size <= 15_000_000
    assert path.stat().st_size == pytest.approx(published.size, rel=0.02)
    assert header.licence == "Apache-2.0"
    assert header.holds == "all"
    assert "name: samaritan_2d" in header.extra["recipe"]
    assert isinstance(Preprocess.from_dict(header.preprocess), FocusPreprocess)
    model, _ = load_model(published.name, download=False)
    assert model.config.name == "samaritan_2d"
    assert tuple(model.config.image_size) == Preprocess.from_dict(header.preprocess).size
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
