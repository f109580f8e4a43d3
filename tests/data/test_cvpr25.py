"""Volumes of the CVPR 2025 challenge are a data set, and real volumes go there and back."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from data.toys import GRID, dataset_json, labels, volume

from samaritan import read, read_labels
from samaritan.data import load_manifest
from samaritan.data.converting import ConvertOptions, convert
from samaritan.data.layout_cvpr25 import box_shift
from samaritan.data.reading import case_image, case_labels
from samaritan.data.sources import SourceOptions, find_source
from samaritan.errors import ConfigError
from samaritan.io.npz_prompts import read_interactions

SHAPE = (3, 4, 5)


def challenge(path, **changes) -> None:
    gts = np.zeros(SHAPE, np.uint8)
    gts[1, 1:3, 1:4] = 1
    content = {
        "imgs": np.arange(60, dtype=np.uint8).reshape(SHAPE),
        "gts": gts,
        "spacing": [3.0, 1, 1],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, **{k: v for k, v in {**content, **changes}.items() if v is not None})


@pytest.fixture
def grey(nnunet):
    for path in (nnunet / "imagesTr").glob("*_0001.nii.gz"):
        path.unlink()
    dataset_json(nnunet, channel_names={"0": "CT"})
    return nnunet


def test_folders_of_the_challenge_are_found(tmp_path) -> None:
    challenge(tmp_path / "set/CT/CT_Liver_1.npz")
    challenge(tmp_path / "set/MR/MR_Heart_1.npz", gts=None)
    assert find_source(tmp_path / "set") == "cvpr25"
    manifest = load_manifest(tmp_path / "set")
    told = {c.id: (c.modality, len(c.labels)) for c in manifest}
    assert told == {"CT_Liver_1": ("CT", 1), "MR_Heart_1": ("MR", 0)}
    assert manifest.groups["set"].window == (0, 255)
    case = manifest.cases[0]
    assert case_labels(manifest, case)[0].labels() == [1]
    assert case_image(manifest, case).grid.spacing_mm == (3, 1, 1)
    alone = load_manifest(tmp_path / "set/CT/CT_Liver_1.npz")
    assert [c.id for c in alone] == ["CT_Liver_1"]


def test_labels_may_lie_apart(tmp_path) -> None:
    for name in ("a", "b"):
        challenge(tmp_path / f"set/3D_val_npz/{name}.npz", gts=None)
        challenge(tmp_path / f"set/3D_val_gt/{name}.npz", imgs=None)
    manifest = load_manifest(tmp_path / "set")
    assert [(c.id, c.labels) for c in manifest] == [
        ("a", ("3D_val_gt/a.npz",)),
        ("b", ("3D_val_gt/b.npz",)),
    ]


def test_slices_of_synapse_stay_slices(tmp_path) -> None:
    (tmp_path / "set").mkdir()
    np.savez(tmp_path / "set/case0005_slice012.npz", image=np.zeros((4, 5)), label=np.zeros((4, 5)))
    assert find_source(tmp_path / "set") == "synapse"
    assert read(tmp_path / "set/case0005_slice012.npz").grid.unit == "px"


def test_there_and_back_keeps_geometry_and_labels(grey, tmp_path) -> None:
    before = load_manifest(grey).split({"train": 0.5, "val": 0.5})
    there = convert(before, tmp_path / "npz", ConvertOptions("cvpr25"))
    assert there.splits() == before.splits()
    assert dict(there.names) == {1: "left", 2: "right"}
    for case in there:
        known = next(c for c in before if c.id == case.id)
        image, (drawn,) = case_image(there, case), case_labels(there, case)
        assert image.dtype == np.uint8
        assert image.grid.orientation == "SPL"
        old_image, (old,) = case_image(before, known), case_labels(before, known)
        assert drawn.reorient("LAS").grid.same_as(GRID)
        assert np.array_equal(drawn.reorient("LAS").array, old.array)
        cut = np.clip(np.rint((old_image.array + 160.0) * (255 / 400)), 0, 255)
        assert np.abs(image.reorient("LAS").array - cut).max() <= 1
        boxes = read_interactions(there.path(case.images[0])).boxes
        for value, box in zip((1, 2), boxes, strict=True):
            inside = np.argwhere(drawn.array == value)
            assert box.z_min == inside[:, 0].min()
            assert box.z_max == inside[:, 0].max()
            assert (drawn.array[box.z_mid] == value).any()
    back = convert(there, tmp_path / "Dataset502_Back", ConvertOptions("nnunet"))
    for case in back:
        (drawn,) = case_labels(back, case)
        assert drawn.grid.orientation == "SPL"
        assert drawn.reorient("LAS").grid.same_as(GRID)
    again = convert(there, tmp_path / "again", ConvertOptions("cvpr25"))
    for case, same in zip(there, again, strict=True):
        one, two = there.path(case.images[0]), again.path(same.images[0])
        assert np.array_equal(read(one).array, read(two).array)
        assert read_interactions(one) == read_interactions(two)


def test_boxes_are_drawn_by_case_and_label() -> None:
    drawn = [box_shift(f"case{n}", label) for n in range(50) for label in (1, 2)]
    assert set(drawn) == set(range(6))
    assert drawn == [box_shift(f"case{n}", label) for n in range(50) for label in (1, 2)]


def test_intensities_are_not_guessed(grey, tmp_path) -> None:
    dataset_json(grey, channel_names={"0": "something"})
    with pytest.raises(ConfigError, match="intensities are not guessed at"):
        convert(load_manifest(grey), tmp_path / "npz", ConvertOptions("cvpr25"))
    made = convert(
        load_manifest(grey, SourceOptions(modality="MR")),
        tmp_path / "npz",
        ConvertOptions("cvpr25"),
    )
    assert len(made) == 4


def test_ignored_voxels_become_background(tmp_path) -> None:
    folder = tmp_path / "Dataset003_X"
    array = np.zeros(GRID.shape, np.uint8)
    array[1:3, 1:3, 1:3], array[4, 5, 3] = 1, 2
    volume(folder / "imagesTr/a_0000.nii.gz")
    labels(folder / "labelsTr/a.nii.gz", array=array)
    dataset_json(folder, channel_names={"0": "MRI"}, labels={"background": 0, "x": 1, "ignore": 2})
    made = convert(load_manifest(folder), tmp_path / "npz", ConvertOptions("cvpr25"))
    assert read_labels(made.path(made.cases[0].labels[0])).labels() == [1]


def test_real_volumes_go_there_and_back(data_dir, tmp_path) -> None:
    source = data_dir / "nnunet_raw/Dataset060_CHAOST2"
    folder = tmp_path / "Dataset060_CHAOST2"
    name = sorted((source / "labelsTr").glob("*.nii.gz"))[0].name
    for sub, file in (("labelsTr", name), ("imagesTr", name.replace(".nii", "_0000.nii"))):
        (folder / sub).mkdir(parents=True)
        shutil.copyfile(source / sub / file, folder / sub / file)
    shutil.copyfile(source / "dataset.json", folder / "dataset.json")
    before = load_manifest(folder, SourceOptions(modality="MR"))
    made = convert(before, tmp_path / "npz", ConvertOptions("cvpr25"))
    (old,) = case_labels(before, before.cases[0])
    (new,) = case_labels(made, made.cases[0])
    back = new.reorient(old.grid.orientation)
    assert back.grid.same_as(old.grid)
    assert np.array_equal(back.array, old.array)
    assert dict(made.names) == dict(before.names)
