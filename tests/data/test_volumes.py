"""Crops of volumes: where they lie, what they hold, and that they are functions of their draw alone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from data.toys import dataset_json, labels, volume

from samaritan import Grid, LabelMap, Volume, write
from samaritan.data import load_manifest
from samaritan.data.reading import case_image
from samaritan.data.sampling import Draw, DrawSampler
from samaritan.data.volume_augment import VolumeAugment
from samaritan.data.volumes import PLACES, CropDataset, around, cut, inside
from samaritan.errors import ConfigError
from samaritan.transforms import WindowPreprocess, neurosam3d_windows, sam_med3d_windows

SHARED = Path(__file__).resolve().parents[3] / "shared/data/nnunet_raw/Dataset004_Hippocampus"

CHAIN = WindowPreprocess(size=(8, 6, 10), spacing_mm=(1.5, 1.5, 1.5))


@pytest.fixture
def folder(tmp_path):
    """Three CT volumes on an oblique-ordered grid, with labels 1, 2 and a speck of 3."""
    root = tmp_path / "Dataset007_Crops"
    grid = Grid.from_spacing((18, 14, 12), (1.0, 1.2, 2.0), orientation="PIL", origin_mm=(5, -3, 2))
    for number in range(3):
        drawn = np.zeros(grid.shape, np.uint8)
        drawn[2 + number : 8, 2:6, 1:6] = 1
        drawn[10:16, 7:13, 5:11] = 2
        drawn[17, 13, 11] = 3
        volume(root / f"imagesTr/c{number}_0000.nii.gz", seed=number, grid=grid)
        labels(root / f"labelsTr/c{number}.nii.gz", grid=grid, array=drawn)
    names = {"background": 0, "one": 1, "two": 2, "speck": 3}
    dataset_json(root, channel_names={"0": "CT"}, labels=names)
    return root


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_crops_around_objects_lie_as_published() -> None:
    """T14 of the specification: a volume of 40 and a crop of 16, as torchio's CropOrPad has it."""
    drawn = np.zeros((40, 40, 40), np.uint8)
    drawn[2:5, 20:24, 30:39] = 1
    crop = cut(drawn, around((2, 20, 30), (5, 24, 39), (16, 16, 16)), (16, 16, 16))
    where = np.argwhere(crop)
    assert where.min(axis=0).tolist() == [7, 6, 4]
    assert where.max(axis=0).tolist() == [9, 9, 12]
    assert crop.sum() == drawn.sum()


def test_an_object_longer_than_the_crop_is_cut_on_both_sides() -> None:
    drawn = np.zeros((40, 4, 4), np.uint8)
    drawn[5:35] = 1
    crop = cut(drawn, around((5, 0, 0), (35, 4, 4), (16, 4, 4)), (16, 4, 4))
    assert crop.all()
    assert around((5, 0, 0), (35, 4, 4), (16, 4, 4)) == (12, 0, 0)


def test_a_crop_wholly_outside_is_empty() -> None:
    assert not cut(np.ones((4, 5, 6)), (9, -20, 0), (3, 4, 5)).any()


@pytest.mark.parametrize("chain", [CHAIN, sam_med3d_windows(8), neurosam3d_windows(16)])
def test_crops_are_what_the_model_sees_in_prediction(folder, chain) -> None:
    manifest = load_manifest(folder)
    dataset = CropDataset(manifest, chain)
    for index, (case, target) in enumerate(dataset.objects):
        image = case_image(manifest, manifest.cases[case])
        image = Volume(image.array, image.grid, meta={"modality": "CT"})
        start = around(target.start, target.stop, chain.size)
        frame = chain.frame(image, start, chain.statistics(image))
        assert torch.allclose(dataset[index]["image"], frame.tensor[0], atol=1e-4)


def test_the_mask_is_the_object_and_nothing_else(folder) -> None:
    dataset = CropDataset(load_manifest(folder), CHAIN)
    assert dataset.names == ("one", "speck", "two")
    assert Counter(t.structure.name for _, t in dataset.objects)["two"] == 3
    for index, (_, target) in enumerate(dataset.objects):
        item = dataset[index]
        assert item["masks"].shape == (1, *CHAIN.size)
        assert item["image"].shape == (1, *CHAIN.size)
        assert int(item["masks"].sum()) <= target.voxels
        assert dataset.names[int(item["labels"])] == target.structure.name


