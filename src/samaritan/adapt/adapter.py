"""What every adapter is, and how it is hung beside a module without changing that module's names.

The adapters of a module are a child of it called `adapters`; a forward hook lets each of them change
what the module gives. So the module stays the same object with the same parameter names, plain
weights load into it as before, and taking the child and the hook away leaves what was there.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from samaritan.errors import ConfigError

SEAM = "adapters"
"""Name of the child that holds a module's adapters."""


class Adapter(nn.Module, ABC):
    """A small module that sees what went into another one, and changes what came out."""

    kind: ClassVar[str]
    """Its word in methods and files."""

    @classmethod
    @abstractmethod
    def beside(cls, target: nn.Module, *, where: str, ndim: int, **options: Any) -> Self:
        """Make one that fits a module.

        Args:
            target: the module that it stands beside.
            where: name of that module, for messages.
            ndim: number of image axes of the model.
            **options: those of this kind of adapter.

        Raises:
            ConfigError: if it cannot stand beside this module, or an option is not valid.
        """

    @abstractmethod
    def forward(self, x: Any, output: Tensor) -> Tensor:
        """What comes out instead, given what went in (a tuple of it, if several did) and what came out."""

    @property
    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Plain values with which `beside` makes another one like it."""

    @property
    def mergeable(self) -> bool:
        """Whether `merge_into` can fold it into the module's own weights."""
        return False

    @torch.no_grad()
    def merge_into(self, target: nn.Module) -> None:
        """Fold it into the module's own weights."""
        raise ConfigError(f"an adapter of kind {self.kind!r} cannot be folded into weights")


def attach(target: nn.Module, name: str, adapter: Adapter) -> None:
    """Hang an adapter beside a module; several act in the order in which they came."""
    held = adapters_beside(target)
    if held is None:
        held = nn.ModuleDict()
        target.add_module(SEAM, held)
        target.register_forward_hook(_adapted)
    held[name] = adapter
    held.train(target.training)


def detach(target: nn.Module, name: str) -> None:
    """Take an adapter away; with the last one, every trace of them."""
    held = adapters_beside(target)
    assert held is not None
    del held[name]
    if len(held):
        return
    delattr(target, SEAM)
    for key, hook in list(target._forward_hooks.items()):
        if hook is _adapted:
            del target._forward_hooks[key]


def adapters_beside(target: nn.Module) -> nn.ModuleDict | None:
    """The adapters of a module, by name."""
    held = getattr(target, SEAM, None)
    return held if isinstance(held, nn.ModuleDict) else None


def _adapted(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    """The hook: it holds nothing, so a copied or pickled model finds its own adapters."""
    x = args[0] if len(args) == 1 else args
    for adapter in module.get_submodule(SEAM).children():
        output = adapter(x, output)
    return output


def draw_weights(module: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of layers as torch does, from a given generator; norms keep theirs."""
    for layer in module.modules():
        weight, bias = getattr(layer, "weight", None), getattr(layer, "bias", None)
        if isinstance(layer, nn.LayerNorm) or not isinstance(weight, Tensor):
            continue
        nn.init.kaiming_uniform_(weight, a=math.sqrt(5), generator=generator)
        if isinstance(bias, Tensor):
            bound = 1 / math.sqrt(weight[0].numel())
            nn.init.uniform_(bias, -bound, bound, generator=generator)
