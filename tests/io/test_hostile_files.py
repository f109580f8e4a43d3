"""Law 8: whatever a file claims, the answer is a volume or an error that names the file."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samaritan import Grid, LabelMap, Volume, read, write
from samaritan.errors import (
    CorruptFile,
    FileError,
    GeometryError,
    SamaritanError,
    TooLarge,
    UnsafeFile,
    UnsupportedFormat,
)

WORKER = Path(__file__).with_name("fuzz_worker.py")
EACH = 100

REAL_SEEDS = [
    "dicom/dcmqi/segmentations/23x38x3/image/IMG0001.dcm",
    "dicom/dcmqi/segmentations/23x38x3/multiframe/mf.dcm",
    "dicom/dcmqi/segmentations/23x38x3/seg/label.seg",
    "dicom/dcmqi/segmentations/sparse-labelmap-ppv5.dcm",
    "dicom/highdicom/seg_image_ct_true_fractional.dcm",
    "dicom/highdicom/frame_rgb.jpeg",
    "geometry/nibabel/standard.nii.gz",
    "geometry/nibabel/resampled_anat_moved.nii",
    "geometry/nibabel/test.mgz",
    "geometry/nibabel/minc1_1_scale.mnc",
    "geometry/nibabel/minc2_1_scale.mnc",
    "geometry/pynrrd/test2d_ascii.nrrd",
    "geometry/pynrrd/BallBinary30x30x30_bz2.nrrd",
    "geometry/pynrrd/BallBinary30x30x30_gz_lineskip.nrrd",
]


REAL_PAIRS = {
    "geometry/nibabel/example4d+orig.HEAD": "afni+orig.HEAD",
    "geometry/nibabel/example4d+orig.BRIK.gz": "_afni+orig.BRIK.gz",
    "geometry/nibabel/phantom_EPI_asc_CLEAR_2_1.PAR": "philips.PAR",
    "geometry/nibabel/phantom_EPI_asc_CLEAR_2_1.REC": "_philips.REC",
}


def seed_files(folder: Path, volume: Volume, make_slice: Callable[..., Path]) -> None:
    """Write small files of every format; names that begin with "_" are data that go with a header."""
    labels = LabelMap((volume.array > 0).astype(np.uint8), volume.grid, names={1: "organ"})
    picture = Volume(np.arange(30, dtype=np.uint8).reshape(5, 6, 1), Grid.pixels((5, 6)))
    colors = Volume(np.zeros((5, 6, 1, 3), np.uint8), Grid.pixels((5, 6)), ("R", "G", "B"))
    for name in ("a.nii", "b.nii.gz", "c.hdr", "d.nrrd", "e.nhdr", "f.mha", "g.mhd", "h.mgz"):
        write(volume, folder / name)
    for data in ("c.img", "e.raw.gz", "g.zraw"):
        (folder / data).rename(folder / f"_{data}")
    write(labels, folder / "i.seg.nrrd")
    for name in ("j.png", "k.tiff", "l.bmp"):
        write(picture, folder / name)
    write(colors, folder / "m.png")
    write(volume.with_array(volume.array.astype(np.float32)), folder / "n.nii")
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(folder / "o.jpg")
    make_slice(folder / "p.dcm")
    make_slice(folder / "q", preamble=False)


@pytest.mark.slow
def test_thousands_of_damaged_files_are_read_or_refused(
    tmp_path: Path, volume: Volume, make_slice: Callable[..., Path]
) -> None:
    seeds, work = tmp_path / "seeds", tmp_path / "work"
    seeds.mkdir()
    work.mkdir()
    seed_files(seeds, volume, make_slice)
    data = Path(os.environ.get("SAMARITAN_DATA", Path(__file__).parents[3] / "shared" / "data"))
    for n, name in enumerate(REAL_SEEDS):
        if (data / name).is_file():
            shutil.copyfile(data / name, seeds / f"real{n:02d}{''.join(Path(name).suffixes)}")
    for name, to in REAL_PAIRS.items():
        if (data / name).is_file():
            shutil.copyfile(data / name, seeds / to)
    each = max(EACH, 2100 // len([p for p in seeds.iterdir() if p.name[0] != "_"]) + 1)
    command = [sys.executable, str(WORKER), str(seeds), str(work), str(each)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]
    result = json.loads(finished.stdout)
    assert not result["wrong"], f"{len(result['wrong'])} went wrong:\n" + "\n".join(
        result["wrong"][:5]
    )
    assert result["read"] + result["refused"] >= 2000
    assert result["read"] >= 100
    assert result["refused"] >= 500
    assert result["peak_kib"] < 600 * 1024, "memory is not bounded"


# -- one by one ----------------------------------------------------------------------------------


def nifti_header(path: Path) -> bytearray:
    return bytearray(path.read_bytes())


@pytest.mark.parametrize(
    ("offset", "code", "value", "error", "text"),
    [
        (42, "<3h", (32767, 32767, 32767), CorruptFile, "promised"),
        (42, "<h", (-3,), CorruptFile, "dim ="),
        (42, "<h", (0,), CorruptFile, "dim ="),
        (40, "<h", (9,), CorruptFile, "dim ="),
        (70, "<h", (77,), CorruptFile, "data type 77"),
        (70, "<h", (1536,), UnsupportedFormat, "data type 1536"),
        (108, "<f", (float("nan"),), CorruptFile, "at byte nan"),
        (108, "<f", (1e30,), CorruptFile, "at byte"),
        (280, "<f", (float("nan"),), GeometryError, "finite"),
        (280, "<12f", (0.0,) * 12, GeometryError, "no volume"),
    ],
)
def test_a_wrong_nifti_header_is_refused_by_what_is_wrong(
    tmp_path: Path,
    volume: Volume,
    offset: int,
    code: str,
    value: tuple[float, ...],
    error: type,
    text: str,
) -> None:
    path = write(volume, tmp_path / "a.nii")
    data = nifti_header(path)
    struct.pack_into(code, data, offset, *value)
    path.write_bytes(data)
    with pytest.raises(error, match=text) as caught:
        read(path)
    assert "a.nii" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mgz", "a.png", "a.tiff"]
)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.98])
def test_a_truncated_file_is_refused(
    tmp_path: Path, volume: Volume, name: str, part: float
) -> None:
    rng = np.random.default_rng(1)
    picture = Volume(rng.integers(0, 255, (40, 50, 1)).astype(np.uint8), Grid.pixels((40, 50)))
    path = write(picture if name.endswith(("png", "tiff")) else volume, tmp_path / name)
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(FileError, match=name):
        read(path)


def test_a_gzip_bomb_takes_no_memory(tmp_path: Path, volume: Volume) -> None:
    path = write(volume, tmp_path / "a.nii")
    data = nifti_header(path)[:352]
    struct.pack_into("<3h", data, 42, 320, 320, 320)
    bomb = tmp_path / "bomb.nii.gz"
    with gzip.open(bomb, "wb", 9) as file:
        file.write(bytes(data))
        for _ in range(64):
            file.write(bytes(1 << 20))
    assert bomb.stat().st_size < 100_000
    with pytest.raises(
        TooLarge, match=r"bomb.nii.gz: its header asks for 62.5 MiB, more than the 1 MiB"
    ):
        read(bomb, max_bytes=1 << 20)
    struct.pack_into("<3h", data, 42, 1000, 1000, 1000)
    bomb.write_bytes(gzip.compress(bytes(data) + bytes(1000)))
    with pytest.raises(CorruptFile, match="2000000000 bytes of voxels are promised"):
        read(bomb)


def test_a_wrong_checksum_is_found(tmp_path: Path, volume: Volume) -> None:
    path = write(volume, tmp_path / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[-6] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match="damaged"):
        read(path)


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    packed = zlib.compress(bytes(1 << 16))
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )
    with pytest.raises((CorruptFile, TooLarge), match=r"bomb\.png"):
        read(path)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../secret.raw", "sub/../../secret.raw", "a\\b.raw"]
)
@pytest.mark.parametrize("kind", ["nhdr", "mhd"])
def test_detached_data_are_only_followed_into_the_own_folder(
    tmp_path: Path, volume: Volume, name: str, kind: str
) -> None:
    folder = tmp_path / "in"
    (tmp_path / "secret.raw").write_bytes(bytes(1000))
    path = write(volume, folder / f"a.{kind}")
    own = b"a.raw.gz" if kind == "nhdr" else b"a.zraw"
    path.write_bytes(path.read_bytes().replace(own, name.encode()))
    with pytest.raises(FileError, match="only files in its own folder are followed"):
        read(path)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, volume: Volume) -> None:
    secret = tmp_path / "secret.raw"
    secret.write_bytes(bytes(1000))
    path = write(volume, tmp_path / "in" / "a.nhdr")
    (tmp_path / "in" / "a.raw.gz").unlink()
    (tmp_path / "in" / "a.raw.gz").symlink_to(secret)
    with pytest.raises(FileError, match="only files in its own folder are followed"):
        read(path)


def test_what_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    cases = {
        "a.pkl": (b"\x80\x04\x95abc.", UnsafeFile, "pickle"),
        "a.pth": (b"PK\x03\x04abc", UnsafeFile, "pickle"),
        "a.npz": (b"PK\x03\x04abc", CorruptFile, "truncated, or no .npz file"),
        "a.zip": (b"PK\x03\x04abc", UnsupportedFormat, "zip archive"),
        "a.npy": (b"\x93NUMPY\x01\x00", UnsupportedFormat, "no geometry"),
        "a.raw": (b"abc", UnsupportedFormat, "without a header"),
        "a.xyz": (b"abc", UnsupportedFormat, "format is not known. Samaritan reads NIfTI"),
        "b.nii": (b"", CorruptFile, "is empty"),
    }
    for name, (data, error, text) in cases.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(error, match=text):
            read(tmp_path / name)
    with pytest.raises(FileError, match="cannot be opened"):
        read(tmp_path / "absent.nii")
    os.mkfifo(tmp_path / "pipe.nii")
    with pytest.raises(FileError, match="not a regular file"):
        read(tmp_path / "pipe.nii")


def test_contents_count_more_than_the_suffix(tmp_path: Path, volume: Volume) -> None:
    path = write(volume, tmp_path / "a.nii.gz")
    renamed = path.rename(tmp_path / "a.dcm")
    assert read(renamed).grid.same_as(volume.grid)


def test_a_deflated_dicom_bomb_is_refused(
    tmp_path: Path, make_slice: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import pydicom

    from samaritan.io import dicom_files

    monkeypatch.setattr(dicom_files, "_DEFLATED_BYTES", 1 << 20)
    dataset = pydicom.dcmread(make_slice(tmp_path / "a.dcm"))
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    dataset.save_as(tmp_path / "small.dcm")
    assert read(tmp_path / "small.dcm").shape == (4, 3, 1)
    dataset.PixelData = bytes(8 << 20)
    dataset.save_as(tmp_path / "bomb.dcm")
    with pytest.raises(TooLarge, match="deflated"):
        read(tmp_path / "bomb.dcm")


def test_every_refusal_is_a_samaritan_error() -> None:
    assert all(
        issubclass(e, SamaritanError) for e in (FileError, CorruptFile, TooLarge, UnsafeFile)
    )
