"""SAM-Med3D's prompt encoder and mask decoder as published, stated plainly: the yardstick of click.py.

Functions of the weights and nothing else. Every mask token is decoded and the first is taken, the position
code of the grid is worked out anew at every click, as the published program does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def decode(
    w: Weights, features: Tensor, point: Tensor, label: int, mask: Tensor, heads: int = 8
) -> Tensor:
    """Logits (1, 1, 32, 32, 32) for one click "1 1 3" and the mask before "1 1 32 32 32"."""
    code = positions(w, (point + 0.5) / 128) + w[f"prompt_encoder.point_embeddings.{label}.weight"]
    padding = w["prompt_encoder.not_a_point_embed.weight"][None]
    masks, _ = masks_of(w, features + dense(w, mask), torch.cat([code, padding], dim=1), heads)
    return masks[:, :1]


def masks_of(
    w: Weights, image: Tensor, sparse: Tensor, heads: int = 8, swapped: bool = False
) -> tuple[Tensor, Tensor]:
    """Masks of every mask token and their quality, for image and dense prompt joined (n, c, *grid).

    `swapped`: the grid's first two axes change places in its position code, as published.
    """
    own = torch.cat([w["mask_decoder.iou_token.weight"], w["mask_decoder.mask_tokens.weight"]])
    tokens = torch.cat([own.expand(len(image), -1, -1), sparse], dim=1)
    grid = image.shape[2:]
    cells = [(torch.arange(n) + 0.5) / n for n in grid]
    where = torch.stack(torch.meshgrid(*cells, indexing="ij"), dim=-1)
    if swapped:
        where = where[..., [1, 0, *range(2, len(grid))]]
    image_pe = positions(w, where).flatten(0, -2)[None]
    keys = image.flatten(2).transpose(1, 2)
    queries, keys = transformer(w, tokens, keys, image_pe, heads)
    x = keys.transpose(1, 2).reshape(len(keys), -1, *grid)
    up = "mask_decoder.output_upscaling"
    conv = F.conv_transpose2d if len(grid) == 2 else F.conv_transpose3d
    x = conv(x, w[f"{up}.0.weight"], w[f"{up}.0.bias"], stride=2)
    x = F.gelu(channel_norm(x, w[f"{up}.1.weight"], w[f"{up}.1.bias"]))
    x = F.gelu(conv(x, w[f"{up}.3.weight"], w[f"{up}.3.bias"], stride=2))
    count = len(w["mask_decoder.mask_tokens.weight"])
    heads_of = [hyper(w, i, queries[:, 1 + i]) for i in range(count)]
    masks = torch.stack(heads_of, dim=1) @ x.flatten(2)
    quality = queries[:, 0]
    for layer in range(3):
        name = f"mask_decoder.iou_prediction_head.layers.{layer}"
        quality = F.linear(
            quality if layer == 0 else F.relu(quality), w[f"{name}.weight"], w[f"{name}.bias"]
        )
    return masks.view(*masks.shape[:2], *x.shape[2:]), quality


def positions(w: Weights, coords: Tensor) -> Tensor:
    matrix = w["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    angle = 2 * math.pi * ((2 * coords - 1) @ matrix)
    parts = [angle.sin(), angle.cos(), angle.sin()]
    return torch.cat(parts[: coords.shape[-1]], dim=-1)


def dense(w: Weights, x: Tensor) -> Tensor:
    name = "prompt_encoder.mask_downscaling"
    for conv, norm in ((0, 1), (3, 4)):
        x = F.conv3d(x, w[f"{name}.{conv}.weight"], w[f"{name}.{conv}.bias"], stride=2)
        x = F.gelu(channel_norm(x, w[f"{name}.{norm}.weight"], w[f"{name}.{norm}.bias"]))
    return F.conv3d(x, w[f"{name}.6.weight"], w[f"{name}.6.bias"])


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
