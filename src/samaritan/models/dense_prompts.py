"""Prompts drawn on the grid of the image embedding, for convolutional models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn

from samaritan.models.config import SamConfig
from samaritan.models.layers import CONV
from samaritan.models.prompt_checks import AnyTensor, PointPrompts, check_prompts

CLICK_WIDTHS = (0.8, 4.0)
"""Standard deviations of the spots that a click is drawn as, in cells of the grid: where, and about where."""

N_MAPS = 2 * len(CLICK_WIDTHS) + 3


class DensePromptEncoder(nn.Module):
    """Points, boxes and masks as one map. Called as `PromptEncoder` is; gives no sparse tokens.

    A box whose last corner lies before its first stands for no box, so that one batch can mix prompts.

    Coordinates are in the frame of the model's input, pixel centres at integers: (x, y) in 2D, array order in
    3D. Labels: 1 positive, 0 negative, -1 no point.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        self.ndim, self.embed_dim = config.ndim, config.embed_dim
        self.image_size, self.patch_size = config.image_size, config.patch_size
        self.mask_strides = config.mask_strides
        conv, width = CONV[config.ndim], config.embed_dim
        self.maps = nn.Sequential(
            conv(N_MAPS, width, kernel_size=3, padding=1),
            nn.GELU(),
            conv(width, width, kernel_size=1),
        )
        self.mask_downscaling = nn.Sequential(
            conv(1, config.mask_channels, kernel_size=4, stride=4),
            nn.GELU(),
            conv(config.mask_channels, width, kernel_size=1),
        )

    def forward(
        self,
        points: PointPrompts | None = None,
        boxes: AnyTensor | None = None,
        masks: AnyTensor | None = None,
        *,
        image_size: Sequence[int] | None = None,
    ) -> tuple[Float[Tensor, "n 0 e"], Float[Tensor, "n e *grid"]]:
        """Draw `n` sets of prompts, each for one mask to be predicted; see `PromptEncoder.forward`.

        Raises:
            PromptError: if a shape or label is not one of those.
        """
        size = tuple(image_size or self.image_size)
        grid = tuple(s // p for s, p in zip(size, self.patch_size, strict=True))
        low_res = tuple(n * s * s for n, s in zip(grid, self.mask_strides, strict=True))
        n = check_prompts(points, boxes, masks, ndim=self.ndim, low_res=low_res)
        drawn = self._zeros(n, N_MAPS, *grid)
        if points is not None:
            drawn[:, : 2 * len(CLICK_WIDTHS)] = self._spots(*points, grid)
        if boxes is not None:
            drawn[:, 2 * len(CLICK_WIDTHS) :] = self._boxes(boxes, grid)
        dense: Tensor = self.maps(drawn)
        if masks is None:  # nothing is known anywhere
            masks = drawn.new_zeros(1, 1, *low_res)
        told = self.mask_downscaling(torch.tanh(masks.to(drawn.dtype) / 4))
        return drawn.new_zeros(n, 0, self.embed_dim), dense + told

    def get_dense_pe(self, size: Sequence[int] | None = None) -> Float[Tensor, "1 e *grid"]:
        """Zeros: convolutions need no position code."""
        size = size or self.image_size
        grid = [s // p for s, p in zip(size, self.patch_size, strict=True)]
        return self._zeros(1, self.embed_dim, *grid)

    def _zeros(self, *shape: int) -> Tensor:
        weight: Tensor = self.maps[0].weight  # type: ignore[assignment]
        return weight.new_zeros(shape)

    def _spots(
        self, coords: Num[Tensor, "n p d"], labels: Num[Tensor, "n p"], grid: tuple[int, ...]
    ) -> Float[Tensor, "n k *grid"]:
        """Positive clicks at each width, then negative ones; where spots meet, the brighter counts."""
        centres = (self._array_order(coords.float()) + 0.5) / self._cells(coords) - 0.5
        maps = []
        for label in (1, 0):
            shown = (labels == label).float()
            for width in CLICK_WIDTHS:
                spots = shown.reshape(*shown.shape, *[1] * self.ndim)
                for axis, count in enumerate(grid):
                    at = torch.arange(count, device=coords.device) - centres[..., axis, None]
                    line = torch.exp(-at.square() / (2 * width**2))
                    spots = spots * self._along(line, axis)
                maps.append(spots.amax(dim=1) if spots.shape[1] else spots.sum(dim=1))
        return torch.stack(maps, dim=1)

    def _boxes(self, boxes: Tensor, grid: tuple[int, ...]) -> Float[Tensor, "n 3 *grid"]:
        """How much of each cell a box covers, a bell over the box, and ones: there is a box."""
        corners = self._array_order(boxes.reshape(len(boxes), 2, self.ndim).float())
        cells = self._cells(boxes)
        start, stop = corners[:, 0] / cells, (corners[:, 1] + 1) / cells
        there = (stop > start).all(dim=1).float().reshape(-1, *[1] * self.ndim)
        covered = bell = there
        for axis, count in enumerate(grid):
            cell = torch.arange(count, device=boxes.device)
            a, b = start[:, axis, None], stop[:, axis, None]
            part = (torch.minimum(b, cell + 1) - torch.maximum(a, cell)).clamp(0, 1)
            off = (cell + 0.5 - (a + b) / 2) / ((b - a) / 2).clamp(min=0.25)
            covered = covered * self._along(part, axis)
            bell = bell * self._along(torch.exp(-off.square() * math.log(2)), axis)
        return torch.stack([covered, bell, there.expand_as(bell)], dim=1)

    def _along(self, line: Tensor, axis: int) -> Tensor:
        """Lay values (..., count) along one axis of the grid."""
        shape = [1] * self.ndim
        shape[axis] = line.shape[-1]
        return line.reshape(*line.shape[:-1], *shape)

    def _array_order(self, coords: Tensor) -> Tensor:
        return coords.flip(-1) if self.ndim == 2 else coords

    def _cells(self, like: Tensor) -> Tensor:
        return torch.tensor(self.patch_size, dtype=torch.float32, device=like.device)
