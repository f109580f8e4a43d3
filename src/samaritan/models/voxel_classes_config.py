"""What a plain U-Net is made of: a yardstick beside SAMs. Plain values; this file knows no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from samaritan.errors import ConfigError
from samaritan.models.config_checks import known_fields

MOST_HEADS = 10_000
MOST_STAGES = 12

Sides = tuple[int, ...]


@dataclass(frozen=True)
class VoxelClasses:
    """A U-Net that says of each voxel which class it is; the configuration it belongs to is its `SamConfig`.

    Of that `ndim`, `in_channels` and `image_size`, its patch, count.
    """

    heads: int
    """Channels of its output: classes with the background, or regions."""
    strides: tuple[Sides, ...]
    """Of each stage along each axis; ones of the first."""
    kernels: tuple[Sides, ...]
    """Of each stage along each axis: 1 or 3."""
    filters: tuple[int, ...]
    """Channels of each stage."""
    regions: bool = False
    """Heads are regions, which may overlap: a sigmoid each instead of a softmax over all."""
    supervised: int = 0
    """Coarser stages that have an output of their own in training (deep supervision)."""

    def __post_init__(self) -> None:
        if problems := list(_types(self)) or list(_ranges(self)):
            raise ConfigError(f"voxel_classes cannot be built: {'; '.join(problems)}")

    @property
    def divisor(self) -> Sides:
        """What a patch must be a multiple of along each axis."""
        found = [1] * len(self.strides[0])
        for stride in self.strides:
            found = [a * b for a, b in zip(found, stride, strict=True)]
        return tuple(found)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VoxelClasses:
        """Build from plain values, as they may stand in a file.

        Raises:
            ConfigError: if it is not that.
        """
        known_fields(values, cls)
        try:
            return cls(**{key: _tuples(value) for key, value in values.items()})
        except TypeError as error:
            raise ConfigError(f"voxel_classes is incomplete: {error}") from error


def problems_with(config: Any) -> Iterable[str]:
    """What of a `SamConfig` does not go with its `voxel_classes`, or needs some."""
    own: VoxelClasses | None = config.voxel_classes
    if (config.backbone == "plain") != (own is not None):
        yield "backbone 'plain' and voxel_classes go together"
    if own is None:
        return
    if config.classes or config.mask_classes is not None:
        yield "voxel_classes go with neither classes nor mask_classes: it has classes of its own"
    if len(own.strides[0]) != config.ndim:
        yield f"voxel_classes have {len(own.strides[0])} axes, the model {config.ndim}"
    elif any(n % d for n, d in zip(config.image_size, own.divisor, strict=True)):
        yield f"image_size {config.image_size} must be a multiple of {own.divisor}, the product of strides"


def _types(own: VoxelClasses) -> Iterable[str]:
    if not _is_count(own.heads) or own.heads > MOST_HEADS:
        yield f"heads must be a whole number from 1 to {MOST_HEADS}, not {own.heads!r}"
    if not isinstance(own.regions, bool):
        yield f"regions must be true or false, not {own.regions!r}"
    if own.supervised != 0 and not _is_count(own.supervised):
        yield f"supervised must be a whole number, not {own.supervised!r}"
    for name in ("strides", "kernels"):
        rows = getattr(own, name)
        if not (_is_row(rows) and all(_is_row(r) and all(map(_is_count, r)) for r in rows)):
            yield f"{name} must be a tuple of positive whole numbers for each stage, not {rows!r}"
    if not (_is_row(own.filters) and all(map(_is_count, own.filters))):
        yield f"filters must be a tuple of positive whole numbers, not {own.filters!r}"


def _ranges(own: VoxelClasses) -> Iterable[str]:
    stages = len(own.filters)
    if not 2 <= stages <= MOST_STAGES or len(own.strides) != stages or len(own.kernels) != stages:
        yield (
            f"filters, strides and kernels must be given for the same 2 to {MOST_STAGES} stages, not for "
            f"{stages}, {len(own.strides)} and {len(own.kernels)}"
        )
        return
    rows = [*own.strides, *own.kernels]
    if any(len(a) != len(b) for a, b in pairwise(rows)) or len(rows[0]) not in (2, 3):
        yield "strides and kernels must have 2 or 3 axes, all the same number"
    if any(n != 1 for n in own.strides[0]):
        yield f"the first stage keeps its grid: strides must begin with ones, not {own.strides[0]}"
    if any(k not in (1, 3) for kernel in own.kernels for k in kernel):
        yield f"kernels must be 1 or 3, not {own.kernels}"
    if own.supervised > stages - 2:
        yield f"supervised must be at most {stages - 2}, not {own.supervised}"


def _is_row(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 20


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value
