"""What the loop computes on: device, precision and other processes, through Hugging Face Accelerate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from samaritan.errors import ConfigError
from samaritan.optional import require

Thing = TypeVar("Thing")

PATIENCE_H = 3.0
"""Hours that processes wait for one another: one of them may have more images to read."""

_NAMES = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


class Machine:
    """One of the processes that train together; alone if there is one only.

    Gradients are averaged here rather than by DistributedDataParallel, which would see neither
    the parts of a model that a step calls one by one nor parameters that learn in some updates only.
    """

    def __init__(self, precision: str = "float32", device: str | None = None) -> None:
        accelerate = require("accelerate", extra="train", purpose="train models")
        accelerate.state.AcceleratorState._reset_state()  # the precision of an earlier run stays behind
        place = torch.device(device) if device else None
        if place is not None and place.type == "cuda":
            if not torch.cuda.is_available():
                raise ConfigError(f"device {device!r} cannot be used: torch sees no GPU. Use cpu")
            torch.cuda.set_device(place.index or 0)
        chosen = _precision(precision, place)
        if chosen == "float16" and not _on_gpu(place):
            raise ConfigError("run.precision float16 needs a GPU; use bfloat16 or float32")
        self.precision = chosen
        patience = accelerate.InitProcessGroupKwargs(timeout=timedelta(hours=PATIENCE_H))
        self.accelerator: Any = accelerate.Accelerator(
            mixed_precision=_NAMES[chosen],
            cpu=place is not None and place.type == "cpu",
            kwargs_handlers=[patience],
        )
        self.device: torch.device = self.accelerator.device
        self.world: int = self.accelerator.num_processes
        self.rank: int = self.accelerator.process_index

    @property
    def leads(self) -> bool:
        """Whether this process writes files."""
        return self.rank == 0

    def wrapped(self, optimizer: torch.optim.Optimizer) -> Any:
        """An optimiser that scales gradients back where the precision needs it."""
        return self.accelerator.prepare_optimizer(optimizer)

    def autocast(self) -> AbstractContextManager[None]:
        """Compute in the chosen precision inside the block."""
        block: AbstractContextManager[None] = self.accelerator.autocast()
        return block

    def backward(self, loss: Tensor) -> None:
        """Go back through a loss."""
        self.accelerator.backward(loss)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add up the gradients of all processes; a parameter that no process reached has none."""
        if self.world == 1:
            return
        parameters = [p for p in parameters if p.requires_grad]
        reached = torch.tensor(
            [p.grad is not None for p in parameters], dtype=torch.float32, device=self.device
        )
        torch.distributed.all_reduce(reached)
        found = [p for p, n in zip(parameters, reached.tolist(), strict=True) if n]
        if not found:
            return
        flat = torch.cat(
            [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in found]
        )
        torch.distributed.all_reduce(flat)
        pieces = torch.split(flat, [p.numel() for p in found])
        for p, piece in zip(found, pieces, strict=True):
            p.grad = piece.view_as(p)

    def average(self, values: Iterable[Tensor]) -> None:
        """Put the mean over all processes into tensors, those that hold counts excepted."""
        floats = [value for value in values if value.is_floating_point()]
        if self.world == 1 or not floats:
            return
        flat = torch.cat([value.detach().flatten() for value in floats]) / self.world
        torch.distributed.all_reduce(flat)
        pieces = torch.split(flat, [value.numel() for value in floats])
        for value, piece in zip(floats, pieces, strict=True):
            value.detach().copy_(piece.view_as(value))

    def clip(self, parameters: Iterable[nn.Parameter], norm: float | None) -> None:
        """Shorten the gradient to a norm."""
        if norm is not None:
            self.accelerator.clip_grad_norm_([p for p in parameters if p.grad is not None], norm)

    def gathered(self, value: Thing) -> list[Thing]:
        """Collect a plain value of every process, in their order."""
        found: list[Any] = [value]
        if self.world > 1:
            found = [None] * self.world
            torch.distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Wait for the other processes."""
        self.accelerator.wait_for_everyone()

    def close(self) -> None:
        """Part from the other processes; without it, threads of gloo may outlive the interpreter."""
        if self.world > 1 and torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()


@contextlib.contextmanager
def saving_memory(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Compute the encoder's blocks again on the way back instead of keeping what they computed."""
    blocks: Any = model.image_encoder.blocks if wanted else ()  # type: ignore[union-attr]
    for block in blocks:
        block.forward = _again(block.forward)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # what the class defines is seen again


def _again(forward: Any) -> Any:
    def run(*args: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args)
        return checkpoint(forward, *args, use_reentrant=False)

    return run


def _on_gpu(device: torch.device | None) -> bool:
    return torch.cuda.is_available() if device is None else device.type == "cuda"


def _precision(wanted: str, device: torch.device | None) -> str:
    if wanted != "auto":
        return wanted
    return "bfloat16" if _on_gpu(device) and torch.cuda.is_bf16_supported() else "float32"
