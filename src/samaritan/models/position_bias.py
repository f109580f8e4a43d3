"""What relative positions add to the logits of attention, as terms that are summed key by key.

The terms are small; the bias in full, one number for each query and key, is left to `attending`. Keys that
pad a window are all alike but for their positions, so together they are one more key, whose logit is larger
by the log of a sum of exponentials. That sum runs over the axes one by one, since the bias is a sum too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from samaritan.errors import ConfigError
from samaritan.models.positions import relative_rows
from samaritan.models.windows import fill

Tables = list[Float[Tensor, "... c"]]


class PositionBias(NamedTuple):
    """Bias of queries in a box of a window for the keys in it."""

    terms: list[Float[Tensor, "n h ..."]]
    """Their sum, broadcast to (n, h, *queries, *keys), is the bias."""
    padding: Float[Tensor, "n h ... 1"] | None = None
    """Bias of the one key that stands for all that pad the window: (n, h, *queries, 1)."""


def decomposed_bias(
    q: Float[Tensor, "n h *queries c"], tables: Tables, window: Sequence[int]
) -> PositionBias:
    """One term per axis: the query times the row of its offset to the key along this axis.

    Queries and keys fill a box at the beginning of a `window`; the rest of it is padding.
    """
    ndim, size = len(tables), q.shape[2:-1]
    letters = "xyz"[:ndim]
    terms, axes = [], []
    for axis, letter in enumerate(letters):
        rows = relative_rows(tables[axis], size[axis], window[axis])
        every = torch.einsum(f"nh{letters}c,{letter}kc->nh{letters}k", q, rows)
        inside = every[..., : size[axis]]
        ones = [1] * ndim
        ones[axis] = size[axis]
        terms.append(inside.reshape(*inside.shape[:-1], *ones))
        axes.append((every, size[axis]))
    return PositionBias(terms, _outside(axes))


def scrambled_bias(
    q: Float[Tensor, "n h x y z c"],
    tables: Tables,
    window: Sequence[int],
    padding_query: Float[Tensor, "h c"] | None = None,
) -> PositionBias:
    """The position bias that SAM-Med3D's weights were trained with (see `Quirks.rel_pos_axes`).

    All three offsets are taken against the last key axis, and two of the three queries are those
    that stand at the key's other indices in the same line:
    ``q[x,y,z] Rd[x,kz] + q[x,y,kx] Rh[y,kz] + q[x,y,ky] Rw[ky,kz]``.
    Where a line leaves the box that queries and keys fill, its queries are the `padding_query`.

    Raises:
        ConfigError: if the window is no cube.
    """
    if len(set(window)) != 1:
        raise ConfigError(
            f"the relative positions of SAM-Med3D (quirk rel_pos_axes) need cubic windows and token "
            f"grids, not {tuple(window)}. Use a cubic image size with window_padding, or train "
            f"without this quirk"
        )
    (sx, sy, sz), side = q.shape[2:-1], window[0]
    d, h, w = (relative_rows(t, n, side) for t, n in zip(tables, (sx, sy, side), strict=True))
    lines = q if padding_query is None else fill(q, (sx, sy, side), padding_query)
    own = torch.einsum("nhxyzc,xkc->nhxyzk", q, d)
    at_x = torch.einsum("nhxylc,ykc->nhxylk", lines, h)
    at_y = torch.einsum("nhxylc,lkc->nhxylk", lines, w)
    terms = [
        at_x[:, :, :, :, None, :sx, None, :sz],
        at_y[:, :, :, :, None, None, :sy, :sz],
        own[..., None, None, :sz],
    ]  # n h x y z kx ky kz
    rest = []
    if sz < side:
        beyond = _log_sum(at_x[..., sz:].mT) + _log_sum(at_y[..., sz:].mT)
        rest.append(own[..., sz:].float() + beyond.mT)
    beside = _outside([(at_x[..., :sz].mT, sx), (at_y[..., :sz].mT, sy)])
    if beside is not None:
        rest.append(own[..., :sz].float() + beside.mT)
    together = _log_sum(torch.cat(rest, dim=-1)).to(q.dtype) if rest else None
    return PositionBias(terms, together)


def _outside(axes: Sequence[tuple[Float[Tensor, "*q _"], int]]) -> Float[Tensor, "*q 1"] | None:
    """Log of the summed exponentials of a bias over a window without the box at its beginning.

    Given are each axis' term, for all of the window, and the size of the box; None if the box fills it.
    """
    if all(size == term.shape[-1] for term, size in axes):
        return None
    within: Tensor | float = 0.0
    outside: Tensor | None = None
    for term, size in axes:
        inner, beyond = _log_sum(term[..., :size]), None
        whole = inner
        if size < term.shape[-1]:
            beyond = _log_sum(term[..., size:])
            whole = torch.logaddexp(inner, beyond)
        left = None if outside is None else outside + whole
        if beyond is not None:
            beyond = within + beyond
            left = beyond if left is None else torch.logaddexp(left, beyond)
        within, outside = within + inner, left
    return None if outside is None else outside.to(axes[0][0].dtype)


def _log_sum(x: Float[Tensor, "*q n"]) -> Float[Tensor, "*q 1"]:
    """`logsumexp` over the last axis in float32, by a kernel that is fast for few numbers."""
    x = x.float()
    return x[..., :1] - x.log_softmax(dim=-1)[..., :1]
