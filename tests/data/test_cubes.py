"""Cubes to train on show their object, and image and mask move together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from train.volume_toys import folder

from samaritan import Grid, LabelMap, Volume, write
from samaritan.data import load_manifest
from samaritan.data.cubes import CubeDataset, CubeLooks
from samaritan.data.sampling import Draw
from samaritan.errors import ConfigError
from samaritan.transforms import CubePreprocess

CHAIN = CubePreprocess(size=(24, 24, 24))


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return load_manifest(folder(tmp_path_factory.mktemp("cubes"), count=3))


def test_items_are_the_same_whenever_they_are_asked_for(manifest):
    one, two = (CubeDataset(manifest, CHAIN, looks=CubeLooks(), intensity=1, seed=3) for _ in "ab")
    for draw in (Draw(0, 0, 0), Draw(2, 1, 5)):
        assert torch.equal(one[draw]["image"], two[draw]["image"])
        assert torch.equal(one[draw]["masks"], two[draw]["masks"])
    assert not torch.equal(one[Draw(0, 0, 0)]["image"], one[Draw(0, 1, 0)]["image"])


def test_kept_volumes_give_the_same_items(manifest, tmp_path):
    plain, kept = CubeDataset(manifest, CHAIN), CubeDataset(manifest, CHAIN, cache=tmp_path)
    again = CubeDataset(manifest, CHAIN, cache=tmp_path)
    for data in (kept, again):
        assert torch.equal(data[1]["image"], plain[1]["image"])
        assert torch.equal(data[1]["masks"], plain[1]["masks"])


def test_without_looks_the_object_fills_the_cube_as_in_inference(manifest):
    data = CubeDataset(manifest, CHAIN)
    for index in range(len(data)):
        mask = data[index]["masks"][0].numpy()
        spans = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
        longest = max(span[-1] - span[0] + 1 for span in spans)
        assert longest == pytest.approx(24 / CHAIN.margin, abs=1.5)


def test_image_and_mask_move_together(manifest):
    data = CubeDataset(manifest, CHAIN, looks=CubeLooks(), seed=1)
    for turn in range(30):
        item = data[Draw(turn % len(data), 0, turn)]
        mask, image = item["masks"][0], item["image"][0]
        sign = 1 if data.names[int(item["labels"][0])] == "ball" else -1  # bright, and dark
        rest = image[~mask & (image != 0)]
        assert sign * (float(image[mask].mean()) - float(rest.mean())) > 0.4


def test_cubes_differ_in_how_close_they_look(manifest):
    data = CubeDataset(manifest, CHAIN, looks=CubeLooks(wide=0.5, inside=0), seed=2)
    parts = [float(data[Draw(0, 0, turn)]["masks"].float().mean()) for turn in range(50)]
    assert min(parts) < 0.04
    assert max(parts) > 0.15


@pytest.fixture(scope="module")
def scattered(tmp_path_factory):
    """Two lesions of one label, on voxels that are longer than wide, in a file that lies otherwise."""
    root = tmp_path_factory.mktemp("scattered")
    labels = np.zeros((30, 24, 10), np.uint8)
    labels[4:10, 4:10, 2:4] = 1
    labels[20:24, 15:19, 6:8] = 1
    image = np.where(labels > 0, 200, 50).astype(np.int16)
    grid = Grid.from_spacing(labels.shape, (1, 1, 3), orientation="LPS")
    (root / "images").mkdir()
    (root / "masks").mkdir()
    write(Volume(image, grid), root / "images" / "a.nii.gz")
    write(LabelMap(labels, grid, names={1: "lesion"}), root / "masks" / "a.nii.gz")
    return load_manifest(root)


def test_parts_are_objects_of_their_own_beside_the_whole(scattered):
    counts = {
        kind: len(CubeDataset(scattered, CHAIN, objects=kind))
        for kind in ("labels", "components", "both")
    }
    assert counts == {"labels": 1, "components": 2, "both": 3}
    data = CubeDataset(scattered, CHAIN, objects="components")
    sizes = [float(data[i]["masks"].float().mean()) for i in range(2)]
    whole = CubeDataset(scattered, CHAIN, objects="labels")[0]["masks"]
    assert all(0.03 < size < 0.35 for size in sizes)
    assert float(whole.float().mean()) < min(sizes)


def test_a_part_is_shown_in_its_own_proportions(scattered):
    mask = CubeDataset(scattered, CHAIN, objects="components")[0]["masks"][0].numpy()
    spans = [np.flatnonzero(mask.any(axis=a)) for a in ((1, 2), (0, 2), (0, 1))]
    sides = [span[-1] - span[0] + 1 for span in spans]
    assert max(sides) - min(sides) <= 1  # 6 x 6 x 6 mm


def test_nothing_left_is_an_error(manifest):
    with pytest.raises(ConfigError, match="ask for less"):
        CubeDataset(manifest, CHAIN, min_size=10**6)
