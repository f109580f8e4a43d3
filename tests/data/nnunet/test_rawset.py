"""Cases as nnU-Net lays them out: the order of axes, spacing, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from samaritan import Grid, LabelMap, Volume, read, write
from samaritan.data.nnunet.rawset import RawCase, to_file
from samaritan.errors import FileError, GridMismatch

GRID = Grid.from_spacing((4, 5, 6), (1.0, 1.5, 7.7), orientation="LAS")


def test_volumes_come_last_axis_first_as_simpleitk_reads_them(tmp_path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(GRID.shape)
    file = write(Volume(array, GRID), tmp_path / "one.nii.gz")
    image = sitk.ReadImage(str(file))
    found = RawCase.of(read(file))
    assert np.array_equal(found.image[0], sitk.GetArrayFromImage(image))
    assert found.spacing == image.GetSpacing()[::-1]
    assert np.array_equal(to_file(found.image[0], found.grid), array)


def test_pictures_are_one_slice_of_rows_and_columns(tmp_path) -> None:
    from PIL import Image

    shown = np.random.default_rng(0).integers(0, 255, (4, 7, 3)).astype(np.uint8)
    Image.fromarray(shown).save(tmp_path / "one.png")
    found = RawCase.of(read(tmp_path / "one.png"))
    assert np.array_equal(found.image[:, 0], shown.transpose(2, 0, 1))
    assert found.spacing == (999.0, 1.0, 1.0)
    assert np.array_equal(
        to_file(found.image[1], found.grid), read(tmp_path / "one.png").array[..., 1]
    )


def test_channels_come_first() -> None:
    array = np.random.default_rng(0).normal(size=(4, 5, 6, 2))
    found = RawCase.of(Volume(array, GRID))
    assert found.image.shape == (2, 6, 5, 4)
    assert found.image.dtype == np.float32
    assert found.labels is None


def test_voxels_that_are_not_finite_and_other_grids_are_told() -> None:
    array = np.zeros(GRID.shape, np.float32)
    other = LabelMap(np.zeros(GRID.shape, np.uint8), Grid.from_spacing(GRID.shape, (1, 1, 1)))
    with pytest.raises(GridMismatch, match="image and labels differ"):
        RawCase.of(Volume(array, GRID), other)
    array[1, 2, 3] = np.nan
    with pytest.raises(FileError, match="not finite"):
        RawCase.of(Volume(array, GRID))
