"""Arrays of .npz files, one at a time: sizes checked before memory is taken, nothing executed."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, FileError, TooLarge, UnsupportedFormat
from samaritan.io.files import DEFLATE_RATIO, check_need, file_size, guard, told_bytes
from samaritan.io.npz_objects import MAX_OBJECT_BYTES, read_objects

Array = npt.NDArray[Any]

_HEADER = re.compile(
    r"\{\s*'descr':\s*'([^']*)'\s*,\s*'fortran_order':\s*(True|False)\s*,"
    r"\s*'shape':\s*\(([\d,L\s]*)\)\s*,?\s*\}\s*"
)
_DESCR = re.compile(r"[<>|=]?(?:[?biufcSU]\d{0,6}|O8?)")
_HEADER_BYTES = 4096
_LONGEST_SIDE = 2**40
_PIECE = 1 << 20


def array_names(path: Path) -> tuple[str, ...]:
    """Names of the arrays in a file, in its order.

    Raises:
        CorruptFile: if it is no .npz file, or cut off.
    """
    with _opened(path) as archive:
        return tuple(n[:-4] for n in archive.namelist() if n.endswith(".npy"))


def holds(path: Path, *names: str) -> bool:
    """Whether a file is an .npz with one of these arrays; a damaged file holds none."""
    try:
        return bool(set(names) & set(array_names(path)))
    except FileError:
        return False


def read_array(path: Path, name: str, *, max_bytes: int | None = None) -> Array:
    """Read one array. Arrays of objects come as plain values, see `read_objects`.

    Args:
        path: the file.
        name: of the array.
        max_bytes: most memory that it may take; by default four fifths of what is available.

    Raises:
        CorruptFile: if the array is missing, damaged or cut off.
        TooLarge: if it would take more memory than allowed.
        UnsafeFile: if reading it would run code.
    """
    with _opened(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            raise CorruptFile(
                f"{path} has no array {name!r}; it holds {', '.join(archive.namelist())}"
            )
        entry = archive.getinfo(f"{name}.npy")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise UnsupportedFormat(
                f"{path}: {name} is packed in a way that NumPy never uses. Save it with np.savez_compressed"
            )
        with archive.open(entry) as file:
            shape, fortran, kind, begin = _header(path, name, file)
            left = entry.file_size - begin
            packed = min(entry.compress_size, path.stat().st_size)
            if left > packed * DEFLATE_RATIO:
                raise CorruptFile(
                    f"{path}: {name} claims {left} bytes, which {packed} packed bytes cannot hold"
                )
            if kind.hasobject:
                return _objects(path, name, shape, file, left, max_bytes)
            return _numbers(path, name, shape, fortran, kind, file, left, max_bytes)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    file_size(path)
    try:
        with guard(path), zipfile.ZipFile(path) as archive:
            yield archive
    except CorruptFile as error:
        if isinstance(error.__cause__, zipfile.BadZipFile):
            raise CorruptFile(
                f"{path} is damaged, truncated, or no .npz file: {error.__cause__}"
            ) from error
        raise


def _header(
    path: Path, name: str, file: IO[bytes]
) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order and type of an array, and how many bytes told them."""
    start = file.read(8)
    wide = start[6:7] in (b"\x02", b"\x03")
    length = file.read(4 if wide else 2)
    count = int.from_bytes(length, "little")
    if start[:6] != b"\x93NUMPY" or count > _HEADER_BYTES:
        raise CorruptFile(f"{path}: {name} does not start as a NumPy array does")
    text = file.read(count).decode("latin1")
    match = _HEADER.fullmatch(text)
    if match is None or not _DESCR.fullmatch(match[1]):
        raise UnsupportedFormat(
            f"{path}: {name} is an array of a kind that is not read: {text.strip()[:200]!r}. Expected plain "
            "numbers, text or objects"
        )
    sides = tuple(int(n.strip().rstrip("L")) for n in match[3].split(",") if n.strip())
    if max(sides, default=0) >= _LONGEST_SIDE or len(sides) > 8:
        raise CorruptFile(f"{path}: {name} claims a shape that cannot be: {match[3][:100]}")
    return sides, match[2] == "True", np.dtype(match[1]), len(start) + len(length) + count


def _numbers(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    fortran: bool,
    kind: np.dtype[Any],
    file: IO[bytes],
    left: int,
    max_bytes: int | None,
) -> Array:
    count = math.prod(shape)
    need = count * kind.itemsize
    if need != left:
        raise CorruptFile(
            f"{path}: {name} of shape {shape} and type {kind} takes {need} bytes, but {left} are there"
        )
    check_need(path, need, max_bytes)
    values = np.empty(count, kind)
    target = values.view(np.uint8) if need else np.empty(0, np.uint8)
    got = 0
    while got < need:
        piece = file.read(min(_PIECE, need - got))
        if not piece:
            raise CorruptFile(f"{path} is truncated: {got} of {need} bytes of {name} are there")
        target[got : got + len(piece)] = np.frombuffer(piece, np.uint8)
        got += len(piece)
    file.read(1)  # so that the checksum is compared
    return values.reshape(shape, order="F" if fortran else "C")


def _objects(
    path: Path,
    name: str,
    shape: tuple[int, ...],
    file: IO[bytes],
    left: int,
    max_bytes: int | None,
) -> Array:
    if left > MAX_OBJECT_BYTES:
        raise TooLarge(
            f"{path}: {name} is an array of objects of {told_bytes(left)}; the limit is "
            f"{told_bytes(MAX_OBJECT_BYTES)}. Save it as plain numbers"
        )
    check_need(path, left, max_bytes)
    found = read_objects(file.read(), f"{path}: {name}")
    if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != object:
        raise CorruptFile(f"{path}: {name} is not the array of shape {shape} that its header tells")
    return found
