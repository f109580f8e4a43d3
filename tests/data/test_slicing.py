"""Slices: windows by table, as they are looked at, on their place, resumable; and SAMed's own layout."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from data.toys import GRID, labels, picture, volume
from limits import no_more_than

from samaritan import Grid, LabelMap, Volume, read, write
from samaritan.data import Manifest, SourceOptions, check, load_manifest
from samaritan.data.places import place_of, put_back, slice_grid, volume_grid
from samaritan.data.reading import case_image, case_labels
from samaritan.data.slicing import MANIFEST, SliceOptions, make_slices, scaled
from samaritan.data.synapse_export import (
    SYNAPSE_TEST,
    SYNAPSE_TRAIN,
    make_synapse,
    renumbered,
    synapse_intensity,
)
from samaritan.data.windows import CT_WINDOWS, window_for
from samaritan.errors import ConfigError, FileError, GeometryError, GridMismatch

FIRST = SliceOptions(channel=0)
BIG = Grid.from_spacing((90, 80, 3), (1.0, 1.0, 4.0))


def test_slices_make_a_sound_set(nnunet, tmp_path) -> None:
    source = load_manifest(nnunet, SourceOptions(patient=r"(p\d)_."))
    made = make_slices(source.split({"train": 0.5, "val": 0.5}), tmp_path / "out", FIRST)
    assert len(made) == 8  # of each volume the two slices with labels
    assert made.splits() == {"train": 4, "val": 4}
    assert made.leaks() == {}
    assert made.names == {1: "left", 2: "right"}
    report = check(made)
    assert (report.ok, report.problems) == (True, ())
    assert Manifest.read(tmp_path / "out" / MANIFEST).cases == made.cases
    case = made.cases[0]
    assert case.id == "p1_a_k0001"
    assert (case.place.axis, case.place.index, case.place.volume) == (2, 1, "p1_a")
    assert "percentiles 0.5 to 99.5" in made.groups["Dataset001_Toy"].note


def test_slices_are_turned_as_they_are_looked_at(nnunet, tmp_path) -> None:
    made = make_slices(load_manifest(nnunet), tmp_path / "out", FIRST)
    drawn = read(tmp_path / "out/masks/p1_a_k0002.png").array[:, :, 0]
    whole = read(nnunet / "labelsTr/p1_a.nii.gz").reorient("LPS").array[:, :, 2]
    assert np.array_equal(drawn, whole.T)  # rows run to the back, columns to the left
    assert slice_grid(made.cases[0].place).orientation[:2] == "PL"


def test_predictions_on_slices_go_back_to_the_volume(nnunet, tmp_path) -> None:
    for axis in (0, 1, 2):
        options = SliceOptions(axis=axis, channel=0)
        made = make_slices(load_manifest(nnunet), tmp_path / f"out{axis}", options)
        mine = made.select(where=lambda c: c.place.volume == "p2_b")
        pictures = [(c.place, case_labels(mine, c)[0].array[:, :, 0]) for c in mine]
        back = put_back(pictures)
        whole = read(nnunet / "labelsTr/p2_b.nii.gz")
        assert np.array_equal(back.array, whole.array)
        back.grid.require_same(whole.grid)


def test_slices_of_several_volumes_do_not_make_one() -> None:
    one, two = place_of("a", GRID, 2, 0), place_of("b", GRID, 2, 0)
    flat = np.zeros(slice_grid(one).shape[:2], np.uint8)
    with pytest.raises(GeometryError, match=r"slices of one volume, got \['a', 'b'\]"):
        put_back([(one, flat), (two, flat)])
    with pytest.raises(GeometryError):
        put_back([])
    assert volume_grid(one) == GRID


def test_slices_come_back_on_their_place(nnunet, tmp_path) -> None:
    made = make_slices(load_manifest(nnunet), tmp_path / "out", FIRST)
    image = case_image(made, made.cases[0])
    assert image.grid.unit == "mm"
    assert image.grid.spacing_mm == pytest.approx((1.5, 1.0, 4.0))
    drawn = case_labels(made, made.cases[0])[0]
    image.grid.require_same(drawn.grid)


def test_a_stopped_run_goes_on(nnunet, tmp_path) -> None:
    source, out = load_manifest(nnunet), tmp_path / "out"
    first = make_slices(source, out, FIRST)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    (out / MANIFEST).unlink()
    (out / "images/p1_b_k0001.png").unlink()
    again = make_slices(source, out, FIRST)
    after = {p: p.stat().st_mtime_ns for p in out.rglob("*.png")}
    assert again.cases == first.cases
    changed = {p.name for p in after if after[p] != before[p]}
    assert changed == {"p1_b_k0001.png", "p1_b_k0002.png"}
    other = make_slices(source, out, replace(FIRST, bits=16))  # other options: all made again
    assert read(out / other.cases[0].images[0]).dtype == np.uint16


def test_a_failure_leaves_no_manifest(nnunet, tmp_path) -> None:
    labels(
        nnunet / "labelsTr/p2_b.nii.gz",
        grid=replace(GRID, affine=GRID.affine * [[1], [1], [1.2], [1]]),
    )
    with pytest.raises(GridMismatch, match="case 'p2_b'"):
        make_slices(load_manifest(nnunet), tmp_path / "out", FIRST)
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert not list((tmp_path / "out").rglob(".tmp-*"))


def test_a_folder_that_cannot_be_made_is_told(nnunet, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/out cannot be made: Not a directory"):
        make_slices(load_manifest(nnunet), tmp_path / "file/out", FIRST)


def test_a_full_disk_is_told_and_leaves_no_half_slice(nnunet, tmp_path) -> None:
    volume(nnunet / "imagesTr/p2_a_0000.nii.gz", grid=BIG)
    volume(nnunet / "imagesTr/p2_a_0001.nii.gz", grid=BIG)
    labels(nnunet / "labelsTr/p2_a.nii.gz", grid=BIG, array=np.ones(BIG.shape, np.uint8))
    with no_more_than(2000), pytest.raises(FileError, match=r"'p2_a'.*File too large"):
        make_slices(load_manifest(nnunet), tmp_path / "out", FIRST, workers=1)
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert not list((tmp_path / "out").rglob(".tmp-*"))
    assert len(make_slices(load_manifest(nnunet), tmp_path / "out", FIRST)) == 3 * 2 + 3


def test_the_window_is_never_guessed(nnunet, tmp_path) -> None:
    manifest = load_manifest(nnunet)
    unknown = replace(manifest, cases=tuple(replace(c, modality=None) for c in manifest))
    with pytest.raises(ConfigError, match="p1_a and 3 more: the modality is not known"):
        make_slices(unknown, tmp_path / "out")
    with pytest.raises(
        ConfigError, match=r"CT needs a window: choose one of abdomen \(-125 to 275\)"
    ):
        make_slices(unknown, tmp_path / "out", SliceOptions(modality="CT"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="Hounsfield units, which MR has not"):
        window_for("MR", "lung")
    with pytest.raises(ConfigError, match="no intensities in the table"):
        window_for("OP")
    with pytest.raises(ConfigError, match="two ascending intensities"):
        window_for(None, (3.0, 1.0))
    assert all(low < high for low, high in CT_WINDOWS.values())


def test_ct_windows_become_grey_values(nnunet, tmp_path) -> None:
    options = SliceOptions("abdomen", "CT", channel=0, min_foreground=0)
    made = make_slices(load_manifest(nnunet), tmp_path / "out", options)
    assert len(made) == 16
    case = next(c for c in made if c.place == replace(made.cases[0].place, index=3))
    shown = case_image(made, case).array[:, :, 0]
    values = read(nnunet / "imagesTr/p1_a_0000.nii.gz").reorient("LPS").array[:, :, 3].T
    assert np.array_equal(shown, np.rint(np.clip((values + 125) / 400, 0, 1) * 255))


def test_16_bits_keep_more(tmp_path) -> None:
    values = np.array([[0.0, 0.25, 1.0, 2.0, np.nan, -1.0]])
    assert scaled(values, 0, 1, 16).tolist() == [[0, 16384, 65535, 65535, 0, 0]]
    assert scaled(values, 0, 1, 8).tolist() == [[0, 64, 255, 255, 0, 0]]


def test_wrong_options_are_refused(nnunet, tmp_path) -> None:
    with pytest.raises(ConfigError, match="bits 8 or 16"):
        SliceOptions(bits=12)
    with pytest.raises(ConfigError, match="2 channels"):
        make_slices(load_manifest(nnunet), tmp_path / "out")
    with pytest.raises(FileError, match="no slice has 999 pixels"):
        make_slices(load_manifest(nnunet), tmp_path / "out", replace(FIRST, min_foreground=999))


def test_names_that_are_no_file_names_stay_apart(tmp_path) -> None:
    for stem in ("a b", "a_b"):
        picture(tmp_path / f"toy/images/{stem}.png", np.arange(42, dtype=np.uint8).reshape(6, 7))
        picture(tmp_path / f"toy/masks/{stem}.png", np.eye(6, 7, dtype=np.uint8))
    source = load_manifest(tmp_path / "toy", SourceOptions(modality="US"))
    assert len({c.images for c in make_slices(source, tmp_path / "out")}) == 2


# -- SAMed's layout ------------------------------------------------------------------------------


def test_hounsfield_units_become_samed_intensities() -> None:
    values = synapse_intensity(np.array([-125, 275, 75, -3000, 4000], np.int16))
    assert values.tolist() == [0.0, 1.0, 0.5, 0.0, 1.0]
    assert values.dtype == np.float32


def test_labels_are_renumbered_by_the_table() -> None:
    every = renumbered(np.arange(14, dtype=np.uint8))
    assert every.tolist() == [0, 1, 2, 3, 4, 0, 5, 6, 7, 0, 0, 8, 0, 0]
    in_place = np.arange(14).astype(np.float32)  # as the published loop does it, in ascending order
    for value in (5, 9, 10, 12, 13):
        in_place[in_place == value] = 0
    for old, new in ((6, 5), (7, 6), (8, 7), (11, 8)):
        in_place[in_place == old] = new
    assert np.array_equal(every, in_place)


def test_the_published_parts_are_18_and_12() -> None:
    assert (len(SYNAPSE_TRAIN), len(SYNAPSE_TEST)) == (18, 12)
    assert not set(SYNAPSE_TRAIN) & set(SYNAPSE_TEST)
    assert -(-2211 // 24) == 93  # iterations of an epoch at batch 24


@pytest.fixture
def abdomen(tmp_path):
    grid = Grid.from_spacing((7, 6, 4), (0.8, 0.7, 3), orientation="LAS", origin_mm=(1, 2, 3))
    for number in (5, 8, 22):
        rng = np.random.default_rng(number)
        image = rng.integers(-500, 500, grid.shape).astype(np.int16)
        drawn = rng.integers(0, 14, grid.shape).astype(np.uint8)
        write(Volume(image, grid), tmp_path / f"raw/images/img{number:04d}.nii.gz")
        write(LabelMap(drawn, grid), tmp_path / f"raw/labels/img{number:04d}.nii.gz")
    return tmp_path / "raw"


def test_the_synapse_layout_is_samed_own(abdomen, tmp_path) -> None:
    h5py = pytest.importorskip("h5py")
    made = make_synapse(load_manifest(abdomen), tmp_path / "out")
    assert made.splits() == {"train": 4, "test": 2}
    assert (tmp_path / "out/lists/test_vol.txt").read_text() == "case0008\ncase0022\n"
    assert (tmp_path / "out/lists/train.txt").read_text().split()[3] == "case0005_slice003"
    assert len((tmp_path / "out/lists/all.txt").read_text().split()) == 3
    image = np.asarray(read(abdomen / "images/img0005.nii.gz").array)
    drawn = np.asarray(read(abdomen / "labels/img0005.nii.gz").array)
    with np.load(tmp_path / "out/train_npz/case0005_slice002.npz", allow_pickle=False) as found:
        want = ((np.clip(image, -125, 275) + 125) / 400).transpose(2, 1, 0)[2]
        assert np.allclose(found["image"], want, atol=1e-7)
        assert found["image"].dtype == found["label"].dtype == np.float32
        assert np.array_equal(found["label"], renumbered(drawn).transpose(2, 1, 0)[2])
    with h5py.File(tmp_path / "out/test_vol_h5/case0022.npy.h5") as file:
        assert file["image"].shape == (4, 6, 7)
        assert file.attrs["spacing_mm"] == pytest.approx((0.8, 0.7, 3))
    case = made.select(ids=["case0022"]).cases[0]
    back = case_image(made, case)  # with its geometry, unlike the published layout
    back.grid.require_same(read(abdomen / "images/img0022.nii.gz").grid)
    assert check(made).ok


def test_cases_of_unknown_part_are_told(abdomen, tmp_path) -> None:
    (abdomen / "images/img0005.nii.gz").rename(abdomen / "images/img0099.nii.gz")
    (abdomen / "labels/img0005.nii.gz").rename(abdomen / "labels/img0099.nii.gz")
    with pytest.raises(ConfigError, match="such as 'img0099': split the manifest first"):
        make_synapse(load_manifest(abdomen), tmp_path / "out")


# -- real data -----------------------------------------------------------------------------------


def test_real_volumes_become_slices_and_back(data_dir, tmp_path) -> None:
    source = load_manifest(data_dir / "nnunet_raw/Dataset060_CHAOST2")
    one = source.select(ids=["chaos_01"])
    made = make_slices(one, tmp_path / "out")
    assert len(made) > 20
    assert check(made).ok
    back = put_back((c.place, case_labels(made, c)[0].array[:, :, 0]) for c in made)
    whole = case_labels(one, one.cases[0])[0]
    assert np.array_equal(back.array, whole.array)
    back.grid.require_same(whole.grid)
