"""A model whose image encoder computes in half precision, for inference alone.

Weights of its layers are converted once and not at every image. On a processor they are also laid out as its
matrix product wants them, and the activation between two layers is part of the first one's product. Prompts
and decoder, which cost little and draw the mask, stay as they are.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.models.config import SamConfig
from samaritan.models.layers import TwoLayerMLP
from samaritan.products import Conv2d, ConvTranspose2d

LEAST_WIDTH = 384
"""Channels of an image encoder from which on bfloat16 is worth its rounding."""


def suits_bfloat16(config: SamConfig) -> bool:
    """Whether a model's image encoder is a transformer of this kind, and this processor has bfloat16.

    Without instructions for it (AVX-512 BF16, AMX) bfloat16 is no faster than float32.
    """
    large = config.backbone == "vit" and config.width >= LEAST_WIDTH and config.mask_classes is None
    able = torch.cpu.get_capabilities()
    return large and any(able.get(name) for name in ("avx512_bf16", "amx_bf16"))


def packs(config: SamConfig, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a model's image encoder is to be packed for a device and a type."""
    if device.type == "cpu":
        return dtype == torch.bfloat16 and suits_bfloat16(config)
    return dtype != torch.float32 and config.backbone == "vit" and config.mask_classes is None


def with_packed_encoder(model: nn.Module, dtype: torch.dtype = torch.bfloat16) -> Any:
    """A model that shares all with the given one but its image encoder, a packed copy of that."""
    return _with_encoder(model, PackedEncoder(model.image_encoder, dtype))  # type: ignore[arg-type]


def with_compiled_encoder(model: nn.Module) -> Any:
    """A model that shares all with the given one, its image encoder called through torch.compile."""
    return _with_encoder(model, torch.compile(model.image_encoder, dynamic=False))  # type: ignore[arg-type]


def _with_encoder(model: nn.Module, encoder: nn.Module) -> Any:
    other = copy.copy(model)
    other._modules = {**model._modules, "image_encoder": encoder}
    return other


class PackedEncoder(nn.Module):
    """An image encoder with its layers packed; all other parameters are shared.

    `laid_out` for oneDNN: by default on a processor, which then computes in bfloat16.
    """

    def __init__(
        self,
        encoder: nn.Module,
        dtype: torch.dtype = torch.bfloat16,
        *,
        laid_out: bool | None = None,
    ) -> None:
        super().__init__()
        self.device, self.dtype = next(encoder.parameters()).device.type, dtype
        laid_out = self.device == "cpu" if laid_out is None else laid_out
        shared = {id(t): t for t in (*encoder.parameters(), *encoder.buffers())}
        self.encoder = copy.deepcopy(encoder, shared)
        for module in list(self.encoder.modules()):
            for name, layer in list(module.named_children()):
                if laid_out and isinstance(layer, nn.Linear):
                    setattr(module, name, _packed(layer, module, name))
                elif laid_out and isinstance(layer, Conv2d | ConvTranspose2d):
                    setattr(module, name, PackedConv(layer))
                elif not laid_out and isinstance(layer, _LAYERS):
                    setattr(module, name, _converted(layer, dtype))

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b e *grid"]:
        """The image embedding, float32."""
        with torch.autocast(self.device, dtype=self.dtype):
            embedding: Tensor = self.encoder(x)
        return embedding.float()


_LAYERS = (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Those that autocast runs in half precision, converting their weights each time."""


def _converted(layer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A layer with its own weights in another type; what hangs beside it is shared."""
    new = copy.copy(layer)
    new._parameters = {
        name: None if p is None else nn.Parameter(p.detach().to(dtype), requires_grad=False)
        for name, p in layer._parameters.items()
    }
    return new


class PackedLinear(nn.Module):
    """A linear layer in bfloat16, and GELU of what it gives where that is asked for."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, gelu: bool = False) -> None:
        super().__init__()
        self.out_features = len(weight)
        self.activation = "gelu" if gelu else "none"
        rows = weight.detach().bfloat16().contiguous()
        self.packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(rows, None)
        self.bias = None if bias is None else bias.detach().bfloat16()

    def forward(self, x: Float[Tensor, "*n i"]) -> Float[Tensor, "*n o"]:
        """Apply to the last axis."""
        out: Tensor = torch.ops.mkldnn._linear_pointwise(
            x.bfloat16().flatten(0, -2), self.packed, self.bias, self.activation, [], "none"
        )
        return out.reshape(*x.shape[:-1], self.out_features)


class PackedConv(nn.Module):
    """A convolution that is a product, its weights in bfloat16; overlaps are added up in float32."""

    def __init__(self, layer: Conv2d | ConvTranspose2d) -> None:
        super().__init__()
        self.layer, self.product = layer, PackedLinear(layer.matrix)

    def forward(self, x: Float[Tensor, "b c *size"]) -> Float[Tensor, "b o *grid"]:
        """Convolve."""
        if not self.layer.is_product(x):
            convolved: Tensor = self.layer(x)
            return convolved.float()
        return self.layer.through(x, lambda rows: self.product(rows).float())


def _packed(layer: nn.Linear, owner: nn.Module, name: str) -> PackedLinear:
    """Pack one layer, with what hangs beside it; an MLP's activation goes into its first layer."""
    first = isinstance(owner, TwoLayerMLP) and name == "lin1" and owner.activation is F.gelu
    gelu = first and not layer._forward_hooks
    new = PackedLinear(layer.weight, layer.bias, gelu=gelu)
    new._forward_hooks = layer._forward_hooks
    for seam, adapters in layer.named_children():
        new.add_module(seam, adapters)
    if new.activation == "gelu":
        owner.activation = nn.Identity()
    return new
