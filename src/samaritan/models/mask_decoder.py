"""The mask decoder: image embedding and prompts to low-resolution masks and their quality."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from samaritan.errors import ConfigError, PromptError
from samaritan.models.config import SamConfig
from samaritan.models.layers import CONV_TRANSPOSE, MLP, ChannelNorm
from samaritan.models.transformer import TwoWayTransformer


class MaskDecoder(nn.Module):
    """Predict masks for sets of prompts, many sets for one image or some for each of many images.

    With `SamConfig.classes` every mask token is a class, and all are always given.
    `fuse` joins image embedding and dense prompt; another module with the same call can replace it.

    Source: segment-anything, modeling/mask_decoder.py; SAM-Med3D, modeling/mask_decoder3D.py.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        width, masks = config.embed_dim, config.num_mask_tokens
        self.transformer = TwoWayTransformer(
            config.decoder_depth, width, config.decoder_heads, config.decoder_mlp
        )
        self.fuse = AddPrompt()
        self.classes = config.classes
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(masks, width)
        conv = CONV_TRANSPOSE[config.ndim]
        step = {"kernel_size": config.mask_strides, "stride": config.mask_strides}
        self.output_upscaling = nn.Sequential(
            conv(width, width // 4, **step),  # type: ignore[arg-type]
            ChannelNorm(width // 4),
            nn.GELU(),
            conv(width // 4, width // 8, **step),  # type: ignore[arg-type]
            nn.GELU(),
        )
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

    def _decode(
        self, embeddings: Tensor, image_pe: Tensor, sparse: Tensor, dense: Tensor, chosen: range
    ) -> tuple[Tensor, Tensor]:
        _check(embeddings, image_pe, sparse, dense)
        n = max(len(embeddings), len(sparse), len(dense))
        image, sparse, dense = (repeat_sets(x, n) for x in (embeddings, sparse, dense))
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([own.expand(n, -1, -1), sparse], dim=1)
        source = self.fuse(image, dense)
        queries, keys = self.transformer(_tokens(source), _tokens(image_pe), tokens)
        grid = source.shape[2:]
        masks = self._masks(queries, keys.transpose(1, 2).unflatten(2, grid), chosen)
        return masks, self.iou_prediction_head(queries[:, 0])[:, chosen.start : chosen.stop]

    def _chosen(self, multimask_output: bool) -> range:
        """The mask tokens whose masks are wanted."""
        tokens = len(self.output_hypernetworks_mlps)
        if self.classes:
            return range(tokens)
        return range(1, tokens) if multimask_output else range(1)

    def _masks(
        self,
        queries: Float[Tensor, "n t e"],
        image: Float[Tensor, "n e *grid"],
        chosen: Iterable[int],
    ) -> Float[Tensor, "n c *low_res"]:
        """Masks of the chosen mask tokens: each token's own projection of the upscaled image."""
        upscaled = self.output_upscaling(image)
        projections = torch.stack(
            [self.output_hypernetworks_mlps[i](queries[:, 1 + i]) for i in chosen], dim=1
        )
        masks: Tensor = projections @ upscaled.flatten(2)
        return masks.reshape(*masks.shape[:2], *upscaled.shape[2:])


class AddPrompt(nn.Module):
    """Join image embedding and dense prompt as SAM does: add them."""

    def forward(
        self, image: Float[Tensor, "n e *grid"], dense: Float[Tensor, "n e *grid"]
    ) -> Float[Tensor, "n e *grid"]:
        """Add."""
        return image + dense


def _tokens(x: Float[Tensor, "n e *grid"]) -> Float[Tensor, "n k e"]:
    return x.flatten(2).transpose(1, 2)


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
