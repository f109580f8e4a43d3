"""Datasets: the same items with any workers and after a stop; objects, labels and inputs that agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from data.toys import picture, shapes
from torch.utils.data import DataLoader

from samaritan import Grid, LabelMap
from samaritan.data import Case, Group, Manifest, load_manifest
from samaritan.data.augment import heavy
from samaritan.data.datasets import (
    NOT_DECIDED,
    ObjectDataset,
    SliceDataset,
    flatten_objects,
    low_res_labels,
)
from samaritan.data.objects import Drawn, object_planes, resize_planes
from samaritan.data.packing import pack
from samaritan.data.sampling import Draw, DrawSampler
from samaritan.errors import ConfigError, FileError
from samaritan.io import read, read_labels
from samaritan.transforms import SlicePreprocess

CHAIN = SlicePreprocess(size=(32, 32), mean=(0.0,) * 3, std=(255.0,) * 3)
STRETCH = replace(CHAIN, resize="stretch")

# -- objects -------------------------------------------------------------------------------------


def flat(array) -> LabelMap:
    array = np.asarray(array, np.uint16)[:, :, None]
    return LabelMap(array, Grid.pixels(array.shape))


TWO = [[1, 1, 0, 2, 0], [0, 0, 0, 2, 0], [0, 1, 0, 0, 9]]


@pytest.mark.parametrize(
    ("how", "want"),
    [
        ("labels", [(0, 1, 1), (0, 2, 2)]),
        ("components", [(0, 1, 1), (0, 2, 1), (0, 3, 2)]),
        ("both", [(0, 1, 1), (0, 2, 2), (1, 1, 1), (1, 2, 1)]),  # label 2 has one part: itself
    ],
)
def test_objects_of_a_label_map(how, want) -> None:
    planes, drawn = object_planes(Case("a", ("x",)), [flat(TWO)], how, ignore=9)
    assert list(drawn) == want
    sizes = [int((planes[o.plane] == o.value).sum()) for o in drawn]
    assert sizes == {"labels": [3, 2], "components": [2, 1, 2], "both": [3, 2, 2, 1]}[how]


def test_numbered_objects_are_counted_from_1() -> None:
    case = Case("a", ("x",), ("l",), "instances")
    planes, drawn = object_planes(case, [flat([[0, 700, 700], [3, 3, 50000]])], "labels")
    assert [o.label for o in drawn] == [1, 1, 1]
    assert planes.tolist() == [[[0, 2, 2], [1, 1, 3]]]
    planes, drawn = object_planes(case, [flat([[7, 9], [7, 9]])], "labels")  # no background
    assert planes.tolist() == [[[1, 2], [1, 2]]]


def test_overlapping_masks_stand_on_planes_of_their_own() -> None:
    a, b, c = np.zeros((3, 3, 4), np.uint16)
    a[:2], b[1:], c[2, 3] = 1, 255, 1
    case = Case("a", ("x",), ("1", "2", "3", "4"), "masks")
    planes, drawn = object_planes(case, [flat(m) for m in (a, b, c, np.zeros_like(a))], "labels")
    assert len(planes) == 2
    assert [o.label for o in drawn] == [1, 2, 3]  # the empty one is no object
    for one, mask in zip(drawn, (a, b, c), strict=True):
        assert np.array_equal(planes[one.plane] == one.value, mask > 0)


def test_objects_do_not_vanish_when_a_picture_shrinks() -> None:
    plane = np.zeros((1, 64, 64), np.uint8)
    plane[0, 3, 3] = 1  # a pixel
    plane[0, 21:23, 10:50] = 2  # a line
    plane[0, 40:60, 40:60] = 3
    drawn = [Drawn(0, v, v) for v in (1, 2, 3)]
    plain = plane[:, 2::4][:, :, 2::4]
    assert 1 not in plain
    small, saved = resize_planes(plane, (16, 16), drawn)
    assert (saved, set(np.unique(small))) == (1, {0, 1, 2, 3})
    assert small[0, 0, 0] == 1
    assert np.array_equal(small == 3, plain == 3)
    same, none = resize_planes(plane, (64, 64), drawn)
    assert none == 0
    assert same is plane


# -- prompt-free ---------------------------------------------------------------------------------


def test_items_of_slices_fit_a_prompt_free_model(pairs) -> None:
    data = SliceDataset(load_manifest(pairs), CHAIN)
    item = data[2]
    assert (len(data), data.num_classes) == (6, 2)
    assert (item["image"].shape, item["image"].dtype) == ((3, 32, 32), torch.float32)
    assert (item["label"].shape, item["label"].dtype) == ((32, 32), torch.int64)
    assert (item["low_res_label"].shape, item["low_res_label"].dtype) == ((8, 8), torch.int64)
    assert 0 <= item["image"].min() < item["image"].max() <= 1
    assert set(item["label"].unique().tolist()) == {0, 1, 2}
    bright = item["image"][0] > 0.3
    assert ((item["label"] > 0) == bright).float().mean() > 0.93  # objects are the bright ones


@pytest.mark.parametrize(
    "chain",
    [
        CHAIN,
        STRETCH,
        SlicePreprocess(size=(24, 40), channel_order="bgr"),
        replace(STRETCH, size=(40, 28), interpolation="nearest"),
        SlicePreprocess(size=(16, 16), channels=1, mean=(100.0,), std=(50.0,)),
        SlicePreprocess(size=(52, 60), resize="pad"),
        SlicePreprocess(size=(48, 48), resize="pad", interpolation="nearest"),
    ],
)
def test_training_sees_what_prediction_sees(pairs, chain) -> None:
    colours = np.random.default_rng(0).integers(0, 255, (46, 46, 3)).astype(np.uint8)
    picture(pairs / "images/02_x.png", colours)
    data = SliceDataset(load_manifest(pairs), chain)
    for index in range(6):
        image = read(pairs / f"images/{index:02d}_x.png")
        frame = chain.frame(image, (2, 0), chain.statistics(image))
        assert torch.equal(data[index]["image"], frame.tensor[0])
        drawn = read_labels(pairs / f"masks/{index:02d}_x.png")
        label = drawn.to_grid(frame.grid).array[:, :, 0]
        assert (data[index]["label"].numpy() == label).mean() > 0.96  # but for ties of the nearest


def test_stretched_pictures_fill_the_input(pairs) -> None:
    data = SliceDataset(load_manifest(pairs), STRETCH)
    assert (data[0]["image"][0, -1] > 0).any()
    assert (data[0]["label"][:, -3:] == 0).all()


def test_low_res_labels_lie_under_the_logits() -> None:
    """Edges are found where they were, left and right alike; SAMed's own sampling drifts."""

    def found(edge: int, corner: bool) -> int:
        label = torch.zeros(64, 64, dtype=torch.int64)
        label[:, edge:] = 1
        low = low_res_labels(label, corner_aligned=corner).float()
        big = torch.nn.functional.interpolate(low[None, None], (64, 64), mode="bilinear")[0, 0, 0]
        return 64 - int((big > 0.5).sum())

    assert all(found(edge, False) == edge for edge in range(4, 61, 4))
    drift = {
        corner: sum(found(e, corner) - e for e in range(4, 20))
        - sum(found(e, corner) - e for e in range(44, 60))
        for corner in (False, True)
    }
    assert drift[False] == 0
    assert drift[True] >= 16  # a pixel at each edge
    label = torch.arange(64).expand(64, 64)
    low = low_res_labels(label, corner_aligned=True)
    assert low[0].tolist() == [round(i * 63 / 15) for i in range(16)]


