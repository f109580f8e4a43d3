"""DICOM SEG: written on the grid of its source series, read back at the same place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest

from samaritan import LabelMap, Volume, read, write
from samaritan.errors import FileError, GridMismatch, MissingPackage, UnsupportedFormat
from samaritan.io import read_labels

pytest.importorskip("highdicom")

Make = Callable[..., Path]


@pytest.fixture
def source(tmp_path: Path, make_series: Make) -> Path:
    return make_series(tmp_path / "ct", [6.0, 0.0, 4.0, 2.0, 8.0])


@pytest.fixture
def labels(source: Path) -> LabelMap:
    image = read(source)
    array = np.zeros(image.shape, np.uint16)
    array[0, :, 1], array[1, 1, 3], array[2, :, 1] = 3, 700, 700
    return LabelMap(array, image.grid, names={3: "liver", 700: "spleen"})


def test_a_label_map_comes_back_with_names_and_empty_slices(
    tmp_path: Path, source: Path, labels: LabelMap
) -> None:
    back = read_labels(write(labels, tmp_path / "seg.dcm", source=source))
    assert back.grid.same_as(labels.grid)
    assert back.names == {1: "liver", 2: "spleen"}
    assert np.array_equal(back.array == 1, labels.array == 3)
    assert np.array_equal(back.array == 2, labels.array == 700)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert dataset.SegmentationType == "BINARY"
    assert dataset.NumberOfFrames == 10
    references = dataset.ReferencedSeriesSequence[0]
    assert references.SeriesInstanceUID == "1.2.3.4"
    assert dataset.SeriesInstanceUID != "1.2.3.4"


def test_turned_axes_are_turned_back(tmp_path: Path, source: Path, labels: LabelMap) -> None:
    turned = labels.reorient("SRA")
    back = read_labels(write(turned, tmp_path / "seg.dcm", source=source))
    assert np.array_equal(back.array == 1, labels.array == 3)


def test_files_may_be_the_source(tmp_path: Path, source: Path, labels: LabelMap) -> None:
    files = sorted(source.iterdir())
    assert read(write(labels, tmp_path / "seg.dcm", source=files)).grid.same_as(labels.grid)


def test_sheared_sources_are_kept(tmp_path: Path, make_slice: Make) -> None:
    (tmp_path / "ct").mkdir()
    for n in range(3):
        make_slice(tmp_path / "ct" / f"{n}.dcm", position=(0, 0.5 * n, 2.0 * n), instance=n)
    image = read(tmp_path / "ct")
    labels = LabelMap(np.ones(image.shape, np.uint8), image.grid)
    back = read(write(labels, tmp_path / "seg.dcm", source=tmp_path / "ct"))
    assert back.grid.same_as(image.grid)


def test_another_grid_is_refused(tmp_path: Path, source: Path, labels: LabelMap) -> None:
    with pytest.raises(GridMismatch, match="the source series and the label map differ: shape"):
        write(labels.crop((0, 0, 0), (2, 2, 2)), tmp_path / "seg.dcm", source=source)
    moved = LabelMap(labels.array, labels.grid.window((0, 0, 1), labels.shape))
    with pytest.raises(GridMismatch, match="origin"):
        write(moved, tmp_path / "seg.dcm", source=source)
    assert not (tmp_path / "seg.dcm").exists()


def test_what_cannot_be_a_segmentation_is_refused(
    tmp_path: Path, source: Path, labels: LabelMap
) -> None:
    path = tmp_path / "seg.dcm"
    with pytest.raises(FileError, match="Pass source="):
        write(labels, path)
    with pytest.raises(UnsupportedFormat, match="a LabelMap is needed"):
        write(Volume(labels.array, labels.grid), path, source=source)
    with pytest.raises(UnsupportedFormat, match="empty"):
        write(labels.with_array(np.zeros_like(labels.array)), path, source=source)
    with pytest.raises(FileError, match="source= is empty"):
        write(labels, path, source=[])


def test_a_source_without_identifiers_is_refused(
    tmp_path: Path, source: Path, labels: LabelMap
) -> None:
    for file in source.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.SOPInstanceUID = ""
        dataset.save_as(file)
    with pytest.raises(UnsupportedFormat, match="no SOPInstanceUID"):
        write(labels, tmp_path / "seg.dcm", source=source)


def test_without_highdicom_the_extra_is_named(
    tmp_path: Path, source: Path, labels: LabelMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(MissingPackage, match=r"samaritan\[dicom\]"):
        write(labels, tmp_path / "seg.dcm", source=source)


def test_frames_that_are_not_stored_are_empty_slices(
    tmp_path: Path, source: Path, labels: LabelMap
) -> None:
    path = write(labels, tmp_path / "seg.dcm", source=source)
    dataset = pydicom.dcmread(path)
    kept = [
        n
        for n, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence)
        if dataset.pixel_array[n].any()
    ]
    frames = [dataset.PerFrameFunctionalGroupsSequence[n] for n in kept]
    bits = np.packbits(dataset.pixel_array[kept].ravel(), bitorder="little").tobytes()
    dataset.PerFrameFunctionalGroupsSequence = pydicom.Sequence(frames)
    dataset.NumberOfFrames = len(kept)
    dataset.PixelData = bits + b"\0" * (len(bits) % 2)
    dataset.save_as(path)
    back = read_labels(path)
    assert back.shape == (4, 3, 3)
    assert np.array_equal(back.to_grid(labels.grid).array == 2, labels.array == 700)
    assert "1 of 3 slices are not stored" in back.notes[0]


def test_fractions_are_channels_or_labels_from_a_half_on(data_dir: Path) -> None:
    path = data_dir / "dicom/highdicom/seg_image_ct_true_fractional.dcm"
    fractions = read(path)
    assert fractions.channels == ("first segment",)
    assert fractions.dtype == np.float32
    labels = read_labels(path)
    assert np.array_equal(labels.array, fractions.array[..., 0] >= 0.5)
    assert "count from 0.5 on" in labels.notes[-1]
