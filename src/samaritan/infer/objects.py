"""One object of a session: what was drawn, what was predicted, and its probability on the image's grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.geometry import Grid
from samaritan.infer.frames import FrameState, Key
from samaritan.volume import Volume

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ObjectState:
    """One object. Frozen: each prompt makes a new state."""

    frames: Mapping[Key, FrameState] = field(default_factory=dict)
    """Frames that hold prompts of a person."""
    grown: Mapping[Key, FrameState] = field(default_factory=dict)
    """Frames that the object grew into."""
    base: Mask | None = None
    """The mask it started from, on the image's grid; it stands wherever no frame is."""
    notes: tuple[str, ...] = ()
    """What a person should know about the result."""

    @property
    def n_bytes(self) -> int:
        """Memory of the masks that were predicted, and of the one that it started from."""
        frames = (*self.frames.values(), *self.grown.values())
        held = [tensor for frame in frames for tensor in (frame.logits, frame.features)]
        drawn = 0 if self.base is None else self.base.nbytes
        return drawn + sum(t.numel() * t.element_size() for t in held if t is not None)


@dataclass(frozen=True, eq=False)
class Patch:
    """A part of the image's grid where an object was predicted.

    Attributes:
        start: the patch's first voxel.
        probability: float32.
        covered: where the prediction counts; None: everywhere in the patch.
    """

    start: tuple[int, int, int]
    probability: npt.NDArray[np.float32]
    covered: Mask | None = None

    @property
    def n_bytes(self) -> int:
        """Memory of the patch."""
        return self.probability.nbytes + (0 if self.covered is None else self.covered.nbytes)

    @property
    def where(self) -> tuple[slice, slice, slice]:
        """The patch as an index into the image's array."""
        shape = self.probability.shape
        return tuple(slice(a, a + n) for a, n in zip(self.start, shape, strict=True))  # type: ignore[return-value]


def patch_on(grid: Grid, probability: Volume, covered: Volume | None = None) -> Patch | None:
    """Resample a probability onto the part of `grid` that it reaches; None where it reaches nothing."""
    ends = np.array([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
    faces = ends * np.asarray(probability.shape) - 0.5
    reach = grid.mm_to_index(probability.grid.index_to_mm(faces))
    low = np.clip(np.ceil(reach.min(axis=0) - 1e-3), 0, grid.shape).astype(int)
    high = np.clip(np.floor(reach.max(axis=0) + 1e-3) + 1, 0, grid.shape).astype(int)
    if (low >= high).any():
        return None
    part = grid.window(low.tolist(), (high - low).tolist())
    values: npt.NDArray[Any] = probability.to_grid(part).array
    where = None if covered is None else covered.to_grid(part, interpolation="nearest").array
    start = (int(low[0]), int(low[1]), int(low[2]))
    return Patch(start, np.asarray(values, np.float32), where)
