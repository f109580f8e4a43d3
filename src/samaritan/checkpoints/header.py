"""The header of our own files: safetensors whose metadata hold all that is needed to use the weights."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from samaritan.adapt.methods import Insertion
from samaritan.assembly.blueprint import Blueprint, trainable_of
from samaritan.checkpoints.sniffing import resolve_folder, sniff
from samaritan.errors import CheckpointError, ConfigError, CorruptFile
from samaritan.models.config import SamConfig

FORMAT_VERSION = 1
METADATA_KEY = "samaritan"
"""Where in the metadata of a safetensors file our JSON stands."""

MAX_HEADER_BYTES = 100 * 2**20
"""The limit of the safetensors format itself."""


@dataclass(frozen=True)
class Header:
    """What a file of weights says about itself."""

    config: SamConfig
    """The model, quirks included."""
    preprocess: Mapping[str, Any] | None = None
    """The chain from image to input, as its package wrote it; none for files of other systems."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Where the weights come from: source system, file, sha256, version of this package."""
    licence: str | None = None
    """Of the weights, as an SPDX name where there is one."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Anything else that belongs to the weights, such as the recipe of a training run."""
    adapters: tuple[Insertion, ...] = ()
    """Adapters of the model."""
    holds: Literal["all", "adapters", "trainable"] = "all"
    """Whether these are all weights, or only those of the adapters, or only those that were trained."""
    format_version: int = FORMAT_VERSION
    """Version of this header."""

    @property
    def blueprint(self) -> Blueprint:
        """What the model is built from."""
        trainable = trainable_of(self.config.name) if self.adapters else None
        return Blueprint(self.config, self.adapters, trainable)

    def to_json(self) -> str:
        """The text that is stored.

        Raises:
            CheckpointError: if a value is not one that JSON can hold.
        """
        values = {**asdict(self), "config": self.config.to_dict()}
        try:
            return json.dumps(values, allow_nan=False, sort_keys=True)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"the header of a file of weights can hold only JSON values: {error}. Give preprocess, "
                f"provenance and extra as plain dicts of text, numbers, lists and dicts"
            ) from error

    @classmethod
    def from_json(cls, text: str) -> Header:
        """Read the stored text back.

        Raises:
            CheckpointError: if it is damaged, or written by a newer version of this package.
        """
        try:
            values = json.loads(text)
            version = values["format_version"]
            if not isinstance(version, int) or version > FORMAT_VERSION:
                raise CheckpointError(
                    f"the header has format version {version!r}, this package reads up to "
                    f"{FORMAT_VERSION}. Install a newer samaritan"
                )
            if values.get("holds", "all") not in ("all", "adapters", "trainable"):
                raise ValueError(f"it holds {values['holds']!r}")
            return cls(
                config=SamConfig.from_dict(values["config"]),
                preprocess=_mapping_or_none(values["preprocess"]),
                provenance=_mapping_or_none(values["provenance"]) or {},
                licence=None if values["licence"] is None else str(values["licence"]),
                extra=_mapping_or_none(values.get("extra")) or {},
                adapters=tuple(Insertion.from_dict(v) for v in values.get("adapters", ())),
                holds=values.get("holds", "all"),
                format_version=version,
            )
        except (KeyError, TypeError, ValueError, RecursionError, ConfigError) as error:
            raise CheckpointError(
                f"the header is damaged: {error!r}. Write the file again with save_weights"
            ) from error


def read_header(path: str | Path) -> Header:
    """The header of one of our files, without reading its tensors.

    Raises:
        CheckpointError: if the file was not written by `save_weights`.
        FileError: if it cannot be read.
    """
    file = resolve_folder(Path(path))
    metadata = safetensors_metadata(file) if sniff(file) == "safetensors" else {}
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{file} has no header of samaritan: it comes from another system. Load it with load_weights, "
            f"or convert it: samaritan models convert {file.name} OUT.safetensors"
        )
    try:
        return Header.from_json(metadata[METADATA_KEY])
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The text metadata of a safetensors file, after checking all that its header claims.

    Raises:
        CorruptFile: if lengths and offsets do not fit the file.
    """
    entries = _read_entries(path)
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise CorruptFile(f"{path}: its metadata are not pairs of text")
    return metadata


def _read_entries(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise CorruptFile(
                f"{path} is truncated or no safetensors file: its header should take {length:,} bytes of "
                f"{size:,}"
            )
        text = file.read(length)
    try:
        entries = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path}: its safetensors header is damaged: {error}") from error
    if not isinstance(entries, dict):
        raise CorruptFile(f"{path}: its safetensors header is no table of tensors")
    return entries


def _mapping_or_none(value: Any) -> Mapping[str, Any] | None:
    if value is None or isinstance(value, Mapping):
        return value
    raise TypeError(f"expected a table, got {value!r}")