def test_the_commonest_label_of_a_block_counts() -> None:
    label = torch.zeros(4, 8, dtype=torch.int64)
    label[:, :3] = 2
    label[0, 4:] = 5
    assert low_res_labels(label).tolist() == [[2, 0]]
    with pytest.raises(ConfigError, match="not multiples of 4"):
        low_res_labels(torch.zeros(6, 8, dtype=torch.int64))


def test_corner_aligned_labels_equal_the_published_zoom() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    label = np.random.default_rng(0).integers(0, 9, (512, 512))
    want = ndimage.zoom(label, (0.25, 0.25), order=0)
    found = low_res_labels(torch.from_numpy(label), corner_aligned=True).numpy()
    assert np.array_equal(found, want)


def test_cubic_zoom_is_the_published_way_to_the_input(pairs) -> None:
    """Splines from the slice's own pixels, past black and white; ours stays between them."""
    ndimage = pytest.importorskip("scipy.ndimage")
    rows, columns = np.mgrid[:28, :28]
    disc = ((rows - 14) ** 2 + (columns - 12) ** 2 < 60).astype(np.uint8)
    picture(pairs / "images/00_x.png", 255 * disc)
    picture(pairs / "masks/00_x.png", 2 * disc)
    chain = SlicePreprocess(
        (64, 64), mean=(0, 0, 0), std=(255, 255, 255), resize="stretch", interpolation="bicubic"
    )
    published, ours = (
        SliceDataset(load_manifest(pairs), chain, cubic_zoom=on)[0] for on in (True, False)
    )
    want = ndimage.zoom(disc.astype(np.float32), 64 / 28, order=3)
    assert np.allclose(published["image"][0].numpy(), want, atol=1e-5)
    assert np.array_equal(published["label"], ndimage.zoom(2 * disc, 64 / 28, order=0))
    assert want.max() > 1.05
    assert want.min() < -0.05
    assert 0 <= ours["image"].min() < ours["image"].max() <= 1
    assert (published["image"] - ours["image"]).abs().max() > 0.1
    assert published["low_res_label"].shape == ours["low_res_label"].shape == (16, 16)


