"""Boxes and clicks for one object, as a person might give them: seeded by object, whatever the order.

The draws are those of `samaritan.simulate`. They are made on the part of the grid that matters, which gives
the same points as the whole grid, sooner.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from samaritan import simulate
from samaritan.evaluation.targets import Mask, Target, seed_of
from samaritan.evaluation.trial import Trial

Index = tuple[int, ...]


@dataclass(frozen=True)
class Clicked:
    """A point at a voxel, which belongs to the object or does not."""

    at: Index
    positive: bool


def generator(trial: Trial, target: Target, what: str) -> torch.Generator:
    """Where the randomness of one kind of prompt for one object comes from."""
    seed = seed_of(trial.seed, target.case, target.label, what)
    return torch.Generator().manual_seed(seed)


def box_around(target: Target, shape: Index, trial: Trial) -> tuple[Index, Index]:
    """First voxel of the box, and one past the last."""
    if trial.box == "exact":
        return target.start, target.stop
    exact = torch.tensor([[*target.start, *target.stop]], dtype=torch.float32)
    moved = simulate.jitter_boxes(exact, shape, generator(trial, target, "box"))[0]
    start, stop = moved.long().chunk(2)
    return tuple(start.tolist()), tuple(stop.tolist())


def points_for(target: Target, shape: Index, count: int, trial: Trial) -> tuple[Clicked, ...]:
    """Points to begin with: one on the object; of several, half on it (rounded down), others off it.

    Source: as `simulate.first_points`, which is SAM-Med2D's, but with those on the object first.
    """
    draws = generator(trial, target, "points")
    inside = max(count // 2, 1)
    draw = simulate.core_points if trial.click == "core" else simulate.random_points
    flat = _flat_axes(shape)
    on = draw(_batch(target.part, flat), inside, draws)[0]
    clicks = [Clicked(at, True) for at in _indices(on, flat, target.start)]
    outside = ~target.mask(shape) if count > inside else None
    if outside is not None and outside.any():
        off = simulate.random_points(_batch(outside, flat), count - inside, draws)[0]
        clicks += [Clicked(at, False) for at in _indices(off, flat, (0,) * len(shape))]
    return tuple(clicks)


def correction(
    predicted: Mask, reference: Mask, draws: torch.Generator, trial: Trial
) -> Clicked | None:
    """A click on what is wrong: deep inside the largest error, or anywhere wrong. None if nothing is."""
    wrong = _box_of(predicted != reference)
    if wrong is None:
        return None
    flat = _flat_axes(predicted.shape)
    one, two = _batch(predicted[wrong], flat), _batch(reference[wrong], flat)
    coords, labels = simulate.error_points(one, two, 1, draws, at_core=trial.click == "core")
    (at,) = _indices(coords[0], flat, tuple(s.start for s in wrong))
    return Clicked(at, bool(labels[0, 0] == simulate.POSITIVE))


def ellipse(start: Index, stop: Index, shape: Index) -> Mask:
    """Fill a box with the ellipse (or ellipsoid) that touches its faces.

    >>> ellipse((0, 0), (3, 4), (3, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [1, 1, 1, 1], [0, 1, 1, 0]]
    """
    distance: npt.NDArray[Any] = np.zeros((1,) * len(shape))
    for axis, (low, high, size) in enumerate(zip(start, stop, shape, strict=True)):
        along = (np.arange(size) - (low + high - 1) / 2) / ((high - low) / 2)
        distance = distance + (along**2).reshape(
            [-1 if a == axis else 1 for a in range(len(shape))]
        )
    inside: Mask = distance <= 1
    return inside


def _box_of(mask: Mask) -> tuple[slice, ...] | None:
    if not mask.any():
        return None
    ends = []
    for axis in range(mask.ndim):
        line = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        ends.append(slice(int(line[0]), int(line[-1]) + 1))
    return tuple(ends)


def _flat_axes(shape: Index) -> tuple[int, ...]:
    """The axis that makes a grid flat: a picture has two axes for whoever clicks on it."""
    return (
        tuple(axis for axis, size in enumerate(shape) if size == 1)[:1] if len(shape) == 3 else ()
    )


def _batch(mask: Mask, flat: tuple[int, ...]) -> Tensor:
    """A batch of one mask, of two axes on a flat grid."""
    return torch.from_numpy(np.ascontiguousarray(mask.squeeze(flat)))[None]


def _indices(coords: Tensor, flat: tuple[int, ...], start: Index) -> list[Index]:
    """Points (n, d) as indices of the whole grid."""
    found = coords.numpy().astype(int)
    for axis in flat:
        found = np.insert(found, axis, 0, axis=1)
    return [tuple(at) for at in (found + np.asarray(start)).tolist()]
