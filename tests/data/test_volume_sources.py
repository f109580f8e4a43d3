"""Folders of SAM-Med3D, M-SAM and NeuroSAM3D as manifests: one image, and a mask for each class."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from data.toys import GRID, labels, volume

from samaritan.data import SourceOptions, check, find_source, load_manifest
from samaritan.data.converting import ConvertOptions, convert
from samaritan.data.reading import case_labels
from samaritan.data.sources.neurosam3d_index import of_sets
from samaritan.data.volumes import CropDataset
from samaritan.errors import ConfigError, CorruptFile, FileError
from samaritan.transforms import neurosam3d_windows


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


def index(path, root, folder=""):
    """Write the list of the masks of a NeuroSAM3D folder, with paths below `folder`."""
    rows = [
        {
            "image": f"{folder}AMOS/imagesTr/{file.name}",
            "label": f"{folder}{file.relative_to(root).as_posix()}",
            "class": file.parent.name,
            "volume": 48.0,
            "spacing": "(1.0, 1.5, 4.0)",
        }
        for file in sorted((root / "AMOS/labelsTr").rglob("*.nii.gz"))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return rows


@pytest.mark.parametrize("folder", ["", "neuro/"])
def test_an_index_is_the_folder_that_it_lists(neurosam3d, folder) -> None:
    """Paths are relative to the file, or to where the program that wrote it was run."""
    file = neurosam3d / "AMOS_Tr.json"
    index(file, neurosam3d, folder)
    assert find_source(file) == "neurosam3d_index"
    listed = load_manifest(file)
    known = [c for c in load_manifest(neurosam3d) if c.split == "train"]
    assert [(c.id, c.objects, c.patient, c.group, c.split) for c in listed] == [
        (c.id, c.objects, c.patient, c.group, None) for c in known
    ]
    assert check(listed).ok
    for one, two in zip(listed, known, strict=True):
        a, b = (case_labels(m, c) for m, c in ((listed, one), (load_manifest(neurosam3d), two)))
        assert all(np.array_equal(x.array, y.array) for x, y in zip(a, b, strict=True))


def test_what_conversion_lists_is_read_again(neurosam3d, tmp_path) -> None:
    convert(load_manifest(neurosam3d), tmp_path / "out", ConvertOptions("neurosam3d"))
    listed = load_manifest(tmp_path / "out/AMOS_Val.json")
    assert [(c.id, c.split) for c in listed] == [("c", "val")]
    assert len(load_manifest(tmp_path / "out/AMOS_Tr.json")) == 2


def test_small_masks_of_an_index_are_left_out_of_training(neurosam3d) -> None:
    index(neurosam3d / "AMOS_Tr.json", neurosam3d)
    mask(neurosam3d / "AMOS/labelsTr/liver/a.nii.gz", box=(1, 2))  # 4 voxels of 6 mm3
    chain = replace(neurosam3d_windows(), size=(4, 4, 4))
    listed = load_manifest(neurosam3d / "AMOS_Tr.json")
    assert len(CropDataset(listed, chain, min_volume_mm3=24)) == 3
    kept = CropDataset(listed, chain, min_volume_mm3=25)
    assert (len(kept), kept.skipped) == (2, 1)


def test_images_of_one_name_in_several_folders_stay_apart(tmp_path) -> None:
    rows = [{"image": f"{p}/a.nii.gz", "label": f"{p}/m.nii.gz", "class": 1} for p in ("x", "y")]
    for row in rows:
        volume(tmp_path / row["image"])
        mask(tmp_path / row["label"])
    (tmp_path / "overall_Tr.json").write_text(json.dumps(rows))
    assert [(c.id, c.patient, c.objects) for c in load_manifest(tmp_path / "overall_Tr.json")] == [
        ("x/a", "a", ("1",)), ("y/a", "a", ("1",)),
    ]  # fmt: skip


def test_several_lists_are_parts_of_one_manifest(neurosam3d, tmp_path) -> None:
    out = tmp_path / "out"
    convert(load_manifest(neurosam3d), out, ConvertOptions("neurosam3d"))
    parts = {"train": ["AMOS_Tr", "AMOS_Val"], "val": ["AMOS_Ts"]}
    made = of_sets(out, parts, SourceOptions())
    assert made.splits() == {"train": 3, "val": 1}
    assert check(made).ok
    with pytest.raises(FileError, match=r"(?s)lacks lists of images.*WORD_Tr\.json"):
        of_sets(out, {"train": ["AMOS_Tr", "WORD_Tr"], "val": []}, SourceOptions())


def test_wrong_rows_of_an_index_are_all_told(tmp_path) -> None:
    file = tmp_path / "AMOS_Tr.json"
    file.write_text('[{"image": "a", "label": "b", "class": "c"}, {"image": "a"}, 3]')
    with pytest.raises(ConfigError, match=r"(?s)2 problems.*row 1 needs.*row 2 needs"):
        load_manifest(file)
    file.write_text('[{"image": "a", "label": "b", "class": ')
    with pytest.raises(CorruptFile, match="is not valid JSON"):
        load_manifest(file)
    file.write_text('[{"image": "a.nii.gz", "label": "b.nii.gz", "class": "c"}]')
    assert "missing" in {p.kind for p in check(load_manifest(file)).problems}
