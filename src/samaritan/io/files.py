"""Bytes on disk: bounded reading of untrusted files, and writing that leaves nothing half done."""

from __future__ import annotations

import bz2
import contextlib
import hashlib
import os
import stat
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, FileError, GeometryError, SamaritanError, TooLarge
from samaritan.geometry import Grid

Array = npt.NDArray[Any]
Compression = Literal["gzip", "zlib", "bzip2"] | None

MEMORY_PART = 0.8
"""Part of the available memory that one file may fill unless the caller says otherwise."""

DEFLATE_RATIO = 1040
"""Deflate cannot shrink data further than this, so a header that promises more is wrong."""

WRITTEN_VOXELS = 1e-3
"""A written header may move no corner by more than this part of a voxel."""

_PIECE = 1 << 20
_SURPLUS = 1 << 26


# -- reading -------------------------------------------------------------------------------------


def file_size(path: Path) -> int:
    """Size in bytes of a file that can be read.

    Raises:
        FileError: if it is missing, or is a folder, pipe or device.
        CorruptFile: if it is empty.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise FileError(f"{path}: cannot be opened ({error}). Check the path") from error
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{path} is not a regular file")
    if status.st_size == 0:
        raise CorruptFile(f"{path} is empty: 0 bytes")
    return status.st_size


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_need(path: Path, need: int, max_bytes: int | None) -> None:
    """Raise `TooLarge` if the voxels would take more memory than allowed."""
    limit = max_bytes
    if limit is None:
        import psutil

        limit = int(MEMORY_PART * psutil.virtual_memory().available)
    if need > limit:
        raise TooLarge(
            f"{path}: its header asks for {told_bytes(need)}, more than the {told_bytes(limit)} allowed. "
            "If the file is what you expect, pass max_bytes= or use a machine with more memory"
        )


def told_bytes(count: int) -> str:
    """Say a number of bytes for people."""
    for size, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


@contextlib.contextmanager
def guard(path: Path, what: str = "read") -> Iterator[None]:
    """Turn whatever a library raises about a damaged file into `CorruptFile` that names the file."""
    try:
        yield
    except SamaritanError:
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, KeyError):
            text = f"{text} is missing in it, or not known"
        raise CorruptFile(f"{path} could not be {what}: {text}") from error


def read_head(path: Path, count: int) -> bytes:
    """First `count` bytes, of the contents if the file is gzipped."""
    with path.open("rb") as file:
        head = file.read(max(count, 2))
        if head[:2] != b"\x1f\x8b":
            return head[:count]
        file.seek(0)
        try:
            return zlib.decompressobj(31).decompress(file.read(count + (1 << 16)), count)
        except zlib.error as error:
            raise CorruptFile(f"{path} is damaged at its beginning: {error}") from error


def is_gzip(path: Path) -> bool:
    """Whether the file starts like a gzip file."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def pieces(file: BinaryIO, compression: Compression) -> Iterator[bytes]:
    """Yield what follows in `file`, decompressed, a megabyte at most at a time.

    Raises:
        zlib.error, OSError: if the stream is damaged.
        EOFError: if it ends early.
    """
    if compression is None:
        while data := file.read(_PIECE):
            yield data
    elif compression == "bzip2":
        yield from _bunzip(file)
    else:
        yield from _inflate(file, 31 if compression == "gzip" else 15)


def _inflate(file: BinaryIO, wbits: int) -> Iterator[bytes]:
    inflater, rest = zlib.decompressobj(wbits), b""
    while True:
        rest = rest or file.read(_PIECE)
        if not rest:
            raise EOFError("the compressed data end early")
        piece = inflater.decompress(rest, _PIECE)
        rest = inflater.unconsumed_tail
        if piece:
            yield piece
        if inflater.eof:
            rest = inflater.unused_data or file.read(_PIECE)
            if wbits != 31 or rest[:2] != b"\x1f\x8b":
                return
            inflater = zlib.decompressobj(wbits)


def _bunzip(file: BinaryIO) -> Iterator[bytes]:
    inflater = bz2.BZ2Decompressor()
    while not inflater.eof:
        data = file.read(_PIECE) if inflater.needs_input else b""
        if inflater.needs_input and not data:
            raise EOFError("the compressed data end early")
        piece = inflater.decompress(data, _PIECE)
        if piece:
            yield piece


