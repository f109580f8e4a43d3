"""A moving average of the weights that learn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class MovingAverage:
    """Weights averaged over updates; its memory is short at first, so that early weights are forgotten."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values = {
            name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the present weights in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = dict(model.named_parameters())
        for name, value in self.values.items():
            value.lerp_(parameters[name].detach(), 1 - decay)

    @contextlib.contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights inside the block."""
        parameters = dict(model.named_parameters())
        own = {name: parameters[name].detach().clone() for name in self.values}
        try:
            _fill(parameters, self.values)
            yield
        finally:
            _fill(parameters, own)

    def state(self) -> dict[str, object]:
        """What `restore` takes."""
        return {"updates": self.updates, "values": self.values}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from a state."""
        self.updates = int(state["updates"])  # type: ignore[call-overload]
        _fill(self.values, state["values"])  # type: ignore[arg-type]


@torch.no_grad()
def _fill(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        targets[name].copy_(value)
