"""Read a file of weights, whatever wrote it, without executing anything that is in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from samaritan.checkpoints.header import METADATA_KEY, Header, safetensors_metadata
from samaritan.checkpoints.sniffing import Kind, resolve_folder, sniff
from samaritan.checkpoints.torch_files import read_legacy, read_zip
from samaritan.errors import CheckpointError, CorruptFile


@dataclass(frozen=True)
class FileContent:
    """What was found in a file, and the file itself."""

    path: Path
    """The file that was read; inside a folder, the file of weights in it."""
    kind: Kind
    """Its format."""
    content: Any
    """The object: for safetensors a mapping of names to tensors."""
    header: Header | None
    """Of our own files."""


def read_file(path: str | Path) -> FileContent:
    """Read safetensors or a file of torch.save onto the CPU.

    Tensors are mapped from the file where the format allows it, so that reading takes little memory.

    Raises:
        CorruptFile: if the file is damaged, truncated, or something else under a wrong name.
        UnsafeFile: if reading it would execute code.
        UnsupportedFormat: if it is of another format.
    """
    file = resolve_folder(Path(path).expanduser())
    kind = sniff(file)
    if kind == "torch zip":
        return FileContent(file, kind, read_zip(file), None)
    if kind == "torch legacy":
        return FileContent(file, kind, read_legacy(file), None)
    metadata = safetensors_metadata(file)
    header = None
    if METADATA_KEY in metadata:
        try:
            header = Header.from_json(metadata[METADATA_KEY])
        except CheckpointError as error:
            raise CheckpointError(f"{file}: {error}") from error
    return FileContent(file, kind, _load_safetensors(file), header)


def check_tensor(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that claims more numbers than are stored, or that is no plain array.

    Raises:
        CorruptFile: naming the tensor.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CorruptFile(
            f"tensor {name!r} is sparse, quantised or without data, which weights are not"
        )
    claimed, held = tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes()
    if claimed > held:
        raise CorruptFile(
            f"tensor {name!r} of shape {tuple(tensor.shape)} would take {claimed:,} bytes, but the file "
            f"holds only {held:,} for it"
        )


def _load_safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        tensors: Mapping[str, Tensor] = load_file(path, device="cpu")
    except (SafetensorError, ValueError, KeyError, OSError, RuntimeError, AttributeError) as error:
        raise CorruptFile(
            f"{path} cannot be read as safetensors: {error}. Download or copy it again"
        ) from error
    return tensors
