"""The image encoders of SAM, SAM-Med2D and SAM-Med3D as published, plainly stated, for encode.py to time.

Functions of the weights and nothing else. The grid is padded to whole windows, padding takes part in
attention, logits and position bias exist in full. Only for weights with `Quirks.window_padding`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.models import SamConfig

AXES = {2: "hw", 3: "dhw"}


def encode(weights: Mapping[str, Tensor], config: SamConfig, image: Tensor) -> Tensor:
    """Image embeddings (b, c, *grid) of normalised images, from the state dict of a `Sam`."""
    if not config.quirks.window_padding:
        raise ValueError("the published formulation pads windows; set Quirks.window_padding")
    w = {k.removeprefix("image_encoder."): v for k, v in weights.items() if "image_encoder" in k}
    conv = F.conv2d if config.ndim == 2 else F.conv3d
    x = conv(image, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], config.patch_size)
    x = x.movedim(1, -1) + w["pos_embed"]
    for i in range(config.depth):
        part = {
            k.removeprefix(f"blocks.{i}."): v for k, v in w.items() if k.startswith(f"blocks.{i}.")
        }
        x = block(part, config, x, windowed=i not in config.global_blocks)
    x = conv(x.movedim(-1, 1), w["neck.0.weight"])
    x = channel_norm(x, w["neck.1.weight"], w["neck.1.bias"])
    x = conv(x, w["neck.2.weight"], padding=1)
    return channel_norm(x, w["neck.3.weight"], w["neck.3.bias"])


def block(w: Mapping[str, Tensor], config: SamConfig, x: Tensor, *, windowed: bool) -> Tensor:
    shortcut, grid = x, x.shape[1:-1]
    x = layer_norm(x, w["norm1.weight"], w["norm1.bias"])
    if windowed:
        x, padded = to_windows(x, config.window_size)
    x = attention(w, config, x)
    if windowed:
        x = from_windows(x, config.window_size, padded, grid)
    x = shortcut + x
    normed = norm2(w, x)
    hidden = F.gelu(F.linear(normed, w["mlp.lin1.weight"], w["mlp.lin1.bias"]))
    out = x + F.linear(hidden, w["mlp.lin2.weight"], w["mlp.lin2.bias"])
    name = "mlp.adapters.bottleneck."
    own = {k.removeprefix(name): v for k, v in w.items() if k.startswith(name)}
    return out + bottleneck(own, normed) if own else out


def attention(w: Mapping[str, Tensor], config: SamConfig, x: Tensor) -> Tensor:
    n, *size, width = x.shape
    heads, axes = config.heads, AXES[config.ndim]
    qkv = project(w, x).reshape(n, -1, 3, heads, width // heads)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).reshape(3, n * heads, -1, width // heads)
    logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    on_grid = q.reshape(n * heads, *size, -1)
    parts = []
    for axis, (name, length) in enumerate(zip(axes, size, strict=True)):
        places = torch.arange(length, device=x.device)
        offsets = places[:, None] - places[None, :] + length - 1
        rows = w[f"attn.rel_pos_{name}"][offsets]
        letter = "xyz"[axis]
        parts.append(
            torch.einsum(
                f"n{'xyz'[: len(size)]}c,{letter}kc->n{'xyz'[: len(size)]}k", on_grid, rows
            )
        )
    logits = logits.view(n * heads, *size, *size)
    if config.quirks.rel_pos_axes:
        d, h, last = parts
        logits = (
            logits
            + d[:, :, :, :, None, None]
            + h[:, :, :, None, :, None]
            + last[:, :, :, None, None]
        )
    elif config.ndim == 3:
        d, h, last = parts
        logits = logits + d[..., :, None, None] + h[..., None, :, None] + last[..., None, None, :]
    else:
        h, last = parts
        logits = logits + h[..., :, None] + last[..., None, :]
    out = logits.view(n * heads, q.shape[1], -1).softmax(dim=-1) @ v
    out = out.view(n, heads, *size, -1).movedim(1, -2).reshape(n, *size, width)
    return F.linear(out, w["attn.proj.weight"], w["attn.proj.bias"])


def project(w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """Queries, keys and values; with LoRA on the first and the last where weights have it, as in SAMed."""
    qkv = F.linear(x, w["attn.qkv.weight"], w["attn.qkv.bias"])
    lora = "attn.qkv.adapters.lora"
    if f"{lora}.a_q" not in w:
        return qkv
    width = x.shape[-1]
    new_q = F.linear(F.linear(x, w[f"{lora}.a_q"]), w[f"{lora}.b_q"])
    new_v = F.linear(F.linear(x, w[f"{lora}.a_v"]), w[f"{lora}.b_v"])
    qkv[..., :width] += new_q
    qkv[..., -width:] += new_v
    return qkv


def bottleneck(w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """SAM-Med2D's adapter beside an MLP: a gate over channels, a convolution there and one back."""
    first = x.permute(0, 3, 1, 2)
    hidden = F.linear(first.mean(dim=(2, 3)), w["channel.0.weight"]).relu()
    gate = F.linear(hidden, w["channel.2.weight"]).sigmoid()
    inner = F.conv2d(first * gate[:, :, None, None], w["spatial.0.weight"], stride=2, padding=1)
    outer = F.conv_transpose2d(inner.relu(), w["spatial.2.weight"], stride=2, padding=1).relu()
    summed = (first + outer).permute(0, 2, 3, 1)
    return F.layer_norm(summed, summed.shape[-1:], w["norm.weight"], w["norm.bias"])


def to_windows(x: Tensor, side: int) -> tuple[Tensor, list[int]]:
    """Pad the end of each axis with zeros, then cut; also the padded grid."""
    b, *grid, width = x.shape
    missing = [-n % side for n in grid]
    x = F.pad(x, (0, 0, *chain.from_iterable((0, m) for m in reversed(missing))))
    counts = [(n + m) // side for n, m in zip(grid, missing, strict=True)]
    x = x.view(b, *chain.from_iterable((c, side) for c in counts), width)
    ndim = len(grid)
    x = x.permute(0, *range(1, 2 * ndim, 2), *range(2, 2 * ndim + 1, 2), 2 * ndim + 1)
    return x.reshape(-1, *[side] * ndim, width), [c * side for c in counts]


def from_windows(x: Tensor, side: int, padded: list[int], grid: torch.Size) -> Tensor:
    """Put windows together and drop the padding."""
    ndim, width = len(grid), x.shape[-1]
    x = x.view(-1, *(n // side for n in padded), *[side] * ndim, width)
    x = x.permute(0, *chain.from_iterable((1 + i, 1 + ndim + i) for i in range(ndim)), 2 * ndim + 1)
    x = x.reshape(-1, *padded, width)
    return x[(slice(None), *(slice(0, n) for n in grid))].contiguous()


def norm2(w: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return layer_norm(x, w["norm2.weight"], w["norm2.bias"])


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, 1e-6)


def channel_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + 1e-6)
    shape = (-1, *[1] * (x.ndim - 2))
    return weight.view(shape) * x + bias.view(shape)
