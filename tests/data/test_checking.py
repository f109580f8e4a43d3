"""`check` tells every problem of every case at once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from data.toys import GRID, labels, picture, volume

from samaritan import Volume, read, write
from samaritan.data import Manifest, SourceOptions, check, load_manifest
from samaritan.data.slicing import SliceOptions, make_slices


def kinds(report) -> Counter:
    return Counter(p.kind for p in report.problems)


def test_a_sound_folder_has_no_problem(nnunet) -> None:
    report = check(load_manifest(nnunet))
    assert report.ok
    assert report.problems == ()
    assert report.labels == {"Dataset001_Toy": {1: 4, 2: 4}}
    assert report.facts[0].channels == 2
    assert report.facts[0].spacing_mm == pytest.approx((1.0, 1.5, 4.0))


def test_every_problem_of_a_broken_folder_is_told(nnunet) -> None:
    images, drawn = nnunet / "imagesTr", nnunet / "labelsTr"
    (images / "p1_a_0001.nii.gz").unlink()
    (images / "p1_a_0000.nii.gz").write_bytes(b"not an image")
    labels(drawn / "p1_b.nii.gz", grid=replace(GRID, affine=GRID.affine * [[1], [1], [1.2], [1]]))
    wrong = np.zeros(GRID.shape, np.uint8)
    wrong[2, 2, 2] = 7
    labels(drawn / "p2_a.nii.gz", array=wrong)
    broken = np.ones(GRID.shape, np.float32)
    broken[0, 0, 0] = np.nan
    write(Volume(broken, GRID), images / "p2_a_0001.nii.gz")
    half = np.full(GRID.shape, 0.5, np.float32)
    write(Volume(half, GRID), drawn / "p2_b.nii.gz")
    write(Volume(half, GRID), images / "p2_b_0000.nii.gz")
    volume(images / "p3_0000.nii.gz", seed=7)
    volume(images / "p3_0001.nii.gz", seed=8)
    labels(drawn / "p3.nii.gz", array=np.zeros(GRID.shape, np.uint8))
    for channel in (0, 1):  # the same image under another name
        for case in ("p4", "p5"):
            volume(images / f"{case}_000{channel}.nii.gz", seed=20 + channel)
    labels(drawn / "p4.nii.gz")
    report = check(load_manifest(nnunet))
    assert not report.ok
    assert kinds(report) == {
        "missing": 1,  # p1_a channel 1
        "unreadable": 1,  # p1_a channel 0
        "other-grid": 1,  # p1_b
        "unknown-label": 1,  # p2_a
        "not-finite": 1,  # p2_a
        "label-type": 1,  # p2_b
        "empty-image": 1,  # p2_b
        "empty-label": 1,  # p3
        "no-labels": 1,  # p5
        "duplicate": 1,  # p4, p5
    }
    told = {p.case: p.text for p in report.problems}
    assert "spacing" in told["p1_b"] or "grids of" in told["p1_b"]


def test_a_patient_in_two_parts_is_a_leak(nnunet) -> None:
    manifest = load_manifest(nnunet)
    cases = tuple(
        replace(c, patient=c.id[:2], split="train" if c.id.endswith("a") else "val")
        for c in manifest
    )
    report = check(Manifest(manifest.root, cases, manifest.groups))
    assert kinds(report) == {"leak": 2}
    assert not report.ok


def test_one_image_in_two_parts_is_a_leak(pairs) -> None:
    image = (pairs / "images/00_x.png").read_bytes()
    (pairs / "images/copy.png").write_bytes(image)
    (pairs / "masks/copy.png").write_bytes((pairs / "masks/00_x.png").read_bytes())
    manifest = load_manifest(pairs)
    assert kinds(check(manifest)) == {"duplicate": 1}
    cases = tuple(replace(c, split="val" if c.id == "copy" else "train") for c in manifest)
    report = check(Manifest(pairs, cases, manifest.groups))
    assert kinds(report) == {"leak": 1}
    assert "in train and val" in report.problems[0].text


def test_blank_slices_at_the_end_of_volumes_leak_nothing(nnunet, tmp_path) -> None:
    for path in (nnunet / "imagesTr").iterdir():
        array = read(path).array.copy()
        array[:, :, 3] = array.min()
        write(Volume(array, GRID), path)
    source = load_manifest(nnunet, SourceOptions(patient=r"(p\d)_."))
    options = SliceOptions(channel=0, min_foreground=0)
    made = make_slices(source.split({"train": 0.5, "val": 0.5}), tmp_path / "out", options)
    report = check(made)
    assert report.ok
    assert kinds(report) == {"blank-slice": 4, "empty-label": 8}
    blank = tmp_path / "out/masks/p1_a_k0003.png"
    blank.write_bytes((tmp_path / "out/masks/p1_a_k0002.png").read_bytes())
    assert kinds(check(made))["empty-image"] == 1


def test_a_label_that_is_never_drawn_is_told(nnunet) -> None:
    for file in (nnunet / "labelsTr").iterdir():
        labels(file, array=np.eye(5, 6, dtype=np.uint8)[:, :, None].repeat(4, 2))
    report = check(load_manifest(nnunet))
    assert report.ok
    assert [p.text for p in report.problems] == ["label 2 (right) occurs in no case"]


def test_channels_that_differ_are_told(tmp_path) -> None:
    colour = np.random.default_rng(0).integers(0, 255, (6, 7, 3)).astype(np.uint8)
    for name in ("a", "b"):
        picture(tmp_path / f"toy/images/{name}.png", colour if name == "a" else colour[..., 0])
        picture(tmp_path / f"toy/masks/{name}.png", np.eye(6, 7, dtype=np.uint8))
    assert check(load_manifest(tmp_path / "toy")).ok  # pictures may be grey or coloured
    four = np.random.default_rng(0).random((*GRID.shape, 5)).astype(np.float32)
    write(Volume(four, GRID), tmp_path / "vols/images/v.nii.gz")
    for name in ("w", "x"):
        volume(tmp_path / f"vols/images/{name}.nii.gz")
    for name in ("v", "w", "x"):
        labels(tmp_path / f"vols/masks/{name}.nii.gz")
    found = check(load_manifest(tmp_path / "vols"))
    assert kinds(found) == {"channels": 1, "duplicate": 1}


def test_masks_must_hold_one_object(tmp_path) -> None:
    picture(tmp_path / "toy/images/a.png", np.arange(42, dtype=np.uint8).reshape(6, 7))
    picture(tmp_path / "toy/masks/a/one.png", np.eye(6, 7, dtype=np.uint8) * 255)
    many = np.eye(6, 7, dtype=np.uint8)
    many[3] = 9
    picture(tmp_path / "toy/masks/a/two.png", many)
    report = check(load_manifest(tmp_path / "toy"))
    assert kinds(report) == {"label-type": 1}


def test_the_report_does_not_depend_on_the_workers(nnunet) -> None:
    (nnunet / "imagesTr/p1_a_0001.nii.gz").unlink()
    manifest = load_manifest(nnunet)
    assert check(manifest, workers=1) == check(manifest, workers=4)


def test_a_slice_must_have_the_size_of_its_place(tmp_path) -> None:
    from samaritan.data.places import place_of

    picture(tmp_path / "toy/images/a.png", np.arange(42, dtype=np.uint8).reshape(6, 7))
    picture(tmp_path / "toy/masks/a.png", np.eye(6, 7, dtype=np.uint8))
    manifest = load_manifest(tmp_path / "toy")
    case = replace(manifest.cases[0], place=place_of("v", GRID, 2, 1))
    report = check(Manifest(manifest.root, (case,), manifest.groups))
    assert kinds(report) == {"other-grid": 2}


@pytest.mark.parametrize("name", ["images2d", "nnunet_raw"])
def test_real_data_are_sound(data_dir, name) -> None:
    report = check(load_manifest(data_dir / name))
    assert report.ok
    assert report.problems == ()
    if name == "images2d":
        assert set(report.labels["curvas_ct2d"]) == {1, 2, 3}
