"""A model that learned from windowed slices sees pictures, slices and volumes with the same intensities."""

from __future__ import annotations

import logging
import re

import numpy as np
import pytest
from data.toys import dataset_json, labels

from samaritan import Grid, Predictor, Volume, write
from samaritan.data import Group, Manifest, load_manifest
from samaritan.data.places import put_back
from samaritan.data.reading import case_image
from samaritan.data.slicing import SliceOptions, make_slices
from samaritan.data.windows import Window
from samaritan.infer.classes import predict_labels
from samaritan.recipes import resolve
from samaritan.train.chains import with_window
from samaritan.train.runs import train
from samaritan.transforms import SlicePreprocess

GRID = Grid.from_spacing((20, 24, 4), (1.0, 1.5, 4.0), orientation="LAS")
SMALL = ["model.name=samed_tiny", "model.image_size=32", "run.epochs=1", "run.max_iterations=1",
         "validation.pictures=0", "data.val_fraction=0.5", "data.batch_size=2"]  # fmt: skip


@pytest.fixture
def scans(tmp_path) -> Manifest:
    """Two CT volumes whose intensities go far beyond any window, with labels."""
    root = tmp_path / "Dataset001_Toy"
    for folder in ("imagesTr", "labelsTr"):
        (root / folder).mkdir(parents=True)
    dataset_json(root, channel_names={"0": "CT"}, numTraining=2)
    for n in (1, 2):
        values = np.random.default_rng(n).normal(0, 900, GRID.shape).astype(np.int16)
        write(Volume(values, GRID), root / f"imagesTr/p{n}_0000.nii.gz")
        drawn = np.zeros(GRID.shape, np.uint8)
        drawn[4:12, 5:15] = n
        labels(root / f"labelsTr/p{n}.nii.gz", grid=GRID, array=drawn)
    return load_manifest(root)


def test_slices_and_their_volume_get_the_same_labels(scans, tmp_path) -> None:
    slices = make_slices(scans, tmp_path / "slices", SliceOptions("abdomen", min_foreground=0))
    recipe = resolve("samed", settings=SMALL)
    train(recipe, load_manifest(tmp_path / "slices"), tmp_path / "run", device="cpu")
    predictor = Predictor.from_checkpoint(tmp_path / "run", device="cpu")
    assert predictor.preprocess.window == (-125.0, 275.0)
    whole = predict_labels(predictor, case_image(scans, scans.cases[0]))
    mine = [c for c in slices if c.place is not None and c.place.volume == scans.cases[0].id]
    pieces = []
    for case in mine:
        assert case.place is not None
        picture = case_image(slices, case)
        pieces.append((case.place, predict_labels(predictor, picture).array[:, :, 0]))
    assert len(np.unique(whole.array)) > 1
    assert np.array_equal(put_back(iter(pieces)).array, whole.array)
    assert predictor.open(case_image(slices, mine[0])).statistics == {"low": 0.0, "high": 255.0}


def test_the_window_survives_the_manifest_file(scans, tmp_path) -> None:
    options = SliceOptions((-50.0, 50.0), bits=16, min_foreground=0)
    made = make_slices(scans, tmp_path / "slices", options)
    (group,) = load_manifest(tmp_path / "slices").groups.values()
    assert group.volume_window == Window(-50.0, 50.0)
    assert group.window == (0.0, 65535.0)
    made.write(tmp_path / "m.csv")
    (group,) = load_manifest(tmp_path / "m.csv").groups.values()
    assert group.volume_window == Window(-50.0, 50.0)


def of_windows(*windows: Window | None) -> Manifest:
    groups = {f"set{n}": Group(volume_window=window) for n, window in enumerate(windows)}
    return Manifest("nowhere", (), groups)  # type: ignore[arg-type]


ABDOMEN, LUNG = Window(-125, 275), Window(-1350, 150)


@pytest.mark.parametrize(
    ("windows", "told", "expected"),
    [
        ((None,), None, (None, (0.5, 99.5))),
        ((ABDOMEN,), None, ((-125, 275), (0.5, 99.5))),
        ((ABDOMEN, ABDOMEN), None, ((-125, 275), (0.5, 99.5))),
        ((Window(0.5, 99.9, percentiles=True),), None, (None, (0.5, 99.9))),
        ((ABDOMEN, LUNG), "several windows.*-125 to 275.*--window", (None, (0.5, 99.5))),
        ((ABDOMEN, None), "several windows", (None, (0.5, 99.5))),
    ],
)  # fmt: skip
def test_volumes_are_shown_as_slices_were_cut(windows, told, expected, caplog) -> None:
    caplog.set_level(logging.WARNING)
    chain = with_window(SlicePreprocess(), of_windows(*windows))
    assert (chain.window, chain.percentiles) == expected
    assert bool(caplog.messages) == (told is not None)
    assert told is None or re.search(told, caplog.text)


def test_a_window_that_is_told_wins_and_a_contradiction_is_told(caplog) -> None:
    chain = SlicePreprocess(window=(-1350.0, 150.0))
    assert with_window(chain, of_windows(LUNG)) == chain
    assert not caplog.messages
    assert with_window(chain, of_windows(ABDOMEN)) == chain
    assert "data.window says intensities -1350 to 150, but the slices were cut with" in caplog.text
