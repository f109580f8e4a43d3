"""Softmax attention with a bias that is a sum of terms, without ever holding all logits.

On a processor a few rows of queries are worked on at a time, with all their keys, in pieces that its cache
holds; for gradients their logits are computed anew, so nothing of size queries x keys is kept. Other devices
have fused kernels for attention, fastest without a bias: there the bias becomes a part of the dot product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from samaritan.models.position_bias import PositionBias

_ELEMENTS_PER_THREAD = 2**20
"""Logits that each thread of a processor works on at one time: about what its cache holds."""
_MOST_ELEMENTS = 2**26
"""Logits that are worked on at one time, on any device."""

_SHORT_ROW = 31
"""Terms with rows of at most so many keys are added by a product with zeros and ones, which is faster."""
_MOST_FEATURES = 160
"""Numbers for each query up to which that is so."""

_WIDEST = 256
"""Channels of queries and keys that fused kernels take."""

Piece = tuple[slice, slice]


def in_pieces(x: Tensor) -> bool:
    """Whether attention is worked out here, piece by piece, rather than by a kernel of the device."""
    return x.device.type == "cpu"


def attend(
    q: Float[Tensor, "n h *queries c"],
    k: Float[Tensor, "n h *keys c"],
    v: Float[Tensor, "n h *keys c"],
    bias: PositionBias,
    padding: Float[Tensor, "2 h c"] | None = None,
) -> Float[Tensor, "n h *queries c"]:
    """Attend to all keys, and to one that stands for all padding if `bias` has a number for it.

    `padding` holds that key and its value, for each head.
    """
    keys = tuple(k.shape[2:-1])
    q, k, v = q.contiguous(), k.contiguous(), v.contiguous()  # or each piece would be copied
    k, v = k.flatten(2, -2).flatten(0, 1), v.flatten(2, -2).flatten(0, 1)
    extra = None
    if bias.padding is not None and padding is not None:
        extra = bias.padding.flatten(0, 1)
        ends = padding.to(k.dtype).repeat(1, len(q), 1)[:, :, None]  # 2 (n h) 1 c
        k, v = torch.cat([k, ends[0]], dim=1), torch.cat([v, ends[1]], dim=1)
    terms = [t.flatten(0, 1) for t in bias.terms]
    given: tuple[Any, ...] = (keys, q.flatten(0, 1), k, v, extra, *terms)
    if not in_pieces(q):
        out = _fused(*given)
    elif torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in given):
        out = _Attended.apply(*given)  # type: ignore[no-untyped-call]
    else:
        out = _attended(*given)
    return out.reshape(q.shape)


def _attended(
    keys: tuple[int, ...], q: Tensor, k: Tensor, v: Tensor, extra: Tensor | None, *terms: Tensor
) -> Float[Tensor, "b *queries c"]:
    """Attend on a processor; b is batch and heads, the first axis of terms as well."""
    logits, out = _Logits(keys, q, k, extra, terms), torch.empty_like(q)
    for piece in logits.pieces():
        torch.bmm(logits.probs(piece), v[piece[0]], out=out[piece].flatten(1, -2))
    return out


class _Attended(torch.autograd.Function):
    """`_attended` with gradients: the logits of each piece are computed again on the way back."""

    @staticmethod
    def forward(ctx: Any, keys: tuple[int, ...], *tensors: Any) -> Tensor:
        ctx.keys = keys
        ctx.save_for_backward(*tensors)
        return _attended(keys, *tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, extra, *terms = ctx.saved_tensors
        logits = _Logits(ctx.keys, q, k, extra, terms)
        to_q, to_terms = torch.empty_like(q), [torch.empty_like(t) for t in terms]
        to_k, to_v = torch.zeros(2, *k.shape, dtype=torch.float32)
        to_extra = None if extra is None else torch.empty_like(extra)
        for piece in logits.pieces():
            some, _ = piece
            queries, outer = q[piece].flatten(1, -2), grad[piece].flatten(1, -2)
            probs = logits.probs(piece)
            to_v[some] += probs.mT @ outer
            inner = outer @ v[some].mT
            change = torch._softmax_backward_data(inner, probs, -1, probs.dtype)
            to_q[piece] = (change @ k[some]).mul_(logits.scale).reshape(to_q[piece].shape)
            to_k[some] += (change.mT @ queries).mul_(logits.scale)
            if to_extra is not None:
                to_extra[piece] = change[..., -1].reshape(to_extra[piece].shape)
            logits.share(change, piece, to_terms)
        return None, to_q, to_k.to(k.dtype), to_v.to(v.dtype), to_extra, *to_terms


def _fused(
    keys: tuple[int, ...], q: Tensor, k: Tensor, v: Tensor, extra: Tensor | None, *terms: Tensor
) -> Float[Tensor, "b *queries c"]:
    """Attend by a kernel that knows no bias: its numbers are channels of queries, chosen by those of keys."""
    queries = q.flatten(1, -2)
    shapes = [t.shape[-len(keys) :] for t in terms]
    numbers = [_numbers(t, q.shape[:-1], s) for t, s in zip(terms, shapes, strict=True)]
    if extra is not None:
        numbers.append(extra.flatten(1))
    features = [n.reshape(*queries.shape[:2], -1) for n in numbers]
    width = queries.shape[-1] + sum(n.shape[-1] for n in features)
    rest = -width % 8
    if width + rest > _WIDEST:
        return _with_mask(keys, q, k, v, extra, *terms)
    scale = q.shape[-1] ** -0.5
    selector = _selector(keys, tuple(shapes), extra is not None, rest, q.dtype, q.device)
    features.append(queries.new_zeros(1).expand(*queries.shape[:2], rest))
    wide_q = torch.cat([queries, torch.cat(features, dim=-1) / scale], dim=-1)
    wide_k = torch.cat([k, selector.expand(len(k), -1, -1)], dim=-1)
    q_, k_, v_ = (t[:, None] for t in (wide_q, wide_k, v))
    return F.scaled_dot_product_attention(q_, k_, v_, scale=scale).reshape(q.shape)


def _numbers(term: Tensor, queries: Sequence[int], shape: Sequence[int]) -> Tensor:
    """A term's numbers for each query, in a row."""
    return term.expand(*queries, *shape).flatten(len(queries))


