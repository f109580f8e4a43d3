"""SAM-Med2D's adapter: a gate over channels and a strided convolution there and back, beside an MLP."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from samaritan.adapt.adapter import Adapter
from samaritan.errors import ConfigError
from samaritan.products import Conv2d, Conv3d, ConvTranspose2d

_CONV: dict[int, Any] = {2: Conv2d, 3: Conv3d}
_CONV_TRANSPOSE: dict[int, Any] = {2: ConvTranspose2d, 3: nn.ConvTranspose3d}

STARTS = ("published", "identity")


class Bottleneck(Adapter):
    """Add ``norm(x + spatial(gate(x) * x))`` to what an MLP gives, over the whole token grid.

    `gate` weighs channels by their mean over the grid; `spatial` halves the grid with a convolution and
    doubles it again with a transposed one. On axes of odd length the doubled grid is one too long;
    the surplus is cut off at the end, which keeps every token in its place (the published code fails there).

    As published it is *not* the identity at first, since it ends in a norm: it changes features
    strongly as soon as it is there. With `start="identity"` the norm's weight begins as zero, so nothing
    changes at first. Nearly all of its parameters are in the two convolutions, which `ratio` does not
    touch; `depthwise` gives each channel its own.

    Source: SAM-Med2D, segment_anything/modeling/image_encoder.py (`Adapter`). There in 2D only.
    """

    kind: ClassVar[str] = "bottleneck"

    def __init__(
        self,
        width: int,
        *,
        ndim: int = 2,
        ratio: float = 0.25,
        depthwise: bool = False,
        start: str = "published",
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.ratio, self.depthwise, self.start = float(ratio), depthwise, start
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden = max(1, int(width * ratio))
        self.norm = nn.LayerNorm(width, **place)
        self.channel = nn.Sequential(
            nn.Linear(width, hidden, bias=False, **place),
            nn.ReLU(),
            nn.Linear(hidden, width, bias=False, **place),
            nn.Sigmoid(),
        )
        step = {"stride": 2, "padding": 1, "bias": False, "groups": width if depthwise else 1}
        self.spatial = nn.Sequential(
            _CONV[ndim](width, width, kernel_size=3, **step, **place),
            nn.ReLU(),
            _CONV_TRANSPOSE[ndim](width, width, kernel_size=4, **step, **place),
            nn.ReLU(),
        )
        for layer in (self.channel[0], self.channel[2], self.spatial[0], self.spatial[2]):
            nn.init.kaiming_normal_(
                layer.get_parameter("weight"),
                mode="fan_out",
                nonlinearity="relu",
                generator=generator,
            )
        if start == "identity":
            nn.init.zeros_(self.norm.weight)

    @classmethod
    def beside(cls, target: nn.Module, *, where: str, ndim: int, **options: Any) -> Self:
        """Make one for a module from tokens (b, *grid, width) to tokens of the same width."""
        linears = [module for module in target.modules() if isinstance(module, nn.Linear)]
        if not linears or linears[0].in_features != linears[-1].out_features:
            raise ConfigError(
                f"this adapter stands beside an MLP that keeps the width of its tokens; {where!r} is a "
                f"{type(target).__name__}. Use the mlp of an encoder block"
            )
        ratio, start = options.get("ratio", 0.25), options.get("start", "published")
        depthwise = options.get("depthwise", False)
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
            raise ConfigError(f"the ratio of an adapter must be above 0 and up to 1, not {ratio!r}")
        if start not in STARTS:
            raise ConfigError(f"the start of an adapter is one of {STARTS}, not {start!r}")
        if not isinstance(depthwise, bool):
            raise ConfigError(f"depthwise must be true or false, not {depthwise!r}")
        weight = linears[0].weight
        return cls(
            linears[0].in_features, ndim=ndim, device=weight.device, dtype=weight.dtype, **options
        )

    def forward(self, x: Tensor, output: Tensor) -> Tensor:
        """Add the branch; tokens come and go on their grid, channels last."""
        grid = x.shape[1:-1]
        first = x.movedim(-1, 1)
        gate = self.channel(x.flatten(1, -2).mean(dim=1))
        gated = first * gate.reshape(*gate.shape, *[1] * len(grid))
        spatial = self.spatial(gated)[(..., *(slice(0, n) for n in grid))]
        branch: Tensor = self.norm((first + spatial).movedim(1, -1))
        return output + branch

    @property
    def options(self) -> dict[str, Any]:
        """Ratio, depthwise and start."""
        return {"ratio": self.ratio, "depthwise": self.depthwise, "start": self.start}
