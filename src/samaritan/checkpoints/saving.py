"""Write our own files of weights: safetensors with everything in the header, in one step or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from samaritan._version import __version__
from samaritan.adapt.inject import describe, is_adapter
from samaritan.checkpoints.header import METADATA_KEY, Header
from samaritan.errors import CheckpointError, FileError
from samaritan.io.files import permissions
from samaritan.models.sam import Sam

Part = Literal["all", "adapters", "trainable"]
"""All weights, those of the adapters, or those of all parameters that require gradients."""


def save_weights(
    model: Sam,
    path: str | Path,
    *,
    preprocess: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    licence: str | None = None,
    extra: Mapping[str, Any] | None = None,
    only: Part = "all",
    half: bool = False,
) -> Path:
    """Write a model so that `load_model` gives the same model back, bit by bit, adapters included.

    The file appears under its name only when it is complete; one that was there is replaced.

    Args:
        model: what to save; its configuration and quirks go into the header.
        path: the file, usually ending in .safetensors.
        preprocess: the chain from image to input, as plain values.
        provenance: where the weights come from; the version of this package is added.
        licence: of the weights.
        extra: anything else that belongs to them, as plain values.
        only: "adapters" writes the weights of the adapters alone, "trainable" those of all parameters
            that require gradients; such a file goes with the weights of the plain model:
            `load_model(file, base=...)`.
        half: store matrices and kernels in 16 bits (float16): half the size, not the same bit by bit.

    Returns:
        The path.

    Raises:
        CheckpointError: if a value is not one that JSON can hold, or there is nothing to write.
        FileError: if the file cannot be written.
    """
    header = Header(
        config=model.config,
        preprocess=None if preprocess is None else dict(preprocess),
        provenance={**(provenance or {}), "samaritan": __version__},
        licence=licence,
        extra=dict(extra or {}),
        adapters=describe(model),
        holds=only,
    )
    path = Path(path).expanduser()
    metadata = {"format": "pt", METADATA_KEY: header.to_json()}
    state = {key: _plain(tensor) for key, tensor in _chosen(model, only).items()}
    if half:
        state = {
            k: v.half() if v.ndim > 1 and v.is_floating_point() else v for k, v in state.items()
        }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(state, temporary, metadata)
        temporary.chmod(permissions(path))  # it gives them to nobody else
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise FileError(
            f"{path} cannot be written: {error}. Check the folder and its free space"
        ) from error
    return path


def write_torch(content: Any, path: Path) -> None:
    """Write with torch.save.

    Raises:
        OSError: with the reason of the system, such as a full disk, which torch's own error hides.
    """
    try:
        with path.open("wb") as file:
            torch.save(content, file)
    except RuntimeError as error:
        hidden = error.__context__
        reason = hidden if isinstance(hidden, OSError) else OSError(str(error).splitlines()[0])
        raise reason from error


def _chosen(model: Sam, only: str) -> dict[str, Tensor]:
    """The weights to write."""
    state: dict[str, Tensor] = model.state_dict()
    if only == "all":
        return state
    learns = {key for key, p in model.named_parameters() if p.requires_grad and only == "trainable"}
    chosen = {key: value for key, value in state.items() if is_adapter(key) or key in learns}
    if not chosen or only not in ("adapters", "trainable"):
        raise CheckpointError(
            f"there is nothing to write with only={only!r}: the model has no adapters"
            if only in ("adapters", "trainable")
            else f"only is one of 'all', 'adapters', 'trainable', not {only!r}"
        )
    return chosen


def _plain(tensor: Tensor) -> Tensor:
    """On the CPU, in one piece, and owning all of its memory."""
    tensor = tensor.detach().cpu().contiguous()
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if whole else tensor.clone()
