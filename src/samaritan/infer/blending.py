"""What several windows of one object say together: logits blended so that no seam is left at their faces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from samaritan.infer.frames import FrameState, Key, upsample

Ends = list[tuple[int, int]]


def blend_within(
    frames: Mapping[Key, FrameState], size: Key, low: Key, high: Key
) -> tuple[Tensor, Tensor]:
    """Blend windows in a box of the lattice.

    Args:
        frames: windows of `size` by their first voxel.
        size: voxels of a window.
        low: the box's first voxel.
        high: one past its last.

    Returns:
        Logits, and weights: 0 where there is no window.
    """
    shape = tuple(b - a for a, b in zip(low, high, strict=True))
    met = list(_met(frames, size, low, high))
    if len(met) == 1 and met[0][1] == list(zip(low, high, strict=True)):
        (key, ends), ones = met[0], torch.ones(())
        return _part(frames[key], size, key, ends), ones.expand(shape)
    total, weights = torch.zeros(shape), torch.zeros(shape)
    for key, ends in met:
        there = tuple(slice(a - o, b - o) for (a, b), o in zip(ends, low, strict=True))
        weight = _ramp(size, key, ends)
        total[there] += _part(frames[key], size, key, ends).mul(weight)
        weights[there] += weight
    return total.div_(weights.clamp(min=1e-12)), weights


def box_of(keys: Mapping[Key, FrameState], size: Key) -> tuple[Key, Key]:
    """Find the box of the lattice that all windows lie in."""
    low = tuple(min(key[a] for key in keys) for a in range(3))
    return low, tuple(max(key[a] + size[a] for key in keys) for a in range(3))


def reach(frames: Mapping[Key, FrameState], size: Key) -> tuple[Key, Key] | None:
    """Find a box outside which no window takes anything for the object; None if none does anywhere.

    Blended logits are means of logits between the cells of low-resolution masks, so the cells above zero and
    their neighbours tell.
    """
    lows, highs = [], []
    for key, frame in frames.items():
        assert frame.logits is not None
        found = _cells(frame.logits > 0)
        if found is None:
            continue
        sides = zip(found, frame.logits.shape, size, strict=True)
        ends = [_voxels(first, last, cells, n) for (first, last), cells, n in sides]
        lows.append([k + a for k, (a, _) in zip(key, ends, strict=True)])
        highs.append([k + b for k, (_, b) in zip(key, ends, strict=True)])
    if not lows:
        return None
    return tuple(map(min, zip(*lows, strict=True))), tuple(map(max, zip(*highs, strict=True)))


def _met(
    frames: Mapping[Key, FrameState], size: Key, low: Key, high: Key
) -> Iterator[tuple[Key, Ends]]:
    """Windows that a box meets, each with the part of the box in it."""
    for key in frames:
        ends = [(max(k, a), min(k + n, b)) for k, n, a, b in zip(key, size, low, high, strict=True)]
        if all(a < b for a, b in ends):
            yield key, ends


def _part(frame: FrameState, size: Key, key: Key, ends: Ends) -> Tensor:
    assert frame.logits is not None
    here = tuple(slice(a - k, b - k) for (a, b), k in zip(ends, key, strict=True))
    return upsample(frame.logits, size, here)


def _ramp(size: Key, key: Key, ends: Ends) -> Tensor:
    """Weigh a part of a window: 1 at its centre, falling linearly to almost nothing at its faces."""
    sides = []
    for n, k, (a, b) in zip(size, key, ends, strict=True):
        position = torch.arange(a - k, b - k, dtype=torch.float32) + 0.5
        sides.append(torch.minimum(position, n - position) / (n / 2))
    return sides[0][:, None, None] * sides[1][None, :, None] * sides[2][None, None, :]


def _cells(inside: Tensor) -> list[tuple[int, int]] | None:
    """First and last cell inside along each axis."""
    found = []
    for axis in range(inside.ndim):
        line = inside.movedim(axis, 0).flatten(1).any(dim=1)
        spots = torch.nonzero(line).flatten()
        if not len(spots):
            return None
        found.append((int(spots[0]), int(spots[-1])))
    return found


def _voxels(first: int, last: int, cells: int, n: int) -> tuple[int, int]:
    """Voxels of a window up to the centres of the cells before the first and after the last; half-open."""
    scale = n / cells
    low, high = (first - 0.5) * scale - 0.5, (last + 1.5) * scale - 0.5
    return max(int(low // 1), 0), min(int(-(-high // 1)) + 1, n)