def read_voxels(
    path: Path,
    dtype: npt.DTypeLike,
    count: int,
    *,
    offset: int = 0,
    skip: int = 0,
    compression: Compression = None,
    max_bytes: int | None = None,
    exact: bool = False,
    whole: bool = True,
) -> Array:
    """Read `count` values into memory that is taken once, after the claim has been checked.

    Args:
        path: the file that holds them.
        dtype: type on disk.
        count: number of values, as the header promises.
        offset: bytes of the file to leave out before decompression.
        skip: bytes of the decompressed data to leave out.
        compression: how the data are packed.
        max_bytes: most memory to take.
        exact: whether data that go on after the last value make the file corrupt.
        whole: whether to read on to the end, so that checksums are verified.

    Raises:
        TooLarge: if they would take more memory than allowed.
        CorruptFile: if the file cannot hold them, ends early, or fails its checksum.
    """
    kind = np.dtype(dtype)
    need = count * kind.itemsize
    stored = max(file_size(path) - offset, 0)
    ratio = {None: 1, "gzip": DEFLATE_RATIO, "zlib": DEFLATE_RATIO}.get(compression)
    if offset < 0 or skip < 0 or (ratio and need + skip > stored * ratio):
        raise CorruptFile(
            f"{path} is truncated or its header is wrong: {need} bytes of voxels are promised after byte "
            f"{offset + skip}, but only {stored} bytes{' (compressed)' if compression else ''} are there"
        )
    check_need(path, need, max_bytes)
    values = np.empty(count, kind)
    target = values.view(np.uint8) if count else np.empty(0, np.uint8)
    got = 0
    with path.open("rb") as file:
        file.seek(offset)
        try:
            for piece in pieces(file, compression):
                begin = min(skip, len(piece))
                skip -= begin
                part = memoryview(piece)[begin:]
                taken = min(len(part), need - got)
                target[got : got + taken] = np.frombuffer(part[:taken], np.uint8)
                got += taken
                surplus = len(part) - taken
                if surplus and exact:
                    raise CorruptFile(
                        f"{path}: the data go on after the {need} bytes that its header describes"
                    )
                if got == need and (not whole or compression is None or surplus > _SURPLUS):
                    break
        except (zlib.error, EOFError, OSError) as error:
            raise CorruptFile(
                f"{path} is damaged after {got} of {need} bytes of voxels: {error}"
            ) from error
    if got < need:
        raise CorruptFile(f"{path} is truncated: {got} of {need} bytes of voxels are there")
    return values


def read_text(
    path: Path, offset: int, count: int, dtype: np.dtype[Any], max_bytes: int | None
) -> Array:
    """Read `count` numbers that are written as words, from byte `offset` to the end.

    Raises:
        CorruptFile: if there are not as many numbers.
    """
    size = file_size(path) - offset
    if count > size:
        raise CorruptFile(
            f"{path}: {count} values are promised, but only {size} characters are there"
        )
    check_need(path, size * 8 + count * dtype.itemsize, max_bytes)
    with path.open("rb") as file, guard(path):
        file.seek(offset)
        words = file.read(size).decode("ascii").split()
        numbers = [float(w) for w in words] if dtype.kind == "f" else [int(w) for w in words]
        values: Array = np.array(numbers, dtype)
    if values.size != count:
        raise CorruptFile(f"{path}: {count} values are promised, {values.size} are there")
    return values


def inside(folder: Path, name: str, header: Path) -> Path:
    """Path of a data file that a header names, which must lie in the header's own folder tree.

    Raises:
        FileError: if the name leads elsewhere, or nowhere.
    """
    candidate = Path(name)
    root = folder.resolve()
    with guard(header, "followed to its data file"):
        target = (root / candidate).resolve()
    if candidate.is_absolute() or "\\" in name or not target.is_relative_to(root):
        raise FileError(
            f"{header} names {name!r} as its data file: only files in its own folder are followed. "
            "Move the data beside the header"
        )
    if not target.is_file():
        raise FileError(f"{header} needs its data file {name!r}, which is missing beside it")
    return target


# -- writing -------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """Give temporary names in the same folder; move them to `paths` if the block ends well.

    Missing folders are made, and removed again on failure. A file that exists stays untouched until
    the new one is complete. The temporary names keep the suffix. Of several files, which must share
    one folder, the last is moved last: let it be the header.

    Raises:
        FileError: if the folder cannot be written.
    """
    folder = paths[0].parent
    made = [f for f in (folder, *folder.parents) if not f.exists()]
    temporary: list[Path] = []
    done = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            handle, name = tempfile.mkstemp(prefix=".tmp-", suffix=f"-{path.name}", dir=folder)
            os.close(handle)
            temporary.append(Path(name))
        yield tuple(temporary)
        for new, path in zip(temporary, paths, strict=True):
            new.chmod(permissions(path))
            new.replace(path)
        done = True
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"{paths[-1]} could not be written: {reason}") from error
    finally:
        for new in temporary:
            new.unlink(missing_ok=True)
        for parent in () if done else made:
            with contextlib.suppress(OSError):
                parent.rmdir()


def permissions(path: Path) -> int:
    """Permissions of the file that is replaced, or those of any new file."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0o022)
    os.umask(mask)
    return 0o666 & ~mask


def check_written(found: Grid, wanted: Grid, path: Path, able: str) -> None:
    """Raise unless the grid that a header tells is the grid that was meant.

    Raises:
        GeometryError: naming formats that can hold it.
    """
    if not found.same_as(wanted, voxels=WRITTEN_VOXELS):
        raise GeometryError(
            f"{path}: this format cannot hold {wanted!r} exactly. Write {able} instead"
        )


def fortran_bytes(array: Array) -> Iterator[bytes]:
    """Yield the bytes of an array with the first axis fastest, some megabytes at a time."""
    last = array.shape[-1]
    step = max(1, (16 << 20) * last // max(array.nbytes, 1))
    for k in range(0, last, step):
        yield array[..., k : k + step].tobytes(order="F")
