"""The prompt encoder: points, boxes and masks to embeddings, and the position code of the grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from samaritan.models.config import Quirks, SamConfig
from samaritan.models.layers import CONV, ChannelNorm
from samaritan.models.prompt_checks import AnyTensor, PointPrompts, check_prompts


class PromptEncoder(nn.Module):
    """Prompts to sparse tokens and a dense map on the image embedding's grid.

    Coordinates are in the frame of the model's input, pixel and voxel centres at integers: (x, y) in
    2D, array order in 3D. Labels: 1 positive, 0 negative, -1 no point (its coordinates do not matter).

    Source: segment-anything, modeling/prompt_encoder.py; SAM-Med3D and NeuroSAM3D,
    modeling/prompt_encoder3D.py. NeuroSAM3D's last step skips seven of eight features (see
    `Quirks.mask_corner`); here it sees their mean.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.ndim = config.ndim
        self.embed_dim = config.embed_dim
        self.image_size = config.image_size
        self.patch_size = config.patch_size
        self.mask_strides = config.mask_strides
        self.quirks: Quirks = config.quirks
        self.pe_layer = FourierPositions(config.ndim, config.pe_features, config.embed_dim)
        self.point_embeddings = nn.ModuleList(
            nn.Embedding(1, config.embed_dim) for _ in range(config.num_point_embeddings)
        )
        self.not_a_point_embed = nn.Embedding(1, config.embed_dim)
        self.no_mask_embed = nn.Embedding(1, config.embed_dim)
        self.mask_steps = config.mask_steps
        self.mask_downscaling = _mask_downscaling(config)

    def forward(
        self,
        points: PointPrompts | None = None,
        boxes: AnyTensor | None = None,
        masks: AnyTensor | None = None,
        *,
        image_size: Sequence[int] | None = None,
    ) -> tuple[Float[Tensor, "n t e"], Float[Tensor, "n e *grid"]]:
        """Encode `n` sets of prompts, each for one mask to be predicted.

        Args:
            points: coordinates (n, points, ndim) and labels (n, points).
            boxes: one box per set, minimum corner then maximum corner: (n, 2 * ndim).
            masks: logits of an earlier low-resolution prediction, (n, 1, *low_res); a batch of one
                serves all sets.
            image_size: size of the model's input if it is not the configured one.

        Returns:
            sparse: (n, tokens, embed_dim): the points, one padding token if there are points and
                no boxes, two corners per box; no tokens without points and boxes.
            dense: (n, embed_dim, *grid).

        Raises:
            PromptError: if a shape or label is not one of these, or boxes are not supported.
        """
        size = tuple(image_size or self.image_size)
        grid = tuple(s // p for s, p in zip(size, self.patch_size, strict=True))
        low_res = tuple(
            n * s**self.mask_steps for n, s in zip(grid, self.mask_strides, strict=True)
        )
        takes_boxes = len(self.point_embeddings) >= 4
        n = check_prompts(
            points, boxes, masks, ndim=self.ndim, low_res=low_res, takes_boxes=takes_boxes
        )
        tokens = [self.no_mask_embed.weight.new_zeros(n, 0, self.embed_dim)]
        if points is not None:
            tokens.append(self._embed_points(*points, size))
            if boxes is None:
                tokens.append(self.not_a_point_embed.weight.expand(n, 1, -1))
        if boxes is not None:
            tokens.append(self._embed_boxes(boxes, size))
        if masks is not None:
            dense = self._embed_masks(masks)
        else:
            dense = self.no_mask_embed.weight.reshape(1, -1, *[1] * self.ndim)
        return torch.cat(tokens, dim=1), dense.expand(n, -1, *grid)

    def get_dense_pe(self, size: Sequence[int] | None = None) -> Float[Tensor, "1 e *grid"]:
        """The position code of every cell of the token grid of an image of `size` (default: own)."""
        size = size or self.image_size
        grid = [s // p for s, p in zip(size, self.patch_size, strict=True)]
        device = self.no_mask_embed.weight.device
        axes = [(torch.arange(n, device=device) + 0.5) / n for n in grid]
        cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
        order = list(range(self.ndim))
        if self.ndim == 2 or self.quirks.dense_pe_axes:
            order[:2] = [1, 0]  # 2D: (x, y); 3D: see Quirks.dense_pe_axes
        code: Tensor = self.pe_layer(cells[..., order])
        return code.movedim(-1, 0)[None]

    def _embed_points(
        self, coords: Num[Tensor, "n p d"], labels: Num[Tensor, "n p"], size: Sequence[int]
    ) -> Float[Tensor, "n p e"]:
        negative, positive = self._point_embedding(0), self._point_embedding(1)
        code = self._encode(coords, size)
        label = labels[..., None]
        code = code + torch.where(label == 1, positive, negative)
        return torch.where(label == -1, self.not_a_point_embed.weight, code)

    def _embed_boxes(self, boxes: Tensor, size: Sequence[int]) -> Float[Tensor, "n 2 e"]:
        code = self._encode(boxes.reshape(-1, 2, self.ndim), size)
        return code + torch.cat([self._point_embedding(2), self._point_embedding(3)])

    def _embed_masks(self, masks: Float[Tensor, "n 1 *low_res"]) -> Float[Tensor, "n e *grid"]:
        """Bring masks to the token grid; the fourth step of NeuroSAM3D has no kernel of its own."""
        dense: Tensor
        if self.mask_steps == 2:
            dense = self.mask_downscaling(masks)
            return dense
        *steps, last = self.mask_downscaling
        for step in steps:
            masks = step(masks)
        strides = tuple(self.mask_strides)
        if self.quirks.mask_corner:
            corners = [slice(None, None, s) for s in strides]
            masks = masks[(slice(None), slice(None), *corners)]
        else:
            masks = _MEAN[self.ndim](masks, strides)
        dense = last(masks)
        return dense

    def _point_embedding(self, index: int) -> Float[Tensor, "1 e"]:
        weight: Tensor = self.point_embeddings[index].weight  # type: ignore[assignment]
        return weight

    def _encode(self, coords: Tensor, size: Sequence[int]) -> Tensor:
        """Position codes of pixel centres, in the type of the weights."""
        extent = tuple(reversed(size)) if self.ndim == 2 else tuple(size)
        scale = torch.tensor(extent, dtype=torch.float32, device=coords.device)
        code: Tensor = self.pe_layer((coords.float() + 0.5) / scale)
        return code


def _mask_downscaling(config: SamConfig) -> nn.Sequential:
    """Halve masks step by step, and project them; NeuroSAM3D halves once more before that."""
    conv, channels = CONV[config.ndim], config.mask_channels
    parts = {2: (4, 1), 3: (2, 1), 4: (4, 2, 1)}[config.mask_steps]
    layers: list[nn.Module] = []
    for before, after in pairwise([1, *(channels // part for part in parts)]):
        step = conv(before, after, kernel_size=config.mask_strides, stride=config.mask_strides)  # type: ignore[arg-type]
        layers += [step, ChannelNorm(after), nn.GELU()]
    return nn.Sequential(*layers, conv(channels, config.embed_dim, kernel_size=1))


_MEAN: dict[int, Callable[..., Tensor]] = {2: F.avg_pool2d, 3: F.avg_pool3d}


class FourierPositions(nn.Module):
    """Sine and cosine of random projections of a position; 2 or 3 parts (sine, cosine, sine)."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, ndim: int, features: int, channels: int) -> None:
        super().__init__()
        self.parts = channels // features
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(ndim, features))

    def forward(self, coords: Float[Tensor, "*n d"]) -> Float[Tensor, "*n e"]:
        """Encode coordinates in [0, 1], computed in float32 whatever the precision around."""
        matrix = self.positional_encoding_gaussian_matrix
        with torch.autocast(coords.device.type, enabled=False):
            angle = 2 * math.pi * ((2 * coords.float() - 1) @ matrix.float())
            sine = angle.sin()
            code = torch.cat([sine, angle.cos(), sine][: self.parts], dim=-1)
        return code.to(matrix.dtype)
