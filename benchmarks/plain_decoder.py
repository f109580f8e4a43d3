"""Prompt encoder and mask decoder of SAM and SAM-Med3D as published, stated plainly: a yardstick.

Functions of the weights and nothing else. The image is repeated for every set of prompts, every mask token is
decoded and some are taken, the position code of the grid is worked out anew at every call, as the published
programs do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


CONV = {2: F.conv2d, 3: F.conv3d}
UP = {2: F.conv_transpose2d, 3: F.conv_transpose3d}


def decode(
    w: Weights,
    features: Tensor,
    points: Tensor,
    labels: Tensor,
    mask: Tensor | None = None,
    *,
    size: int,
    multimask: bool = False,
    heads: int = 8,
) -> tuple[Tensor, Tensor]:
    """Logits (n, masks, *low) and quality (n, masks) of clicks.

    Points are (n, p, ndim) and labels (n, p) of 0 and 1; mask is (1, 1, *low).
    """
    n, grid = len(points), features.shape[2:]
    known = torch.stack([w[f"prompt_encoder.point_embeddings.{k}.weight"][0] for k in (0, 1)])
    code = positions(w, (points + 0.5) / size) + known[labels.long()]
    padding = w["prompt_encoder.not_a_point_embed.weight"]
    sparse = torch.cat([code, padding.expand(n, 1, -1)], dim=1)
    image = features.repeat_interleave(n, dim=0) + dense(w, mask, grid).repeat_interleave(n, dim=0)
    masks, quality = masks_of(w, image, sparse, heads)
    chosen = slice(1, None) if multimask else slice(0, 1)
    return masks[:, chosen], quality[:, chosen]


def masks_of(
    w: Weights, image: Tensor, sparse: Tensor, heads: int = 8, *, swapped: bool = False
) -> tuple[Tensor, Tensor]:
    """Masks of every mask token and their quality, for image and dense prompt joined (n, c, *grid).

    `swapped`: the first two axes of a volume's grid change places in its position code, as published.
    """
    n, grid = len(image), image.shape[2:]
    own = torch.cat([w["mask_decoder.iou_token.weight"], w["mask_decoder.mask_tokens.weight"]])
    tokens = torch.cat([own.expand(n, -1, -1), sparse], dim=1)
    where = cells(grid)[..., [1, 0, 2]] if swapped else cells(grid)
    image_pe = positions(w, where).flatten(0, -2)[None].repeat(n, 1, 1)
    keys = image.flatten(2).transpose(1, 2)
    queries, keys = transformer(w, tokens, keys, image_pe, heads)
    x = keys.transpose(1, 2).reshape(n, -1, *grid)
    up = "mask_decoder.output_upscaling"
    transposed = UP[len(grid)]
    x = transposed(x, w[f"{up}.0.weight"], w[f"{up}.0.bias"], stride=2)
    x = F.gelu(channel_norm(x, w[f"{up}.1.weight"], w[f"{up}.1.bias"]))
    x = F.gelu(transposed(x, w[f"{up}.3.weight"], w[f"{up}.3.bias"], stride=2))
    heads_of = [hyper(w, i, queries[:, 1 + i]) for i in range(len(own) - 1)]
    masks = (torch.stack(heads_of, dim=1) @ x.flatten(2)).view(n, -1, *x.shape[2:])
    quality = queries[:, 0]
    for layer in range(3):
        name = f"mask_decoder.iou_prediction_head.layers.{layer}"
        quality = F.linear(
            quality if layer == 0 else F.relu(quality), w[f"{name}.weight"], w[f"{name}.bias"]
        )
    return masks, quality


def cells(grid: Sequence[int]) -> Tensor:
    """Centres of the cells of the grid as shares of its sides: (x, y) in 2D, array order in 3D."""
    axes = [(torch.arange(n) + 0.5) / n for n in grid]
    where = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    return where.flip(-1) if len(grid) == 2 else where


def positions(w: Weights, coords: Tensor) -> Tensor:
    """Sine and cosine in 2D; sine, cosine, sine in 3D."""
    matrix = w["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    angle = 2 * math.pi * ((2 * coords.to(matrix.device) - 1) @ matrix)
    return torch.cat([angle.sin(), angle.cos(), angle.sin()][: len(matrix)], dim=-1)


def dense(w: Weights, x: Tensor | None, grid: Sequence[int]) -> Tensor:
    if x is None:
        empty = w["prompt_encoder.no_mask_embed.weight"]
        return empty.reshape(1, -1, *[1] * len(grid)).expand(1, -1, *grid)
    name, conv = "prompt_encoder.mask_downscaling", CONV[len(grid)]
    for step, after in ((0, 1), (3, 4)):
        x = conv(x, w[f"{name}.{step}.weight"], w[f"{name}.{step}.bias"], stride=2)
        x = F.gelu(channel_norm(x, w[f"{name}.{after}.weight"], w[f"{name}.{after}.bias"]))
    return conv(x, w[f"{name}.6.weight"], w[f"{name}.6.bias"])


def transformer(
    w: Weights, tokens: Tensor, keys: Tensor, key_pe: Tensor, heads: int
) -> tuple[Tensor, Tensor]:
    name, queries = "mask_decoder.transformer", tokens
    for i in range(2):
        at = f"{name}.layers.{i}"
        coded = queries if i == 0 else queries + tokens
        attended = attend(w, f"{at}.self_attn", coded, coded, queries, heads)
        queries = norm(w, f"{at}.norm1", attended if i == 0 else queries + attended)
        to_image = f"{at}.cross_attn_token_to_image"
        attended = attend(w, to_image, queries + tokens, keys + key_pe, keys, heads)
        queries = norm(w, f"{at}.norm2", queries + attended)
        hidden = F.relu(F.linear(queries, w[f"{at}.mlp.lin1.weight"], w[f"{at}.mlp.lin1.bias"]))
        widened = F.linear(hidden, w[f"{at}.mlp.lin2.weight"], w[f"{at}.mlp.lin2.bias"])
        queries = norm(w, f"{at}.norm3", queries + widened)
        to_tokens = f"{at}.cross_attn_image_to_token"
        attended = attend(w, to_tokens, keys + key_pe, queries + tokens, queries, heads)
        keys = norm(w, f"{at}.norm4", keys + attended)
    final = f"{name}.final_attn_token_to_image"
    attended = attend(w, final, queries + tokens, keys + key_pe, keys, heads)
    return norm(w, f"{name}.norm_final_attn", queries + attended), keys


def attend(w: Weights, name: str, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    parts = [
        F.linear(x, w[f"{name}.{part}_proj.weight"], w[f"{name}.{part}_proj.bias"])
        for part, x in (("q", q), ("k", k), ("v", v))
    ]
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in parts)
    out = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v
    out = out.transpose(1, 2).flatten(2)
    return F.linear(out, w[f"{name}.out_proj.weight"], w[f"{name}.out_proj.bias"])


def hyper(w: Weights, index: int, token: Tensor) -> Tensor:
    for layer in range(3):
        name = f"mask_decoder.output_hypernetworks_mlps.{index}.layers.{layer}"
        token = F.linear(
            token if layer == 0 else F.relu(token), w[f"{name}.weight"], w[f"{name}.bias"]
        )
    return token


def norm(w: Weights, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    x = (x - mean) / torch.sqrt((x - mean).pow(2).mean(1, keepdim=True) + 1e-6)
    shape = (-1, *[1] * (x.ndim - 2))
    return weight.view(shape) * x + bias.view(shape)
