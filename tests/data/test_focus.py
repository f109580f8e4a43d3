from __future__ import annotations

import numpy as np
import pytest
import torch
from data.toys import picture, shapes

from samaritan.data import load_manifest
from samaritan.data.augment import Intensity
from samaritan.data.focus import FocusDataset, Looks
from samaritan.data.sampling import Draw
from samaritan.transforms import FocusPreprocess

CHAIN = FocusPreprocess(size=(32, 32))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("focus")
    for seed in range(3):
        pixels, drawn = shapes(60 + 4 * seed, 50, seed)
        for name, array in (("images", pixels), ("masks", drawn)):
            (folder / name).mkdir(exist_ok=True)
            picture(folder / name / f"{seed}.png", array)
    return load_manifest(folder)


def test_items_are_the_same_whenever_they_are_asked_for(manifest):
    one, two = (
        FocusDataset(manifest, CHAIN, looks=Looks(), intensity=Intensity(), seed=3) for _ in "ab"
    )
    for draw in (Draw(0, 0, 0), Draw(2, 1, 5)):
        first, second = one[draw], two[draw]
        assert torch.equal(first["image"], second["image"])
        assert torch.equal(first["masks"], second["masks"])
    assert not torch.equal(one[Draw(0, 0, 0)]["image"], one[Draw(0, 1, 0)]["image"])


def test_without_looks_the_object_fills_the_window_as_in_inference(manifest):
    data = FocusDataset(manifest, CHAIN)
    for index in range(len(data)):
        mask = data[index]["masks"][0].numpy()
        spans = [np.flatnonzero(mask.any(axis=axis)) for axis in (0, 1)]
        longest = max(span[-1] - span[0] + 1 for span in spans)
        assert longest == pytest.approx(32 / CHAIN.margin, abs=1.5)


def test_image_and_mask_move_together(manifest):
    data = FocusDataset(manifest, CHAIN, looks=Looks(), seed=1)
    for turn in range(40):
        item = data[Draw(turn % 3, 0, turn)]
        mask, image = item["masks"][0], item["image"][0]
        label = int(item["labels"][0])
        if label == 2:  # the brightest there is: what is bright in the picture is the object
            inside = float(image[mask].mean())
            assert inside > float(image[~mask].mean()) + 0.5
        assert int(mask.sum()) >= data.min_size


def test_windows_differ_in_how_close_they_look(manifest):
    data = FocusDataset(manifest, CHAIN, looks=Looks(wide=0.5, inside=0), seed=2)
    parts = [float(data[Draw(0, 0, turn)]["masks"].float().mean()) for turn in range(60)]
    assert min(parts) < 0.15
    assert max(parts) > 0.35
