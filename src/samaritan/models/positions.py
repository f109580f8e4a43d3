"""Position tables of the image encoder: look-up by offset, and resizing to another grid.

Absolute tables are interpolated (bi- or trilinearly), relative tables linearly along their length,
both without aligned corners, as SAM does. Done at load time or on the fly, the result is the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from samaritan.errors import ConfigError
from samaritan.models.config import SamConfig

AXIS_NAMES = {2: "hw", 3: "dhw"}
"""Letters of the axes in the names of relative position tables, by number of axes."""


def resize_positions(
    state_dict: Mapping[str, Tensor], config_from: SamConfig, config_to: SamConfig
) -> dict[str, Tensor]:
    """A copy of a model's weights whose position tables fit another input size.

    Which tables change is decided for each by its length, so it holds for every depth; tables of
    windowed blocks stay as they are. All other tensors are passed on untouched.

    Raises:
        ConfigError: if the two configurations differ in more than the sizes.
    """
    for key in ("ndim", "width", "depth", "heads", "global_blocks", "backbone"):
        old, new = getattr(config_from, key), getattr(config_to, key)
        if old != new:
            raise ConfigError(
                f"weights of {config_from.name!r} cannot be resized for {config_to.name!r}: "
                f"{key} is {old} there and {new} here; only image and patch size may differ"
            )
    grid, names = config_to.grid, AXIS_NAMES[config_to.ndim]
    resized = dict(state_dict)
    key = "image_encoder.pos_embed"
    if key in resized and config_to.backbone == "vit":
        resized[key] = interpolate_grid(resized[key], grid)
    elif key in resized and config_to.backbone == "dinov2":
        stretch = stretch_grid if config_to.quirks.position_scale else interpolate_grid
        whole, table = split_table(resized[key], config_from.grid)
        resized[key] = torch.cat([whole, stretch(table, grid).flatten(1, -2)], dim=1)
    for key, value in resized.items():
        match = _GLOBAL_TABLE.fullmatch(key)
        if match and (match[1] is None or int(match[1]) in config_to.global_blocks):
            resized[key] = interpolate_table(value, 2 * grid[names.index(match[2])] - 1)
    code = resized.get("slice_code")
    if config_to.mask_classes is not None and code is not None and code.ndim == 4:
        picture = zip(config_to.mask_classes.picture_size, config_to.patch_size, strict=True)
        resized["slice_code"] = interpolate_slices(code, tuple(n // p for n, p in picture))
    return resized


_GLOBAL_TABLE = re.compile(
    r"(?:image_encoder\.blocks\.(\d+)\.attn|mask_decoder\.fuse\..*)\.rel_pos_([dhw])"
)
"""Tables of blocks, and of what stands beside `mask_decoder.fuse`, which all is over the whole grid."""


def split_table(
    table: Float[Tensor, "1 n d"], grid: Sequence[int]
) -> tuple[Float[Tensor, "1 1 d"], Float[Tensor, "1 *grid d"]]:
    """DINOv2's table of positions: that of the whole image, and those of patches on their grid."""
    return table[:, :1], table[:, 1:].reshape(1, *grid, table.shape[-1])


def interpolate_grid(
    table: Float[Tensor, "1 *old c"], grid: Sequence[int]
) -> Float[Tensor, "1 *grid c"]:
    """An absolute position table for another grid; the table itself where it fits."""
    if table.shape[1:-1] == tuple(grid):
        return table
    mode = {2: "bilinear", 3: "trilinear"}[len(grid)]
    image = table.movedim(-1, 1).float()
    resized = F.interpolate(image, tuple(grid), mode=mode, align_corners=False, antialias=False)
    return resized.movedim(1, -1).to(table.dtype)


def interpolate_slices(
    code: Float[Tensor, "t c h w"], grid: Sequence[int]
) -> Float[Tensor, "t c *grid"]:
    """MaskSAM's code of every slice for another grid; the code itself where it fits.

    Another number of slices is another model: its adapters have weights for each.
    """
    table = interpolate_grid(code.flatten(0, 1).movedim(0, -1)[None], grid)
    return table[0].movedim(-1, 0).reshape(*code.shape[:2], *grid)


def stretch_grid(
    table: Float[Tensor, "1 *old c"], grid: Sequence[int]
) -> Float[Tensor, "1 *grid c"]:
    """`interpolate_grid` as DINOv2 does it, by a factor that is a little too large: (n + 0.1) / m.

    The excess kept rounding from losing a cell. It shifts what is read by up to a tenth of a cell.
    """
    old = table.shape[1:-1]
    if old == tuple(grid):
        return table
    mode = {2: "bilinear", 3: "trilinear"}[len(grid)]
    factors = [(n + 0.1) / m for n, m in zip(grid, old, strict=True)]
    image = table.movedim(-1, 1).float()
    resized = F.interpolate(image, scale_factor=factors, mode=mode, align_corners=False)
    return resized.movedim(1, -1).to(table.dtype)


def interpolate_table(table: Float[Tensor, "old c"], length: int) -> Float[Tensor, "new c"]:
    """A relative position table of another length; the table itself where it fits."""
    if len(table) == length:
        return table
    rows = table.float().T[None]
    return F.interpolate(rows, length, mode="linear", align_corners=False)[0].T.to(table.dtype)


def relative_rows(
    table: Float[Tensor, "length c"], queries: int, keys: int
) -> Float[Tensor, "q k c"]:
    """For each of `queries` and each of `keys` positions, the row of their offset.

    The middle row of the table belongs to offset 0 (query minus key).
    """
    q = torch.arange(queries, device=table.device)
    k = torch.arange(keys, device=table.device)
    return F.embedding(q[:, None] - k[None, :] + len(table) // 2, table)
