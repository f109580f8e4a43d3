"""The state of a run: everything that moves, in one file that is replaced whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from samaritan.checkpoints.saving import write_torch
from samaritan.errors import CheckpointError, FileError
from samaritan.io.files import replacing

VERSION = 1


def write_state(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state of tensors and plain values.

    Raises:
        FileError: if the folder cannot be written or is full; the state that was there stays.
    """
    with replacing(path) as (temporary,):
        try:
            write_torch({"version": VERSION, **state}, temporary)
        except OSError as error:
            raise FileError(
                f"{path} could not be written: {error.strerror or error}. The checkpoint before it is kept; "
                "free some space and go on with --resume"
            ) from error


def read_state(path: Path) -> dict[str, Any]:
    """Read a state without executing anything in it.

    Raises:
        CheckpointError: if it is damaged or of another version.
        FileError: if there is none.
    """
    if not path.is_file():
        raise FileError(
            f"{path} is missing: there is no run to go on with. Start it without --resume"
        )
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        told = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path} is no state of a training run, or damaged: {told}"
        ) from error
    if not isinstance(state, dict) or state.get("version") != VERSION:
        raise CheckpointError(
            f"{path} was written by another version of this package; start the run anew"
        )
    return state


def moving(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a model that training changes: parameters that learn, and statistics of batches."""
    learning = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    return learning | statistics(model)


def statistics(model: nn.Module) -> dict[str, Tensor]:
    """What batch norms count and average while they train."""
    return {
        f"{where}.{name}": buffer
        for where, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for name, buffer in module.named_buffers(recurse=False)
    }


def still(model: nn.Module) -> dict[str, Tensor]:
    """All other tensors of a model."""
    names = moving(model)
    return {name: value for name, value in model.state_dict().items() if name not in names}


@torch.no_grad()
def fill(model: nn.Module, values: Mapping[str, Tensor], where: Path) -> None:
    """Set tensors of a model.

    Raises:
        CheckpointError: if names or shapes are not those of the model.
    """
    own = model.state_dict()
    wrong = [name for name, v in values.items() if name not in own or own[name].shape != v.shape]
    if wrong:
        raise CheckpointError(
            f"{where} belongs to another model: {', '.join(wrong[:4])} and so on do not fit. "
            "Build the model as the run's recipe.yaml says"
        )
    for name, value in values.items():
        own[name].copy_(value)