def test_cubic_zoom_comes_after_augmentation(pairs) -> None:
    sizes = []

    def seen(pixels, planes, rng):
        sizes.append((pixels.shape[:2], planes.shape[1:]))
        return pixels, planes

    for on in (True, False):
        SliceDataset(load_manifest(pairs), STRETCH, cubic_zoom=on, augment=seen)[0]
    own = read(pairs / "images/00_x.png").shape[:2]
    assert sizes == [(own, own), (STRETCH.size, STRETCH.size)]


def test_a_label_beyond_the_classes_is_refused(pairs) -> None:
    with pytest.raises(
        ConfigError, match=r"case '00_x' holds label 2, but the model is to have 1 class:"
    ):
        SliceDataset(load_manifest(pairs), CHAIN, num_classes=1)
    assert SliceDataset(load_manifest(pairs), CHAIN, num_classes=8).num_classes == 8


def test_a_label_without_a_name_is_refused_unless_classes_are_counted(pairs) -> None:
    manifest = load_manifest(pairs)
    named = Manifest(pairs, manifest.cases, {"toy": Group({1: "liver", 4: "spleen"})})
    with pytest.raises(ConfigError, match=r"'00_x' holds labels \[2\] that have no name.*spleen"):
        SliceDataset(named, CHAIN)
    assert SliceDataset(named, CHAIN, num_classes=4).num_classes == 4


def test_the_ignored_label_is_not_decided(pairs) -> None:
    manifest = load_manifest(pairs)
    ignoring = Manifest(pairs, manifest.cases, {"toy": Group({1: "a"}, ignore=2)})
    data = SliceDataset(ignoring, CHAIN)
    assert data.num_classes == 1
    assert set(data[0]["label"].unique().tolist()) == {NOT_DECIDED, 0, 1}


def test_volumes_and_broken_files_name_the_case(pairs, nnunet) -> None:
    with pytest.raises(ConfigError, match=r"case 'p1_a': .* are a volume: make pictures"):
        SliceDataset(load_manifest(nnunet), CHAIN)
    (pairs / "images/03_x.png").write_bytes(b"")
    with pytest.raises(FileError, match=r"case '03_x'.*prepare check` tells every problem"):
        SliceDataset(load_manifest(pairs), CHAIN)
    with pytest.raises(ConfigError, match="has no case"):
        SliceDataset(load_manifest(pairs).select(split="val"), CHAIN)


