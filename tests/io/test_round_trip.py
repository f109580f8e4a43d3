"""Law 1: write-read is identity, for array, spacing and orientation; or the format refuses."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from samaritan import Grid, LabelMap, Volume, read, write
from samaritan.errors import GeometryError, UnsupportedFormat
from samaritan.geometry import orientation_matrix
from samaritan.io import read_labels

SHAPE = (3, 4, 5)
FORMATS = [".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh"]
ORIENTATIONS = [
    "".join(axes[n][side] for n, side in enumerate(sides))
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for sides in itertools.product((0, 1), repeat=3)
]
TYPES = [np.uint8, np.int16, np.uint16, np.int32, np.float32]


def rotation(*angles: float) -> np.ndarray:
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        a, b = [n for n in range(3) if n != axis]
        turn[a, a] = turn[b, b] = math.cos(angle)
        turn[a, b], turn[b, a] = -math.sin(angle), math.sin(angle)
        matrix = turn @ matrix
    return matrix


def grid(orientation: str, *, oblique: bool = False, shear: float = 0.0) -> Grid:
    axes = orientation_matrix(orientation) * np.array([0.6171, 1.37, 4.9])
    affine = np.eye(4)
    affine[:3, :3] = (rotation(0.2, -0.31, 0.13) if oblique else np.eye(3)) @ axes
    affine[:3, 1] += shear * affine[:3, 2]
    affine[:3, 3] = (-117.25, 43.6, 1411.7)
    return Grid(SHAPE, affine)


def close(one: Grid, two: Grid) -> bool:
    return one.same_as(two, voxels=1e-3) and bool(
        np.allclose(one.affine[:3, :3], two.affine[:3, :3], atol=1e-5, rtol=1e-6)
    )


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("oblique", [False, True], ids=["upright", "oblique"])
def test_all_48_orientations_come_back(tmp_path: Path, suffix: str, oblique: bool) -> None:
    rng = np.random.default_rng(3)
    for n, orientation in enumerate(ORIENTATIONS):
        array = rng.integers(0, 250, SHAPE).astype(TYPES[n % len(TYPES)])
        volume = Volume(array, grid(orientation, oblique=oblique))
        back = read(write(volume, tmp_path / f"a{suffix}"))
        assert np.array_equal(back.array, array)
        assert back.dtype == array.dtype
        assert close(back.grid, volume.grid), orientation
        assert back.grid.orientation == orientation
        assert not back.notes


@pytest.mark.parametrize("suffix", FORMATS)
def test_views_are_written_as_they_look(tmp_path: Path, suffix: str, volume: Volume) -> None:
    for view in (
        volume.reorient("RAS"),
        volume.reorient("SLP"),
        volume.window((0, 1, 1), (3, 2, 3)),
    ):
        back = read(write(view, tmp_path / f"a{suffix}"))
        assert np.array_equal(back.array, view.array)
        assert close(back.grid, view.grid)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    "dtype",
    [
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float32",
        "float64",
    ],
)
def test_every_type_keeps_its_extremes(tmp_path: Path, suffix: str, dtype: str) -> None:
    kind = np.dtype(dtype)
    limits = np.finfo(kind) if kind.kind == "f" else np.iinfo(kind)
    array = np.zeros(SHAPE, kind)
    array[0, 0, :2] = limits.min, limits.max
    back = read(write(Volume(array, grid("LPS")), tmp_path / f"a{suffix}"))
    assert back.dtype == kind
    assert np.array_equal(back.array, array)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mgz"])
def test_big_endian_arrays_and_booleans_are_written_by_value(tmp_path: Path, suffix: str) -> None:
    array = (np.arange(60).reshape(SHAPE) * 7).astype(">i2")
    assert np.array_equal(
        read(write(Volume(array, grid("LPS")), tmp_path / f"a{suffix}")).array, array
    )
    mask = Volume(array > 200, grid("LPS"))
    back = read(write(mask, tmp_path / f"b{suffix}"))
    assert back.dtype == np.uint8
    assert np.array_equal(back.array, mask.array)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".hdr", ".nrrd", ".nhdr", ".mgz"])
def test_sheared_grids_are_kept_exactly_and_noted(tmp_path: Path, suffix: str) -> None:
    sheared = Volume(np.zeros(SHAPE, np.uint8), grid("PIR", oblique=True, shear=0.3))
    back = read(write(sheared, tmp_path / f"a{suffix}"))
    assert close(back.grid, sheared.grid)
    assert any("sheared" in note for note in back.notes)


@pytest.mark.parametrize("suffix", [".mha", ".mhd"])
def test_metaimage_refuses_shear_and_names_formats_that_hold_it(
    tmp_path: Path, suffix: str
) -> None:
    sheared = Volume(np.zeros(SHAPE, np.uint8), grid("PIR", shear=0.3))
    with pytest.raises(GeometryError, match=r"sheared.*Write NIfTI \(.nii.gz\) or NRRD"):
        write(sheared, tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".nii.gz", ".hdr", ".nrrd", ".mha"])
def test_channels_come_back_with_colours_named(tmp_path: Path, suffix: str) -> None:
    rng = np.random.default_rng(5)
    colors = Volume(
        rng.integers(0, 256, (*SHAPE, 3)).astype(np.uint8), grid("LPS"), ("R", "G", "B")
    )
    back = read(write(colors, tmp_path / f"a{suffix}"))
    assert back.channels == ("R", "G", "B")
    assert np.array_equal(back.array, colors.array)
    vectors = Volume(rng.normal(size=(*SHAPE, 2)).astype(np.float32), grid("LPS"))
    back = read(write(vectors, tmp_path / f"b{suffix}"))
    assert np.array_equal(back.array, vectors.array)
    assert close(back.grid, vectors.grid)
    assert np.array_equal(read(tmp_path / f"b{suffix}", channel=1).array, vectors.array[..., 1])


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mgz", ".seg.nrrd"])
@pytest.mark.parametrize("largest", [3, 300, 70000])
def test_labels_beyond_255_come_back(tmp_path: Path, suffix: str, largest: int) -> None:
    array = np.zeros(SHAPE, np.int64)
    array[1, 2, 3], array[0, 0, 0] = largest, 1
    back = read_labels(write(LabelMap(array, grid("LAS")), tmp_path / f"a{suffix}"))
    assert isinstance(back, LabelMap)
    assert np.array_equal(back.array, array)
    assert close(back.grid, grid("LAS"))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".seg.nrrd"])
def test_label_names_come_back_where_the_format_has_a_place(tmp_path: Path, suffix: str) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[0], array[1] = 1, 4
    names = {1: "liver & spleen", 4: "Nodulus lymphaticus, ä"}
    back = read_labels(write(LabelMap(array, grid("RAS"), names=names), tmp_path / f"a{suffix}"))
    assert back.names == names


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".tif", ".bmp", ".nii.gz", ".nrrd", ".mha"])
def test_pictures_come_back_as_pictures(tmp_path: Path, suffix: str) -> None:
    array = np.arange(42, dtype=np.uint8).reshape(6, 7, 1)
    back = read(write(Volume(array, Grid.pixels((6, 7))), tmp_path / f"a{suffix}"))
    assert np.array_equal(back.array, array)
    assert back.grid == Grid.pixels((6, 7))
    color = np.stack([array, array + 1, array + 2], axis=-1)
    volume = Volume(color, Grid.pixels((6, 7)), ("R", "G", "B"))
    back = read(write(volume, tmp_path / f"b{suffix}"))
    assert np.array_equal(back.array, color)
    assert back.channels == ("R", "G", "B")


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32", "int64"])
def test_label_pictures_hold_16_bits(tmp_path: Path, suffix: str, dtype: str) -> None:
    array = np.arange(42).reshape(6, 7, 1).astype(dtype)
    if dtype != "uint8":
        array[0, 0, 0] = 65535
    back = read_labels(write(LabelMap(array, Grid.pixels((6, 7))), tmp_path / f"a{suffix}"))
    assert np.array_equal(back.array, array)


def test_a_stack_of_pages_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for dtype in (np.uint8, np.uint16, np.float32, np.int32):
        array = rng.integers(0, 200, (6, 7, 4)).astype(dtype)
        back = read(write(Volume(array, Grid.pixels((6, 7, 4))), tmp_path / "a.tiff"))
        assert back.dtype == dtype
        assert np.array_equal(back.array, array)
        assert np.array_equal(read(tmp_path / "a.tiff", frame=2).array, array[..., 2:3])


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".bmp"])
def test_pictures_refuse_geometry_and_name_formats_that_hold_it(
    tmp_path: Path, suffix: str
) -> None:
    flat = Grid.from_spacing((6, 7, 1), (0.5, 0.5, 1))
    with pytest.raises(GeometryError, match=r"holds no spacing.*NIfTI \(.nii.gz\) or NRRD"):
        write(Volume(np.zeros((6, 7, 1), np.uint8), flat), tmp_path / f"a{suffix}")
    if suffix != ".tiff":
        with pytest.raises(GeometryError, match="holds one slice, not 3"):
            write(
                Volume(np.zeros((6, 7, 3), np.uint8), Grid.pixels((6, 7, 3))),
                tmp_path / f"a{suffix}",
            )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("array", "suffix", "text"),
    [
        (np.zeros((6, 7, 1), np.float32), ".png", "PNG holds uint8 or uint16, not float32"),
        (np.zeros((6, 7, 1), np.uint16), ".bmp", "BMP holds uint8, not uint16"),
        (np.zeros((6, 7, 1), np.uint8), ".jpg", "JPEG changes the voxels"),
        (np.zeros((6, 7, 1), np.complex64), ".nii", "not written with voxels of type complex64"),
        (np.zeros((6, 7, 1), np.float64), ".mgz", "MGH holds"),
    ],
)
def test_voxels_that_a_format_cannot_hold_are_refused(
    tmp_path: Path, array: np.ndarray, suffix: str, text: str
) -> None:
    px = suffix != ".mgz"
    with pytest.raises(UnsupportedFormat, match=text):
        write(
            Volume(array, Grid.pixels((6, 7)) if px else Grid.from_spacing((6, 7, 1))),
            tmp_path / f"a{suffix}",
        )
    assert not list(tmp_path.iterdir())


def test_a_label_over_65535_is_refused_in_png(tmp_path: Path) -> None:
    array = np.full((6, 7, 1), 65536, np.uint32)
    with pytest.raises(
        UnsupportedFormat, match=r"labels from 0 to 65535, not 65536 to 65536. Write NIfTI"
    ):
        write(LabelMap(array, Grid.pixels((6, 7))), tmp_path / "a.png")


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".nhdr", ".mhd", ".seg.nrrd"])
def test_itk_reads_what_we_write_at_the_same_place(tmp_path: Path, suffix: str) -> None:
    array = np.random.default_rng(2).integers(0, 4, SHAPE).astype(np.uint8)
    where = grid("PIR", oblique=True)
    image = sitk.ReadImage(str(write(LabelMap(array, where), tmp_path / f"a{suffix}")))
    assert np.array_equal(sitk.GetArrayFromImage(image).T, array)
    for index in [(0, 0, 0), (2, 0, 0), (0, 3, 0), (0, 0, 4), (2, 3, 4)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        assert np.allclose(lps * (-1, -1, 1), where.index_to_mm(index), atol=2e-3)


def test_nifti_2_is_written_where_nifti_1_cannot(tmp_path: Path) -> None:
    long = Volume(np.zeros((40000, 1, 1), np.uint8), Grid.from_spacing((40000, 1, 1)))
    assert read(write(long, tmp_path / "a.nii.gz")).meta["format"] == "NIfTI-2"
    far = Grid.from_spacing((2, 2, 2), (1e-3, 1e-3, 1e-3), origin_mm=(1000.0003, 0, 0))
    back = read(write(Volume(np.zeros((2, 2, 2), np.uint8), far), tmp_path / "b.nii"))
    assert back.meta["format"] == "NIfTI-2"
    assert back.grid == far
