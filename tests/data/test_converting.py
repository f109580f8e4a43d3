"""Volumes move between layouts and back: classes by name, grids kept, nothing half-written."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from data.toys import GRID, dataset_json, labels, volume

from samaritan import read, read_labels
from samaritan.data import SourceOptions, load_manifest
from samaritan.data.converting import ConvertOptions, convert
from samaritan.data.reading import case_image, case_labels
from samaritan.data.structures import structures_of
from samaritan.errors import ConfigError, CorruptFile

SPACING = (1.5, 1.5, 1.5)


def drawn(manifest) -> dict:
    """Case -> class -> voxels, whatever the layout."""
    found = {}
    for case in manifest:
        maps = case_labels(manifest, case)
        structures = structures_of(case, manifest.group_of(case), maps)
        found[case.id] = {s.name: int(s.mask(maps[s.file].array).sum()) for s in structures}
    return found


@pytest.fixture
def one_channel(nnunet):
    for path in (nnunet / "imagesTr").glob("*_0001.nii.gz"):
        path.unlink()
    dataset_json(nnunet, channel_names={"0": "CT"})
    return nnunet


@pytest.mark.parametrize("to", ["sam_med3d", "neurosam3d"])
def test_there_and_back_is_the_identity(one_channel, tmp_path, to) -> None:
    before = load_manifest(one_channel).split({"train": 0.5, "val": 0.25, "test": 0.25})
    there = convert(before, tmp_path / to, ConvertOptions(to))
    back = convert(there, tmp_path / "Dataset502_Back", ConvertOptions("nnunet"))
    assert drawn(before) == drawn(there) == drawn(back)
    assert dict(back.names) == {1: "left", 2: "right"}
    for manifest in (there, back):
        for case in manifest:
            known = next(c for c in before if c.id == case.id)
            assert case.split == known.split
            assert case.modality == "CT" or to == "neurosam3d"
            one, two = case_image(before, known), case_image(manifest, case)
            one.grid.require_same(two.grid)
            assert np.array_equal(one.array, two.array)


@pytest.mark.parametrize("to", ["sam_med3d", "neurosam3d", "nnunet"])
def test_patients_stay_patients(one_channel, tmp_path, to) -> None:
    before = load_manifest(one_channel, SourceOptions(patient=r"(p\d+)_.*"))
    made = convert(before, tmp_path / "Dataset002_New", ConvertOptions(to))
    assert [(c.id, c.patient) for c in made] == [(c.id, c.patient) for c in before]
    assert len(made.patients()) == 2
    halves = made.split({"train": 0.5, "val": 0.5})
    assert not halves.leaks()
    assert {c.split for c in halves if c.patient == "p1"} in ({"train"}, {"val"})
    again = load_manifest(tmp_path / "Dataset002_New", SourceOptions(patient="(.*)"))
    assert len(again.patients()) == 4
    if to != "nnunet":
        inner = next(p for p in made.root.iterdir() if p.is_dir() and p.name[0] != ".")
        assert {c.patient for c in load_manifest(inner)} == {"p1", "p2"}
    if to == "neurosam3d":
        listed = load_manifest(next(made.root.glob("*_Tr.json")))
        assert {c.patient for c in listed} == {"p1", "p2"}


def test_another_file_of_that_name_tells_nothing_and_a_damaged_one_is_told(one_channel) -> None:
    (one_channel / "patients.json").write_text('{"p1_a": "x"}')
    assert len(load_manifest(one_channel).patients()) == 4
    (one_channel / "patients.json").write_text("{")
    with pytest.raises(CorruptFile, match=r"patients\.json is not valid JSON"):
        load_manifest(one_channel)


def test_channels_are_chosen_by_name(nnunet, tmp_path) -> None:
    manifest = load_manifest(nnunet)
    made = convert(manifest, tmp_path / "out", ConvertOptions("neurosam3d", channel="FLAIR"))
    known = read(nnunet / "imagesTr/p1_a_0001.nii.gz").array
    assert np.array_equal(case_image(made, made.cases[0]).array, known)
    with pytest.raises(ConfigError, match=r"no channel 'PD'; known: T1, FLAIR"):
        convert(manifest, tmp_path / "other", ConvertOptions("neurosam3d", channel="PD"))
    single = load_manifest(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"one channel, without a name, and 'T1' was asked"):
        convert(single, tmp_path / "third", ConvertOptions("sam_med3d", channel="T1"))


def test_paths_are_the_published_ones(one_channel, tmp_path) -> None:
    manifest = load_manifest(one_channel)
    convert(manifest, tmp_path / "med", ConvertOptions("sam_med3d"))
    folder = tmp_path / "med/left/ct_Dataset001_Toy"
    assert sorted(p.name for p in folder.iterdir()) == ["imagesTr", "labelsTr"]
    other = tmp_path / "med/right/ct_Dataset001_Toy/imagesTr/p1_a.nii.gz"
    assert os.path.samefile(folder / "imagesTr/p1_a.nii.gz", other)
    assert set(np.unique(read_labels(folder / "labelsTr/p1_a.nii.gz").array)) == {0, 1}
    convert(manifest, tmp_path / "neuro", ConvertOptions("neurosam3d"))
    rows = json.loads((tmp_path / "neuro/Dataset001_Toy_Tr.json").read_text())
    assert rows[0] == {
        "image": "Dataset001_Toy/imagesTr/p1_a.nii.gz",
        "label": "Dataset001_Toy/labelsTr/left/p1_a.nii.gz",
        "class": "left",
        "volume": 12 * 6.0,
        "spacing": "(1.0, 1.5, 4.0)",
    }


def test_resampling_keeps_the_field_of_view_and_the_volume(one_channel, tmp_path) -> None:
    manifest = load_manifest(one_channel)
    made = convert(manifest, tmp_path / "med", ConvertOptions("sam_med3d", SPACING))
    image = case_image(made, made.cases[0])
    assert np.allclose(image.grid.spacing_mm, SPACING)
    assert image.grid.same_as(GRID.resample(SPACING))
    before, after = drawn(manifest)["p1_a"], drawn(made)["p1_a"]
    for name in before:
        assert after[name] * 1.5**3 == pytest.approx(before[name] * 6.0, rel=0.5)


def test_several_channels_stay_with_nnunet_and_are_chosen_from_elsewhere(nnunet, tmp_path) -> None:
    manifest = load_manifest(nnunet)
    made = convert(manifest, tmp_path / "Dataset009_New", ConvertOptions("nnunet"))
    assert case_image(made, made.cases[0]).channels == ("T1", "FLAIR")
    with pytest.raises(ConfigError, match=r"(?s)4 of 4 cases.*p1_a.*2 channels.*--channel.*p2_b"):
        convert(manifest, tmp_path / "neuro", ConvertOptions("neurosam3d"))
    made = convert(manifest, tmp_path / "neuro", ConvertOptions("neurosam3d", channel=1))
    known = read(nnunet / "imagesTr/p1_a_0001.nii.gz").array
    assert np.array_equal(case_image(made, made.cases[0]).array, known)


def test_problems_come_at_once_and_the_good_cases_stay(one_channel, tmp_path) -> None:
    (one_channel / "imagesTr/p1_b_0000.nii.gz").write_bytes(b"no image")
    labels(one_channel / "labelsTr/p2_a.nii.gz", array=np.full(GRID.shape, 9, np.uint8))
    manifest, out = load_manifest(one_channel), tmp_path / "Dataset003_New"
    with pytest.raises(ConfigError, match=r"(?s)2 of 4 cases.*'p1_b'.*'p2_a' holds labels \[9\]"):
        convert(manifest, out, ConvertOptions("nnunet"))
    assert not (out / "dataset.json").exists()
    assert len(list((out / "imagesTr").glob("*.nii.gz"))) == 2
    assert not list(out.rglob(".tmp-*"))


def test_a_run_goes_on_where_it_was(one_channel, tmp_path) -> None:
    manifest, options = load_manifest(one_channel), ConvertOptions("neurosam3d")
    convert(manifest, tmp_path / "out", options)
    files = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.nii.gz")}
    gone = next(p for p in files if p.name == "p1_b.nii.gz")
    gone.unlink()
    volume(one_channel / "imagesTr/p2_a_0000.nii.gz", seed=99)
    convert(manifest, tmp_path / "out", options)
    again = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*.nii.gz")}
    assert again.keys() == files.keys()
    assert {p.name for p in files if files[p] != again[p]} == {"p1_b.nii.gz", "p2_a.nii.gz"}


def test_small_masks_are_left_out(one_channel, tmp_path) -> None:
    large = max(v for v in drawn(load_manifest(one_channel))["p1_a"].values()) * 6.0
    options = ConvertOptions("sam_med3d", min_volume_mm3=large)
    made = convert(load_manifest(one_channel), tmp_path / "med", options)
    assert {name for case in drawn(made).values() for name in case} == {"left"}


def test_overlapping_masks_need_a_word(tmp_path) -> None:
    for name, stop in (("kidney", 5), ("tumour", 3)):
        array = np.zeros(GRID.shape, np.uint8)
        array[1:stop, 1:3, 1:3] = 1
        volume(tmp_path / f"med/{name}/kits/imagesTr/a.nii.gz")
        labels(tmp_path / f"med/{name}/kits/labelsTr/a.nii.gz", array=array)
    manifest = load_manifest(tmp_path / "med")
    with pytest.raises(ConfigError, match="'tumour' overlaps other masks in 8 voxels"):
        convert(manifest, tmp_path / "Dataset001_K", ConvertOptions("nnunet"))
    merged = ConvertOptions("nnunet", merge_overlaps=True)
    made = convert(manifest, tmp_path / "Dataset001_K", merged)
    assert drawn(made) == {"a": {"kidney": 8, "tumour": 8}}


def test_regions_are_masks_of_their_own_and_stay_regions(one_channel, tmp_path) -> None:
    regions = {"background": 0, "whole": [1, 2], "core": 2}
    dataset_json(one_channel, channel_names={"0": "CT"}, labels=regions, regions_class_order=[1, 2])
    manifest = load_manifest(one_channel)
    made = convert(manifest, tmp_path / "neuro", ConvertOptions("neurosam3d"))
    assert drawn(made)["p1_a"] == {"core": 6, "whole": 18}
    same = convert(manifest, tmp_path / "Dataset001_S", ConvertOptions("nnunet"))
    assert same.groups["Dataset001_S"].regions == manifest.groups["Dataset001_Toy"].regions


def test_several_data_sets_get_folders_of_their_own(one_channel, tmp_path) -> None:
    import shutil

    shutil.copytree(one_channel, tmp_path / "both/one")
    shutil.copytree(one_channel, tmp_path / "both/two")
    made = convert(load_manifest(tmp_path / "both"), tmp_path / "out", ConvertOptions("nnunet"))
    assert sorted(made.groups) == ["Dataset501_one", "Dataset502_two"]
    assert len(made) == 8


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(ConfigError, match="layout 'bids' is not known"):
        ConvertOptions("bids")
    with pytest.raises(ConfigError, match="spacing must be positive"):
        ConvertOptions("nnunet", (1.0, 0.0, 1.0))


def test_pictures_have_no_place_in_these_layouts(pairs, tmp_path) -> None:
    manifest = load_manifest(pairs, SourceOptions(modality="US"))
    with pytest.raises(ConfigError, match=r"6 of 6 cases(.|\n)*is a picture"):
        convert(manifest, tmp_path / "out", ConvertOptions("nnunet"))
    assert not list((tmp_path / "out").glob("*"))
