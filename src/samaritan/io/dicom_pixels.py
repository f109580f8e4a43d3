"""DICOM pixels decoded frame by frame: pydicom's decoders, and GDCM in SimpleITK where it has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy.typing as npt

from samaritan.errors import CorruptFile, UnsupportedFormat
from samaritan.io.dicom_files import frame_count, open_dataset
from samaritan.io.files import file_size, guard

Array = npt.NDArray[Any]

_SOF = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}


class Pixels:
    """The frames of one file, decoded one at a time.

    Attributes:
        scaled: whether the values already include slope and intercept (GDCM applies them).
        notes: what was odd.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.scaled = False
        self.notes: tuple[str, ...] = ()
        self._dataset = open_dataset(path, pixels=True)
        self._gdcm: Array | None = None
        with guard(path, "read as DICOM"):
            self._check()

    def frame(self, number: int) -> Array:
        """Decode one frame: (rows, columns) or (rows, columns, samples)."""
        if self._gdcm is not None:
            return _at(self._gdcm, number)
        with guard(self.path, "decoded"):
            if self._has_decoder():
                return self._decoded(number)
        self._gdcm = self._by_gdcm()
        self.scaled = True
        return _at(self._gdcm, number)

    def _check(self) -> None:
        dataset = self._dataset
        if not any(k in dataset for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise CorruptFile(f"{self.path} has no pixel data: it is truncated, or only a header")
        syntax = (
            dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
        )
        if syntax is None:
            # files without preamble do not say how they are stored: as parsed, which is what pydicom guessed
            from pydicom.dataset import FileMetaDataset
            from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

            implicit = dataset.original_encoding[0]
            dataset.file_meta = FileMetaDataset()
            dataset.file_meta.TransferSyntaxUID = (
                ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
            )
        elif not syntax.is_compressed:
            self._check_native()

    def _check_native(self) -> None:
        dataset = self._dataset
        bits = int(dataset.get("BitsAllocated", 0) or 0) * int(
            dataset.get("SamplesPerPixel", 1) or 1
        )
        need = int(dataset.Rows) * int(dataset.Columns) * frame_count(dataset) * bits // 8
        if need > file_size(self.path):
            raise CorruptFile(
                f"{self.path} is truncated: {need} bytes of pixels are promised, the whole file has "
                f"{file_size(self.path)}"
            )

    def _has_decoder(self) -> bool:
        from pydicom.pixels import get_decoder

        syntax = self._dataset.file_meta.TransferSyntaxUID
        if not syntax.is_compressed:
            return True
        try:
            return bool(get_decoder(syntax).is_available)
        except NotImplementedError:
            return False

    def _decoded(self, number: int) -> Array:
        from pydicom.pixels import apply_color_lut, apply_modality_lut, pixel_array

        dataset = self._dataset
        self._check_codestream(number)
        array: Array = pixel_array(dataset, index=number)
        if str(dataset.get("PhotometricInterpretation", "")) == "PALETTE COLOR":
            array = apply_color_lut(array, dataset)
            self.notes = ("The picture has a palette; its colours were read.",)
        if dataset.get("ModalityLUTSequence"):
            array = apply_modality_lut(array, dataset)
            self.scaled = True
        return array

    def _check_codestream(self, number: int) -> None:
        """Compare the size in a compressed frame with the header, before a decoder trusts it."""
        dataset = self._dataset
        if not dataset.file_meta.TransferSyntaxUID.is_compressed:
            return
        from pydicom.encaps import get_frame

        packed = get_frame(dataset.PixelData, number, number_of_frames=frame_count(dataset))
        size = codestream_size(packed)
        if size and size != (int(dataset.Rows), int(dataset.Columns)):
            raise CorruptFile(
                f"{self.path}: the header says {dataset.Rows} rows and {dataset.Columns} columns, "
                f"the compressed picture {size[0]} and {size[1]}"
            )

    def _by_gdcm(self) -> Array:
        """Let GDCM decode the whole file; the values come scaled."""
        import SimpleITK as sitk

        name = self._dataset.file_meta.TransferSyntaxUID.name
        with guard(self.path, "decoded"):
            self._check_codestream(0)
        try:
            image = sitk.ReadImage(str(self.path), imageIO="GDCMImageIO")
        except RuntimeError as error:
            raise UnsupportedFormat(
                f"{self.path}: no decoder for {name} is installed. "
                'Install some with: pip install "samaritan[dicom]"'
            ) from error
        array: Array = sitk.GetArrayFromImage(image)
        wanted = (frame_count(self._dataset), int(self._dataset.Rows), int(self._dataset.Columns))
        if array.shape[:3] == wanted:
            return array
        if array.shape[:2] == wanted[1:]:
            return array[None]
        raise CorruptFile(f"{self.path}: decoded to {array.shape}, but the header says {wanted}")


def _at(frames: Array, number: int) -> Array:
    frame: Array = frames[number]
    return frame


def codestream_size(data: bytes) -> tuple[int, int] | None:
    """(rows, columns) that a JPEG, JPEG-LS or JPEG 2000 stream tells, or None if it tells none."""
    if b"\xff\x4f\xff\x51" in data[:4096]:
        start = data.index(b"\xff\x4f\xff\x51") + 8
        x1, y1, x0, y0 = (
            int.from_bytes(data[start + 4 * n : start + 4 * n + 4], "big") for n in range(4)
        )
        return y1 - y0, x1 - x0
    if data[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SOF:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(
                data[at + 7 : at + 9], "big"
            )
        if marker == 0xFF:
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
