"""The matrix products of layers, by the faster of the libraries that torch brings.

On a CPU torch takes float32 products to MKL, which uses half of what an AMD processor with AVX-512 can do;
oneDNN, which is there too, uses nearly all. The numbers are the same to rounding. A wide convolution over few
positions is one product as well: its own kernels first lay all weights out anew, each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_FEWEST = 2**21
"""Multiplications below which finding the kernel takes longer than it saves."""

_MOST_POSITIONS = 512
"""Positions of a batch up to which a convolution is a product."""

_CHANNELS = 16
"""Channels that oneDNN convolves together."""

Multiply = Callable[[Tensor], Tensor]


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


class Conv2d(nn.Conv2d):
    """`torch.nn.Conv2d`, as one product on a CPU where its output has few positions."""

    @property
    def matrix(self) -> Tensor:
        """(outputs, inputs * taps)."""
        return self.weight.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (b, c, *size)."""
        if not self.is_product(x):
            return super().forward(x)
        return self.through(x, partial(linear, weight=self.matrix))

    def is_product(self, x: Tensor) -> bool:
        """Whether that is the quicker way."""
        return _is_product(self) and len(x) * math.prod(self._grid(x)) <= _MOST_POSITIONS

    def through(self, x: Tensor, multiply: Multiply) -> Tensor:
        """Gather what each position sees, and multiply it with the matrix."""
        seen = F.unfold(x, self.kernel_size, padding=_padding(self), stride=self.stride)
        out = multiply(seen.transpose(1, 2)).transpose(1, 2)
        return out.reshape(*out.shape[:2], *self._grid(x))

    def _grid(self, x: Tensor) -> list[int]:
        given = zip(x.shape[2:], self.kernel_size, _padding(self), self.stride, strict=True)
        return [(n + 2 * p - k) // s + 1 for n, k, p, s in given]


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d`, on a CPU by way of oneDNN: torch has a slower way for single small volumes."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self._is_mixing(input):
            mixed = torch.matmul(weight.flatten(1), input.flatten(2))
            mixed = mixed if bias is None else mixed.add_(bias[:, None])
            return mixed.reshape(len(input), len(weight), *input.shape[2:])
        if not self._is_overlooked(input):
            return super()._conv_forward(input, weight, bias)  # type: ignore[no-any-return]
        where = _padding(self), self.stride, self.dilation
        out: Tensor = torch.ops.aten.mkldnn_convolution(input, weight, bias, *where, self.groups)
        return out

    def _is_mixing(self, x: Tensor) -> bool:
        """Whether it only mixes few channels; oneDNN computes sixteen even of one."""
        return (
            _is_ours(x)
            and x.ndim == 5
            and min(self.weight.shape[:2]) < _CHANNELS
            and {*self.kernel_size, *self.stride, self.groups} == {1}
            and not isinstance(self.padding, str)
            and not any(self.padding)
        )

    def _is_overlooked(self, x: Tensor) -> bool:
        return (
            _is_ours(x)
            and x.ndim == 5
            and len(x) == 1
            and x.dtype == self.weight.dtype == torch.float32
            and self.padding_mode == "zeros"
            and not isinstance(self.padding, str)
            and x.numel() * self.weight.numel() // self.in_channels >= _FEWEST
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and not torch.is_autocast_enabled("cpu")
        )


class ConvTranspose2d(nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d`, as one product on a CPU where its input has few positions."""

    @property
    def matrix(self) -> Tensor:
        """(outputs * taps, inputs)."""
        return self.weight.flatten(1).t()

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve (b, c, *size)."""
        if output_size is not None or not self.is_product(x):
            return super().forward(x, output_size)
        return self.through(x, partial(linear, weight=self.matrix))

    def is_product(self, x: Tensor) -> bool:
        """Whether that is the quicker way."""
        return _is_product(self) and len(x) * math.prod(x.shape[2:]) <= _MOST_POSITIONS

    def through(self, x: Tensor, multiply: Multiply) -> Tensor:
        """Multiply each position with the matrix, and add up what meets."""
        parts = multiply(x.flatten(2).transpose(1, 2)).transpose(1, 2)
        padding = _padding(self)
        given = zip(x.shape[2:], self.kernel_size, padding, self.stride, strict=True)
        grid = tuple((n - 1) * s - 2 * p + k for n, k, p, s in given)
        return F.fold(parts, grid, self.kernel_size, padding=padding, stride=self.stride)


class ConvTranspose3d(nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d`, as one product on a CPU where few channels are enlarged without overlap."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolve (b, c, *size)."""
        if output_size is not None or not self._is_enlarging(x):
            return super().forward(x, output_size)
        b, _, *size = x.shape
        outputs, *taps = self.weight.shape[1:]
        parts = torch.matmul(self.weight.flatten(1).t(), x.flatten(2))
        cells = parts.view(b, outputs, *taps, *size).permute(0, 1, 5, 2, 6, 3, 7, 4)
        out = cells.reshape(b, outputs, *(n * k for n, k in zip(size, taps, strict=True)))
        return out if self.bias is None else out.add_(self.bias[:, None, None, None])

    def _is_enlarging(self, x: Tensor) -> bool:
        return (
            _is_ours(x)
            and x.ndim == 5
            and self.weight.shape[1] < _CHANNELS
            and self.kernel_size == self.stride
            and self.groups == 1
            and {*self.dilation, 1} == {1}
            and not any((*self.padding, *self.output_padding))
        )


def _is_product(layer: nn.Conv2d | nn.ConvTranspose2d) -> bool:
    """Whether a convolution is one product, and lies on a CPU."""
    return (
        _is_ours(layer.weight)
        and layer.groups == 1
        and layer.bias is None
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and set((*layer.dilation, 1)) == {1}
        and set((*layer.output_padding, 0)) == {0}
    )


def _padding(layer: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d) -> tuple[int, ...]:
    assert not isinstance(layer.padding, str)  # those are no products
    return layer.padding


class _Linear(torch.autograd.Function):
    """The layer with its way back; keeps inputs only for a weight that learns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        learns, passes = weight.requires_grad, x.requires_grad
        ctx.save_for_backward(x if learns else None, weight if passes else None)
        ctx.turned = not weight.is_contiguous()
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2) if grad.ndim > 1 else grad[None]
        to_x = None if weight is None else _product(grad, weight.t(), None)
        to_weight = None
        if x is not None:
            inputs = x.reshape(len(rows), -1)
            if ctx.turned:  # then so is the gradient, and nothing has to turn it
                to_weight = _product(inputs.t(), rows.contiguous().t(), None).t()
            else:
                to_weight = _product(rows.t(), inputs.contiguous().t(), None)
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
        _is_ours(x)
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= _FEWEST
        and (weight.is_contiguous() or weight.t().is_contiguous())
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and not torch.is_autocast_enabled("cpu")
    )


def _is_ours(x: Tensor) -> bool:
    """Whether to choose at all: on a CPU, and where no graph is drawn, which holds torch's own layers."""
    return x.device.type == "cpu" and not torch.compiler.is_compiling()
