"""Label maps without prompts: they lie on the image's own grid, whatever its axes, size and batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samaritan.assembly import create_model
from samaritan.checkpoints import save_weights
from samaritan.errors import ConfigError, PromptError
from samaritan.geometry import Grid
from samaritan.infer import Predictor, classes
from samaritan.infer.batch import predict_labels
from samaritan.models import ClassSam
from samaritan.models.sam import SamOutput
from samaritan.transforms import SlicePreprocess
from samaritan.transforms.preprocess import displayed
from samaritan.volume import LabelMap, Volume

CODES = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*order)
]


class Brightness(ClassSam):
    """Class 0 is dark, class 1 middle, class 2 bright: logits are distances to three grey values."""

    def __init__(self) -> None:
        super().__init__(create_model("sam_tiny", num_classes=2).config)

    def forward(self, images, points=None, boxes=None, masks=None, multimask_output=True):
        raise AssertionError("the enlarged logits of every class would not be bounded")


def _by_brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(model, images, **_):
        grey = images[:, :1] * 57.0 + 115.0
        logits = -torch.cat([(grey - value).abs() for value in (0.0, 128.0, 255.0)], dim=1)
        low = F.interpolate(logits, model.low_res_size, mode="area")
        return SamOutput(low, torch.zeros(len(images), 3))

    monkeypatch.setattr("samaritan.models.Sam.forward", forward)


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> Predictor:
    _by_brightness(monkeypatch)
    return Predictor(Brightness(), SlicePreprocess(size=(64, 64)), device="cpu")


def blocks() -> tuple[Volume, np.ndarray]:
    """A volume of unequal sides with a middle and a bright block, and what is right."""
    grid = Grid.from_spacing((48, 40, 6), (1.0, 1.2, 5.0))
    truth = np.zeros(grid.shape, np.uint8)
    truth[4:24, 4:30, 1:5] = 1
    truth[28:44, 12:36, 2:6] = 2
    return Volume(np.array([0, 500, 1000], np.int16)[truth], grid), truth


@pytest.mark.parametrize("code", [CODES[i] for i in (0, 7, 13, 22, 29, 38, 47)])
def test_labels_lie_on_the_image_whatever_its_axes(predictor: Predictor, code: str) -> None:
    volume, truth = blocks()
    turned = volume.reorient(code)
    labels = predict_labels(predictor, turned)
    assert labels.grid.same_as(turned.grid)
    wanted = LabelMap(truth, volume.grid).reorient(code).array
    assert (labels.array == wanted).mean() > 0.95
    same = predict_labels(predictor, volume).reorient(code)
    assert np.array_equal(labels.array, same.array)


def test_oblique_grids_keep_their_geometry(predictor: Predictor) -> None:
    volume, truth = blocks()
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    oblique = Volume(volume.array, Grid(volume.shape, turn @ volume.grid.affine))
    labels = predict_labels(predictor, oblique)
    assert labels.grid.same_as(oblique.grid)
    assert (labels.array == truth).mean() > 0.95


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_may_lie_across_any_axis(predictor: Predictor, axis: int) -> None:
    volume, truth = blocks()
    assert (predict_labels(predictor, volume, axis=axis).array == truth).mean() > 0.8


def test_pictures_are_one_slice(predictor: Predictor) -> None:
    pixels = np.zeros((70, 90, 1), np.uint8)
    pixels[10:40, 20:70] = 128
    labels = predict_labels(predictor, Volume(pixels, Grid.pixels((70, 90))))
    assert labels.shape == (70, 90, 1)
    assert labels.array[15:35, 25:65].min() == labels.array.max() == 1
    assert not labels.array[45:].any()


def test_batches_and_parts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    predictor = Predictor(create_model("sam_tiny", num_classes=5), device="cpu")
    volume, _ = blocks()
    one = predict_labels(predictor, volume, batch_size=1).array
    assert len(np.unique(one)) > 1
    for batch_size in (2, 4, 99):
        assert (
            predict_labels(predictor, volume, batch_size=batch_size).array == one
        ).mean() > 0.999
    monkeypatch.setattr(classes, "ENLARGED_FLOATS", 2 * 48 * 40)
    assert np.array_equal(predict_labels(predictor, volume, batch_size=1).array, one)


def test_the_way_back_is_that_of_prompted_masks() -> None:
    """Up to the input's size and from there to the pixels, both linearly, as sessions do it."""
    torch.manual_seed(3)
    predictor = Predictor(create_model("sam_tiny", num_classes=1), device="cpu")
    volume, _ = blocks()
    turned = volume.reorient("LAS")
    chain = predictor.preprocess
    assert isinstance(chain, SlicePreprocess)
    shown = displayed(turned.slice(2, 3), 2)
    back = classes._WayBack.of(chain, shown, predictor)
    low = torch.randn(1, *predictor.low_res_size)
    up = F.interpolate(low[None], chain.size, mode="bilinear", align_corners=False)[0, 0]
    frame = Volume(up.numpy()[:, :, None], chain.frame_grid(turned.grid, (2, 3)))
    wanted = frame.to_grid(shown.grid).array[:, :, 0]
    found = (back.rows @ low[0] @ back.columns.T).numpy()
    assert np.abs(found - wanted).max() < 1e-5


def test_names_come_with_the_weights(tmp_path) -> None:
    model = create_model("sam_tiny", num_classes=3)
    save_weights(model, tmp_path / "m.safetensors", extra={"labels": {"1": "liver", "3": "spleen"}})
    predictor = Predictor.from_checkpoint(tmp_path / "m.safetensors", device="cpu")
    labels = predict_labels(predictor, blocks()[0])
    assert labels.names == {1: "liver", 2: "label 2", 3: "spleen"}


def test_intensities_are_those_of_training() -> None:
    chain = SlicePreprocess(size=(64, 64), window=(-125.0, 275.0))
    predictor = Predictor(create_model("sam_tiny", num_classes=1), chain, device="cpu")
    scan, _ = blocks()
    picture = Volume(np.zeros((9, 8, 1), np.uint8), Grid.pixels((9, 8)))
    flat = Volume(np.zeros((9, 8, 1), np.uint8), Grid.from_spacing((9, 8, 1), (1, 1, 5)))
    ends = {"low": -125.0, "high": 275.0}
    assert predictor.open(scan).statistics == ends
    for prepared in (picture, flat):
        assert predictor.open(prepared).statistics == {"low": 0.0, "high": 255.0}
    given = predictor.open(scan, window=(0, 65535))
    assert given.statistics == {"low": 0.0, "high": 65535.0}


def test_what_cannot_be_is_refused() -> None:
    volume, _ = blocks()
    with pytest.raises(PromptError, match=r"answers prompts.*--prompts FILE"):
        predict_labels(Predictor(create_model("sam_tiny"), device="cpu"), volume)
    predictor = Predictor(create_model("sam_tiny", num_classes=1), device="cpu")
    with pytest.raises(ConfigError, match="batch_size must be 1 or more, got 0"):
        predict_labels(predictor, volume, batch_size=0)
    with pytest.raises(PromptError, match="axis must be 0, 1 or 2, got 3"):
        predict_labels(predictor, volume, axis=3)
    for count in (2, 20):
        many = Volume(np.zeros((9, 8, 1, count), np.uint8), Grid.pixels((9, 8)))
        with pytest.raises(ConfigError, match=rf"{count} channels \(.*the model takes 3: pick one"):
            predict_labels(predictor, many)