# -- objects to point at -------------------------------------------------------------------------


def test_items_of_objects_fit_a_promptable_model(pairs) -> None:
    data = ObjectDataset(load_manifest(pairs), CHAIN, count=5)
    item = data[1]
    assert item["image"].shape == (3, 32, 32)
    assert (item["masks"].shape, item["masks"].dtype) == ((5, 32, 32), torch.bool)
    assert item["masks"].flatten(1).any(1).all()
    assert item["valid"].all()
    label = SliceDataset(load_manifest(pairs), CHAIN)[1]["label"]
    for mask, value in zip(item["masks"], item["labels"], strict=True):
        assert torch.equal(mask, label == value)


def test_without_replacement_each_object_comes_once(pairs) -> None:
    data = ObjectDataset(load_manifest(pairs), CHAIN, count=5, replacement=False)
    item = data[0]
    assert item["valid"].tolist() == [True, True, False, False, False]
    assert sorted(item["labels"][:2].tolist()) == [1, 2]


def test_cases_without_large_objects_are_left_out(pairs) -> None:
    picture(pairs / "masks/01_x.png", np.zeros((43, 48), np.uint8))
    (pairs / "masks/02_x.png").unlink()
    data = ObjectDataset(load_manifest(pairs), CHAIN)
    assert (len(data), data.skipped) == (4, 2)
    assert [c.id for c in data.cases] == ["00_x", "03_x", "04_x", "05_x"]
    assert data[1]["index"] == 1
    with pytest.raises(ConfigError, match="no case holds an object of 999 pixels"):
        ObjectDataset(load_manifest(pairs), CHAIN, min_size=999)
    with pytest.raises(IndexError):
        data[4]


def test_an_object_is_never_moved_out_of_the_picture(pairs) -> None:
    def away(pixels, planes, rng):
        return pixels, np.zeros_like(planes)

    data = ObjectDataset(load_manifest(pairs), CHAIN, augment=away)
    assert data[0]["masks"].flatten(1).any(1).all()


def test_a_batch_is_flattened_image_by_image(pairs) -> None:
    data = ObjectDataset(load_manifest(pairs), CHAIN, count=3)
    batch = next(iter(DataLoader(data, batch_size=2)))
    flattened = flatten_objects(batch)
    assert flattened["masks"].shape == (6, 32, 32)
    assert torch.equal(flattened["masks"][3], data[1]["masks"][0])
    assert flattened["image"].shape == (2, 3, 32, 32)


# -- the same again ------------------------------------------------------------------------------


def batches(data, sampler, workers: int) -> list[dict[str, torch.Tensor]]:
    context = "fork" if workers else None
    loader = DataLoader(
        data, 2, sampler=sampler, num_workers=workers, multiprocessing_context=context
    )
    return list(loader)


def same(one, two) -> bool:
    return len(one) == len(two) and all(
        torch.equal(a[k], b[k]) for a, b in zip(one, two, strict=True) for k in a
    )


@pytest.fixture
def augmented(pairs) -> ObjectDataset:
    pytest.importorskip("monai")
    return ObjectDataset(load_manifest(pairs), CHAIN, augment=heavy(), seed=5)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_items_do_not_depend_on_the_workers(augmented) -> None:
    sampler = DrawSampler(augmented.cases, seed=1)
    alone = batches(augmented, sampler, 0)
    assert same(alone, batches(augmented, sampler, 2))
    sampler.set_epoch(1)
    assert not same(alone, batches(augmented, sampler, 0))


def test_a_resumed_epoch_goes_on_with_the_same_items(augmented) -> None:
    sampler = DrawSampler(augmented.cases, seed=1)
    sampler.set_epoch(3)
    whole = batches(augmented, sampler, 0)
    state = sampler.state_dict(consumed=2)
    resumed = DrawSampler(augmented.cases, seed=1)
    resumed.load_state_dict(state)
    assert len(resumed) == 4
    assert same(whole[1:], batches(augmented, resumed, 0))
    again = DrawSampler(augmented.cases, seed=1)
    again.load_state_dict(resumed.state_dict(consumed=2))
    assert same(whole[2:], batches(augmented, again, 0))


