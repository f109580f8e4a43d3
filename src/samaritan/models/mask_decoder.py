"""The mask decoder: image embedding and prompts to low-resolution masks and their quality."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.errors import ConfigError, PromptError
from samaritan.models.attention import Attention
from samaritan.models.config import SamConfig
from samaritan.models.layers import CONV_TRANSPOSE, MLP, ChannelNorm
from samaritan.models.transformer import TwoWayTransformer, products, split
from samaritan.products import linear

_ELEMENTS_AT_ONCE = {"cpu": 2**20}
"""Elements of image features that are decoded at one time without gradients: on a CPU as its cache holds."""


class MaskDecoder(nn.Module):
    """Predict masks for sets of prompts, many sets for one image or some for each of many images.

    With `SamConfig.classes` every mask token is a class, and all are always given.
    `fuse` joins image embedding and dense prompt; another module with the same call can replace it.

    Source: segment-anything, modeling/mask_decoder.py; SAM-Med3D, modeling/mask_decoder3D.py; NeuroSAM3D.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        width, masks = config.embed_dim, config.num_mask_tokens
        self.transformer = TwoWayTransformer(
            config.decoder_depth,
            width,
            config.decoder_heads,
            config.decoder_mlp,
            config.decoder_dropout,
        )
        self.fuse = AddPrompt(config)
        self.classes = config.classes
        self.strides, self.steps = config.mask_strides, config.mask_steps
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(masks, width)
        self.output_upscaling = _output_upscaling(config)
        self.output_hypernetworks_mlps = nn.ModuleList(
            MLP(width, width, width // 8, 3) for _ in range(masks)
        )
        self.iou_prediction_head = MLP(width, config.iou_hidden, masks, config.iou_depth)

    def forward(
        self,
        *,
        image_embeddings: Float[Tensor, "b e *grid"],
        image_pe: Float[Tensor, "1 _ ..."],
        sparse_prompt_embeddings: Float[Tensor, "n t _"],
        dense_prompt_embeddings: Float[Tensor, "m _ ..."],
        multimask_output: bool = False,
    ) -> tuple[Float[Tensor, "sets c *low_res"], Float[Tensor, "sets c"]]:
        """Mask logits and predicted IoU of each set of prompts.

        With b images, the n sets are image-major: the first n / b belong to the first image. One
        set without a partner serves all images. `multimask_output` gives the masks of all tokens but
        the first, otherwise that of the first alone.

        Raises:
            PromptError: if the sets of prompts cannot be shared out among the images.
            ConfigError: if grids or channels differ.
        """
        return self._decode(
            image_embeddings,
            image_pe,
            sparse_prompt_embeddings,
            dense_prompt_embeddings,
            self._chosen(multimask_output),
        )

    def every_mask(
        self,
        *,
        image_embeddings: Float[Tensor, "b e *grid"],
        image_pe: Float[Tensor, "1 _ ..."],
        sparse_prompt_embeddings: Float[Tensor, "n t _"],
        dense_prompt_embeddings: Float[Tensor, "m _ ..."],
    ) -> tuple[Float[Tensor, "sets c *low_res"], Float[Tensor, "sets c"]]:
        """As `forward`, for all mask tokens at once: the single one first, then the several."""
        every = range(len(self.output_hypernetworks_mlps))
        sparse, dense = sparse_prompt_embeddings, dense_prompt_embeddings
        return self._decode(image_embeddings, image_pe, sparse, dense, every)

    def resize(self, grid: Sequence[int]) -> None:
        """Interpolate position tables of what stands beside `fuse` for another token grid, in place."""
        self.fuse.grid = tuple(grid)
        for module in self.fuse.modules():
            if isinstance(module, Attention):
                module.resize(grid)

    def join(
        self,
        image_embeddings: Float[Tensor, "b e *grid"],
        sparse_prompt_embeddings: Float[Tensor, "n t _"],
        dense_prompt_embeddings: Float[Tensor, "m _ ..."],
    ) -> Float[Tensor, "sets e *grid"]:
        """What the decoder sees of image and dense prompt: one map for each set of prompts."""
        embeddings, sparse, dense = (
            image_embeddings,
            sparse_prompt_embeddings,
            dense_prompt_embeddings,
        )
        n = max(len(embeddings), len(sparse), len(dense))
        embeddings, dense = _once(embeddings), _once(dense)
        few = max(len(embeddings), len(dense))
        joined: Tensor = self.fuse(repeat_sets(embeddings, few), repeat_sets(dense, few))
        return repeat_sets(joined, n)

    def decode_joined(
        self,
        joined: Float[Tensor, "sets e *grid"],
        image_pe: Float[Tensor, "1 e *grid"],
        sparse_prompt_embeddings: Float[Tensor, "n t e"],
        chosen: range = range(1),
    ) -> tuple[Float[Tensor, "sets c *low_res"], Float[Tensor, "sets c"]]:
        """Masks of the chosen mask tokens and their quality, given what `join` gave."""
        found = [
            (self.masks_of(queries, image, chosen), self._quality(queries, chosen))
            for queries, image in self._attended(joined, image_pe, sparse_prompt_embeddings)
        ]
        masks, quality = zip(*found, strict=True)
        return _joined(masks), _joined(quality)

    def masks_above(
        self,
        limit: float,
        *,
        image_embeddings: Float[Tensor, "b e *grid"],
        image_pe: Float[Tensor, "1 _ ..."],
        sparse_prompt_embeddings: Float[Tensor, "n t _"],
        dense_prompt_embeddings: Float[Tensor, "m _ ..."],
    ) -> tuple[Float[Tensor, "k ..."], Float[Tensor, "sets c"]]:
        """Of several masks for each set those whose predicted IoU is greater than `limit`, and every IoU.

        Quality comes before masks, so what is not wanted is never upscaled. As `forward` otherwise.
        """
        sparse, dense = sparse_prompt_embeddings, dense_prompt_embeddings
        _check(image_embeddings, image_pe, sparse, dense)
        joined, chosen = self.join(image_embeddings, sparse, dense), self._chosen(True)
        masks, qualities = [], []
        for queries, image in self._attended(joined, image_pe, sparse):
            quality = self._quality(queries, chosen)
            above = quality > limit
            some = above.any(dim=1)
            if some.any():
                masks.append(self.masks_of(queries[some], image[some], chosen)[above[some]])
            qualities.append(quality)
        size = _size(joined.shape[2:], self.strides, self.steps)
        return torch.cat([joined.new_zeros(0, *size), *masks]), torch.cat(qualities)

    def attend(
        self,
        joined: Float[Tensor, "sets e *grid"],
        image_pe: Float[Tensor, "m e *grid"],
        sparse_prompt_embeddings: Float[Tensor, "n t e"],
    ) -> tuple[Float[Tensor, "sets q e"], Float[Tensor, "sets e *grid"]]:
        """Tokens (quality, masks, prompts in their order) and image after they have seen each other.

        `image_pe` is one for all sets, or one for each.
        """
        n = len(joined)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        image = _tokens(_once(joined)).contiguous()
        sparse = repeat_sets(sparse_prompt_embeddings, n)
        tokens = torch.cat([own.expand(n, -1, -1), sparse], dim=1)
        queries, keys = self.transformer(image, _tokens(image_pe), tokens)
        return queries, _from_tokens(keys, joined.shape[2:])

    def _attended(
        self, joined: Tensor, image_pe: Tensor, sparse: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """`attend`, without gradients a few sets at a time; adapters may want to see all of them."""
        n = len(joined)
        sparse = repeat_sets(sparse, n)
        if joined.stride(0) == 0:  # laid out as tokens are, once for all
            joined = repeat_sets(
                _from_tokens(_tokens(joined[:1]).contiguous(), joined.shape[2:]), n
            )
        adapted = any(module._forward_hooks for module in self.transformer.modules())
        whole = adapted or torch.is_grad_enabled()
        limit = None if whole else _ELEMENTS_AT_ONCE.get(joined.device.type)
        step = n if limit is None else max(1, limit // joined[0].numel())
        for start in range(0, n, step):
            part = slice(start, start + step)
            yield self.attend(joined[part], image_pe, sparse[part])

    def _quality(self, queries: Tensor, chosen: range) -> Float[Tensor, "n c"]:
        quality: Tensor = self.iou_prediction_head(queries[:, 0])
        return quality[:, chosen.start : chosen.stop]

    def _decode(
        self, embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor, chosen: range
    ) -> tuple[Tensor, Tensor]:
        _check(embeddings, image_pe, sparse, dense)
        joined = self.join(embeddings, sparse, dense)
        return self.decode_joined(joined, image_pe, sparse, chosen)

    def _chosen(self, multimask_output: bool) -> range:
        """The mask tokens whose masks are wanted."""
        tokens = len(self.output_hypernetworks_mlps)
        if self.classes:
            return range(tokens)
        return range(1, tokens) if multimask_output else range(1)

    def masks_of(
        self,
        queries: Float[Tensor, "n t e"],
        image: Float[Tensor, "n e *grid"],
        chosen: Iterable[int],
    ) -> Float[Tensor, "n c *low_res"]:
        """Masks of the chosen mask tokens: each token's own projection of the upscaled image."""
        projections = torch.stack(
            [self.output_hypernetworks_mlps[i](queries[:, 1 + i]) for i in chosen], dim=1
        )
        fine = self._fine(_tokens(image))
        masks = split(products(projections, fine.flatten(1, -2)), 2, fine.shape[1:-1])
        return _on_grid(masks, image.shape[2:], self.strides)

    def _fine(self, x: Float[Tensor, "n k e"]) -> Float[Tensor, "n k *parts c"]:
        """Upscale each token by itself, into parts of parts: strides are as wide as the kernels."""
        for layer in self.output_upscaling:
            if isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d):
                weight = layer.weight.flatten(2).permute(2, 1, 0)  # parts out in
                bias = layer.bias.expand(len(weight), -1).flatten()  # type: ignore[union-attr]
                x = split(linear(x, weight.flatten(0, 1), bias), -1, weight.shape[:2])
            elif isinstance(layer, ChannelNorm):
                x = F.layer_norm(x, layer.weight.shape, layer.weight, layer.bias, layer.eps)
            else:
                x = layer(x)
        return x


class AddPrompt(nn.Module):
    """Join image embedding and dense prompt as SAM does: add them.

    An adapter that stands beside it can join them in another way; it is told the width and made
    self-attention over the grid by `attention`.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.width, self.grid, self.quirks = config.embed_dim, config.grid, config.quirks

    def forward(
        self, image: Float[Tensor, "n e *grid"], dense: Float[Tensor, "n e *grid"]
    ) -> Float[Tensor, "n e *grid"]:
        """Add."""
        return image + dense

    def attention(self, heads: int) -> Attention:
        """New self-attention over the whole token grid, with the quirks of the model."""
        return Attention(self.width, heads, self.grid, quirks=self.quirks)


def _output_upscaling(config: SamConfig) -> nn.Sequential:
    """Double the grid step by step; SAM's two steps end without a norm, NeuroSAM3D's four with one."""
    width, steps = config.embed_dim, config.mask_steps
    conv, strides = CONV_TRANSPOSE[config.ndim], config.mask_strides
    layers: list[nn.Module] = []
    for before, after in pairwise([width, width // 4, *[width // 8] * (steps - 1)]):
        layers += [
            conv(before, after, kernel_size=strides, stride=strides),  # type: ignore[arg-type]
            ChannelNorm(after),
            nn.GELU(),
        ]
    if steps == 2:
        del layers[-2]
    return nn.Sequential(*layers)


def _on_grid(
    x: Float[Tensor, "n c k *parts"], grid: Sequence[int], strides: Sequence[int]
) -> Float[Tensor, "n c *low_res"]:
    """Put parts of parts of tokens in their places on the grid that they make together."""
    steps, ndim = x.ndim - 3, len(grid)
    split = x.reshape(*x.shape[:2], *grid, *[s for _ in range(steps) for s in strides])
    order = [2 + step * ndim + axis for axis in range(ndim) for step in range(steps + 1)]
    return split.permute(0, 1, *order).reshape(*x.shape[:2], *_size(grid, strides, steps))


def _size(grid: Sequence[int], strides: Sequence[int], steps: int) -> list[int]:
    return [n * s**steps for n, s in zip(grid, strides, strict=True)]


def _joined(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _once(x: Tensor) -> Tensor:
    """One entry of a batch whose entries are all the same memory."""
    return x[:1] if x.stride(0) == 0 else x


def _tokens(x: Float[Tensor, "n e *grid"]) -> Float[Tensor, "n k e"]:
    return x.flatten(2).transpose(1, 2)


def _from_tokens(x: Float[Tensor, "n k e"], grid: Sequence[int]) -> Float[Tensor, "n e *grid"]:
    return split(x.transpose(1, 2), 2, grid)


def repeat_sets(x: Tensor, n: int) -> Tensor:
    """Repeat each entry of a batch, in place where it stands; one entry is a view."""
    if len(x) == n:
        return x
    return x.expand(n, *x.shape[1:]) if len(x) == 1 else x.repeat_interleave(n // len(x), dim=0)


def _check(image: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor) -> None:
    shapes = {"image_embeddings": image, "image_pe": image_pe, "dense_prompt_embeddings": dense}
    if len({x.shape[1:] for x in shapes.values()}) > 1 or sparse.shape[2] != image.shape[1]:
        shapes["sparse_prompt_embeddings"] = sparse
        given = ", ".join(f"{name} {tuple(x.shape)}" for name, x in shapes.items())
        raise ConfigError(
            f"embeddings differ in channels or grid: {given}. Encode prompts with the model and the "
            f"image_size that the images were encoded with"
        )
    if len(sparse) != len(dense) and 1 not in (len(sparse), len(dense)):
        raise PromptError(
            f"{len(sparse)} sparse and {len(dense)} dense prompt embeddings do not pair"
        )
    sets, images = max(len(sparse), len(dense)), len(image)
    if sets % images and sets != 1:
        raise PromptError(
            f"{sets} sets of prompts cannot be shared out among {images} images; give the same "
            f"number for each image, those of the first image first"
        )
