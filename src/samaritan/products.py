"""The matrix products of linear layers, by the faster of the libraries that torch brings.

On a CPU torch takes float32 products to MKL, which uses half of what an AMD processor with AVX-512 can do;
oneDNN, which is there too, uses nearly all. The numbers are the same to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_FEWEST = 2**21
"""Multiplications below which finding the kernel takes longer than it saves."""


class Linear(nn.Linear):
    """`torch.nn.Linear` by way of `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply to the last axis."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """As `torch.nn.functional.linear`: ``x @ weight.T + bias`` over the last axis.

    >>> linear(torch.ones(2, 3), torch.ones(4, 3)).shape
    torch.Size([2, 4])
    """
    if not _suits(x, weight):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, weight, bias)
    ):
        out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
        return out
    return _product(x, weight, bias)


class _Linear(torch.autograd.Function):
    """The layer with its way back; keeps inputs only for a weight that learns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        learns, passes = weight.requires_grad, x.requires_grad
        ctx.save_for_backward(x if learns else None, weight if passes else None)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2) if grad.ndim > 1 else grad[None]
        to_x = None if weight is None else _product(grad, weight.t(), None)
        inputs = None if x is None else x.reshape(len(rows), -1).contiguous()
        to_weight = None if inputs is None else _product(rows.t(), inputs.t(), None)
        to_bias = rows.sum(dim=0) if ctx.needs_input_grad[2] else None
        return to_x, to_weight, to_bias


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    rows = x.reshape(-1, x.shape[-1])
    flat: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    out: Tensor = torch.ops.aten._unsafe_view(
        flat, [*x.shape[:-1], len(weight)]
    )  # may be added into
    return out


def _suits(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN is there, and faster: it is a hundred times as slow with weights cut out of others."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= _FEWEST
        and (weight.is_contiguous() or weight.t().is_contiguous())
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and not torch.is_autocast_enabled("cpu")
    )
