"""Read files of `torch.save` with `weights_only`, after looking at everything that reading would do.

First the archive and its pickle are examined without executing anything: names that are asked for,
and sizes that are claimed against the bytes that are there. Only then torch reads the file, with inert
stand-ins for the objects of training files, and mapped into memory instead of copied.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from samaritan.checkpoints.pickles import MAX_PICKLE_BYTES, PickleFacts, scan
from samaritan.checkpoints.stand_ins import STAND_INS, STORAGE_BYTES, unknown_names
from samaritan.errors import CorruptFile, TooLarge, UnsafeFile, UnsupportedFormat

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PARTS = 5  # magic, protocol, system, object, keys: one pickle each, then the storages

# Everything that torch and the standard library raise on files that are not what they claim to be.
_READ_ERRORS = (
    *(RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError),
    *(EOFError, OSError, OverflowError, MemoryError, pickle.UnpicklingError, struct.error),
    zipfile.BadZipFile,
)


def read_zip(path: Path) -> Any:
    """The object in a file of torch.save (since torch 1.6), its tensors mapped from the file."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_archive(path, archive)
    except zipfile.BadZipFile as error:
        raise CorruptFile(
            f"{path} is a damaged or truncated file of torch.save ({error}). Download or copy it again"
        ) from error
    except _READ_ERRORS as error:
        raise CorruptFile(f"{path} cannot be read as a zip archive: {error}") from error
    return _torch_load(path, mmap=True)


def read_legacy(path: Path) -> Any:
    """The object in a file of torch.save before 1.6, copied into memory."""
    with path.open("rb") as file:
        _check_legacy(path, file)
    return _torch_load(path, mmap=False)


def _torch_load(path: Path, *, mmap: bool) -> Any:
    stand_ins: list[Any] = [(stand_in, name) for name, stand_in in STAND_INS.items()]
    try:
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except _READ_ERRORS as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CorruptFile(
            f"{path} cannot be read: {first[:300]}. It may be damaged; download or copy it again"
        ) from error


def _check_archive(path: Path, archive: zipfile.ZipFile) -> None:
    entries = {entry.filename: entry for entry in archive.infolist()}
    for name in entries:
        if (
            name.startswith(("/", "\\"))
            or ".." in name.replace("\\", "/").split("/")
            or ":" in name
        ):
            raise UnsafeFile(f"{path} holds an entry {name!r} that points outside of the archive")
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if any(name.rpartition("/")[2] == "constants.pkl" for name in entries):
        raise UnsupportedFormat(
            f"{path} is a TorchScript program, which holds code. Export its weights with "
            f"torch.save(torch.jit.load(file).state_dict(), 'weights.pth') where you trust it"
        )
    if len(pickles) != 1:
        raise CorruptFile(
            f"{path} is a zip archive but no file of torch.save: it holds {len(pickles)} data.pkl "
            f"among {len(entries)} entries. If it is an archive of weights, unpack it first"
        )
    entry = entries[pickles[0]]
    for other in entries.values():
        if other.compress_type != zipfile.ZIP_STORED or other.compress_size != other.file_size:
            raise UnsafeFile(
                f"{path} holds the compressed entry {other.filename!r}, which torch.save never writes. "
                f"Unpack it and save the weights again"
            )
    if entry.file_size > MAX_PICKLE_BYTES:
        raise TooLarge(
            f"{path}: its pickle takes {entry.file_size:,} bytes, and {MAX_PICKLE_BYTES:,} "
            f"is the limit. Save the weights alone: torch.save(model.state_dict(), file)"
        )
    facts = scan(io.BytesIO(archive.read(entry)))
    _check_facts(path, facts)
    folder = entry.filename.removesuffix("data.pkl")
    _check_claims(
        path, facts, {n.removeprefix(folder + "data/"): e.file_size for n, e in entries.items()}
    )


def _check_claims(path: Path, facts: PickleFacts, held: dict[str, int]) -> None:
    """Every storage must be there, and as long as the pickle says."""
    for claim in facts.storages:
        claimed = claim.numel * STORAGE_BYTES.get(claim.kind, 1)
        if held.get(claim.key, -1) != claimed:
            there = f"{held[claim.key]:,} bytes" if claim.key in held else "missing"
            raise CorruptFile(
                f"{path}: storage {claim.key!r} should hold {claimed:,} bytes but is {there}. The file "
                f"is damaged or truncated; download or copy it again"
            )


def _check_facts(path: Path, facts: PickleFacts) -> None:
    """Refuse unknown names, damage, and pickles that torch cannot read with `weights_only`."""
    bad = unknown_names(facts.globals)
    if bad:
        raise UnsafeFile(
            f"{path} asks for {_listed(bad)} when it is read, which could run code; nothing was "
            f"executed. Only tensors and plain values are read. If you trust the file, load it where it "
            f"was made and save its weights alone: torch.save(model.state_dict(), 'weights.pth')"
        )
    kinds = {claim.kind for claim in facts.storages} - STORAGE_BYTES.keys()
    if kinds:
        raise UnsafeFile(
            f"{path} names {_listed(sorted(kinds))} as a kind of storage, which it is not"
        )
    if facts.damage:
        raise CorruptFile(f"{path} cannot be read: {facts.damage}. Download or copy it again")
    if facts.protocol != 2:
        raise UnsupportedFormat(
            f"{path} was written with pickle protocol {facts.protocol}, but torch reads only protocol 2 "
            f"safely. Save it again with torch.save(weights, file) and no pickle_protocol"
        )


def _check_legacy(path: Path, file: BinaryIO) -> None:
    size = path.stat().st_size
    parts: list[PickleFacts] = []
    head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    for _ in range(_LEGACY_PARTS):
        facts = scan(head)
        _check_facts(path, facts)
        parts.append(facts)
        if parts[0].value != _LEGACY_MAGIC:
            raise UnsupportedFormat(
                f"{path} is a plain pickle and no file of torch.save. Save its weights with "
                f"torch.save(weights, 'weights.pth') where you trust it"
            )
    claimed = {c.key: c.numel * STORAGE_BYTES.get(c.kind, 1) for c in parts[3].storages}
    left = size - head.tell()
    if sum(claimed.values()) > left:
        raise CorruptFile(
            f"{path} should hold {sum(claimed.values()):,} bytes of numbers but has only {left:,}. The "
            f"file is truncated; download or copy it again"
        )


def _listed(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(n) for n in names[:most]) + more
