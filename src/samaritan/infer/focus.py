"""Objects of small models that look at one object at a time: where to look, and looking again.

A box says where to look. After a lone click the model looks at the whole slice or volume and closer and
closer at the click, believes the answer that it is most sure of, and looks again at what that answer found.
Later prompts move the window only if the object no longer fits well; a new window is told the mask so far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from samaritan.geometry import FloatArray, Grid
from samaritan.infer.engine import OpenImage
from samaritan.infer.frames import FrameState, Key, answer, prior_logits, upsample
from samaritan.infer.objects import Mask
from samaritan.transforms import PRIOR_LOGIT, CubePreprocess
from samaritan.transforms.focus import SLOT, FocusPreprocess
from samaritan.volume import Volume

SMALLEST = 24
"""Lattice pixels of the closest look at a lone click."""

CLOSER = 0.5
"""Side of each look over that of the one before."""

FARTHER = {2: 0.02, 3: -0.03}
"""So much is an answer believed more than one in a window half as wide. In pictures objects come before their
parts; in volumes the model is as sure of all that surrounds an object as of the object."""

NEARER = -0.05
"""The same once a click says what does not belong to the object: then a smaller one is meant."""

LEAVING = 0.2
"""An answer is believed so much less if the object leaves the window."""

DENIED = 1.0
"""An answer is believed so much less for each part of the clicks that it does not respect."""

REACHES = 0.75
"""An answer reaches the sides of its box if its own box has this intersection over union with it."""

BETTER = 0.1
"""So much more another answer must reach to be taken."""

SURE = 0.8
"""An answer of this quality is not doubted."""

SEARCHED = 4
"""So many clicks may show that something else was meant than what the first one found."""

FITS = (0.7, 1.45)
"""A window is kept while the side that would be chosen now is within these parts of its own."""

TOUCH = 3
"""An object goes on beyond a window if it covers so many of its outermost pixels, or 9 voxels."""


@dataclass(frozen=True)
class Extent:
    """Where something lies on a slice or in a volume, in slots: from the first edge to the last."""

    low: FloatArray
    high: FloatArray

    def joined(self, other: Extent) -> Extent:
        """Reach over another extent as well."""
        return Extent(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    @property
    def side(self) -> float:
        """The longest side."""
        return float((self.high - self.low).max())


def answered(
    image: OpenImage,
    key: Key,
    frame: FrameState,
    *,
    mask_only: bool = False,
    base: Mask | None = None,
) -> tuple[Key, FrameState]:
    """Answer the prompts of a frame, in the window that suits them.

    Args:
        image: what is looked at.
        key: (axis, index) of a slice, or () for a volume; or also the window that the frame's logits lie in.
        frame: all prompts, the newest one included.
        mask_only: show the model its mask alone.
        base: the mask that one started from, on the image's grid; shown at the first prompt.

    Returns:
        The window, as (axis, index, top, left, side) or (i, j, k, side), and the frame with its new mask.
    """
    scene = _Scene(image, key[:2] if image.engine.preprocess.n_axes == 2 else ())
    clicked = base is None and frame.box is None and not mask_only
    if clicked and frame.logits is None:
        key, frame = scene.search(frame)
    else:
        fresh = frame.logits is None and base is None
        key, frame = scene.moved(key, frame, base)
        frame = answer(image, key, frame, mask_only=mask_only)
        if fresh:  # a box's first answer is looked over once
            frame = scene.reaching(key, answer(image, key, frame))
        if clicked and len(frame.points) <= SEARCHED:
            key, frame = scene.doubted(key, frame)
    return scene.grown(key, frame, mask_only=mask_only)


class _Scene:
    """One slice, or a whole volume, on whose lattice windows are placed."""

    def __init__(self, image: OpenImage, place: Key) -> None:
        chain = image.engine.preprocess
        assert isinstance(chain, FocusPreprocess | CubePreprocess)
        grid = image.volume.grid
        self.image, self.place, self.chain, self.size = image, place, chain, chain.size
        if isinstance(chain, FocusPreprocess):
            self.lattice = chain.lattice(grid, *place)
            self.whole: Key = (*place, *chain.whole(grid, *place))
        else:
            self.lattice, self.whole = chain.lattice(grid), chain.whole(grid)
        self.ndim = len(self.size)

    def corner(self, key: Key) -> FloatArray:
        """Where a window begins, in slots."""
        return np.asarray(key[len(self.place) : -1], float)

    # -- where -----------------------------------------------------------------------------------

    def slots(self, index: FloatArray) -> FloatArray:
        """Take array indices of the image (n, 3) to slots (n, ndim)."""
        moved = self.lattice.mm_to_index(self.image.volume.grid.index_to_mm(index))
        found: FloatArray = (moved[:, : self.ndim] + 0.5) * SLOT
        return found

    def box(self, start: FloatArray, stop: FloatArray) -> Extent:
        """Where a half-open box of the image lies."""
        ends = np.stack([start, stop]) - 0.5
        corners = [[ends[a, 0], ends[b, 1], ends[c, 2]] for a, b, c in np.ndindex(2, 2, 2)]
        found = self.slots(np.array(corners))
        return Extent(found.min(axis=0), found.max(axis=0))

    def found(self, key: Key, logits: Tensor) -> Extent | None:
        """Where the mask in a window lies; None if it is empty."""
        inside = (upsample(logits, self.size) > 0).numpy()
        if not inside.any():
            return None
        first, last = span(inside)
        scale = key[-1] / np.asarray(self.size)
        first, last = first * scale + self.corner(key), last * scale + self.corner(key)
        edge = np.asarray(self.lattice.shape[: self.ndim]) * SLOT  # nothing lies beyond the picture
        return Extent(np.clip(first, 0, edge), np.clip(last, 0, edge))

    def window(self, extent: Extent) -> Key:
        """The window that shows an extent with some margin."""
        side = max(round(extent.side * self.chain.margin), 8 * SLOT)
        return self.around((extent.low + extent.high) / 2, side)

    def around(self, centre: FloatArray, side: int) -> Key:
        """The window of a side about a centre."""
        return (*self.place, *(round(float(c) - side / 2) for c in centre), side)

    def wanted(self, key: Key, frame: FrameState, base: Mask | None) -> Extent | None:
        """What the window should show: box, mask and the clicks on the object."""
        points = self.slots(frame.points[np.asarray(frame.labels, int) == 1])
        known = None if frame.logits is None else self.found(key, frame.logits)
        parts = [
            None if frame.box is None else self.box(*frame.box),
            self._drawn(base) if known is None and base is not None else known,
            Extent(points.min(axis=0), points.max(axis=0)) if len(points) else None,
        ]
        shown = [part for part in parts if part is not None]
        return reduce(Extent.joined, shown) if shown else None

    def _drawn(self, base: Mask) -> Extent | None:
        """Where the mask that one started from lies on this slice, or in the volume."""
        if self.place:
            axis, index = self.place
            base = np.take(base, [index], axis=axis)
        if not base.any():
            return None
        first, last = span(base)
        if self.place:
            first[axis], last[axis] = index, index + 1
        return self.box(first, last)

    def moved(self, key: Key, frame: FrameState, base: Mask | None) -> tuple[Key, FrameState]:
        """Choose the window for a frame's prompts, and bring what is known of its mask there."""
        extent = self.wanted(key, frame, base)
        new = self.whole if extent is None else self.window(extent)
        known = frame.logits is not None and len(key) > len(self.place)
        if known and self._still_fits(key, new, extent):
            return key, frame
        if known and frame.logits is not None:
            return new, replace(frame, logits=self.carried(key, frame.logits, new))
        if base is not None:
            return new, replace(frame, logits=prior_logits(self.image, new, base))
        return new, frame

    def _still_fits(self, key: Key, new: Key, extent: Extent | None) -> bool:
        if extent is None:
            return True
        low, high = self.corner(key), self.corner(key) + key[-1]
        room = 0.04 * key[-1]
        held = bool((extent.low >= low + room).all() and (extent.high <= high - room).all())
        return held and FITS[0] <= new[-1] / key[-1] <= FITS[1]

    def carried(self, key: Key, logits: Tensor, new: Key) -> Tensor:
        """Bring logits from one window to another; unlikely where the old one does not reach."""
        low, high = self._low_grid(key), self._low_grid(new)
        volume = Volume(logits.numpy().reshape(low.shape) + 20.0, low)
        moved = volume.to_grid(high).array.astype(np.float32).reshape(logits.shape)
        reached = torch.from_numpy(np.where(moved > 0, moved - 20.0, -6.0).astype(np.float32))
        return reached.clamp(-20, 20)

    def _low_grid(self, key: Key) -> Grid:
        thin = (1,) * (3 - self.ndim)
        return self.image.frame_grid(key).resize((*self.image.engine.low_res_size, *thin))

    # -- looking ---------------------------------------------------------------------------------

    def search(self, frame: FrameState) -> tuple[Key, FrameState]:
        """Find what a lone click means: look from far and near, each time again at what was found."""
        meant = np.flatnonzero(np.asarray(frame.labels) == 1)
        centre = self.slots(frame.points[meant[-1:] if len(meant) else slice(-1, None)])[0]
        looks, side = [self.whole], self.whole[-1] * CLOSER
        while side >= SMALLEST * SLOT:
            looks.append(self.around(centre, round(side)))
            side *= CLOSER
        tried = [self._again(key, frame, answer(self.image, key, frame)) for key in looks]
        key, best = max(tried, key=lambda one: self._belief(*one))
        return self._again(key, frame, best)

    def reaching(self, key: Key, frame: FrameState) -> FrameState:
        """Keep an answer that reaches its box, unless one begun from a full box does so better."""
        if frame.box is None:
            return frame
        reach = self._reach(key, frame)
        if reach >= REACHES:
            return frame
        full = replace(frame, logits=self._filled(key, self.box(*frame.box)))
        other = answer(self.image, key, full)
        return other if self._reach(key, other) > reach + BETTER else frame

    def _reach(self, key: Key, frame: FrameState) -> float:
        """Intersection over union of a box and the box around its answer."""
        assert frame.logits is not None
        assert frame.box is not None
        wanted, found = self.box(*frame.box), self.found(key, frame.logits)
        if found is None:
            return 0.0
        both = np.minimum(wanted.high, found.high) - np.maximum(wanted.low, found.low)
        met = float(np.prod(both.clip(min=0)))
        areas = [float(np.prod(one.high - one.low)) for one in (wanted, found)]
        return met / max(sum(areas) - met, 1e-9)

    def _filled(self, key: Key, box: Extent) -> Tensor:
        """The logits of a drawn ellipse that fills a box."""
        low = self.image.engine.low_res_size
        middle, half = (box.low + box.high) / 2, (box.high - box.low) / 2
        inside = torch.zeros(low)
        for axis, (start, n) in enumerate(zip(self.corner(key), low, strict=True)):
            at = start + (np.arange(n) + 0.5) * key[-1] / n
            line = torch.from_numpy(((at - middle[axis]) / half[axis]) ** 2).float()
            inside += line.reshape([-1 if a == axis else 1 for a in range(self.ndim)])
        return torch.where(inside <= 1, PRIOR_LOGIT, -PRIOR_LOGIT)

    def doubted(self, key: Key, frame: FrameState) -> tuple[Key, FrameState]:
        """Keep an answer that respects the clicks; else see whether a new search is believed more."""
        assert frame.logits is not None
        if 0 not in frame.labels or frame.quality is None or frame.quality > SURE:
            return key, frame
        afresh = self.search(replace(frame, logits=None, quality=None))
        return max((key, frame), afresh, key=lambda one: self._belief(*one))

    def _denied(self, key: Key, frame: FrameState) -> float:
        """The part of the clicks that an answer does not respect."""
        assert frame.logits is not None
        mask = upsample(frame.logits, self.size) > 0
        scale = np.asarray(self.size) / key[-1]
        cells = np.floor((self.slots(frame.points) - self.corner(key)) * scale).astype(int)
        held = ((cells >= 0) & (cells < np.asarray(self.size))).all(axis=1)
        inside = np.zeros(len(cells), bool)
        inside[held] = mask.numpy()[tuple(cells[held].T)]
        return float((inside != (np.asarray(frame.labels) == 1)).mean())

    def _again(self, key: Key, frame: FrameState, found: FrameState) -> tuple[Key, FrameState]:
        """Look again, at the mask that was found, with nothing but the click."""
        extent = self.wanted(key, found, None)
        if extent is None:
            return key, found
        near = self.window(extent)
        return self.grown(near, answer(self.image, near, frame))

    def _belief(self, key: Key, frame: FrameState) -> float:
        """How much an answer is believed: see `FARTHER` and `LEAVING`."""
        assert frame.logits is not None
        assert frame.quality is not None
        bias = NEARER if 0 in frame.labels else FARTHER[self.ndim]
        belief = frame.quality + bias * math.log2(min(key[-1] / self.whole[-1], 1.0))
        belief -= DENIED * self._denied(key, frame)
        return belief - (LEAVING if self.leaves(key, frame.logits) else 0.0)

    def leaves(self, key: Key, logits: Tensor) -> bool:
        """Whether an object goes on beyond a window, where the picture does."""
        inside = (logits > 0).numpy()
        most = TOUCH ** (self.ndim - 1)
        for axis, (start, n) in enumerate(zip(self.corner(key), self.lattice.shape, strict=False)):
            goes_on = start > 0, start + key[-1] < n * SLOT
            for edge, on in zip((0, -1), goes_on, strict=True):
                if on and int(inside.take(edge, axis=axis).sum()) >= most:
                    return True
        return False

    def grown(
        self, key: Key, frame: FrameState, *, mask_only: bool = False
    ) -> tuple[Key, FrameState]:
        """Look from farther away while the object leaves the window."""
        for _ in range(2):
            assert frame.logits is not None
            if key[-1] >= self.whole[-1] or not self.leaves(key, frame.logits):
                break
            centre = self.corner(key) + key[-1] / 2
            new = self.around(centre, min(round(key[-1] * math.sqrt(2)), self.whole[-1]))
            known = replace(frame, logits=self.carried(key, frame.logits, new))
            key, frame = new, answer(self.image, new, known, mask_only=mask_only)
        return key, frame


def span(inside: Mask) -> tuple[FloatArray, FloatArray]:
    """First and one past the last of what is marked, along each axis."""
    every = range(inside.ndim)
    lines = [inside.any(axis=tuple(a for a in every if a != axis)) for axis in every]
    found = [np.flatnonzero(line) for line in lines]
    return np.array([f[0] for f in found], float), np.array([f[-1] + 1 for f in found], float)
