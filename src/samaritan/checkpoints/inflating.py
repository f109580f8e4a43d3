"""Start a 3D model from the weights of a 2D SAM: what was learned in a plane holds in every plane.

A volume that repeats one slice then gets, in every slice, the embedding that the 2D model gives: attention is
an average over equal slices, whatever the positions along the new axis say. It holds exactly for the image
encoder of a model without quirks; for the rest it does but for the position code of the new axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from samaritan.errors import CheckpointError
from samaritan.models.positions import interpolate_grid, interpolate_table


@dataclass(frozen=True)
class Inflated:
    """Weights of a 3D model, as far as a 2D one has them."""

    state: dict[str, Tensor]
    """Those that could be made."""
    fresh: frozenset[str]
    """Names of the 3D model that keep their values."""
    left_out: frozenset[str]
    """Names of the 2D model that have no place."""


def inflate(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Inflated:
    """Weights for a 3D model out of those of a 2D SAM.

    The first axis is the new one. Kernels as large as their step are spread evenly over it (of transposed
    convolutions: repeated), others lie in its middle; absolute positions are repeated along it; relative
    ones are those of the rows, as SAM-Med3D's authors did it; the position code of prompts keeps the model's
    own frequencies for it. Channels of the image are summed up and shared out. Tables are interpolated to
    the model's grid. What has another width stays as the model has it.

    Args:
        state: weights of a 2D SAM under official names.
        wanted: parameters and buffers of the 3D model.

    Raises:
        CheckpointError: if blocks of the encoder differ in number or width, so that nothing could be kept.

    Source: SAM-Med3D, supplement C.3. There a patch kernel is repeated without sharing it out.
    """
    blocks = _blocks(state), _blocks(wanted)
    if blocks[0] != blocks[1]:
        text = " and ".join(f"{len(one)} blocks of width {_width(one)}" for one in blocks)
        raise CheckpointError(
            f"a 3D model starts from 2D weights only with the same blocks: the weights and the model have "
            f"{text}. Use a model of the same width and depth, such as 'sammed3d_vit_b_ori' for SAM's ViT-B"
        )
    made = {key: _inflated(key, state, target) for key, target in wanted.items()}
    fits = {key: new for key, new in made.items() if new is not None}
    taken = {key for key, new in fits.items() if new.shape == wanted[key].shape}
    return Inflated(
        {key: fits[key] for key in wanted if key in taken},
        frozenset(wanted) - taken,
        frozenset(state) - taken,
    )


def _inflated(key: str, state: Mapping[str, Tensor], target: Tensor) -> Tensor | None:
    """One tensor of the 3D model; None if the 2D model does not have it."""
    if key.endswith(".rel_pos_d"):
        key = f"{key.removesuffix('d')}h"
    if key not in state:
        return None
    old = state[key]
    if ".rel_pos_" in key:
        return interpolate_table(old, len(target))
    if key.endswith("image_encoder.pos_embed"):
        return interpolate_grid(old, target.shape[2:-1])[:, None].expand(
            -1, target.shape[1], -1, -1, -1
        )
    if key.endswith("gaussian_matrix"):
        return torch.stack([target[0].to(old), old[1], old[0]])  # (x, y) -> (new, y, x)
    if key.endswith("patch_embed.proj.weight"):
        old = old.sum(dim=1, keepdim=True).expand(-1, target.shape[1], -1, -1) / target.shape[1]
    if old.ndim == 4 and target.ndim == 5:
        return _deep_kernel(key, old, target.shape[2])
    return old


def _deep_kernel(key: str, kernel: Tensor, depth: int) -> Tensor:
    """A kernel of so many cells along the new axis that does the same to equal slices."""
    deep = kernel[:, :, None].repeat(1, 1, depth, 1, 1)
    if "output_upscaling" in key:
        return deep
    if ".neck." in key and depth > 1:
        middle = torch.zeros_like(deep)
        middle[:, :, depth // 2] = kernel
        return middle
    return deep / depth


def _blocks(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Norm of every encoder block, by name."""
    return {
        key: tuple(value.shape)
        for key, value in state.items()
        if key.startswith("image_encoder.blocks.") and key.endswith(".norm1.weight")
    }


def _width(blocks: Mapping[str, tuple[int, ...]]) -> int:
    return next((shape[0] for shape in blocks.values()), 0)
