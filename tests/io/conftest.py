"""Small files of every format, made on the spot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from samaritan import Grid, Volume

MakeSlice = Callable[..., Path]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture
def volume(rng: np.random.Generator) -> Volume:
    """A small anisotropic volume of int16."""
    array = rng.integers(-1000, 3000, (3, 4, 5)).astype(np.int16)
    grid = Grid.from_spacing((3, 4, 5), (0.7, 1.3, 2.9), orientation="PIR", origin_mm=(5, -7, 11.5))
    return Volume(array, grid)


@pytest.fixture
def make_slice() -> MakeSlice:
    """A function that writes one DICOM slice and returns its path."""

    def make(
        path: Path,
        *,
        position: Sequence[float] | None = (0.0, 0.0, 0.0),
        orientation: Sequence[float] | None = (1, 0, 0, 0, 1, 0),
        pixels: np.ndarray[Any, Any] | None = None,
        series: str = "1.2.3.4",
        number: int = 1,
        instance: int = 1,
        preamble: bool = True,
        **elements: Any,
    ) -> Path:
        array = np.arange(12, dtype=np.int16).reshape(3, 4) + instance if pixels is None else pixels
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        dataset.SOPClassUID = CTImageStorage
        dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", series
        dataset.FrameOfReferenceUID = "1.2.3.9"
        dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", number, instance
        dataset.StudyDate, dataset.StudyTime, dataset.AccessionNumber = "20200101", "120000", ""
        dataset.PatientID, dataset.PatientName, dataset.PatientSex = "x", "Doe^J", "O"
        dataset.PatientBirthDate, dataset.StudyID, dataset.ReferringPhysicianName = "", "", ""
        if position is not None:
            dataset.ImagePositionPatient = [float(v) for v in position]
        if orientation is not None:
            dataset.ImageOrientationPatient = [float(v) for v in orientation]
        dataset.PixelSpacing = [0.5, 0.75]
        dataset.SliceThickness = 2.0
        dataset.Rows, dataset.Columns = array.shape[:2]
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 8 * array.dtype.itemsize
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelRepresentation = int(array.dtype.kind == "i")
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        for name, value in elements.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        dataset.PixelData = array.tobytes()
        if preamble:
            dataset.save_as(path, enforce_file_format=True)
        else:
            bare = pydicom.Dataset(dataset)
            bare.save_as(path, implicit_vr=False, little_endian=True)
        return path

    return make


@pytest.fixture
def make_series(make_slice: MakeSlice) -> Callable[..., Path]:
    """A function that writes slices at given heights and returns their folder."""

    def make(folder: Path, heights: Sequence[float], **elements: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for n, height in enumerate(heights):
            # names say nothing about the order
            name = f"{(n * 7) % 11:02d}-{n}-{elements.get('series', 'x')}.dcm"
            make_slice(folder / name, position=(10.0, -20.0, height), instance=n + 1, **elements)
        return folder

    return make
