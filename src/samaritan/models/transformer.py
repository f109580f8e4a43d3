"""The two-way transformer: prompt tokens and image tokens attend to each other."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.models.layers import TwoLayerMLP


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
        image: Float[Tensor, "n k c"],
        image_pe: Float[Tensor, "m k c"],
        tokens: Float[Tensor, "n t c"],
    ) -> tuple[Float[Tensor, "n t c"], Float[Tensor, "n k c"]]:
        """Updated tokens and image features; `image_pe` has a batch of n or one."""
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
        keys: Float[Tensor, "n k c"],
        query_pe: Float[Tensor, "n t c"],
        key_pe: Float[Tensor, "m k c"],
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

    In training `dropout` of the attention is dropped, drawn from torch's own generator.
    """

    def __init__(self, width: int, inner: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(width, inner)
        self.v_proj = nn.Linear(width, inner)
        self.out_proj = nn.Linear(inner, width)

    def forward(
        self, q: Float[Tensor, "n q c"], k: Float[Tensor, "n k c"], v: Float[Tensor, "n k c"]
    ) -> Float[Tensor, "n q c"]:
        """Attend from `q` to `k` and fetch `v`."""
        q, k, v = (
            proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # n heads tokens channels
            for proj, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        )
        dropped = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=dropped)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out
