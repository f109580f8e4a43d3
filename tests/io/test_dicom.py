"""DICOM: sorted by position, and everything that is not one even volume is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import RLELossless

from samaritan import read
from samaritan.errors import CorruptFile, FileError, GeometryError, TooLarge, UnsupportedFormat
from samaritan.io.dicom_pixels import codestream_size

Make = Callable[..., Path]


def test_slices_are_sorted_by_position_not_by_name_or_number(
    tmp_path: Path, make_series: Make
) -> None:
    volume = read(make_series(tmp_path / "s", [6.0, 0.0, 4.0, 2.0]))
    assert volume.shape == (4, 3, 4)
    assert volume.grid.orientation == "LPS"
    assert volume.grid.spacing_mm == (0.75, 0.5, 2.0)
    assert volume.grid.origin_mm == (-10, 20, 0)
    assert volume.array[0, 0].tolist() == [2, 4, 3, 1]
    assert volume.array[:, 1, 0].tolist() == [6, 7, 8, 9]
    assert not volume.notes


def test_meta_says_nothing_about_the_patient(tmp_path: Path, make_series: Make) -> None:
    volume = read(make_series(tmp_path / "s", [0.0, 2.0]))
    assert volume.meta["modality"] == "CT"
    assert volume.meta["series_uid"] == "1.2.3.4"
    assert not any(word in str(volume.meta) + str(volume.notes) for word in ("Doe", "20200101"))


def test_a_missing_slice_is_an_error_that_names_the_place(
    tmp_path: Path, make_series: Make
) -> None:
    folder = make_series(tmp_path / "s", [0.0, 2.0, 4.0, 8.0, 10.0])
    with pytest.raises(
        FileError, match=r"4 mm from \(10, -20, 4\) to \(10, -20, 8\).*allow_gaps=True"
    ):
        read(folder)
    filled = read(folder, allow_gaps=True)
    assert filled.shape == (4, 3, 6)
    assert filled.grid.spacing_mm[2] == 2
    assert (filled.array[:, :, 3] == filled.array.min()).all()
    assert filled.array[0, 0, 4] == 4
    assert "1 missing slices were filled" in filled.notes[0]


def test_uneven_slices_are_refused_even_with_gaps_allowed(
    tmp_path: Path, make_series: Make
) -> None:
    folder = make_series(tmp_path / "s", [0.0, 2.0, 4.0, 7.1, 9.1])
    for allow in (False, True):
        with pytest.raises(FileError, match="fit no even lattice"):
            read(folder, allow_gaps=allow)


def test_rounded_positions_are_accepted_and_larger_ones_noted(
    tmp_path: Path, make_series: Make
) -> None:
    assert not read(make_series(tmp_path / "a", [0.0, 2.001, 4.0])).notes
    assert (
        "0.03 mm off the even lattice"
        in read(make_series(tmp_path / "b", [0.0, 2.03, 4.0])).notes[0]
    )


def test_a_tilted_gantry_gives_a_sheared_grid(tmp_path: Path, make_slice: Make) -> None:
    for n in range(3):
        make_slice(tmp_path / f"{n}.dcm", position=(0, 0.5 * n, 2.0 * n), instance=n)
    volume = read(tmp_path)
    assert volume.grid.is_sheared
    assert np.allclose(volume.grid.affine[:3, 2], (0, -0.5, 2))
    assert "gantry tilt" in volume.notes[0]


def test_slices_at_one_place_are_frames(tmp_path: Path, make_slice: Make) -> None:
    for n in range(6):
        place, time = n % 3, n // 3
        make_slice(
            tmp_path / f"{n}.dcm",
            position=(0, 0, 2.0 * place),
            instance=n,
            TemporalPositionIdentifier=2 - time,
        )
    with pytest.raises(
        FileError, match=r"holds 2 frames \(time points or echoes\) at each position"
    ):
        read(tmp_path)
    assert read(tmp_path, frame=0).array[0, 0].tolist() == [3, 4, 5]
    assert read(tmp_path, frame=1).array[0, 0].tolist() == [0, 1, 2]
    assert read(tmp_path, frame="all").array.shape == (4, 3, 3, 2)


def test_unequally_many_slices_at_a_place_are_refused(tmp_path: Path, make_slice: Make) -> None:
    for n, height in enumerate([0.0, 2.0, 2.0, 4.0]):
        make_slice(tmp_path / f"{n}.dcm", position=(0, 0, height), instance=n)
    with pytest.raises(FileError, match="3 positions, but not equally many at each"):
        read(tmp_path)


def test_copies_of_a_file_count_once(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", [0.0, 2.0])
    first = next(folder.iterdir())
    (folder / "copy (1).dcm").write_bytes(first.read_bytes())
    volume = read(folder)
    assert volume.shape == (4, 3, 2)
    assert "1 slices were there twice" in volume.notes[0]


def test_mixed_orientations_are_refused_and_localizers_left_out(
    tmp_path: Path, make_series: Make
) -> None:
    folder = make_series(tmp_path / "s", [0.0, 2.0, 4.0])
    make_series(tmp_path / "s" / "x", [0.0], orientation=(1, 0, 0, 0, 0, -1))
    with pytest.raises(FileError, match="mixes slices of 2 orientations"):
        read(folder)
    for file in (folder / "x").iterdir():
        file.unlink()
    make_series(
        folder / "x",
        [0.0],
        orientation=(1, 0, 0, 0, 0, -1),
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
    )
    volume = read(folder)
    assert volume.shape == (4, 3, 3)
    assert "1 localizer slices" in volume.notes[0]


def test_mixed_sizes_and_spacings_are_refused(tmp_path: Path, make_series: Make) -> None:
    folder = make_series(tmp_path / "s", [0.0, 2.0])
    make_series(folder / "x", [4.0], pixels=np.zeros((5, 5), np.int16))
    with pytest.raises(
        FileError, match=r"different sizes \(rows, columns\): \[\(3, 4\), \(5, 5\)\]"
    ):
        read(folder)
    folder = make_series(tmp_path / "t", [0.0, 2.0])
    make_series(folder / "x", [4.0], PixelSpacing=[1.0, 1.0])
    with pytest.raises(FileError, match="different PixelSpacing"):
        read(folder)


def test_several_series_are_listed_and_one_is_chosen(tmp_path: Path, make_series: Make) -> None:
    make_series(tmp_path / "a", [0.0, 2.0], series="1.2.7", number=3, SeriesDescription="Thin")
    make_series(
        tmp_path / "b", [0.0, 5.0, 10.0], series="1.2.8", number=4, SeriesDescription="Thick"
    )
    with pytest.raises(FileError, match="holds 2 series") as caught:
        read(tmp_path)
    assert "number 3, 'Thin', CT, 2 slices, UID 1.2.7" in str(caught.value)
    for chosen in ("1.2.8", 4, "4", "thick"):
        assert read(tmp_path, series=chosen).shape == (4, 3, 3)


def test_other_files_in_the_folder_are_left_out_with_a_note(
    tmp_path: Path, make_series: Make
) -> None:
    folder = make_series(tmp_path / "s", [0.0, 2.0])
    (folder / "notes.txt").write_text("hello")
    (folder / "DICOMDIR").write_bytes(b"\0" * 200)
    assert read(folder).notes == ("1 files of the folder are not slices and were left out.",)


@pytest.mark.parametrize("preamble", [True, False])
def test_one_file_is_a_slice(tmp_path: Path, make_slice: Make, preamble: bool) -> None:
    volume = read(make_slice(tmp_path / "IM_0001", preamble=preamble, position=(1, 2, 3)))
    assert volume.shape == (4, 3, 1)
    assert volume.grid.spacing_mm == (0.75, 0.5, 2)
    assert volume.grid.origin_mm == (-1, -2, 3)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype", "first"),
    [(1, 0, "uint16", 1), (1, -1024, "int16", -1023), (2, 1, "int16", 3), (0.5, 0, "float32", 0.5)],
)
def test_slope_and_intercept_are_applied(
    tmp_path: Path, make_slice: Make, slope: float, intercept: float, dtype: str, first: float
) -> None:
    pixels = np.arange(12, dtype=np.uint16).reshape(3, 4) + 1
    path = make_slice(
        tmp_path / "a.dcm", pixels=pixels, RescaleSlope=slope, RescaleIntercept=intercept
    )
    volume = read(path)
    assert volume.dtype == dtype
    assert volume.array[0, 0, 0] == first


def test_each_slice_is_scaled_by_its_own_slope(tmp_path: Path, make_slice: Make) -> None:
    for n in range(3):
        path = tmp_path / f"{n}.dcm"
        make_slice(
            path, position=(0, 0, 2.0 * n), instance=1, RescaleSlope=n + 0.5, RescaleIntercept=n
        )
    volume = read(tmp_path)
    assert volume.array[0, 0].tolist() == [0.5, 2.5, 4.5]
    assert "scaled differently" in volume.notes[0]


def test_pictures_without_a_position_lie_on_a_picture_grid(
    tmp_path: Path, make_slice: Make
) -> None:
    volume = read(make_slice(tmp_path / "a.dcm", position=None, orientation=None))
    assert volume.shape == (3, 4, 1)
    assert volume.grid.orientation == "PLS"
    assert volume.grid.spacing_mm == (0.5, 0.75, 1)
    assert volume.grid.unit == "mm"
    assert "left and right are unknown" in volume.notes[0]
    bare = make_slice(tmp_path / "b.dcm", position=None, orientation=None, PixelSpacing=None)
    assert read(bare).grid.unit == "px"


def test_frames_without_a_position_are_read_one_by_one(tmp_path: Path, make_slice: Make) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = make_slice(
        tmp_path / "a.dcm",
        position=None,
        orientation=None,
        pixels=pixels,
        Rows=3,
        Columns=4,
        NumberOfFrames=2,
    )
    with pytest.raises(FileError, match="holds 2 pictures without a position"):
        read(path)
    assert np.array_equal(read(path, frame=1).array[:, :, 0], pixels[1])


def test_a_dose_grid_is_placed_by_its_offsets(tmp_path: Path, make_slice: Make) -> None:
    pixels = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    path = make_slice(
        tmp_path / "a.dcm",
        pixels=pixels,
        Rows=3,
        Columns=4,
        NumberOfFrames=2,
        GridFrameOffsetVector=[0.0, 3.0],
        DoseGridScaling=0.5,
    )
    volume = read(path)
    assert volume.grid.spacing_mm == (0.75, 0.5, 3)
    assert np.array_equal(volume.array[:, :, 1].T, pixels[1] * 0.5)


def test_colour_and_monochrome1_are_told(tmp_path: Path, make_slice: Make) -> None:
    color = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    path = make_slice(
        tmp_path / "a.dcm",
        pixels=color,
        SamplesPerPixel=3,
        PhotometricInterpretation="RGB",
        PlanarConfiguration=0,
    )
    volume = read(path)
    assert volume.channels == ("R", "G", "B")
    assert np.array_equal(volume.array[:, :, 0].transpose(1, 0, 2), color)
    note = read(make_slice(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1")).notes[0]
    assert note.startswith("MONOCHROME1")


# -- enhanced multi-frame ------------------------------------------------------------------------


def enhanced(
    path: Path, make_slice: Make, places: list[tuple[float, int]], **elements: Any
) -> Path:
    """One file of frames at given (height, time)."""
    pixels = np.stack([np.full((3, 4), n, np.int16) for n in range(len(places))])
    make_slice(path, position=None, orientation=None, pixels=pixels, Rows=3, Columns=4)
    dataset = pydicom.dcmread(path)
    dataset.NumberOfFrames = len(places)
    measures, orientation, rescale = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], 2.0
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, -5
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelValueTransformationSequence = Sequence([rescale])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for height, time in places:
        frame, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [10, -20, height]
        content.TemporalPositionIndex = time
        frame.PlanePositionSequence = Sequence([position])
        frame.FrameContentSequence = Sequence([content])
        frames.append(frame)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path)
    return path


def test_frames_of_an_enhanced_file_are_sorted_and_scaled(tmp_path: Path, make_slice: Make) -> None:
    volume = read(enhanced(tmp_path / "a.dcm", make_slice, [(4, 1), (0, 1), (2, 1)]))
    assert volume.grid.spacing_mm == (0.75, 0.5, 2)
    assert volume.grid.origin_mm == (-10, 20, 0)
    assert volume.array[0, 0].tolist() == [-3, -1, -5]


def test_times_of_an_enhanced_file_are_frames(tmp_path: Path, make_slice: Make) -> None:
    places = [(0, 2), (0, 1), (2, 2), (2, 1)]
    path = enhanced(tmp_path / "a.dcm", make_slice, places)
    with pytest.raises(FileError, match="holds 2 frames"):
        read(path)
    assert read(path, frame=0).array[0, 0].tolist() == [-3, 1]
    assert read(path, frame=1).array[0, 0].tolist() == [-5, -1]


# -- what cannot be read -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "error", "text"),
    [
        ({"ImageType": ["DERIVED", "PRIMARY", "MOSAIC"]}, UnsupportedFormat, "Siemens mosaic"),
        ({"TotalPixelMatrixColumns": 100}, UnsupportedFormat, "tiled microscopy"),
        ({"PixelSpacing": None}, FileError, "no PixelSpacing"),
        ({"ImageOrientationPatient": [0.0] * 6}, GeometryError, "no volume"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, GeometryError, "no volume"),
        ({"Rows": 60000, "Columns": 60000}, CorruptFile, "truncated"),
    ],
)
def test_what_is_wrong_is_told(
    tmp_path: Path, make_slice: Make, elements: dict[str, Any], error: type, text: str
) -> None:
    with pytest.raises(error, match=text) as caught:
        read(make_slice(tmp_path / "a.dcm", **elements))
    assert "a.dcm" in str(caught.value)


def test_memory_is_checked_before_pixels_are_read(tmp_path: Path, make_slice: Make) -> None:
    path = make_slice(tmp_path / "a.dcm", pixels=np.zeros((100, 100), np.int16))
    with pytest.raises(TooLarge, match=r"asks for 19.5 KiB"):
        read(path, max_bytes=1000)


def test_a_header_without_pixels_is_refused(tmp_path: Path, make_slice: Make) -> None:
    path = make_slice(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.PixelData
    dataset.save_as(path)
    with pytest.raises(CorruptFile, match="no pixel data"):
        read(path)


# -- compressed pixels ---------------------------------------------------------------------------


def test_run_lengths_are_decoded(tmp_path: Path, make_slice: Make) -> None:
    path = make_slice(tmp_path / "a.dcm")
    plain = read(path).array
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    assert np.array_equal(read(path).array, plain)


def by_gdcm(path: Path, array: np.ndarray, compressor: str) -> Path:
    """Let GDCM write one compressed picture."""
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.SetFileName(str(path))
    writer.Execute(sitk.GetImageFromArray(array[None]))
    return path


def test_lossless_jpeg_that_pydicom_cannot_decode_is_decoded_by_gdcm(tmp_path: Path) -> None:
    array = np.arange(16 * 20, dtype=np.int16).reshape(16, 20) - 50
    path = by_gdcm(tmp_path / "a.dcm", array, "JPEG")
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.name.startswith("JPEG Lossless")
    assert np.array_equal(read(path).array[:, :, 0], array)


def test_the_size_in_a_compressed_picture_is_compared_with_the_header(tmp_path: Path) -> None:
    array = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    path = by_gdcm(tmp_path / "a.dcm", array, "JPEG2000")
    found = read(path).array[:, :, 0]
    assert np.array_equal(found if found.shape == array.shape else found.T, array)
    dataset = pydicom.dcmread(path)
    dataset.Rows = 60
    dataset.save_as(path)
    text = "header says 60 rows and 48 columns, the compressed picture 64 and 48"
    with pytest.raises(CorruptFile, match=text):
        read(path)


def test_sizes_are_found_in_jpeg_streams(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (30, 20)).save(tmp_path / "a.jpg")
    assert codestream_size((tmp_path / "a.jpg").read_bytes()) == (20, 30)
    assert codestream_size(b"abc") is None
