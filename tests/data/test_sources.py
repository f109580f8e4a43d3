"""Sources: what each kind of folder becomes, on toys and on real data."""

from __future__ import annotations

import json
import shutil
from collections import Counter

import numpy as np
import pytest
from data.toys import dataset_json, labels, picture, shapes, volume

from samaritan.data import SourceOptions, find_source, load_manifest
from samaritan.data.reading import case_image, case_labels
from samaritan.data.windows import modality_of
from samaritan.errors import ConfigError, CorruptFile, FileError

h5py = pytest.importorskip("h5py")

# -- nnU-Net -----------------------------------------------------------------------------------------


def test_nnunet_channels_belong_together(nnunet) -> None:
    manifest = load_manifest(nnunet, SourceOptions(patient=r"(p\d)_."))
    assert find_source(nnunet) == "nnunet"
    assert [c.id for c in manifest] == ["p1_a", "p1_b", "p2_a", "p2_b"]
    assert manifest.cases[0].images == ("imagesTr/p1_a_0000.nii.gz", "imagesTr/p1_a_0001.nii.gz")
    assert manifest.cases[0].labels == ("labelsTr/p1_a.nii.gz",)
    assert manifest.names == {1: "left", 2: "right"}
    assert {c.modality for c in manifest} == {"MR"}
    assert len(manifest.patients()) == 2
    image = case_image(manifest, manifest.cases[0])
    assert (image.array.shape, image.channels) == ((5, 6, 4, 2), ("T1", "FLAIR"))
    assert case_labels(manifest, manifest.cases[0])[0].labels() == [1, 2]


def test_missing_channels_become_missing_files(nnunet) -> None:
    (nnunet / "imagesTr/p2_b_0000.nii.gz").unlink()
    (nnunet / "imagesTr/p2_a_0001.nii.gz").unlink()
    (nnunet / "imagesTr/p2_a_0000.nii.gz").unlink()
    cases = {c.id: c for c in load_manifest(nnunet)}
    assert len(cases["p2_a"].images) == len(cases["p2_b"].images) == 2


def test_nnunet_test_images_are_the_test_part(nnunet) -> None:
    volume(nnunet / "imagesTs/q_0000.nii.gz")
    volume(nnunet / "imagesTs/q_0001.nii.gz", seed=1)
    manifest = load_manifest(nnunet)
    assert manifest.splits() == {None: 4, "test": 1}
    assert manifest.select(split="test").cases[0].labels == ()


def test_nnunet_regions_and_the_ignored_label(nnunet) -> None:
    regions = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    dataset_json(nnunet, labels=regions, regions_class_order=[1, 2])
    group = load_manifest(nnunet).groups["Dataset001_Toy"]
    assert group.regions == {"whole": (1, 2), "core": (2,)}
    assert group.labels == {1: "label 1", 2: "core"}
    assert group.ignore == 3


def test_nnunet_mapping_of_cases_to_files(nnunet) -> None:
    one = {"images": ["imagesTr/p1_a_0000.nii.gz"], "label": "labelsTr/p1_b.nii.gz"}
    dataset_json(nnunet, channel_names={"0": "CT"}, dataset={"mine": one})
    manifest = load_manifest(nnunet)
    assert [(c.id, c.labels, c.modality) for c in manifest] == [
        ("mine", ("labelsTr/p1_b.nii.gz",), "CT")
    ]