@pytest.mark.parametrize("place", PLACES)
def test_items_are_functions_of_their_draw(folder, tmp_path, place) -> None:
    manifest, augment = load_manifest(folder), VolumeAugment(0.5, 0.5, 0.5)
    one = CropDataset(manifest, CHAIN, place=place, augment=augment, seed=3)
    two = CropDataset(manifest, CHAIN, place=place, augment=augment, seed=3, cache=tmp_path / "c")
    draws = list(DrawSampler(one.cases, seed=1))
    for draw in draws:
        item = one[draw]
        assert same(item, two[draw])
        assert bool(item["masks"].any())
    moved = [draw._replace(epoch=5) for draw in draws]
    assert not all(same(one[a], one[b]) for a, b in zip(draws, moved, strict=True))


def test_validation_crops_are_the_same_always(folder) -> None:
    dataset = CropDataset(load_manifest(folder), CHAIN, place="voxel")
    first = [dataset[i] for i in range(len(dataset))]
    assert all(same(item, dataset[i]) for i, item in enumerate(first))


def test_a_crop_around_a_voxel_has_it_in_the_middle_or_shows_all_it_can(folder) -> None:
    dataset = CropDataset(load_manifest(folder), CHAIN, place="voxel")
    seen = set()
    for turn in range(40):
        case, target = dataset.objects[turn % len(dataset)]
        packed = dataset.volumes[case]
        start = dataset._start(packed, target, np.random.default_rng(turn))
        shape = packed.planes.shape[1:]
        assert all(
            0 <= s <= total - n if total >= n else s == (total - n) // 2
            for s, n, total in zip(start, CHAIN.size, shape, strict=True)
        )
        seen.add(start)
    assert len(seen) > 10
    assert inside((-4, 3, 99), (8, 8, 8), (20, 20, 6)) == (0, 3, -1)


def test_voxels_are_drawn_evenly(folder) -> None:
    from samaritan.data.volumes import _some_voxel

    dataset = CropDataset(load_manifest(folder), CHAIN)
    case, target = dataset.objects[0]
    packed, rng = dataset.volumes[case], np.random.default_rng(0)
    drawn = Counter(_some_voxel(packed, target, rng) for _ in range(20 * target.voxels))
    mask = target.structure.mask(packed.planes[0])
    assert set(drawn) == {tuple(map(int, v)) for v in np.argwhere(mask)}
    counts = np.array(list(drawn.values()))
    chi = ((counts - 20) ** 2 / 20).sum() / target.voxels
    assert 0.5 < chi < 1.5


def test_small_objects_are_left_out_once_and_counted(folder) -> None:
    manifest = load_manifest(folder)
    every = CropDataset(manifest, CHAIN)
    large = CropDataset(manifest, CHAIN, min_volume_mm3=10.0)
    assert (len(every) - len(large), large.skipped) == (3, 3)
    assert {t.structure.name for _, t in large.objects} == {"one", "two"}
    size = max(t.voxels for _, t in every.objects)
    assert all(t.voxels == size for _, t in CropDataset(manifest, CHAIN, min_size=size).objects)
    with pytest.raises(ConfigError, match="none of 9 objects has 9999 voxels"):
        CropDataset(manifest, CHAIN, min_size=9999)


@pytest.mark.parametrize("version", [1, 2])
def test_a_lesion_of_twelve_voxels_is_kept_if_it_may_be(tmp_path, version) -> None:
    """T25 of the specification, for both ways in which nnU-Net names labels."""
    root = tmp_path / "Dataset009_Lesions"
    grid = Grid.from_spacing((12, 12, 12), (1.5, 1.5, 1.5))
    drawn = np.zeros(grid.shape, np.uint8)
    drawn[2:4, 5:8, 5:7] = 1
    volume(root / f"imagesTr/a{'_0000' if version == 2 else ''}.nii.gz", grid=grid)
    labels(root / "labelsTr/a.nii.gz", grid=grid, array=drawn)
    if version == 2:
        dataset_json(root, channel_names={"0": "MR"}, labels={"background": 0, "lesion": 1})
    else:
        files = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
        content = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "lesion"},
                   "training": [files], "test": [], "numTraining": 1}  # fmt: skip
        (root / "dataset.json").write_text(json.dumps(content))
    manifest = load_manifest(root)
    dataset = CropDataset(manifest, CHAIN, min_size=12, min_volume_mm3=12 * 1.5**3)
    assert dataset.names == ("lesion",)
    assert int(dataset[0]["masks"].sum()) == 12
    for more in ({"min_size": 13}, {"min_volume_mm3": 12.1 * 1.5**3}):
        with pytest.raises(ConfigError, match="none of 1 objects"):
            CropDataset(manifest, CHAIN, **more)