def test_plain_indices_follow_the_epoch_that_was_set(augmented) -> None:
    first = [augmented[i]["image"] for i in range(3)]
    augmented.set_epoch(1)
    second = [augmented[i]["image"] for i in range(3)]
    assert not all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(second[2], augmented[Draw(2, 1, 2)]["image"])


def test_turned_pictures_fill_the_input_again(pairs) -> None:
    def quarter(pixels, planes, rng):
        return np.rot90(pixels), np.rot90(planes, 1, (1, 2))

    for chain in (SlicePreprocess(size=(24, 40)), STRETCH, CHAIN):
        item = SliceDataset(load_manifest(pairs), chain, augment=quarter)[0]
        assert item["image"].shape[1:] == item["label"].shape == chain.size
        assert set(item["label"].unique().tolist()) == {0, 1, 2}


def test_the_seed_changes_items(augmented, pairs) -> None:
    other = ObjectDataset(load_manifest(pairs), CHAIN, augment=heavy(), seed=6)
    draws = [Draw(0, e, 0) for e in range(4)]
    assert any(not torch.equal(augmented[d]["image"], other[d]["image"]) for d in draws)
    assert torch.equal(augmented[draws[0]]["image"], augmented[draws[0]]["image"])


# -- kept in a file ------------------------------------------------------------------------------


def test_pictures_kept_in_a_file_are_the_same(pairs, tmp_path) -> None:
    manifest = load_manifest(pairs)
    seen: list[int] = []
    for _ in range(2):
        kept = pack(manifest, CHAIN, cache=tmp_path / "cache", progress=lambda d, n: seen.append(d))
        fresh = pack(manifest, CHAIN)
        for a, b in zip((kept[i] for i in range(6)), (fresh[i] for i in range(6)), strict=True):
            assert np.array_equal(a.pixels, b.pixels)
            assert np.array_equal(a.planes, b.planes)
            assert a.objects == b.objects
    assert seen == [1, 2, 3, 4, 5, 6]  # the second time nothing was decoded
    assert len(list((tmp_path / "cache").iterdir())) == 2
    (pairs / "images/00_x.png").write_bytes((pairs / "images/01_x.png").read_bytes())
    picture(pairs / "masks/00_x.png", shapes(43, 48, 0)[1])
    pack(manifest, CHAIN, cache=tmp_path / "cache", progress=lambda d, n: seen.append(d))
    assert len(seen) == 12  # something changed


def test_a_failure_leaves_no_cache(pairs, tmp_path) -> None:
    (pairs / "images/03_x.png").write_bytes(b"")
    with pytest.raises(FileError):
        pack(load_manifest(pairs), CHAIN, cache=tmp_path / "cache")
    assert not list((tmp_path).glob("cache/*"))


def test_other_preprocessing_is_another_file(pairs, tmp_path) -> None:
    for chain in (CHAIN, STRETCH):
        pack(load_manifest(pairs), chain, cache=tmp_path)
    assert len(list(tmp_path.glob("examples-*.bin"))) == 2


# -- real data -----------------------------------------------------------------------------------


def test_nuclei_become_many_objects(data_dir) -> None:
    manifest = load_manifest(data_dir / "images2d/dsb2018_nuclei")
    some = manifest.select(ids=[c.id for c in manifest.cases[:4]])
    chain = replace(CHAIN, size=(256, 256))
    data = ObjectDataset(some, chain, count=8, replacement=False, min_size=4)
    item = data[0]
    assert item["valid"].sum() > 3
    assert not (item["masks"][0] & item["masks"][1]).any()


def test_transparency_is_no_colour(data_dir) -> None:
    manifest = load_manifest(data_dir / "images2d/dsb2018_nuclei")
    examples = pack(manifest.select(ids=[manifest.cases[0].id]), CHAIN)
    assert examples[0].pixels.shape[2] == 1  # fluorescence: red, green and blue are equal