def test_task_folders_of_version_1(tmp_path) -> None:
    folder = tmp_path / "Task004_Toy"
    for case in ("toy_0001", "toy_0002"):
        volume(folder / f"imagesTr/{case}.nii.gz")
        labels(folder / f"labelsTr/{case}.nii.gz")
    volume(folder / "imagesTs/toy_0003_0000.nii.gz")
    listed = [
        {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"}
        for c in ("toy_0001", "toy_0002")
    ]
    dataset_json(
        folder,
        channel_names=None,
        file_ending=None,
        modality={"0": "MRI"},
        labels={"0": "background", "1": "left", "2": "right"},
        training=listed,
        test=["./imagesTs/toy_0003.nii.gz"],
    )
    manifest = load_manifest(folder)
    assert manifest.names == {1: "left", 2: "right"}
    cases = {c.id: c for c in manifest}
    assert cases["toy_0001"].images == ("imagesTr/toy_0001.nii.gz",)
    assert cases["toy_0003"].images == ("imagesTs/toy_0003_0000.nii.gz",)
    assert set(cases) == {"toy_0001", "toy_0002", "toy_0003"}


def test_all_wrong_fields_of_dataset_json_are_told(nnunet) -> None:
    dataset_json(nnunet, channel_names={"1": "T1"}, labels={"a": 1, "b": 1, "c": -2, "d": [1, 2]})
    with pytest.raises(ConfigError, match="4 problems") as caught:
        load_manifest(nnunet)
    for word in ("numbered", "both 'a' and 'b'", "'c'", "regions_class_order"):
        assert word in str(caught.value)
    (nnunet / "dataset.json").write_text("{")
    with pytest.raises(CorruptFile, match="is not JSON"):
        load_manifest(nnunet)


# -- pairs -------------------------------------------------------------------------------------------


def test_pairs_meet_by_name(pairs) -> None:
    assert find_source(pairs) == "pairs"
    manifest = load_manifest(pairs, SourceOptions(modality="US"))
    assert len(manifest) == 6
    assert {c.label_kind for c in manifest} == {"map"}
    assert {c.modality for c in manifest} == {"US"}
    (pairs / "masks/05_x.png").rename(pairs / "masks/other.png")
    with pytest.raises(FileError, match=r"masks/other\.png has no image"):
        load_manifest(pairs)


def test_an_image_without_labels_is_a_case(pairs) -> None:
    (pairs / "masks/05_x.png").unlink()
    assert [len(c.labels) for c in load_manifest(pairs)] == [1] * 5 + [0]


def test_folders_may_name_the_part(pairs, tmp_path) -> None:
    (tmp_path / "cut").mkdir()
    for part in ("train", "val"):
        shutil.copytree(pairs, tmp_path / "cut" / part)
    assert load_manifest(tmp_path / "cut").splits() == {"train": 6, "val": 6}
    for kind in ("images", "masks"):
        shutil.copytree(pairs / kind, tmp_path / "other" / kind / "test")
    assert load_manifest(tmp_path / "other").splits() == {"test": 6}


def test_a_folder_of_masks_is_an_object_each(pairs) -> None:
    shutil.rmtree(pairs / "masks")
    _, drawn = shapes(40, 50, 0)
    for value, name in ((1, "left"), (2, "right")):
        picture(pairs / f"masks/00_x/{name}.png", (drawn == value).astype(np.uint8) * 255)
    manifest = load_manifest(pairs)
    case = manifest.cases[0]
    assert (case.label_kind, case.objects) == ("masks", ("left", "right"))
    assert [m.labels() for m in case_labels(manifest, case)] == [[1], [1]]


def test_masks_of_0_and_255_and_16_bit_maps_are_known(pairs) -> None:
    for number in range(6):
        _, drawn = shapes(40 + 3 * number, 50 - 2 * number, 0)
        picture(pairs / f"masks/{number:02d}_x.png", (drawn > 0).astype(np.uint8) * 255)
    assert {c.label_kind for c in load_manifest(pairs)} == {"masks"}
    picture(pairs / "masks/00_x.png", shapes(40, 50, 0)[1].astype(np.uint16))
    assert {c.label_kind for c in load_manifest(pairs)} == {"instances"}
    options = SourceOptions(label_kind="map")
    assert {c.label_kind for c in load_manifest(pairs, options)} == {"map"}


def test_the_patient_pattern_must_fit(pairs) -> None:
    assert len(load_manifest(pairs, SourceOptions(patient=r"0(\d)_x")).patients()) == 6
    for wrong, message in (
        (r"1(\d)", "does not fit 6 of 6"),
        (r"\d", "needs a group"),
        ("(", "no regular"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_manifest(pairs, SourceOptions(patient=wrong))


# -- SAM-Med2D ---------------------------------------------------------------------------------------


def sam_med2d(folder) -> None:
    image, drawn = shapes(40, 50, 0)
    for stem in ("amos_0006_90", "s0619_32"):
        picture(folder / f"data_demo/images/{stem}.png", image)
        for value, name in ((1, "liver_000"), (2, "hip_left_001")):
            mask = (drawn == value).astype(np.uint8) * 255
            picture(folder / f"data_demo/masks/{stem}_{name}.png", mask)
    masks = [f"data_demo/masks/amos_0006_90_{n}.png" for n in ("liver_000", "hip_left_001")]
    train = {"data_demo/images/amos_0006_90.png": masks}
    image = "data_demo/images/s0619_32.png"
    test = {f"data_demo/masks/s0619_32_{n}.png": image for n in ("liver_000", "hip_left_001")}
    (folder / "data_demo/image2label_train.json").write_text(json.dumps(train))
    (folder / "data_demo/label2image_test.json").write_text(json.dumps(test))


def test_both_files_of_sam_med2d_make_one_manifest(tmp_path) -> None:
    sam_med2d(tmp_path)
    manifest = load_manifest(tmp_path / "data_demo")
    assert find_source(tmp_path / "data_demo") == "sam_med2d"
    assert [(c.id, c.patient, c.split) for c in manifest] == [
        ("amos_0006_90", "amos_0006", "train"),
        ("s0619_32", "s0619", "test"),
    ]
    assert manifest.cases[1].objects == ("liver", "hip_left")
    assert len(case_labels(manifest, manifest.cases[0])) == 2
    alone = load_manifest(tmp_path / "data_demo/image2label_train.json")
    assert alone.splits() == {"train": 1}


def test_sam_med2d_files_that_are_wrong_are_refused(tmp_path) -> None:
    sam_med2d(tmp_path)
    file = tmp_path / "data_demo/image2label_train.json"
    file.write_text('{"a.png": 3, "b.png": []}')
    with pytest.raises(CorruptFile, match="2 problems"):
        load_manifest(file)
    file.write_text('{"nowhere/a.png": ["b.png"]}')
    with pytest.raises(FileError, match="none of the images"):
        load_manifest(file)


# -- Synapse -----------------------------------------------------------------------------------------


def synapse(folder) -> None:
    rng = np.random.default_rng(0)
    (folder / "train_npz").mkdir(parents=True)
    (folder / "test_vol_h5").mkdir()
    (folder / "lists").mkdir()
    stems = [f"case000{c}_slice00{z}" for c in (5, 6) for z in range(3)]
    for stem in stems:
        image = rng.random((7, 9)).astype(np.float32)
        drawn = rng.integers(0, 9, (7, 9)).astype(np.float32)
        np.savez(folder / f"train_npz/{stem}.npz", image=image, label=drawn)
    with h5py.File(folder / "test_vol_h5/case0008.npy.h5", "w") as file:
        file["image"] = rng.random((4, 7, 9)).astype(np.float32)
        file["label"] = rng.integers(0, 9, (4, 7, 9)).astype(np.float32)
    (folder / "lists/train.txt").write_text("\n".join(reversed(stems)) + "\n")


def test_synapse_slices_and_volumes(tmp_path) -> None:
    synapse(tmp_path)
    manifest = load_manifest(tmp_path)
    assert find_source(tmp_path) == "synapse"
    assert manifest.splits() == {"train": 6, "test": 1}
    assert manifest.cases[0].id == "case0006_slice002"  # the order of the list file
    assert len(manifest.patients()) == 3
    assert manifest.names[8] == "pancreas"
    image = case_image(manifest, manifest.cases[-1])
    assert image.shape == (7, 9, 4)
    with h5py.File(tmp_path / "test_vol_h5/case0008.npy.h5") as file:
        assert np.array_equal(image.array[:, :, 2], file["image"][2])
    drawn = case_labels(manifest, manifest.cases[0])[0]
    assert (drawn.shape, drawn.dtype) == ((7, 9, 1), np.uint8)


def test_no_pickle_is_loaded_from_npz(tmp_path) -> None:
    synapse(tmp_path)
    evil = np.array([{"a": 1}], dtype=object)
    np.savez(tmp_path / "train_npz/case0005_slice000.npz", image=evil, label=evil)
    manifest = load_manifest(tmp_path)
    with pytest.raises(CorruptFile, match="holds object, expected numbers"):
        case_image(manifest, manifest.select(ids=["case0005_slice000"]).cases[0])


# -- other -------------------------------------------------------------------------------------------


def test_unknown_folders_are_refused(tmp_path) -> None:
    with pytest.raises(FileError, match="does not exist"):
        load_manifest(tmp_path / "none")
    with pytest.raises(FileError, match="Known are: a manifest"):
        load_manifest(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(FileError, match="no image was found"):
        load_manifest(tmp_path)


def test_a_manifest_is_a_source(pairs, tmp_path) -> None:
    made = load_manifest(pairs).split({"train": 0.5, "val": 0.5})
    path = made.write(tmp_path / "m.json")
    assert find_source(path) == "manifest"
    assert load_manifest(path).cases == made.cases


def test_a_folder_of_prepared_slices_is_its_manifest(pairs) -> None:
    manifest = load_manifest(pairs).split({"train": 0.5, "val": 0.5})
    manifest.write(pairs / "manifest.json")
    assert find_source(pairs) == "manifest"
    assert load_manifest(pairs).cases == manifest.cases
    (pairs / "manifest.json").write_text("{}")  # of somebody else
    assert find_source(pairs) == "pairs"


def test_a_folder_of_data_sets_is_a_collection(pairs, nnunet, tmp_path) -> None:
    manifest = load_manifest(tmp_path)
    assert find_source(tmp_path) == "collection"
    assert Counter(c.group for c in manifest) == {"Dataset001_Toy": 4, "toy": 6}
    assert manifest.path(manifest.cases[0].images[0]).is_file()
    assert manifest.select(group="Dataset001_Toy").names == {1: "left", 2: "right"}


@pytest.mark.parametrize(
    ("names", "modality"),
    [
        (["MRI"], "MR"), (["cineMRI"], "MR"), (["T2SPIR"], "MR"), (["FLAIR", "T1c"], "MR"),
        (["CT"], "CT"), (["CT", "PET"], None), (["R", "G", "B"], None), (["X-ray"], "XR"),
        (["ultrasound"], "US"), (["CTA"], "CT"), (["zscore"], None), (["T1 post contrast"], "MR"),
    ],
)  # fmt: skip
def test_channel_names_tell_the_modality(names, modality) -> None:
    assert modality_of(names) == modality


# -- real data ---------------------------------------------------------------------------------------

REAL = {
    "nnunet_raw/Dataset004_Hippocampus": ("nnunet", 208, 208, {1, 2}),
    "nnunet_raw/Dataset027_ACDC": ("nnunet", 100, 50, {1, 2, 3}),
    "nnunet_raw/Dataset060_CHAOST2": ("nnunet", 14, 14, {1, 2, 3, 4}),
    "nnunet_raw/Dataset082_BraTS15": ("nnunet", 4, 4, {1, 2, 3, 4}),
    "images2d/bus_bra": ("pairs", 20, 20, set()),
    "images2d/curvas_ct2d": ("pairs", 108, 14, set()),
    "images2d/cxr_lung": ("pairs", 92, 92, set()),
    "images2d/dsb2018_nuclei": ("pairs", 80, 80, set()),
    "images2d/hc18": ("pairs", 50, 50, set()),
    "images2d/kvasir_polyps": ("pairs", 30, 30, set()),
    "images2d/skin_ham10000": ("pairs", 18, 18, set()),
    "totalsegmentator/example_ct_dicom": ("dicom", 1, 1, set()),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_sets_are_known(data_dir, name) -> None:
    kind, cases, patients, values = REAL[name]
    assert find_source(data_dir / name) == kind
    manifest = load_manifest(data_dir / name)
    assert (len(manifest), len(manifest.patients()), set(manifest.names)) == (
        cases,
        patients,
        values,
    )
    nuclei = name.endswith("nuclei")
    assert {c.label_kind for c in manifest} == ({"instances"} if nuclei else {"map"})
    assert {len(c.images) for c in manifest} == ({2} if "BraTS" in name else {1})
    made = manifest.split({"train": 0.8, "val": 0.2}, seed=5)
    assert made.leaks() == {}


def test_frames_of_one_heart_stay_together(data_dir) -> None:
    manifest = load_manifest(data_dir / "nnunet_raw/Dataset027_ACDC").split(
        {"train": 0.8, "val": 0.2}
    )
    assert {len(cases) for cases in manifest.patients().values()} == {2}
    assert manifest.splits() == {"train": 80, "val": 20}
