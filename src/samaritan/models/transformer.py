"""The two-way transformer: prompt tokens and image tokens attend to each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.models.layers import TwoLayerMLP
from samaritan.products import Linear, linear


class TwoWayTransformer(nn.Module):
    """Layers in which tokens attend to the image and the image to the tokens.

    Source: segment-anything, modeling/transformer.py.
    """

    def __init__(
        self, depth: int, width: int, heads: int, mlp_hidden: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(width, heads, mlp_hidden, first=i == 0, dropout=dropout)
            for i in range(depth)
        )
        self.final_attn_token_to_image = TokenAttention(width, width // 2, heads, dropout)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(
        self,
        image: Float[Tensor, "m k c"],
        image_pe: Float[Tensor, "p k c"],
        tokens: Float[Tensor, "n t c"],
    ) -> tuple[Float[Tensor, "n t c"], Float[Tensor, "n k c"]]:
        """Updated tokens and image features; `image` and `image_pe` have a batch of n or one."""
        queries, keys = tokens, image
        for layer in self.layers:
            queries, keys = layer(queries, keys, tokens, image_pe)
        attended = self.final_attn_token_to_image(queries + tokens, keys + image_pe, keys)
        return self.norm_final_attn(queries + attended), keys


class TwoWayBlock(nn.Module):
    """Self-attention of the tokens, tokens to image, MLP, image to tokens; norms after each.

    In the first block self-attention sees the tokens without their own code and replaces them.
    """

    def __init__(
        self, width: int, heads: int, mlp_hidden: int, *, first: bool, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.first = first
        self.self_attn = TokenAttention(width, width, heads, dropout)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = TokenAttention(width, width // 2, heads, dropout)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = TwoLayerMLP(width, mlp_hidden, F.relu)
        self.norm3 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = TokenAttention(width, width // 2, heads, dropout)
        self.norm4 = nn.LayerNorm(width)

    def forward(
        self,
        queries: Float[Tensor, "n t c"],
        keys: Float[Tensor, "m k c"],
        query_pe: Float[Tensor, "n t c"],
        key_pe: Float[Tensor, "p k c"],
    ) -> tuple[Float[Tensor, "n t c"], Float[Tensor, "n k c"]]:
        """Tokens (`queries`) and image features (`keys`), each updated from the other."""
        if self.first:
            queries = self.self_attn(queries, queries, queries)
        else:
            coded = queries + query_pe
            queries = queries + self.self_attn(coded, coded, queries)
        queries = self.norm1(queries)
        coded_keys = keys + key_pe
        attended = self.cross_attn_token_to_image(queries + query_pe, coded_keys, keys)
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))
        attended = self.cross_attn_image_to_token(coded_keys, queries + query_pe, queries)
        return queries, self.norm4(keys + attended)


class TokenAttention(nn.Module):
    """Multi-head attention with separate projections to an inner width.

    Prompts are few tokens and images many. Where one side has fewer tokens than a head has channels, the
    projections of the other are carried over to it, ``(q Wq)(k Wk)' = (q Wq Wk') k'``, so the many are never
    projected: the same sums in another order.

    In training `dropout` of the attention is dropped, drawn from torch's own generator.
    """

    def __init__(self, width: int, inner: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj = Linear(width, inner)
        self.k_proj = Linear(width, inner)
        self.v_proj = Linear(width, inner)
        self.out_proj = Linear(inner, width)

    def forward(
        self, q: Float[Tensor, "n q c"], k: Float[Tensor, "m k c"], v: Float[Tensor, "p k c"]
    ) -> Float[Tensor, "s q c"]:
        """Attend from `q` to `k` and fetch `v`; a batch of one serves all of the others."""
        v = v.expand(len(k), -1, -1)
        if len(k) == 1 < len(q):  # what many sets ask of one image is one long set
            return split(self._attend(q.flatten(0, 1)[None], k, v), 1, q.shape[:2])[0]
        return self._attend(q, k, v)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        few = self.q_proj.out_features // self.heads
        if not self._foldable():
            return self._plain(q, k, v)
        if q.shape[1] < min(few, k.shape[1]):
            return self._few_ask(q.expand(len(k), -1, -1), k, v)
        if k.shape[1] < min(few, q.shape[1]):
            return self._few_answer(q, k, v)
        return self._plain(q, k, v)

    def _foldable(self) -> bool:
        """Whether the projections are their weights alone, and all of the attention counts."""
        parts = (self.q_proj, self.k_proj, self.v_proj, self.out_proj)
        return not (self.training and self.dropout) and not any(p._forward_hooks for p in parts)

    def _plain(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (
            self._split(proj(x))
            for proj, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        q = q.expand(len(k), -1, -1, -1)
        dropped = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropped)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out

    def _few_ask(
        self, q: Float[Tensor, "n q c"], k: Float[Tensor, "n k c"], v: Float[Tensor, "n k c"]
    ) -> Float[Tensor, "n q c"]:
        """Attend from few queries. The keys' bias is the same for all keys, and so falls out."""
        own = self._scaled(self.q_proj(q))
        asked = own @ split(self.k_proj.weight, 0, (self.heads, -1))
        logits = products(asked.flatten(1, 2), k)
        if torch.is_grad_enabled():  # it has a gradient all the same, of nothing
            bias = split(self.k_proj.bias, 0, (self.heads, 1, -1))
            logits = logits + (own * bias).sum(dim=-1).flatten(1)[..., None]
        weights = logits.softmax(dim=-1)
        seen = split(products(weights, v.mT), 1, (self.heads, -1))
        values = seen @ split(self.v_proj.weight, 0, (self.heads, -1)).mT
        values = values + split(self.v_proj.bias, 0, (self.heads, 1, -1))
        out: Tensor = self.out_proj(values.transpose(1, 2).flatten(2))
        return out

    def _few_answer(
        self, q: Float[Tensor, "m q c"], k: Float[Tensor, "n k c"], v: Float[Tensor, "n k c"]
    ) -> Float[Tensor, "n q c"]:
        """Attend to few keys. Weights add up to 1, so each head adds its part of the last bias."""
        keys = self._scaled(self.k_proj(k))
        if len(q) < len(k):
            logits = keys @ self._split(self.q_proj(q)).mT
        else:
            asked = keys @ split(self.q_proj.weight, 0, (self.heads, -1))
            known = (keys * split(self.q_proj.bias, 0, (self.heads, 1, -1))).sum(-1, keepdim=True)
            logits = split(products(asked.flatten(1, 2), q), 1, (self.heads, -1)) + known
        weights = logits.softmax(dim=2).flatten(1, 2)
        width = split(self.out_proj.weight, 1, (self.heads, -1))  # c heads channels
        values = self._split(self.v_proj(v)) @ width.permute(1, 2, 0)
        values = (values + self.out_proj.bias / self.heads).flatten(1, 2)
        return products(weights.mT, values.mT)

    def _split(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n h t e"]:
        return split(x, -1, (self.heads, -1)).transpose(1, 2)

    def _scaled(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n h t e"]:
        heads = self._split(x)
        return heads * float(heads.shape[-1] ** -0.5)


def products(a: Float[Tensor, "n r c"], b: Float[Tensor, "n s c"]) -> Float[Tensor, "n r s"]:
    """``a @ b.mT``; on a CPU one by one, in the faster way that `linear` knows."""
    if a.device.type != "cpu":
        return a @ b.mT
    found = [linear(one, other) for one, other in zip(a, b, strict=True)]
    return found[0][None] if len(found) == 1 else torch.stack(found)


def split(x: Tensor, axis: int, sizes: Sequence[int]) -> Tensor:
    """Take one axis for several."""
    found: Tensor = x.unflatten(axis, sizes)  # type: ignore[no-untyped-call]
    return found
