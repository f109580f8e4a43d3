"""Go back through a loss as soon as it is there, so that nothing of a volume's size waits for the way back.

What a decoder gives is small, what a loss is taken of is large: enlarged, compared, squared, for every click.
The gradient with respect to the small thing says all about that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def apart(x: Tensor) -> Tensor:
    """The same values, as the beginning of a graph of their own."""
    return x.detach().requires_grad_(x.requires_grad)


def at_once(loss: Tensor, start: Tensor, x: Tensor) -> Tensor:
    """The same loss as a function of `x`; all between it and `start`, which is ``apart(x)``, is let go.

    >>> x = torch.ones(2, requires_grad=True)
    >>> start = apart(x)
    >>> torch.autograd.grad(at_once(start.square().sum(), start, x), x)
    (tensor([2., 2.]),)
    """
    if not loss.requires_grad:
        return loss
    (gradient,) = torch.autograd.grad(loss, start)
    found: Tensor = _Known.apply(x, loss.detach(), gradient)  # type: ignore[no-untyped-call]
    return found


class _Known(torch.autograd.Function):
    """A number whose gradient is known."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, to_loss: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * to_loss, None, None
