"""NRRD and MetaImage: spaces, units, axes that are not of space, detached data, segmentations."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import nrrd
import numpy as np
import pytest
import SimpleITK as sitk

from samaritan import Grid, LabelMap, Volume, read, write
from samaritan.errors import CorruptFile, FileError, GeometryError, TooLarge, UnsupportedFormat
from samaritan.io import read_labels

ARRAY = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
GEOMETRY = {
    "space": "left-posterior-superior",
    "space directions": np.diag([2.0, 3.0, 4.0]),
    "space origin": np.array([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize(
    ("space", "orientation", "origin"),
    [
        ("left-posterior-superior", "LPS", (-1, -2, 3)),
        ("LPS", "LPS", (-1, -2, 3)),
        ("right-anterior-superior", "RAS", (1, 2, 3)),
        ("left-anterior-superior", "LAS", (-1, 2, 3)),
    ],
)
def test_spaces_tell_where_axes_point(
    tmp_path: Path, space: str, orientation: str, origin: tuple[float, ...]
) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), ARRAY, {**GEOMETRY, "space": space})
    volume = read(tmp_path / "a.nrrd")
    assert volume.grid.orientation == orientation
    assert volume.grid.origin_mm == origin
    assert np.array_equal(volume.array, ARRAY)


def test_an_unknown_space_is_refused_and_a_vague_one_noted(tmp_path: Path) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), ARRAY, {**GEOMETRY, "space": "scanner-xyz"})
    volume = read(tmp_path / "a.nrrd")
    assert volume.grid.orientation == "LPS"
    assert "does not say where left and right are" in volume.notes[0]
    nrrd.write(str(tmp_path / "b.nrrd"), ARRAY, {**GEOMETRY, "space": "up-down-sideways"})
    with pytest.raises(UnsupportedFormat, match="'up-down-sideways'"):
        read(tmp_path / "b.nrrd")


def test_units_become_millimetres(tmp_path: Path) -> None:
    units = {"space units": ["cm", "cm", "cm"]}
    nrrd.write(str(tmp_path / "a.nrrd"), ARRAY, {**GEOMETRY, **units})
    volume = read(tmp_path / "a.nrrd")
    assert np.allclose(volume.grid.spacing_mm, (20, 30, 40))
    assert "converted to millimetres" in volume.notes[0]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["list", "vector", "RGB-color"])
def test_an_axis_beside_space_holds_channels_or_frames(
    tmp_path: Path, first: bool, kind: str
) -> None:
    array = np.random.default_rng(0).integers(0, 255, (3, 4, 5, 3)).astype(np.uint8)
    stored = np.moveaxis(array, 3, 0) if first else array
    directions = np.full((4, 3), np.nan)
    directions[1 : 4 if first else None] = 0
    directions[(slice(1, 4) if first else slice(0, 3))] = np.diag([2.0, 3.0, 4.0])
    if not first:
        directions[3] = np.nan
    kinds = [kind, "domain", "domain", "domain"] if first else ["domain", "domain", "domain", kind]
    header = {**GEOMETRY, "space directions": directions, "kinds": kinds}
    nrrd.write(str(tmp_path / "a.nrrd"), stored, header)
    if kind == "list":
        with pytest.raises(FileError, match="holds 3 frames"):
            read(tmp_path / "a.nrrd")
        assert np.array_equal(read(tmp_path / "a.nrrd", frame=2).array, array[..., 2])
        assert np.array_equal(read(tmp_path / "a.nrrd", frame="all").array, array)
    else:
        volume = read(tmp_path / "a.nrrd")
        assert np.array_equal(volume.array, array)
        assert volume.channels == (("R", "G", "B") if kind == "RGB-color" else volume.channels)
        assert volume.grid.spacing_mm == (2, 3, 4)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
def test_every_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    nrrd.write(str(tmp_path / "a.nrrd"), ARRAY, {**GEOMETRY, "encoding": encoding})
    assert np.array_equal(read(tmp_path / "a.nrrd").array, ARRAY)


@pytest.mark.parametrize("packed", ["raw", "gzip", "bzip2"])
def test_detached_data_may_lie_in_a_folder_below(tmp_path: Path, packed: str) -> None:
    write(Volume(ARRAY, Grid.from_spacing((3, 4, 5))), tmp_path / "a.nhdr")
    pack = {"raw": bytes, "gzip": gzip.compress, "bzip2": bz2.compress}[packed]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "voxels").write_bytes(pack(ARRAY.tobytes(order="F")))
    header = (tmp_path / "a.nhdr").read_text().replace("a.raw.gz", "sub/voxels")
    (tmp_path / "a.nhdr").write_text(header.replace("encoding: gzip", f"encoding: {packed}"))
    assert np.array_equal(read(tmp_path / "a.nhdr").array, ARRAY)


@pytest.mark.parametrize(
    ("old", "new", "error", "text"),
    [
        ("type: int16", "type: block", UnsupportedFormat, "'block'"),
        ("sizes: 3 4 5", "sizes: 3 4 -5", CorruptFile, "positive sizes"),
        ("sizes: 3 4 5", "sizes: 300000 400000 5", CorruptFile, "promised"),
        ("sizes: 3 4 5", "sizes: 3 4 4", CorruptFile, "the data go on after"),
        ("sizes: 3 4 5", "sizes: 3 4", CorruptFile, "as many positive sizes"),
        ("endian: little", "endian: middle", CorruptFile, "byte order"),
        ("encoding: gzip", "encoding: hex", UnsupportedFormat, "'hex'"),
        ("data file: a.raw.gz", "data file: LIST", UnsupportedFormat, "several files"),
        ("data file: a.raw.gz", "data file: a%03d.raw 1 5 1", UnsupportedFormat, "several files"),
        ("data file: a.raw.gz", "data file: absent", FileError, "missing beside it"),
        ("(-2.0,0.0,0.0)", "(0,0,0)", GeometryError, "a.nhdr: the affine cannot be inverted"),
        ("(-2.0,0.0,0.0)", "(nan,0,0)", GeometryError, "a.nhdr"),
    ],
)
def test_a_wrong_header_is_refused_by_what_is_wrong(
    tmp_path: Path, old: str, new: str, error: type, text: str
) -> None:
    write(Volume(ARRAY, Grid.from_spacing((3, 4, 5), (2, 3, 4))), tmp_path / "a.nhdr")
    header = (tmp_path / "a.nhdr").read_text()
    assert old in header
    (tmp_path / "a.nhdr").write_text(header.replace(old, new))
    with pytest.raises(error, match=text):
        read(tmp_path / "a.nhdr")


def test_an_endless_header_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(b"NRRD0005\n" + b"#" * (5 << 20))
    with pytest.raises(TooLarge, match="header is longer"):
        read(tmp_path / "a.nrrd")


# -- segmentations of 3D Slicer -------------------------------------------------------------------


def layered(path: Path, layers: np.ndarray, segments: list[tuple[str, int, int]]) -> Path:
    header = {
        "space": "left-posterior-superior",
        "space directions": np.vstack([np.full((1, 3), np.nan), np.eye(3)]),
        "kinds": ["list", "domain", "domain", "domain"],
        "space origin": np.zeros(3),
    }
    for n, (name, value, layer) in enumerate(segments):
        header |= {
            f"Segment{n}_ID": f"s{n}",
            f"Segment{n}_Name": name,
            f"Segment{n}_LabelValue": str(value),
            f"Segment{n}_Layer": str(layer),
            f"Segment{n}_Color": "1 0.5 0",
        }
    nrrd.write(str(path), layers, header)
    return path


def test_layers_that_do_not_overlap_become_one_label_map(tmp_path: Path) -> None:
    layers = np.zeros((2, 3, 4, 5), np.uint8)
    layers[0, 0], layers[1, 1], layers[1, 2] = 1, 1, 2
    path = layered(tmp_path / "a.seg.nrrd", layers, [("x", 1, 0), ("y", 1, 1), ("z", 2, 1)])
    labels = read_labels(path)
    assert labels.names == {1: "x", 2: "y", 3: "z"}
    assert [int(labels.array[n, 0, 0]) for n in range(3)] == [1, 2, 3]
    assert "numbered anew" in labels.notes[0]
    assert labels.meta["colors"][1] == (1, 0.5, 0)
    assert isinstance(read(path), LabelMap)


def test_layers_that_overlap_are_refused_merged_or_kept_apart(tmp_path: Path) -> None:
    layers = np.zeros((2, 3, 4, 5), np.uint8)
    layers[0, 0:2], layers[1, 1:3] = 1, 2
    path = layered(tmp_path / "a.seg.nrrd", layers, [("x", 1, 0), ("y", 2, 1)])
    with pytest.raises(FileError, match=r"segments overlap \(y cover others in 20 voxels\)"):
        read_labels(path)
    merged = read_labels(path, overlap="merge")
    assert [int(merged.array[n, 0, 0]) for n in range(3)] == [1, 2, 2]
    assert "Segments overlap in 20 voxels" in merged.notes[0]
    apart = read(path, overlap="channels")
    assert apart.channels == ("x", "y")
    assert apart.dtype == np.bool_
    again = read(write(apart, tmp_path / "b.seg.nrrd"), overlap="channels")
    assert np.array_equal(again.array, apart.array)
    assert again.channels == apart.channels


def test_a_segment_in_no_layer_is_refused(tmp_path: Path) -> None:
    layers = np.zeros((2, 3, 4, 5), np.uint8)
    path = layered(tmp_path / "a.seg.nrrd", layers, [("x", 1, 7)])
    with pytest.raises(CorruptFile, match="layer 7 of 2"):
        read(path)


def test_slicer_finds_what_it_needs(tmp_path: Path) -> None:
    array = np.zeros((3, 4, 5), np.uint8)
    array[1, 1:3, 2:5] = 7
    labels = LabelMap(array, Grid.from_spacing((3, 4, 5), (1, 2, 3)), names={7: "liver", 9: "gone"})
    image = sitk.ReadImage(str(write(labels, tmp_path / "a.seg.nrrd")))
    keys = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    assert keys["Segment0_Name"] == "liver"
    assert keys["Segment0_LabelValue"] == "7"
    assert keys["Segment0_Extent"] == "1 1 1 2 2 4"
    assert keys["Segment1_Extent"] == "0 -1 0 -1 0 -1"
    assert keys["Segmentation_SourceRepresentation"] == "Binary labelmap"
    with pytest.raises(UnsupportedFormat, match="holds a LabelMap"):
        write(Volume(array.astype(np.float32), labels.grid), tmp_path / "b.seg.nrrd")


# -- MetaImage -----------------------------------------------------------------------------------


def test_metaimage_of_itk_is_read_where_itk_puts_it(tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(ARRAY.T)
    image.SetSpacing((0.5, 1.5, 2.5))
    image.SetOrigin((-3.25, 7, 11))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    for name, packed in (("a.mha", False), ("b.mha", True), ("c.mhd", False), ("d.mhd", True)):
        sitk.WriteImage(image, str(tmp_path / name), packed)
        volume = read(tmp_path / name)
        assert np.array_equal(volume.array, ARRAY)
        for index in [(0, 0, 0), (2, 3, 4), (1, 0, 2)]:
            found = np.array(image.TransformIndexToPhysicalPoint(index)) * (-1, -1, 1)
            assert np.allclose(volume.grid.index_to_mm(index), found)


@pytest.mark.parametrize(
    ("old", "new", "error", "text"),
    [
        ("NDims = 3", "NDims = 4", CorruptFile, "as many positive sizes"),
        ("DimSize = 3 4 5", "DimSize = 3 4 0", CorruptFile, "positive sizes"),
        ("DimSize = 3 4 5", "DimSize = 30000 40000 5", CorruptFile, "promised"),
        ("MET_SHORT", "MET_STRING", UnsupportedFormat, "'STRING'"),
        ("ElementSpacing = 2.0 3.0 4.0", "ElementSpacing = 2.0 nan 4.0", GeometryError, "finite"),
        ("ElementSpacing = 2.0 3.0 4.0", "ElementSpacing = 2.0 4.0", CorruptFile, "expected 3"),
        ("a.zraw", "LIST", UnsupportedFormat, "several files"),
        ("ElementDataFile", "Elsewhere", CorruptFile, "no ElementDataFile"),
    ],
)
def test_a_wrong_metaimage_header_is_refused(
    tmp_path: Path, old: str, new: str, error: type, text: str
) -> None:
    path = write(Volume(ARRAY, Grid.from_spacing((3, 4, 5), (2, 3, 4))), tmp_path / "a.mhd")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(error, match=text):
        read(path)


def test_letters_that_contradict_the_matrix_are_noted(tmp_path: Path) -> None:
    path = write(Volume(ARRAY, Grid.from_spacing((3, 4, 5), orientation="LPS")), tmp_path / "a.mhd")
    path.write_text(path.read_text().replace("NDims = 3", "NDims = 3\nAnatomicalOrientation = LAS"))
    assert read(path).notes == (
        "AnatomicalOrientation says RPI, TransformMatrix LPS; the matrix is used.",
    )
