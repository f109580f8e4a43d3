"""Low-rank changes of linear layers: of a whole layer, or of some of a fused layer's q, k and v."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samaritan.adapt.adapter import Adapter
from samaritan.errors import ConfigError


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
        """Add the low-rank part."""
        if not self.parts:
            return output + self._change(x, "")
        thirds = output.chunk(3, dim=-1)
        return torch.cat(
            [
                third + self._change(x, part) if part in self.parts else third
                for part, third in zip("qkv", thirds, strict=True)
            ],
            dim=-1,
        )

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

    def _change(self, x: Tensor, part: str) -> Tensor:
        a, b = self.matrices(part)
        change = F.linear(F.linear(x, a), b)
        return change if self.scale == 1.0 else self.scale * change

    def extra_repr(self) -> str:
        """Options, for printing."""
        return ", ".join(f"{key}={value!r}" for key, value in self.options.items())