def test_the_cache_is_found_again_and_made_anew_when_files_change(folder, tmp_path) -> None:
    cache = tmp_path / "cache"
    CropDataset(load_manifest(folder), CHAIN, cache=cache)
    before = {p.name: p.stat().st_mtime_ns for p in cache.iterdir()}
    assert len(before) == 9
    smaller = WindowPreprocess(size=(4, 4, 4), spacing_mm=(1.5, 1.5, 1.5))
    CropDataset(load_manifest(folder), smaller, cache=cache)
    assert {p.name: p.stat().st_mtime_ns for p in cache.iterdir()} == before
    grid = case_image(load_manifest(folder), load_manifest(folder).cases[0]).grid
    volume(folder / "imagesTr/c1_0000.nii.gz", seed=50, grid=grid)
    CropDataset(load_manifest(folder), CHAIN, cache=cache)
    assert len(list(cache.iterdir())) == 12


def test_masks_that_overlap_keep_apart(tmp_path) -> None:
    grid = Grid.from_spacing((12, 12, 12), (1.5, 1.5, 1.5))
    for name, stop in (("kidney", 9), ("tumour", 6)):
        drawn = np.zeros(grid.shape, np.uint8)
        drawn[2:stop, 2:8, 2:8] = 1
        volume(tmp_path / f"{name}/ct_kits/imagesTr/a.nii.gz", grid=grid)
        write(LabelMap(drawn, grid), tmp_path / f"{name}/ct_kits/labelsTr/a.nii.gz")
    dataset = CropDataset(load_manifest(tmp_path), WindowPreprocess(size=(12, 12, 12)))
    items = [dataset[0], dataset[1]]
    sizes = {dataset.names[int(i["labels"])]: int(i["masks"].sum()) for i in items}
    assert sizes == {"kidney": 7 * 36, "tumour": 4 * 36}


def test_channels_are_drawn_or_chosen(nnunet) -> None:
    manifest = load_manifest(nnunet)
    chain = WindowPreprocess(size=(5, 6, 4), spacing_mm=None, orientation="LAS")
    both = CropDataset(manifest, chain)
    known = [CropDataset(manifest, chain, channel=c) for c in (0, 1)]
    hits = Counter()
    for turn in range(12):
        item = both[Draw(0, 0, turn)]["image"]
        hits.update(c for c in (0, 1) if torch.equal(item, known[c][0]["image"]))
    assert set(hits) == {0, 1}
    with pytest.raises(ConfigError, match="channel 2 was chosen"):
        _ = CropDataset(manifest, chain, channel=2)[0]


def test_pictures_are_refused_by_name(pairs) -> None:
    with pytest.raises(ConfigError, match=r"case '00_x': it is a picture"):
        CropDataset(load_manifest(pairs), CHAIN)


def test_augmentation_moves_image_and_mask_together() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((6, 6, 8)) < 0.3
    image = mask.astype(np.float32)
    augment = VolumeAugment(0.5, 0.5)
    turned = [augment(image, mask, rng) for _ in range(20)]
    assert all(np.array_equal(a > 0.5, b) and a.shape == (6, 6, 8) for a, b in turned)
    assert len({b.tobytes() for _, b in turned}) > 7
    bright = VolumeAugment(0, 0, 1.0)
    image = image + rng.random(image.shape, np.float32)
    for _ in range(20):
        changed, same_mask = bright(image, mask, rng)
        assert np.isfinite(changed).all()
        assert np.array_equal(same_mask, mask)
        assert not np.array_equal(changed, image)


def test_hippocampi_are_cropped_whole() -> None:
    if not SHARED.is_dir():
        pytest.skip("the shared hippocampus volumes are not here")
    manifest = load_manifest(SHARED)
    some = manifest.select(ids=[c.id for c in manifest.cases[:3]])
    dataset = CropDataset(some, sam_med3d_windows(64), min_volume_mm3=100)
    assert dataset.names == ("anterior", "posterior")
    assert len(dataset) == 6
    for index, (_, target) in enumerate(dataset.objects):
        item = dataset[index]
        assert int(item["masks"].sum()) == target.voxels
        voxel_volume = target.volume_mm3 / target.voxels
        assert voxel_volume == pytest.approx(1.5**3, rel=0.1)
        assert torch.isfinite(item["image"]).all()
