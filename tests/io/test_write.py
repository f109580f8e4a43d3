"""Writing: all or nothing, and never an array without its grid."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import samaritan.io.files as files
from samaritan import Grid, LabelMap, Volume, read, write
from samaritan.errors import FileError, GeometryError, SamaritanError, UnsupportedFormat
from samaritan.io import check_writable

NAMES = ["a.nii", "a.nii.gz", "a.hdr", "a.nrrd", "a.nhdr", "a.seg.nrrd", "a.mha", "a.mhd", "a.mgz"]


def small(name: str, volume: Volume) -> Volume:
    if name.endswith(".seg.nrrd"):
        return LabelMap((volume.array > 0).astype(np.uint8), volume.grid)
    if name.endswith((".png", ".tiff", ".bmp")):
        return Volume(np.zeros((4, 5, 1), np.uint8), Grid.pixels((4, 5)))
    return volume


@pytest.mark.parametrize("name", [*NAMES, "a.png", "a.tiff", "a.bmp"])
def test_a_failure_in_the_middle_leaves_nothing_and_the_old_file(
    tmp_path: Path, volume: Volume, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = small(name, volume)
    path = write(chosen, tmp_path / "kept" / name)
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}

    def fails(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    if name.endswith((".png", ".tiff", ".bmp")):
        monkeypatch.setattr("PIL.Image.Image.save", fails)
    else:
        for module in ("nifti_write", "nrrd_write", "metaimage_write", "mgh"):
            monkeypatch.setattr(f"samaritan.io.{module}.check_written", fails)
    for target in (path, tmp_path / "new" / "folder" / name):
        with pytest.raises(FileError, match=f"{name} could not be written: No space left"):
            write(chosen, target)
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_an_interrupt_leaves_nothing(
    tmp_path: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("samaritan.io.nifti_write.check_written", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(volume, tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.mgz"])
def test_a_header_that_tells_another_grid_is_not_kept(
    tmp_path: Path, volume: Volume, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "WRITTEN_VOXELS", -1.0)
    with pytest.raises(
        GeometryError, match=r"this format cannot hold Grid\(3 x 4 x 5.*Write .* instead"
    ):
        write(volume, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_missing_folders_are_made(tmp_path: Path, volume: Volume) -> None:
    path = write(volume, tmp_path / "new" / "folder" / "a.nii.gz")
    assert path == tmp_path / "new" / "folder" / "a.nii.gz"
    assert [p.name for p in path.parent.iterdir()] == ["a.nii.gz"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_an_error_that_names_the_file(tmp_path: Path, volume: Volume) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match=r"a.nii.gz: its folder cannot be written"):
        write(volume, tmp_path / "a.nii.gz")
    tmp_path.chmod(0o700)


def test_a_folder_that_cannot_be_written_is_an_error_that_names_the_file(
    tmp_path: Path, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.tempfile, "mkstemp", denied)
    with pytest.raises(FileError, match=r"a.nii.gz could not be written: Permission denied"):
        write(volume, tmp_path / "a.nii.gz")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match="could not be written"):
        write(volume, tmp_path / "file" / "a.nii.gz")


def test_an_unknown_suffix_is_an_error_that_lists_the_known(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(UnsupportedFormat, match=r"suffix '.xyz' is not one.*\.nii, \.nii\.gz"):
        write(volume, tmp_path / "a.xyz")
    with pytest.raises(UnsupportedFormat, match="suffix ''"):
        write(volume, tmp_path / "a")


def test_arrays_are_not_written(tmp_path: Path, volume: Volume) -> None:
    with pytest.raises(FileError, match="only a Volume or LabelMap is written, got ndarray"):
        write(volume.array, tmp_path / "a.nii")  # type: ignore[arg-type]


def test_a_file_is_only_replaced_where_that_is_wanted(tmp_path: Path, volume: Volume) -> None:
    path = write(volume, tmp_path / "a.nii")
    write(volume, path)
    with pytest.raises(FileError, match="exists already"):
        write(volume, path, overwrite=False)
    with pytest.raises(FileError, match="is a folder"):
        write(volume, tmp_path)


def test_permissions_are_those_of_any_new_file_or_of_the_old_one(
    tmp_path: Path, volume: Volume
) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    path = write(volume, tmp_path / "a.nii")
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    assert write(volume, path).stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", NAMES)
def test_equal_volumes_give_equal_files(tmp_path: Path, volume: Volume, name: str) -> None:
    one = write(small(name, volume), tmp_path / "one" / name)
    two = write(small(name, volume), tmp_path / "two" / name)
    assert one.read_bytes() == two.read_bytes()
    assert b".tmp" not in one.read_bytes()


def test_a_volume_may_replace_the_file_it_came_from(tmp_path: Path, volume: Volume) -> None:
    path = write(volume, tmp_path / "a.nii")
    again = read(path)
    write(again.reorient("LAS"), path)
    assert np.array_equal(read(path).reorient(volume.grid.orientation).array, volume.array)


def test_formats_that_are_only_read_refuse_to_be_written(tmp_path: Path, volume: Volume) -> None:
    for name in ("a.mnc", "a.HEAD", "a.PAR", "a.dcm"):
        with pytest.raises(SamaritanError):
            write(volume, tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_importing_io_is_light() -> None:
    import subprocess
    import sys

    heavy = (
        "'nibabel', 'SimpleITK', 'pydicom', 'PIL', 'nrrd', 'h5py', 'highdicom', 'torch', 'scipy'"
    )
    code = f"import sys, samaritan.io; print([m for m in ({heavy}) if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.png", "a.png"),
        ("a.xyz", "suffix"),
        ("a.dcm", "series that was segmented"),
        ("file/a.nii.gz", "not a folder"),
        ("", "is a folder"),
    ],
)
def test_what_cannot_be_written_is_known_before(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "file").write_text("no folder")
    grid = Grid.from_spacing((3, 4, 5))
    with pytest.raises(SamaritanError, match=text):
        check_writable(tmp_path / name, grid)
    check_writable(tmp_path / "new" / "a.nii.gz", grid)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
