"""Self-attention of the image encoder: inside windows or global, with relative positions per axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.models import attending, windows
from samaritan.models.config import Quirks
from samaritan.models.position_bias import (
    PositionBias,
    Tables,
    decomposed_bias,
    scrambled_bias,
)
from samaritan.models.positions import AXIS_NAMES, interpolate_table
from samaritan.products import Linear


class Attention(nn.Module):
    """Multi-head self-attention on a token grid, with decomposed relative positions.

    The logit of query i for key j gets, per axis a, the unscaled query times row `i_a - j_a` of that
    axis' table. With `window`, tokens attend inside windows of that side only. Windows that
    stick out of the grid hold only their real tokens, unless `Quirks.window_padding` says that the
    missing ones take part: then their queries, keys and values are those of a zero token.

    Source: segment-anything, modeling/image_encoder.py (`Attention`, `window_partition`).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        grid: Sequence[int],
        *,
        window: int | None = None,
        quirks: Quirks | None = None,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.window = None if window is None else (window,) * len(grid)
        self.quirks = quirks or Quirks()
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)
        self.table_names = [f"rel_pos_{axis}" for axis in AXIS_NAMES[len(grid)]]
        for name, n in zip(self.table_names, self.window or grid, strict=True):
            setattr(self, name, nn.Parameter(torch.zeros(2 * n - 1, width // heads)))

    def forward(self, x: Float[Tensor, "b *grid d"]) -> Float[Tensor, "b *grid d"]:
        """Attend; tokens come and go on their grid, channels last."""
        grid = x.shape[1:-1]
        qkv = self.qkv(x)
        window = self.window or tuple(grid)
        tables = self._tables(window)
        padding = self._padding(x) if self.quirks.window_padding else None
        regions = list(windows.regions(grid, window))
        if padding is not None and len(regions) > 1 and not attending.in_pieces(qkv):
            qkv = windows.filled(qkv, window, padding.flatten())  # many small steps take longer
            regions = list(windows.regions(qkv.shape[1:-1], window))
        out = qkv.new_empty(x.shape) if len(regions) > 1 else qkv
        for place, size in regions:
            part = qkv[(slice(None), *place)]
            q, k, v = windows.cut(part, size, self.heads)
            missing = None if size == window else padding
            bias = self._bias(q, tables, size if missing is None else window, missing)
            attended = attending.attend(q, k, v, bias, None if missing is None else missing[1:])
            joined = windows.join(attended, part.shape[:-1])
            if len(regions) == 1:
                out = joined
            else:
                out[(slice(None), *place)] = joined
        projected: Tensor = self.proj(out[(slice(None), *(slice(0, n) for n in grid))])
        return projected

    def resize(self, grid: Sequence[int]) -> None:
        """Interpolate the tables for another grid, in place; windowed attention stays as it is."""
        if self.window is None:
            for name, table in zip(self.table_names, self._tables(grid), strict=True):
                setattr(self, name, nn.Parameter(table.detach().clone()))

    def _tables(self, size: Sequence[int]) -> Tables:
        tables = (getattr(self, name) for name in self.table_names)
        return [interpolate_table(t, 2 * n - 1) for t, n in zip(tables, size, strict=True)]

    def _padding(self, x: Tensor) -> Float[Tensor, "3 h c"]:
        """Query, key and value of the zero tokens that fill windows (their biases)."""
        zero: Tensor = self.qkv(x.new_zeros(*[1] * (x.ndim - 1), x.shape[-1]))
        return zero.reshape(3, self.heads, -1)

    def _bias(
        self,
        q: Float[Tensor, "n h *queries c"],
        tables: Tables,
        window: Sequence[int],
        padding: Float[Tensor, "3 h c"] | None,
    ) -> PositionBias:
        if self.quirks.rel_pos_axes:
            return scrambled_bias(q, tables, window, None if padding is None else padding[0])
        return decomposed_bias(q, tables, window)
