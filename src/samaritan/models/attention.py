"""Self-attention of the image encoder: inside windows or global, with relative positions per axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.errors import ConfigError
from samaritan.models import windows
from samaritan.models.config import Quirks
from samaritan.models.positions import AXIS_NAMES, interpolate_table, relative_rows

# Elements of position bias that exist at one time: on a CPU as many as its cache holds.
_BIAS_ELEMENTS = {"cpu": 2**21}
_BIAS_ELEMENTS_ELSEWHERE = 2**26

Tables = list[Float[Tensor, "... c"]]


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
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
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
        out = x.new_empty(x.shape, dtype=qkv.dtype)
        for place, size in windows.regions(grid, window):
            part = qkv[(slice(None), *place)]
            q, k, v = windows.cut(part, size, self.heads)
            lines = q
            if padding is not None:
                q_pad, k_pad, v_pad = padding
                lines = windows.fill(q, (*size[:-1], window[-1]), q_pad)
                k, v = windows.fill(k, window, k_pad), windows.fill(v, window, v_pad)
            attended = self._attend(q, k, v, lines, tables)
            out[(slice(None), *place)] = windows.join(attended, part.shape[:-1])
        projected: Tensor = self.proj(out)
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

    def _attend(
        self,
        q: Float[Tensor, "n h *queries c"],
        k: Float[Tensor, "n h *keys c"],
        v: Float[Tensor, "n h *keys c"],
        lines: Float[Tensor, "n h *lines c"],
        tables: Tables,
    ) -> Float[Tensor, "n h *queries c"]:
        """Attend, a few rows of queries at a time, so that the bias never exists in one piece."""
        scrambled = self.quirks.rel_pos_axes
        offsets = _scrambled_offsets if scrambled else _offsets
        first, *others = offsets(tables, q.shape[2:-1], k.shape[2:-1])
        k, v = k.flatten(2, -2), v.flatten(2, -2)
        out = []
        for rows in _row_chunks(q, k):
            some, near = q[:, :, rows], [first[rows], *others]
            bias = (
                scrambled_bias(some, lines[:, :, rows], near)
                if scrambled
                else decomposed_bias(some, near)
            )
            attended = F.scaled_dot_product_attention(some.flatten(2, -2), k, v, attn_mask=bias)
            out.append(attended.reshape(some.shape))
        return out[0] if len(out) == 1 else torch.cat(out, dim=2)


def decomposed_bias(
    q: Float[Tensor, "n h *queries c"], offsets: Tables
) -> Float[Tensor, "n h q k"]:
    """The position bias of queries for all keys of their window.

    `offsets` holds for each axis the table's row for each query and key position: (q, k, c).
    """
    letters = "xyz"[: len(offsets)]
    bias = q.new_zeros(())
    for axis, (letter, rows) in enumerate(zip(letters, offsets, strict=True)):
        part = torch.einsum(f"nh{letters}c,{letter}kc->nh{letters}k", q, rows)
        part = part.reshape(*part.shape[:-1], *[1] * axis, part.shape[-1])
        bias = bias.unsqueeze(-1) + part if axis else part
    return bias.flatten(2, 1 + len(offsets)).flatten(3)


def scrambled_bias(
    q: Float[Tensor, "n h x y z c"], lines: Float[Tensor, "n h x y l c"], offsets: Tables
) -> Float[Tensor, "n h q k"]:
    """The position bias that SAM-Med3D's weights were trained with (see `Quirks.rel_pos_axes`).

    All three offsets are taken against the last key axis, and two of the three queries are those
    that stand at the key's other indices in the same line:
    ``q[x,y,z] Rd[x,kz] + q[x,y,kx] Rh[y,kz] + q[x,y,ky] Rw[ky,kz]``.
    `lines` holds the queries of whole lines, tokens that pad the window included.
    """
    d, h, w = offsets
    own = torch.einsum("nhxyzc,xkc->nhxyzk", q, d)
    at_x = torch.einsum("nhxylc,ykc->nhxylk", lines, h)
    at_y = torch.einsum("nhxylc,lkc->nhxylk", lines, w)
    others = at_x[..., :, None, :] + at_y[..., None, :, :]
    bias = own[..., None, None, :] + others[:, :, :, :, None]  # n h x y z kx ky kz
    return bias.flatten(2, 4).flatten(3)


def _offsets(tables: Tables, queries: Sequence[int], keys: Sequence[int]) -> Tables:
    return [relative_rows(t, q, k) for t, q, k in zip(tables, queries, keys, strict=True)]


def _scrambled_offsets(tables: Tables, queries: Sequence[int], keys: Sequence[int]) -> Tables:
    if len(set(keys)) != 1:
        raise ConfigError(
            f"the relative positions of SAM-Med3D (quirk rel_pos_axes) need cubic windows and token "
            f"grids, not {tuple(keys)}. Use a cubic image size with window_padding, or train "
            f"without this quirk"
        )
    return _offsets(tables, (*queries[:2], keys[2]), keys)


def _row_chunks(q: Tensor, k: Float[Tensor, "n h m c"]) -> Iterator[slice]:
    """Slices of the first grid axis of the queries, each with a bias of limited size."""
    n, heads, rows = q.shape[:3]
    limit = _BIAS_ELEMENTS.get(q.device.type, _BIAS_ELEMENTS_ELSEWHERE)
    per_row = n * heads * math.prod(q.shape[3:-1]) * k.shape[2]
    step = max(1, limit // max(1, per_row))
    for start in range(0, rows, step):
        yield slice(start, start + step)
