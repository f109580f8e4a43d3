"""Files that are not what they should be are refused with a text that says what they are."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from samaritan.checkpoints import load_weights
from samaritan.checkpoints.reading import read_file
from samaritan.checkpoints.sniffing import sniff
from samaritan.errors import CorruptFile, FileError, UnsupportedFormat

LFS = (
    f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 375042383\n"
).encode()


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (b"", CorruptFile, "is empty"),
        (b"<!DOCTYPE html><html>Google Drive</html>", CorruptFile, "web page"),
        (b"\xef\xbb\xbf\n <html>", CorruptFile, "web page"),
        (LFS, CorruptFile, "375,042,383 bytes.*git lfs pull"),
        (b'{"message": "Not Found"}', CorruptFile, "text file.*Not Found"),
        (b"hello", CorruptFile, "text file"),
        (b"\x00\x01\x02\x03", CorruptFile, "no file of weights that is known"),
        (b"\x89HDF\r\n\x1a\n0000", UnsupportedFormat, "HDF5"),
        (b"\x93NUMPY\x01\x00", UnsupportedFormat, "numpy"),
        (b"\x1f\x8b\x08\x00", UnsupportedFormat, "gzip"),
        (b"PK\x03\x04" + bytes(40), CorruptFile, "damaged or truncated"),
        (struct.pack("<Q", 10**12) + b"{", CorruptFile, "no file of weights"),
        (struct.pack("<Q", 4) + b"{]]]", CorruptFile, "header is damaged"),
        (struct.pack("<Q", 2) + b"{}" + bytes(8), CorruptFile, "cannot be read as safetensors"),
        (b"\x80\x02}.", UnsupportedFormat, "plain pickle"),
    ],
)
def test_other_content_is_named(content, error, text, tmp_path):
    file = tmp_path / "weights.pth"
    file.write_bytes(content)
    with pytest.raises(error, match=f"(?s){text}") as caught:
        read_file(file)
    assert str(file) in str(caught.value)


def test_tar_archives_are_named(tmp_path):
    file = tmp_path / "w.tar"
    with tarfile.open(file, "w") as archive:
        info = tarfile.TarInfo("storages")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"\0\0\0\0"))
    with pytest.raises(UnsupportedFormat, match="tar archive"):
        read_file(file)


def test_folders_without_weights_and_parts_are_named(tmp_path):
    with pytest.raises(FileError, match=r"folder without .*model\.safetensors"):
        read_file(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(UnsupportedFormat, match="several parts"):
        read_file(tmp_path)


def test_missing_files_are_an_error_and_not_taken_for_names(make):
    with pytest.raises(FileError, match=r"there is no file .*absent\.pth"):
        load_weights(make(), "weights/absent.pth")


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_files_are_refused_at_every_length(legacy, tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"x": torch.arange(50.0)}, file, _use_new_zipfile_serialization=not legacy)
    data = file.read_bytes()
    for n in range(1, len(data), 7):
        file.write_bytes(data[:n])
        with pytest.raises(FileError):
            read_file(file)


def test_protocol_4_says_how_to_save_again(tmp_path):
    torch.save({"x": torch.zeros(2)}, tmp_path / "w.pth", pickle_protocol=4)
    with pytest.raises(UnsupportedFormat, match=r"protocol 4.*torch\.save"):
        read_file(tmp_path / "w.pth")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_tensors_are_mapped_and_not_copied(tmp_path):
    torch.save({"x": torch.zeros(1000, 1000)}, tmp_path / "w.pth")
    tensor = read_file(tmp_path / "w.pth").content["x"]
    with open("/proc/self/maps") as maps:
        assert str(tmp_path / "w.pth") in maps.read()
    assert tensor.shape == (1000, 1000)


def test_files_are_told_by_content_and_not_by_name(make, same, tmp_path):
    there, here = make(seed=1), make()
    save_file(there.state_dict(), tmp_path / "w.pth")
    load_weights(here, tmp_path / "w.pth")
    assert same(here.state_dict(), there.state_dict())


@pytest.mark.parametrize("length", [0x280, 0x380, 0x480, 0x580])
def test_a_header_whose_length_looks_like_a_pickle_is_none(length, tmp_path):
    path, tensors = tmp_path / "m.safetensors", {"x": torch.ones(1)}
    empty = len(save(tensors, {"a": ""})) - 8 - 4
    path.write_bytes(save(tensors, {"a": "." * (length - empty)}))
    assert path.read_bytes()[:2] == length.to_bytes(2, "little")
    assert sniff(path) == "safetensors"
    assert torch.equal(read_file(path).content["x"], tensors["x"])
