"""Write our own files of weights: safetensors with everything in the header, in one step or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from samaritan._version import __version__
from samaritan.checkpoints.header import METADATA_KEY, Header
from samaritan.errors import FileError
from samaritan.models.sam import Sam


def save_weights(
    model: Sam,
    path: str | Path,
    *,
    preprocess: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    licence: str | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write a model so that `load_model` gives the same model back, bit by bit.

    The file appears under its name only when it is complete; one that was there is replaced.

    Args:
        model: what to save; its configuration and quirks go into the header.
        path: the file, usually ending in .safetensors.
        preprocess: the chain from image to input, as plain values.
        provenance: where the weights come from; the version of this package is added.
        licence: of the weights.
        extra: anything else that belongs to them, as plain values.

    Returns:
        The path.

    Raises:
        CheckpointError: if a value is not one that JSON can hold.
        FileError: if the file cannot be written.
    """
    header = Header(
        config=model.config,
        preprocess=None if preprocess is None else dict(preprocess),
        provenance={**(provenance or {}), "samaritan": __version__},
        licence=licence,
        extra=dict(extra or {}),
    )
    path = Path(path).expanduser()
    metadata = {"format": "pt", METADATA_KEY: header.to_json()}
    state = {key: _plain(tensor) for key, tensor in model.state_dict().items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(state, temporary, metadata)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise FileError(
            f"{path} cannot be written: {error}. Check the folder and its free space"
        ) from error
    return path


def _plain(tensor: Tensor) -> Tensor:
    """On the CPU, in one piece, and owning all of its memory."""
    tensor = tensor.detach().cpu().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()
