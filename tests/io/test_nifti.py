"""NIfTI: which form wins, units, scaling, frames, channels, oddities that are noted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from peak import PEAK_GIB

from samaritan import Grid, LabelMap, Volume, read, write
from samaritan.errors import FileError, UnsupportedFormat
from samaritan.io import finite, read_labels

SHAPE = (3, 4, 5)


def saved(
    path: Path, array: Any, change: Callable[[Any], None], kind: Any = nib.Nifti1Image
) -> Path:
    image = kind(array, np.diag([2.0, 3.0, 4.0, 1.0]))
    change(image.header)
    image.to_filename(path)
    return path


def forms(sform: int, qform: int, *, shift: float = 0.0) -> Callable[[Any], None]:
    affine, other = np.diag([-2.0, 3.0, 4.0, 1.0]), np.diag([-2.0, 3.0, 4.0, 1.0])
    affine[:3, 3], other[:3, 3] = (10, 20, 30), (10 + shift, 20, 30)

    def change(header: Any) -> None:
        header.set_sform(affine, sform)
        header.set_qform(other, qform)

    return change


@pytest.fixture
def array() -> Any:
    return np.arange(60, dtype=np.int16).reshape(SHAPE)


def raw(path: Path, array: Any, change: Callable[[Any], None]) -> Path:
    """Write header and voxels by hand, because nibabel would set both forms itself."""
    header = nib.Nifti1Header()
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header["pixdim"][1:4] = 2, 3, 4
    header["scl_slope"], header["vox_offset"] = 1, 352
    change(header)
    path.write_bytes(header.binaryblock + bytes(4) + array.tobytes(order="F"))
    return path


def test_the_sform_wins_and_the_distance_to_the_qform_is_told(tmp_path: Path, array: Any) -> None:
    volume = read(raw(tmp_path / "a.nii", array, forms(2, 1, shift=7.5)))
    assert volume.grid.origin_mm == (10, 20, 30)
    assert "sform and qform differ by up to 7.5 mm; the sform is used." in volume.notes
    assert (volume.meta["sform_code"], volume.meta["qform_code"]) == (2, 1)
    assert not read(raw(tmp_path / "b.nii", array, forms(2, 1, shift=0.01))).notes


def test_the_qform_is_used_where_there_is_no_sform(tmp_path: Path, array: Any) -> None:
    volume = read(raw(tmp_path / "a.nii", array, forms(0, 1, shift=7.5)))
    assert volume.grid.origin_mm == (17.5, 20, 30)
    assert not volume.notes


def test_without_a_form_the_spacing_is_used_and_it_is_said(tmp_path: Path, array: Any) -> None:
    volume = read(raw(tmp_path / "a.nii", array, forms(0, 0)))
    assert volume.grid.orientation == "LAS"
    assert volume.grid.spacing_mm == (2, 3, 4)
    assert "left and right are unknown" in volume.notes[0]


@pytest.mark.parametrize(("unit", "factor"), [(1, 1000.0), (3, 0.001)])
def test_metres_and_micrometres_become_millimetres(
    tmp_path: Path, array: Any, unit: int, factor: float
) -> None:
    def change(header: Any) -> None:
        forms(1, 1)(header)
        header["xyzt_units"] = unit

    volume = read(raw(tmp_path / "a.nii", array, change))
    assert np.allclose(volume.grid.spacing_mm, np.array([2, 3, 4]) * factor)
    assert np.allclose(volume.grid.origin_mm, np.array([10, 20, 30]) * factor)
    assert "converted to millimetres" in volume.notes[0]


def test_the_only_slice_of_no_thickness_gets_a_millimetre(tmp_path: Path) -> None:
    def change(header: Any) -> None:
        header.set_sform(np.diag([-2.0, 3.0, 0.0, 1.0]), 1)

    volume = read(raw(tmp_path / "a.nii", np.zeros((3, 4, 1), np.int16), change))
    assert volume.grid.spacing_mm == (2, 3, 1)
    assert "thickness of the only slice" in volume.notes[0]


@pytest.mark.parametrize(
    ("stored", "slope", "intercept", "wanted"),
    [
        ("int16", 1, 0, "int16"),
        ("int16", 0, 0, "int16"),
        ("int16", float("nan"), 5, "int16"),
        ("int16", 0.5, 0, "float32"),
        ("uint8", 2, -1024, "int16"),
        ("int32", 0.5, 0, "float64"),
        ("float32", 2, 1, "float32"),
    ],
)
def test_scaling_keeps_integers_where_it_can(
    tmp_path: Path, stored: str, slope: float, intercept: float, wanted: str
) -> None:
    array = np.arange(60).reshape(SHAPE).astype(stored)

    def change(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = slope, intercept

    path = raw(tmp_path / "a.nii", array, change)
    volume = read(path)
    assert volume.dtype == wanted
    assert np.allclose(volume.array, nib.load(path).get_fdata())


def test_integer_scaling_that_leaves_the_type_widens_it(tmp_path: Path) -> None:
    array = np.array([0, 65535, 3], np.uint16).reshape(3, 1, 1)

    def change(header: Any) -> None:
        header["scl_slope"], header["scl_inter"] = 1, -1024

    volume = read(raw(tmp_path / "a.nii", array, change))
    assert volume.dtype == np.int32
    assert volume.array.ravel().tolist() == [-1024, 64511, -1021]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_series_in_time_wants_a_frame(tmp_path: Path, suffix: str) -> None:
    array = np.arange(120, dtype=np.int16).reshape(*SHAPE, 2)
    path = saved(tmp_path / f"a{suffix}", array, lambda header: None)
    with pytest.raises(FileError, match=r"holds 2 frames. Pass frame=0 to frame=1"):
        read(path)
    for frame in (0, 1):
        assert np.array_equal(read(path, frame=frame).array, array[..., frame])
    everything = read(path, frame="all")
    assert np.array_equal(everything.array, array)
    assert everything.channels == ("frame 0", "frame 1")
    assert np.array_equal(read(path, frame="all", channel="frame 1").array, array[..., 1])
    for frame in (2, -1):
        with pytest.raises(FileError, match=f"has no frame {frame}: it holds 2 frames"):
            read(path, frame=frame)
    with pytest.raises(FileError, match="no channel 'x'"):
        read(path, frame=0, channel="x")


def test_one_frame_is_no_series(tmp_path: Path, array: Any) -> None:
    assert (
        read(saved(tmp_path / "a.nii", array[..., None], lambda header: None)).array.shape == SHAPE
    )


def test_frames_of_vectors_are_read_one_by_one(tmp_path: Path) -> None:
    array = np.arange(360, dtype=np.float32).reshape(*SHAPE, 2, 3)
    path = saved(tmp_path / "a.nii.gz", array, lambda header: None)
    volume = read(path, frame=1)
    assert volume.channels == ("channel 0", "channel 1", "channel 2")
    assert np.array_equal(volume.array, array[..., 1, :])
    with pytest.raises(UnsupportedFormat, match="2 frames of 3 channels"):
        read(path, frame="all")


def test_more_axes_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii", np.zeros((2, 2, 2, 1, 1, 2), np.uint8), lambda header: None)
    with pytest.raises(UnsupportedFormat, match="axes"):
        read(path)


def test_complex_voxels_are_read_when_a_part_is_chosen(tmp_path: Path) -> None:
    array = (np.arange(60) + 1j * np.arange(60)[::-1]).reshape(SHAPE).astype(np.complex64)
    path = saved(tmp_path / "a.nii", array, lambda header: None)
    with pytest.raises(UnsupportedFormat, match='complex_part="magnitude"'):
        read(path)
    assert np.allclose(read(path, complex_part="magnitude").array, np.abs(array))
    assert np.array_equal(read(path, complex_part="imag").array, array.imag)


def test_nan_is_counted_and_replaced_on_request(tmp_path: Path) -> None:
    array = np.ones(SHAPE, np.float32)
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    volume = read(saved(tmp_path / "a.nii", array, lambda header: None))
    assert volume.notes[0].startswith("3 of 60 values are NaN or infinite")
    clean = finite(volume, fill=-1)
    assert clean.array[0, 0].tolist() == [-1, -1, -1, 1, 1]
    assert clean.dtype == np.float32
    assert finite(clean) is clean


def test_big_endian_nifti_2_and_pairs_are_read(tmp_path: Path, array: Any) -> None:
    header = nib.Nifti2Header(endianness=">")
    header.set_data_dtype(">i2")
    nib.Nifti2Image(array.astype(">i2"), np.eye(4), header).to_filename(tmp_path / "a.nii.gz")
    volume = read(tmp_path / "a.nii.gz")
    assert volume.meta["format"] == "NIfTI-2"
    assert volume.dtype == np.int16
    assert volume.dtype.isnative
    assert np.array_equal(volume.array, array)
    nib.Nifti1Pair(array, np.eye(4)).to_filename(tmp_path / "b.img.gz")
    for name in ("b.img.gz", "b.hdr.gz"):
        assert np.array_equal(read(tmp_path / name).array, array)


def test_both_forms_are_written_and_nibabel_agrees(tmp_path: Path, volume: Volume) -> None:
    image = nib.load(write(volume, tmp_path / "a.nii.gz"))
    assert image.header["sform_code"] == image.header["qform_code"] == 1
    assert np.allclose(image.header.get_sform(), volume.grid.affine, atol=1e-5)
    assert np.allclose(image.header.get_qform(), volume.grid.affine, atol=1e-5)
    assert np.array_equal(np.asarray(image.dataobj), volume.array)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_a_sheared_grid_claims_no_qform(tmp_path: Path) -> None:
    affine = np.eye(4)
    affine[0, 1] = 0.4
    sheared = Volume(np.zeros(SHAPE, np.uint8), Grid(SHAPE, affine))
    header = nib.load(write(sheared, tmp_path / "a.nii")).header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (1, 0)


def test_names_survive_in_a_header_that_nibabel_reads(tmp_path: Path) -> None:
    labels = LabelMap(np.ones(SHAPE, np.uint8), Grid.from_spacing(SHAPE), names={1: "a<b]"})
    path = write(labels, tmp_path / "a.nii.gz")
    assert nib.load(path).header.extensions[0].get_code() == 30
    assert read_labels(path).names == {1: "a b "}


def test_a_huge_offset_is_not_followed_for_names(tmp_path: Path, volume: Volume) -> None:
    path = write(volume, tmp_path / "a.nii")
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, 108, 1e9)
    path.write_bytes(data)
    with pytest.raises(FileError, match="promised after byte 1000000000"):
        read(path)


@pytest.mark.slow
def test_reading_takes_little_more_than_the_voxels(tmp_path: Path) -> None:
    """A 512 x 512 x 100 int16 file, 50 MiB: peak memory of a fresh process beside an idle one."""
    import subprocess
    import sys

    shape = (512, 512, 100)
    big = Volume(np.zeros(shape, np.int16), Grid.from_spacing(shape))
    path = write(big, tmp_path / "a.nii.gz")
    code = (
        PEAK_GIB + "\nimport sys, samaritan, nibabel, psutil, samaritan.io.nifti\n"
        "before = peak_gib(); v = samaritan.read(sys.argv[1]); print(peak_gib() - before)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    assert 40 / 1024 < float(out.stdout) < 1.3 * 50 / 1024  # GiB