def _with_mask(
    keys: tuple[int, ...], q: Tensor, k: Tensor, v: Tensor, extra: Tensor | None, *terms: Tensor
) -> Float[Tensor, "b *queries c"]:
    """Attend with the bias in full, for some queries at a time: where its terms are too many numbers."""
    out = torch.empty_like(q)
    for piece in _pieces(q, k.shape[1]):
        queries = q[piece].flatten(1, -2)
        first, *others = (t[piece] for t in terms)
        bias = sum(others, first).reshape(*queries.shape[:2], math.prod(keys))
        if extra is not None:
            bias = torch.cat([bias, extra[piece].reshape(*queries.shape[:2], 1)], dim=-1)
        q_, k_, v_ = (t[:, None] for t in (queries, k[piece[0]], v[piece[0]]))
        attended = F.scaled_dot_product_attention(q_, k_, v_, attn_mask=bias[:, None])
        out[piece] = attended.reshape(out[piece].shape)
    return out


class _Logits:
    """Logits of attention, a piece at a time in the same place of memory."""

    def __init__(
        self,
        keys: tuple[int, ...],
        q: Float[Tensor, "b *queries c"],
        k: Float[Tensor, "b m c"],
        extra: Float[Tensor, "b *queries 1"] | None,
        terms: Sequence[Tensor],
    ) -> None:
        self.keys, self.q, self.k, self.extra, self.terms = keys, q, k, extra, terms
        self.scale = q.shape[-1] ** -0.5
        self.real = math.prod(keys)
        self.shapes = [t.shape[-len(keys) :] for t in terms]
        features = sum(map(math.prod, self.shapes))
        short = keys[-1] <= _SHORT_ROW and features <= _MOST_FEATURES
        chosen = (keys, tuple(self.shapes), extra is not None, 0, q.dtype, q.device)
        self.selector = _selector(*chosen) if short else None
        self.buffer = q.new_empty(0)

    def pieces(self) -> Iterator[Piece]:
        """Parts of the first two axes of the queries, each with a limited number of logits."""
        return _pieces(self.q, self.k.shape[1])

    def probs(self, piece: Piece) -> Float[Tensor, "b q m"]:
        """Softmax of the logits of a piece, valid until the next is asked for."""
        queries, k = self.q[piece].flatten(1, -2), self.k[piece[0]]
        shape = (*queries.shape[:2], k.shape[1])
        if self.buffer.numel() < math.prod(shape):
            self.buffer = self.q.new_empty(math.prod(shape))
        logits = self.buffer[: math.prod(shape)].view(shape)
        self._write_bias(logits, piece)
        torch.baddbmm(logits, queries, k.mT, alpha=self.scale, out=logits)
        return torch.softmax(logits, dim=-1, out=logits)

    def share(self, change: Float[Tensor, "b q m"], piece: Piece, to_terms: list[Tensor]) -> None:
        """Write what each term of the bias gets of a gradient of logits."""
        queries = self.q[piece].shape[:-1]
        if self.selector is None:
            inside = change[..., : self.real].reshape(*queries, *self.keys)
            shares: Sequence[Tensor] = [inside] * len(self.terms)
        else:
            sizes = [*map(math.prod, self.shapes), 0 if self.extra is None else 1]
            products = torch.split(change @ self.selector, sizes, dim=-1)
            shares = [p.reshape(*queries, *s) for p, s in zip(products, self.shapes, strict=False)]
        for share, term in zip(shares, to_terms, strict=True):
            term[piece] = share.sum_to_size(term[piece].shape)

    def _write_bias(self, logits: Float[Tensor, "b q m"], piece: Piece) -> None:
        queries = self.q[piece].shape[:-1]
        terms = [t[piece] for t in self.terms]
        extra = [] if self.extra is None else [self.extra[piece].reshape(*logits.shape[:2], 1)]
        if self.selector is None:
            *some, last = terms
            inside = logits[..., : self.real].view(*queries, *self.keys)
            torch.add(sum(some[1:], some[0]), last, out=inside)
            if extra:
                logits[..., self.real :] = extra[0]
        else:
            wide = [
                _numbers(t, queries, s).reshape(*logits.shape[:2], -1)
                for t, s in zip(terms, self.shapes, strict=True)
            ]
            features = torch.cat([*wide, *extra], dim=-1).flatten(0, 1)
            torch.mm(features, self.selector.T, out=logits.flatten(0, 1))


