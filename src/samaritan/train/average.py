"""A moving average of the weights that learn."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from samaritan.train.state import moving


class MovingAverage:
    """Weights averaged over updates; its memory is short at first, so that early weights are forgotten."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values = {name: value.clone() for name, value in _averaged(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the present weights in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        now = _averaged(model)
        for name, value in self.values.items():
            value.lerp_(now[name], 1 - decay)

    @contextlib.contextmanager
    def shown(self, model: nn.Module) -> Iterator[None]:
        """Let the model have the averaged weights inside the block."""
        now = _averaged(model)
        own = {name: value.clone() for name, value in now.items()}
        try:
            _fill(now, self.values)
            yield
        finally:
            _fill(now, own)

    def state(self) -> dict[str, object]:
        """What `restore` takes."""
        return {"updates": self.updates, "values": self.values}

    def restore(self, state: Mapping[str, object]) -> None:
        """Go on from a state."""
        self.updates = int(state["updates"])  # type: ignore[call-overload]
        _fill(self.values, state["values"])  # type: ignore[arg-type]


def _averaged(model: nn.Module) -> dict[str, Tensor]:
    """What moves and is not a count, as views of the model's own."""
    return {name: value for name, value in moving(model).items() if value.is_floating_point()}


@torch.no_grad()
def _fill(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        targets[name].copy_(value)
