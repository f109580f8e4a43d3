"""Pictures as they are found: palettes, bits, alpha, turned by EXIF, labels in colours."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from samaritan import Grid, LabelMap, read, write
from samaritan.errors import CorruptFile, FileError, UnsupportedFormat
from samaritan.io import read_labels

GRAY = np.arange(20, dtype=np.uint8).reshape(4, 5)


def test_rows_run_down_and_columns_right(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.png")
    volume = read(tmp_path / "a.png")
    assert volume.grid == Grid.pixels((4, 5))
    assert volume.grid.orientation == "PLS"
    assert np.array_equal(volume.array[:, :, 0], GRAY)


def test_a_palette_is_colours_for_images_and_indices_for_labels(tmp_path: Path) -> None:
    picture = Image.fromarray(GRAY % 3).convert("P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0] + [0] * 759)
    picture.save(tmp_path / "a.png")
    volume = read(tmp_path / "a.png")
    assert volume.channels == ("R", "G", "B")
    assert volume.array[0, 1, 0].tolist() == [255, 0, 0]
    assert "palette" in volume.notes[0]
    assert np.array_equal(read_labels(tmp_path / "a.png").array[:, :, 0], GRAY % 3)


def test_one_bit_is_0_and_1(tmp_path: Path) -> None:
    Image.fromarray(GRAY > 7).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png").array[:, :, 0], GRAY > 7)
    assert read_labels(tmp_path / "a.png").labels() == [1]


@pytest.mark.parametrize(("mode", "channels"), [("LA", ("L", "A")), ("RGBA", ("R", "G", "B", "A"))])
def test_transparency_is_a_channel(tmp_path: Path, mode: str, channels: tuple[str, ...]) -> None:
    Image.fromarray(GRAY).convert(mode).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png").channels == channels


@pytest.mark.parametrize("turn", range(2, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tiff"])
def test_exif_turns_the_picture_as_viewers_do(tmp_path: Path, turn: int, name: str) -> None:
    picture = Image.new("L", (40, 16))
    picture.paste(200, (0, 0, 10, 16))
    exif = Image.Exif()
    exif[0x0112] = turn
    picture.save(tmp_path / name, exif=exif)
    volume = read(tmp_path / name)
    assert "EXIF orientation" in volume.notes[0]
    bright = np.argwhere(volume.array[:, :, 0] > 100).mean(axis=0) / volume.shape[:2]
    side = {2: "right", 3: "right", 4: "left", 5: "top", 6: "top", 7: "bottom", 8: "bottom"}[turn]
    where = {"left": bright[1], "right": 1 - bright[1], "top": bright[0], "bottom": 1 - bright[0]}
    assert where[side] < 0.2
    assert volume.shape == ((16, 40, 1) if turn < 5 else (40, 16, 1))


@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_16_bits_are_kept(tmp_path: Path, byte_order: str) -> None:
    array = GRAY.astype(np.uint16) * 3000
    name = "a.png" if byte_order == "<" else "a.tiff"
    mode = "I;16" if byte_order == "<" else "I;16B"
    Image.frombytes(mode, (5, 4), array.astype(f"{byte_order}u2").tobytes()).save(tmp_path / name)
    assert np.array_equal(read(tmp_path / name).array[:, :, 0], array)


def test_16_bit_colour_png_is_refused_instead_of_cut_to_8(tmp_path: Path) -> None:
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    head = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + bytes(12) for _ in range(2)))
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    with pytest.raises(UnsupportedFormat, match="16 bits a channel would be cut to 8"):
        read(tmp_path / "a.png")


def test_cmyk_becomes_rgb_with_a_note(tmp_path: Path) -> None:
    Image.new("CMYK", (5, 4)).save(tmp_path / "a.jpg")
    volume = read(tmp_path / "a.jpg")
    assert volume.channels == ("R", "G", "B")
    assert "CMYK" in volume.notes[0]


def test_pages_of_different_sizes_are_read_one_by_one(tmp_path: Path) -> None:
    pages = [Image.new("L", (5, 4)), Image.new("L", (6, 4))]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    with pytest.raises(UnsupportedFormat, match="2 pages of different sizes"):
        read(tmp_path / "a.tiff")
    assert read(tmp_path / "a.tiff", frame=1).shape == (4, 6, 1)
    with pytest.raises(FileError, match="no frame 2"):
        read(tmp_path / "a.tiff", frame=2)


def test_grey_labels_stored_as_colour_are_labels_and_others_are_not(tmp_path: Path) -> None:
    Image.fromarray(np.stack([GRAY] * 3, axis=-1)).save(tmp_path / "a.png")
    labels = read_labels(tmp_path / "a.png")
    assert np.array_equal(labels.array[:, :, 0], GRAY)
    assert "channels are equal" in labels.notes[0]
    Image.fromarray(np.stack([GRAY, GRAY, GRAY.T.reshape(4, 5)], axis=-1)).save(tmp_path / "b.png")
    with pytest.raises(FileError, match="3 channels that differ"):
        read_labels(tmp_path / "b.png")


def test_jpeg_holds_no_labels(tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / "a.jpg")
    with pytest.raises(UnsupportedFormat, match="labels in it cannot be trusted"):
        read_labels(tmp_path / "a.jpg")


def test_names_come_from_a_file_beside_the_labels(tmp_path: Path) -> None:
    labels = LabelMap(GRAY[..., None] % 3, Grid.pixels((4, 5)))
    path = write(labels, tmp_path / "a.png")
    (tmp_path / "a.labels.json").write_text('{"1": "liver", "2": "spleen"}')
    assert read_labels(path).names == {1: "liver", 2: "spleen"}
    assert read_labels(path, names={1: "other"}).names == {1: "other"}
    (tmp_path / "a.labels.json").write_text('["liver"]')
    with pytest.raises(CorruptFile, match=r"a.labels.json must hold label names"):
        read_labels(path)
