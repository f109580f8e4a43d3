"""Low-rank changes of linear layers: of a whole layer, or of some of a fused layer's q, k and v."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from samaritan.adapt.adapter import Adapter
from samaritan.errors import ConfigError
from samaritan.products import linear


class Lora(Adapter):
    """Add ``scale * B A x`` to what a linear layer gives; B begins as zeros, so nothing changes at first.

    With `parts` "qv" the layer is a fused q, k, v layer and its q and v parts have matrices of their own
    (`a_q`, `b_q`, `a_v`, `b_v`); without, there is one pair (`a`, `b`). A is drawn as torch draws a
    linear layer (uniform up to 1 / sqrt(inputs)). SAMed scales by nothing, so `scale` is 1.

    Source: Hu et al. 2021, arXiv:2106.09685; SAMed, sam_lora_image_encoder.py. There every layer also
    keeps an identity matrix that is never used; here it does not.
    """

    kind: ClassVar[str] = "lora"

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        rank: int = 4,
        scale: float = 1.0,
        parts: str = "",
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.rank, self.scale, self.parts = rank, float(scale), parts
        self.width = outputs // 3 if parts else outputs
        for part in parts or ("",):
            a = torch.empty(rank, inputs, device=device, dtype=dtype)
            b = torch.zeros(self.width, rank, device=device, dtype=dtype)
            nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
            for name, values in (("a", a), ("b", b)):
                self.register_parameter(f"{name}_{part}" if part else name, nn.Parameter(values))

    @classmethod
    def beside(cls, target: nn.Module, *, where: str, ndim: int, **options: Any) -> Self:
        """Make one for a linear layer; `ndim` does not matter."""
        if not isinstance(target, nn.Linear):
            raise ConfigError(
                f"LoRA changes linear layers, and {where!r} is a {type(target).__name__}. Choose a "
                f"linear layer, such as attn.qkv, mlp.lin1 or q_proj"
            )
        rank, parts, scale = (
            options.get("rank", 4),
            options.get("parts", ""),
            options.get("scale", 1.0),
        )
        smaller = min(target.in_features, target.out_features)
        if isinstance(rank, bool) or not isinstance(rank, int) or not 1 <= rank <= smaller:
            raise ConfigError(
                f"the rank of LoRA beside {where!r} must be a whole number from 1 to {smaller}, not {rank!r}"
            )
        if (
            isinstance(scale, bool)
            or not isinstance(scale, int | float)
            or not math.isfinite(scale)
        ):
            raise ConfigError(f"the scale of LoRA must be a number, not {scale!r}")
        if not isinstance(parts, str) or parts not in ("", "q", "k", "v", "qk", "qv", "kv", "qkv"):
            raise ConfigError(
                f"the parts of LoRA are some of 'qkv' in this order, or '' for a whole layer, not {parts!r}"
            )
        if parts and target.out_features % 3:
            raise ConfigError(
                f"{where!r} has {target.out_features} outputs, so it is no fused layer of q, k and v. "
                f"Use parts='' to change the whole layer"
            )
        weight = target.weight
        return cls(
            target.in_features,
            target.out_features,
            device=weight.device,
            dtype=weight.dtype,
            **options,
        )

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """Add the low-rank part, into `output` itself: it is new, and large."""
        parts = self.parts or ("",)
        matrices = [matrix for part in parts for matrix in self.matrices(part)]
        starts = [max(0, "qkv".find(part)) * self.width for part in parts]
        out: Tensor = _Added.apply(output, x, self.scale, starts, *matrices)  # type: ignore[no-untyped-call]
        return out

    @property
    def options(self) -> dict[str, Any]:
        """Rank, scale and parts."""
        return {"rank": self.rank, "scale": self.scale, "parts": self.parts}

    @property
    def mergeable(self) -> bool:
        """LoRA folds into the layer's weight."""
        return True

    @torch.no_grad()
    def merge_into(self, target: nn.Module) -> None:
        """Add ``scale * B A`` to the layer's weight, summed in double precision."""
        weight = target.get_parameter("weight")
        for part in self.parts or ("",):
            rows = slice(None)
            if part:
                start = "qkv".index(part) * self.width
                rows = slice(start, start + self.width)
            a, b = self.matrices(part)
            change = self.scale * (b.double() @ a.double())
            weight[rows] = (weight[rows].double() + change).to(weight.dtype)

    def matrices(self, part: str = "") -> tuple[Tensor, Tensor]:
        """A (rank, inputs) and B (outputs, rank) of a part, or of the whole layer."""
        suffix = f"_{part}" if part else ""
        return self.get_parameter(f"a{suffix}"), self.get_parameter(f"b{suffix}")

    def extra_repr(self) -> str:
        """Options, for printing."""
        return ", ".join(f"{key}={value!r}" for key, value in self.options.items())


class _Added(torch.autograd.Function):
    """``output[..., start:] += scale * x A' B'`` for some A, B and starts, all A in one product."""

    @staticmethod
    def forward(
        ctx: Any, output: Tensor, x: Tensor, scale: float, starts: list[int], *matrices: Tensor
    ) -> Tensor:
        ctx.scale, ctx.starts = scale, starts
        x = x.detach().to(output.dtype)
        a, *b = _joined(matrices, output.dtype)
        inner = linear(x.flatten(0, -2), a)
        ctx.save_for_backward(x, inner, *matrices)
        rows = output.view(-1, output.shape[-1])
        for start, some, matrix in zip(
            starts, torch.split(inner, len(matrices[0]), 1), b, strict=True
        ):
            rows[:, start : start + len(matrix)].addmm_(some, matrix.t(), alpha=scale)
        ctx.mark_dirty(output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, inner, *matrices = ctx.saved_tensors
        a, *b = _joined(matrices, grad.dtype)
        rows, rank = grad.reshape(-1, grad.shape[-1]), len(matrices[0])
        parts = [rows[:, s : s + len(m)] for s, m in zip(ctx.starts, b, strict=True)]
        to_inner = ctx.scale * torch.cat(
            [linear(p, m.t()) for p, m in zip(parts, b, strict=True)], dim=1
        )
        to_x = linear(to_inner, a.t()).view(x.shape) if ctx.needs_input_grad[1] else None
        to_a = linear(to_inner.t(), x.flatten(0, -2).t())
        inners = torch.split(inner, rank, 1)
        to_b = [ctx.scale * linear(z.t(), p.t()).t() for z, p in zip(inners, parts, strict=True)]
        pairs = (
            matrix for pair in zip(torch.split(to_a, rank), to_b, strict=True) for matrix in pair
        )
        return grad, to_x, None, None, *pairs


def _joined(matrices: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """All A one below the other, then every B."""
    return [m.detach().to(dtype) for m in (torch.cat(list(matrices[::2])), *matrices[1::2])]
