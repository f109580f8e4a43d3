"""Folders of SAM-Med3D, M-SAM and NeuroSAM3D as manifests: one image, and a mask for each class."""

from __future__ import annotations

import numpy as np
import pytest
from data.toys import GRID, labels, volume

from samaritan.data import SourceOptions, check, find_source, load_manifest
from samaritan.data.reading import case_labels
from samaritan.errors import FileError


def mask(path, *, box=(1, 3)):
    array = np.zeros(GRID.shape, np.uint8)
    array[box[0] : box[1], 1:3, 1:3] = 1
    return labels(path, array=array)


@pytest.fixture
def sam_med3d(tmp_path):
    """Liver and kidney of one data set, of which the second case has no kidney."""
    root = tmp_path / "med"
    for target in ("liver", "kidney"):
        for case in ("a", "b"):
            volume(root / target / "ct_toy/imagesTr" / f"{case}.nii.gz", seed=ord(case))
            if (target, case) != ("kidney", "b"):
                mask(root / target / "ct_toy/labelsTr" / f"{case}.nii.gz")
    return root


@pytest.fixture
def neurosam3d(tmp_path):
    root = tmp_path / "neuro"
    for part, case in (("Tr", "a"), ("Tr", "b"), ("Val", "c"), ("Ts", "d")):
        volume(root / f"AMOS/images{part}/{case}.nii.gz", seed=ord(case))
        mask(root / f"AMOS/labels{part}/liver/{case}.nii.gz")
    mask(root / "AMOS/labelsTr/left_kidney/b.nii.gz", box=(3, 5))
    return root


def test_targets_of_one_image_are_one_case(sam_med3d) -> None:
    assert find_source(sam_med3d) == "sam_med3d"
    manifest = load_manifest(sam_med3d)
    assert [(c.id, c.objects, c.modality, c.split) for c in manifest] == [
        ("a", ("kidney", "liver"), "CT", None),
        ("b", ("liver",), "CT", None),
    ]
    assert manifest.cases[0].images == ("kidney/ct_toy/imagesTr/a.nii.gz",)
    assert manifest.cases[0].labels[1] == "liver/ct_toy/labelsTr/a.nii.gz"
    assert len(manifest.patients()) == 2
    assert [m.labels() for m in case_labels(manifest, manifest.cases[0])] == [[1], [1]]
    assert check(manifest).ok


def test_other_images_of_the_same_name_are_of_the_same_patient(sam_med3d) -> None:
    array = np.zeros((5, 6, 9))
    from samaritan import Grid, Volume, write

    other = Grid.from_spacing((5, 6, 9), (1, 1.5, 2))
    write(Volume(array, other), sam_med3d / "kidney/ct_toy/imagesTr/a.nii.gz")
    manifest = load_manifest(sam_med3d)
    assert [(c.id, c.patient) for c in manifest] == [
        ("a", "a"), ("b", "b"), ("liver/a", "a"),
    ]  # fmt: skip


def test_a_val_folder_decides_what_is_trained_on(sam_med3d) -> None:
    volume(sam_med3d / "liver/ct_toy/imagesVal/c.nii.gz")
    mask(sam_med3d / "liver/ct_toy/labelsVal/c.nii.gz")
    volume(sam_med3d / "liver/ct_toy/imagesTs/d.nii.gz")
    manifest = load_manifest(sam_med3d)
    assert manifest.splits() == {"train": 2, "val": 1, "test": 1}
    assert manifest.select(split="test").cases[0].labels == ()


def test_one_level_of_folders_names_objects_by_their_data_set(tmp_path) -> None:
    volume(tmp_path / "train/ct_colon/imagesTr/a.nii.gz")
    mask(tmp_path / "train/ct_colon/labelsTr/a.nii.gz")
    for where, case in ((tmp_path / "train", "a"), (tmp_path / "train/ct_colon", "a")):
        assert find_source(where) == "sam_med3d"
        (found,) = load_manifest(where)
        assert (found.id, found.objects, found.modality) == (case, ("ct_colon",), "CT")


def test_msam_train_and_test_folders_are_parts(tmp_path) -> None:
    for place, case in (("train/ct_colon", "a"), ("test/tumour/ct_colon", "b")):
        volume(tmp_path / place / f"imagesTr/{case}.nii.gz")
        mask(tmp_path / place / f"labelsTr/{case}.nii.gz")
    assert find_source(tmp_path) == "sam_med3d"
    assert [(c.id, c.objects, c.split) for c in load_manifest(tmp_path)] == [
        ("a", ("ct_colon",), None),
        ("b", ("tumour",), "test"),
    ]


def test_labels_without_an_image_are_all_told(sam_med3d) -> None:
    mask(sam_med3d / "liver/ct_toy/labelsTr/x.nii.gz")
    mask(sam_med3d / "kidney/ct_toy/labelsTr/y.nii.gz")
    with pytest.raises(FileError, match=r"(?s)2 problems.*y\.nii\.gz has no image.*x\.nii\.gz"):
        load_manifest(sam_med3d)


def test_one_name_in_two_sets_is_a_leak(sam_med3d) -> None:
    volume(sam_med3d / "liver/ct_toy/imagesVal/a.nii.gz", seed=7)
    manifest = load_manifest(sam_med3d)
    assert {c.id: c.split for c in manifest} == {"Tr/a": "train", "Val/a": "val", "b": "train"}
    assert list(manifest.leaks()) == [("ct_toy", "a")]
    assert not check(manifest).ok


def test_nnunet_folders_stay_nnunet(nnunet) -> None:
    assert find_source(nnunet) == "nnunet"
    assert find_source(nnunet.parent) == "collection"


def test_neurosam3d_classes_lie_in_folders(neurosam3d) -> None:
    assert find_source(neurosam3d) == find_source(neurosam3d / "AMOS") == "neurosam3d"
    manifest = load_manifest(neurosam3d)
    assert [(c.id, c.objects, c.split) for c in manifest] == [
        ("a", ("liver",), "train"),
        ("b", ("left_kidney", "liver"), "train"),
        ("d", ("liver",), "test"),
        ("c", ("liver",), "val"),
    ]
    assert check(manifest).ok
    assert load_manifest(neurosam3d, SourceOptions(modality="MR")).cases[0].modality == "MR"


def test_further_images_have_classes_that_end_alike(neurosam3d) -> None:
    volume(neurosam3d / "AMOS/imagesTr_T1/a.nii.gz")
    mask(neurosam3d / "AMOS/labelsTr/lesion_T1/a.nii.gz")
    found = {c.id: c for c in load_manifest(neurosam3d)}
    assert (found["a_T1"].objects, found["a_T1"].modality) == (("lesion",), "MR")
    assert found["a"].objects == ("liver",)
    assert found["a_T1"].patient == found["a"].patient