@lru_cache(maxsize=64)
def _selector(
    keys: tuple[int, ...],
    shapes: tuple[tuple[int, ...], ...],
    padding: bool,
    rest: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Float[Tensor, "m f"]:
    """For each key, which features of a query are its bias: zeros and ones, and `rest` zeros."""
    with torch.inference_mode(False), torch.no_grad():  # or gradients could not use it later
        parts = []
        for shape in shapes:
            one = torch.eye(math.prod(shape), dtype=dtype, device=device)
            parts.append(one.reshape(-1, *shape).expand(-1, *keys).flatten(1))
        selector = torch.cat(parts).T
        if padding:
            selector = F.pad(selector, (0, 1, 0, 1))
            selector[-1, -1] = 1
        return F.pad(selector, (0, rest)) if rest else selector


def _pieces(q: Tensor, m: int) -> Iterator[Piece]:
    """Slices of the first two axes of queries; on a processor each thread has enough work and no more."""
    batch, rows = q.shape[:2]
    per_row = math.prod(q.shape[2:-1]) * m
    threads = torch.get_num_threads() if in_pieces(q) else 1
    limit = min(_MOST_ELEMENTS, _ELEMENTS_PER_THREAD * threads)
    limit = limit if in_pieces(q) else _MOST_ELEMENTS
    step = min(rows, max(1, limit // (per_row * min(batch, threads))))
    count = max(1, limit // (per_row * step))
    for first in range(0, batch, count):
        for row in range(0, rows, step):
            yield slice(first, first + count), slice(row, row + step)
