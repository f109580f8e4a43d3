"""Volumes that are odd, empty or broken: a defined result, or one clear error."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from samaritan import create_model
from samaritan.errors import PromptError
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.volume import LabelMap, Volume

SHAPE = (40, 36, 22)
NAMES = ["sam3d_tiny", "neurosam3d_tiny", "msam_tiny"]


@pytest.fixture(scope="module")
def predictors() -> dict[str, Predictor]:
    torch.manual_seed(0)
    return {name: Predictor(create_model(name), device="cpu") for name in NAMES}


def noise(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).random(shape).astype(np.float32) * 100 + 1


def holed(*values: float) -> np.ndarray:
    array = noise()
    for n, value in enumerate(values):
        array[n :: len(values) + 1] = value
    return array


ODD: dict[str, Callable[[], np.ndarray]] = {
    "all negative": lambda: -noise(),
    "all zero": lambda: np.zeros(SHAPE, np.uint8),
    "constant": lambda: np.full(SHAPE, 1234.567, np.float32),
    "constant and negative": lambda: np.full(SHAPE, -1000, np.int16),
    "not a number in parts": lambda: holed(np.nan),
    "not a number anywhere": lambda: np.full(SHAPE, np.nan, np.float32),
    "infinite in parts": lambda: holed(np.inf, -np.inf),
    "beyond float32": lambda: noise().astype(np.float64) * 1e300,
    "one slice": lambda: noise((40, 36, 1)),
    "one line": lambda: noise((40, 1, 1)),
    "one voxel": lambda: noise((1, 1, 1)),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ODD)
def test_an_odd_volume_gives_a_mask_on_its_grid(
    predictors: dict[str, Predictor], name: str, kind: str
) -> None:
    array = ODD[kind]()
    volume = Volume(array, Grid.from_spacing(array.shape, (1.5, 1.2, 4.0), orientation="PIR"))
    centre = [n // 2 for n in volume.shape]
    session = predictors[name].session(volume, max_windows=2)
    session = session.click(centre).box((0, 0, 0), volume.shape).refine()
    probability = session.probability().array
    assert np.isfinite(probability).all()
    assert np.ptp(probability) <= 1
    assert session.mask.grid == volume.grid


@pytest.mark.parametrize("spacing", [1e-4, 0.01, 60.0, 900.0])
def test_voxels_of_any_size_are_taken(predictors: dict[str, Predictor], spacing: float) -> None:
    volume = Volume(noise((9, 8, 7)), Grid.from_spacing((9, 8, 7), (spacing,) * 3))
    session = predictors["sam3d_tiny"].session(volume, max_windows=2).click((4, 4, 3))
    assert np.isfinite(session.probability().array).all()


@pytest.mark.parametrize(
    ("point", "text"),
    [
        ((40, 0, 0), r"\(40, 0, 0\) lies outside the image: .* to \(39, 35, 21\)"),
        ((0, -0.6, 0), "lies outside the image"),
        ((1, 2), "needs three indices"),
        ((1, np.nan, 2), "finite"),
        ("here", "two or three numbers"),
    ],
)
def test_a_point_that_cannot_be_is_refused(
    predictors: dict[str, Predictor], point: object, text: str
) -> None:
    session = predictors["sam3d_tiny"].session(Volume(noise(), Grid.from_spacing(SHAPE)))
    with pytest.raises(PromptError, match=text):
        session.click(point)  # type: ignore[arg-type]


def test_several_channels_are_refused_with_the_way_out(predictors: dict[str, Predictor]) -> None:
    many = Volume(noise((*SHAPE, 3)), Grid.from_spacing(SHAPE), channels=("t1", "t2", "flair"))
    with pytest.raises(PromptError, match=r"3 channels \(t1, t2, flair\).*--channel"):
        predictors["sam3d_tiny"].session(many)
    for which in ("flair", 2):
        mask = predictors["sam3d_tiny"].session(many.channel(which)).click((9, 9, 9)).mask
        assert mask.shape == SHAPE


def test_an_empty_class_of_a_mask_to_start_from_is_no_object(
    predictors: dict[str, Predictor],
) -> None:
    grid = Grid.from_spacing(SHAPE)
    drawn = np.zeros(SHAPE, np.uint8)
    session = predictors["sam3d_tiny"].session(Volume(noise(), grid))
    with pytest.raises(PromptError, match="empty"):
        session.start_from(LabelMap(drawn, grid, names={1: "core", 2: "oedema"}))
    drawn[5:9, 5:9, 5:9] = 2
    started = session.start_from(LabelMap(drawn, grid, names={1: "core", 2: "oedema"}))
    assert started.objects == ("oedema",)
    with pytest.raises(PromptError, match="no object 'core'"):
        started.refine(object="core")


def test_a_mask_beside_the_image_is_refused(predictors: dict[str, Predictor]) -> None:
    far = Grid.from_spacing(SHAPE, origin_mm=(9000, 0, 0))
    session = predictors["sam3d_tiny"].session(Volume(noise(), Grid.from_spacing(SHAPE)))
    with pytest.raises(PromptError, match="empty"):
        session.start_from(Volume(np.ones(SHAPE, np.uint8), far))
