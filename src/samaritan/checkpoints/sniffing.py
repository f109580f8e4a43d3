"""What kind of file this is, from its first bytes: and if it holds no weights, what it holds instead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from samaritan.errors import CorruptFile, FileError, UnsupportedFormat

Kind = Literal["safetensors", "torch zip", "torch legacy"]

FILES_IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")
"""Names under which Hugging Face keeps the weights of a folder."""

FILES_OF_RUNS = ("best.safetensors", "last.safetensors")
"""Names under which `samaritan train` keeps the weights of a run, the one to take first."""

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (TensorFlow or Keras)"),
    (b"\x93NUMPY", "a numpy array"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"%PDF", "a PDF document"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG", "a PNG picture"),
)


def sniff(path: Path) -> Kind:
    """Tell the formats of weights apart by content; the file's name does not matter.

    Raises:
        FileError: if there is no such file.
        CorruptFile: if it is empty, or something else was saved in its place.
        UnsupportedFormat: if it is of a format that holds no PyTorch weights.
    """
    size = _size(path)
    with path.open("rb") as file:
        head = file.read(1024)
    _check_text(path, head, size)
    if head[:4] == b"PK\x03\x04":
        return "torch zip"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8:
        return "safetensors"  # first: a header of 0x280 bytes begins like a pickle
    if head[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
        return "torch legacy"
    if head[257:262] == b"ustar":
        raise UnsupportedFormat(
            f"{path} is a tar archive. If torch 0.1 wrote it: load and save it again with torch 1.0 to "
            f"2.5; otherwise unpack it first"
        )
    for magic, what in _OTHERS:
        if head.startswith(magic):
            raise UnsupportedFormat(f"{path} is no file of PyTorch weights but {what}")
    raise CorruptFile(
        f"{path} is no file of weights that is known: it begins with {head[:8]!r}. Expected "
        f"safetensors or a file of torch.save; if it was downloaded, download it again"
    )


def resolve_folder(path: Path) -> Path:
    """The file of weights in a folder of Hugging Face or of a training run; a file is passed on as it is.

    Raises:
        FileError: if the folder holds none.
        UnsupportedFormat: if they are in several parts.
    """
    if not path.is_dir():
        return path
    for name in (*FILES_OF_RUNS, *FILES_IN_FOLDERS):
        if (path / name).is_file():
            return path / name
    index = next(iter(sorted(path.glob("*.index.json"))), None)
    if index is not None:
        raise UnsupportedFormat(
            f"{path} holds weights in several parts ({index.name}), which is not supported. Save them "
            f"as one file"
        )
    if (path / "recipe.yaml").is_file():
        raise FileError(
            f"{path} is a training run that has written no weights yet: {' or '.join(FILES_OF_RUNS)} "
            "comes with its first validation"
        )
    raise FileError(
        f"{path} is a folder without {', '.join((*FILES_OF_RUNS, *FILES_IN_FOLDERS))}. Give the file of "
        "weights itself, or the folder of a training run"
    )


def _size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}") from error
    if not path.is_file():
        raise FileError(f"{path} is not a file")
    if size == 0:
        raise CorruptFile(f"{path} is empty (0 bytes). Download or copy it again")
    return size


def _check_text(path: Path, head: bytes, size: int) -> None:
    """Refuse what is often saved in place of weights, and say what it is."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"version https://git-lfs"):
        oid = re.search(rb"oid sha256:([0-9a-f]{64})", head)
        held = re.search(rb"size (\d+)", head)
        what = f" of a file of {int(held[1]):,} bytes" if held else ""
        which = f" (sha256 {oid[1].decode()})" if oid else ""
        raise CorruptFile(
            f"{path} is only a Git LFS pointer{what}{which}: the weights themselves were not fetched. "
            f"Run 'git lfs pull' there, or download the file"
        )
    if text[:1] == b"<":
        raise CorruptFile(
            f"{path} is a web page, not a file of weights ({size:,} bytes). A download page was saved "
            f"instead of the file: open the link in a browser and save the file itself"
        )
    if not set(head) - set(range(32, 127)) - set(b"\t\r\n\f"):
        first = head.splitlines()[0][:80].decode("ascii", "replace") if head.splitlines() else ""
        raise CorruptFile(
            f"{path} is a text file, not a file of weights; it begins: {first!r}. Give the file of "
            f"weights, or download it again"
        )
