"""MaskSAM's prompt generator: image features to auxiliary masks, boxes and class tokens, for every query."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from samaritan.models.config import SamConfig
from samaritan.models.slice_convs import ConvBlock, double
from samaritan.products import Conv3d

BOX_CELLS = 2
"""Side of the pooled map that the four numbers of a box are read from."""


class Proposals(NamedTuple):
    """One proposal for each query in each slice; slices of all volumes in one row."""

    logits: Float[Tensor, "n q h w"]
    """Auxiliary masks."""
    boxes: Float[Tensor, "n q 4"]
    """(x, y) of the first corner and of the last, as parts of the slice."""
    tokens: Float[Tensor, "n q e"]
    """Class tokens."""


class PromptGenerator(nn.Module):
    """A decoder over the features of all global blocks and the neck, in three dimensions.

    Stage by stage the map from the neck meets the features of a global block, the deepest first. What
    all stages see, pooled, gives boxes and class tokens; the last stage gives masks.

    Source: MaskSAM (Xie et al., ICCV 2025, arXiv:2403.14103), from a description of its program.
    """

    def __init__(self, config: SamConfig) -> None:
        super().__init__()
        own = config.mask_classes
        assert own is not None
        neck, widths, queries = config.embed_dim, own.generator, own.queries
        flats = [i >= len(widths) - own.flat_stages for i in range(len(widths))]
        self.side = math.isqrt(config.embed_dim)
        self.first = nn.Sequential(ConvBlock(neck, neck), ConvBlock(neck, neck))
        self.doublings = nn.ModuleList(
            double(before, after)
            for before, after in zip([neck, *widths], widths[: own.doublings], strict=False)
        )
        ways = len(widths) if not own.shared_skips else own.doublings
        self.skips = nn.ModuleList(
            _skip(config.width, widths[i], min(i + 1, own.doublings), flat=flats[i])
            for i in range(ways)
        )
        self.stem_skip = own.stem_skip
        joined = [2 * w if i < own.doublings else widths[i - 1] + w for i, w in enumerate(widths)]
        joined[-1] += config.in_channels if own.stem_skip else 0
        self.stages = nn.ModuleList(
            ConvBlock(before, width, flat=flat)
            for before, width, flat in zip(joined, widths, flats, strict=True)
        )
        self.masks = Conv3d(widths[-1], queries, kernel_size=1)
        seen = neck + sum(widths)
        self.boxes = nn.Sequential(
            Conv3d(seen, queries, kernel_size=1, bias=False),
            nn.InstanceNorm3d(queries, affine=True),
        )
        self.tokens = nn.Sequential(
            Conv3d(seen, queries, kernel_size=3, padding=1),
            nn.InstanceNorm3d(queries, affine=True),
        )

    def forward(
        self,
        features: list[Float[Tensor, "n _ ..."]],
        pictures: Float[Tensor, "b c t h w"],
        *,
        slices: int,
        size: tuple[int, int],
    ) -> Proposals:
        """Propose; `features` are those of the global blocks, shallow to deep, and of the neck.

        Args:
            features: of all slices, those of a volume one after the other.
            pictures: that the stem made, for `MaskClasses.stem_skip`.
            slices: of each volume.
            size: rows and columns of a slice.
        """
        *skips, neck = (_stack(x, slices) for x in features)
        x = self.first(neck)
        seen = [x]
        for i, skip in enumerate(reversed(skips)):
            if i < len(self.doublings):
                x = self.doublings[i](x)
            way = self.skips[min(i, len(self.skips) - 1)]
            last = [pictures] if self.stem_skip and i == len(skips) - 1 else []
            x = self.stages[i](torch.cat([x, way(skip), *last], dim=1))
            seen.append(x)
        logits = _rows(self.masks(x))
        if tuple(logits.shape[2:]) != size:
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
        boxes = _rows(torch.sigmoid(self.boxes(_pooled(seen, BOX_CELLS)).float()))
        tokens = _rows(F.gelu(self.tokens(_pooled(seen, self.side))))
        return Proposals(logits, corners(boxes.flatten(2)), tokens.flatten(2))


def corners(parts: Float[Tensor, "*n 4"]) -> Float[Tensor, "*n 4"]:
    """Boxes from where they begin and which part of the rest they take: always valid, in [0, 1].

    >>> [round(v, 3) for v in corners(torch.tensor([0.2, 0.4, 0.5, 0.5])).tolist()]
    [0.2, 0.4, 0.6, 0.7]
    """
    low, part = parts[..., :2], parts[..., 2:]
    return torch.cat([low, low + (1 - low) * part], dim=-1)


def boxes_of(
    masks: Bool[Tensor, "*n h w"], *, closed: bool = False
) -> tuple[Float[Tensor, "*n 4"], Bool[Tensor, "*n"]]:
    """The boxes of masks as parts of their size, and which masks are not empty.

    A box ends after the last pixel; if it is `closed`, on it. That of an empty mask is all zeros.

    >>> boxes_of(torch.ones(4, 8, dtype=torch.bool))[0].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    ends = []
    for axis in (-2, -1):  # whether a column holds anything, then whether a row does
        line = masks.any(dim=axis)
        n = line.shape[-1]
        first = line.int().argmax(dim=-1)
        last = n - 1 - line.flip(-1).int().argmax(dim=-1)
        ends.append((first / n, (last + (0 if closed else 1)) / n))
    (x1, x2), (y1, y2) = ends
    filled = masks.any(dim=-1).any(dim=-1)
    return torch.stack([x1, y1, x2, y2], dim=-1) * filled[..., None], filled


def _skip(width: int, out: int, doublings: int, *, flat: bool) -> nn.Sequential:
    """The way of features to the grid of their stage."""
    layers: list[nn.Module] = []
    for i in range(doublings):
        layers += [double(out if i else width, out), ConvBlock(out, out, flat=flat)]
    return nn.Sequential(*layers)


def _stack(x: Float[Tensor, "n c h w"], slices: int) -> Float[Tensor, "b c t h w"]:
    return x.reshape(-1, slices, *x.shape[1:]).transpose(1, 2)


def _rows(x: Float[Tensor, "b q t h w"]) -> Float[Tensor, "n q h w"]:
    return x.transpose(1, 2).flatten(0, 1)


def _pooled(seen: list[Tensor], side: int) -> Float[Tensor, "b c t side side"]:
    """What all stages see, each slice pooled to a small square."""
    return torch.cat(
        [F.adaptive_avg_pool3d(x, (x.shape[2], side, side)) for x in seen],
        dim=1,
    )
