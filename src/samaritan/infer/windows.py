"""Objects of 3D models: windows placed around the prompts, that grow while the object touches their border.

No label is needed anywhere. Windows overlap by half and are blended in logits with weights that fall
to nothing at a window's faces, so an object larger than a window comes out without seams.

Source: the extension that SAM-Med3D's paper describes (section 4.3: windows with 50 % overlap in each
direction in which the prediction touches the border) and no released code has. What a new window is
told is ours: the mask that its neighbours already agree on, and a click at the core of that mask.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.errors import PromptError
from samaritan.geometry import FloatArray, Grid
from samaritan.infer.blending import blend_within, box_of, reach
from samaritan.infer.engine import OpenImage
from samaritan.infer.events import Box, Click, Prompt, Refine, StartFrom
from samaritan.infer.frames import FrameState, Key, answer, prior_logits, reduce
from samaritan.infer.objects import ObjectState, Patch, patch_on
from samaritan.transforms import WindowPreprocess
from samaritan.volume import Volume

logger = logging.getLogger(__name__)

TOUCH_VOXELS = 4
"""An object grows over a face once it covers this many voxels there that no other window sees."""

SHARED_PARTS = 8
"""Windows start at multiples of this part of their length: one is off its object by half of it at most."""


def apply(image: OpenImage, state: ObjectState, prompt: Prompt, *, max_windows: int) -> ObjectState:
    """Give one prompt to an object."""
    if isinstance(prompt, StartFrom):
        return ObjectState(base=prompt.to_mask())
    board = _Board(image)
    frames = dict(state.frames)
    for key in board.keys(state, prompt):
        frame = frames.get(key) or state.grown.get(key) or board.fresh(state, key)
        frames[key] = _answered(image, key, frame, prompt)
    if state.base is not None:
        return replace(state, frames=frames)
    grown, stopped = board.grow(frames, max_windows)
    held = "one window" if max_windows == 1 else f"{max_windows} windows"
    note = (
        f"the object goes on beyond {held}, where it was stopped: raise max_windows (--max-windows)"
    )
    return replace(state, frames=frames, grown=grown, notes=(note,) if stopped else ())


def patches(image: OpenImage, state: ObjectState, *, whole: bool = False) -> Iterator[Patch]:
    """Give the probability of the object on the image's grid: one patch for all its windows.

    It covers what may exceed one half, or with `whole` all that the windows see.
    """
    frames = {**state.grown, **state.frames}
    board = _Board(image)
    alone = state.base is None
    box = reach(frames, board.size) if alone and not whole else None
    if frames and (whole or not alone):
        box = box_of(frames, board.size)
    if box is None:
        return
    low, high = box
    logits, weights = blend_within(frames, board.size, low, high)
    probability = logits.sigmoid()
    if len(frames) > 1:
        probability[weights == 0] = 0
    grid = board.lattice.window(low, tuple(probability.shape))
    covered = None if alone else Volume((weights > 0).numpy(), grid)
    patch = patch_on(image.volume.grid, Volume(probability.numpy(), grid), covered)
    if patch is not None:
        yield patch


def _answered(image: OpenImage, key: Key, frame: FrameState, prompt: Prompt) -> FrameState:
    if isinstance(prompt, Click):
        frame = frame.with_click(np.asarray(prompt.index, float), prompt.positive)
    elif isinstance(prompt, Box):
        frame = replace(
            frame, box=(np.asarray(prompt.start, float), np.asarray(prompt.stop, float))
        )
    return answer(image, key, frame, mask_only=isinstance(prompt, Refine))


class _Board:
    """The lattice of an image on which windows are placed, and what several windows say together."""

    def __init__(self, image: OpenImage) -> None:
        chain = image.engine.preprocess
        assert isinstance(chain, WindowPreprocess)
        self.image = image
        self.size = chain.size
        self.lattice: Grid = chain.lattice(image.volume.grid)

    # -- where -----------------------------------------------------------------------------------

    def keys(self, state: ObjectState, prompt: Prompt) -> list[Key]:
        """Name the windows that a prompt is about, placing new ones where there are none."""
        if isinstance(prompt, Click):
            point = self.to_lattice(np.asarray(prompt.index, float))
            held = [key for key in state.frames if self._holds(key, point)]
            grown = [key for key in state.grown if self._holds(key, point)]
            central = sorted(grown, key=lambda key: self._distance(key, point))[:1]
            return held or central or [self.place(point)]
        if isinstance(prompt, Box):
            corners = np.array([prompt.start, prompt.stop]) - 0.5
            return self._covering(*self._upright(corners))
        if isinstance(prompt, Refine):
            return self._to_refine(state, prompt)
        return []

    def place(self, centre: FloatArray) -> Key:
        """Centre a window about a point, moved inside the image as far as it fits.

        Starts are multiples of a part of the window, so that objects near each other share its embedding.
        """
        starts = [float(c) - n / 2 + 0.5 for c, n in zip(centre, self.size, strict=True)]
        return self._inside(tuple(map(_shared, starts, self.size)))

    def to_lattice(self, index: FloatArray) -> FloatArray:
        """Take array indices of the image to indices on the lattice."""
        return self.lattice.mm_to_index(self.image.volume.grid.index_to_mm(index))

    def _inside(self, start: Key) -> Key:
        """Move a window so that it shows as much of the image as it can."""
        spare = [total - n for total, n in zip(self.lattice.shape, self.size, strict=True)]
        return tuple(
            min(max(s, 0), free) if free >= 0 else free // 2
            for s, free in zip(start, spare, strict=True)
        )

    def _upright(self, corners: FloatArray) -> tuple[FloatArray, FloatArray]:
        every = np.array(
            [[corners[a, 0], corners[b, 1], corners[c, 2]] for a, b, c in np.ndindex(2, 2, 2)]
        )
        moved = self.to_lattice(every)
        return moved.min(axis=0), moved.max(axis=0)

    def _covering(self, low: FloatArray, high: FloatArray) -> list[Key]:
        """Place one window on a box, or half-overlapping ones if it is larger than a window."""
        starts = []
        for a, b, n in zip(low, high, self.size, strict=True):
            if b - a <= n:
                start = (a + b) / 2 - n / 2 + 0.5
                shared = _shared(start, n)
                fits = shared - 0.5 <= a and b <= shared + n - 0.5
                starts.append([shared if fits else round(start)])
            else:
                steps = int(np.ceil((b - a - n) / (n / 2)))
                starts.append([round(a + 0.5 + (b - a - n) * s / steps) for s in range(steps + 1)])
        return list(dict.fromkeys(self._inside(start) for start in itertools.product(*starts)))

    def _to_refine(self, state: ObjectState, prompt: Refine) -> list[Key]:
        if state.frames:
            return list(state.frames)
        if state.base is None or not state.base.any():
            raise PromptError(
                f"{prompt.object!r} has no mask to refine: start from one, or click first"
            )
        spans = [
            np.flatnonzero(state.base.any(axis=tuple(b for b in range(3) if b != a)))
            for a in range(3)
        ]
        corners = np.array([[s[0] - 0.5 for s in spans], [s[-1] + 0.5 for s in spans]])
        return self._covering(*self._upright(corners))

    def _holds(self, key: Key, point: FloatArray) -> bool:
        return all(
            k - 0.5 <= p < k + n - 0.5 for k, p, n in zip(key, point, self.size, strict=True)
        )

    def _distance(self, key: Key, point: FloatArray) -> float:
        centre = np.asarray(key) + (np.asarray(self.size) - 1) / 2
        return float(np.abs(point - centre).max())

    # -- what ------------------------------------------------------------------------------------

    def fresh(self, state: ObjectState, key: Key) -> FrameState:
        """Begin a window with the mask that is already known there."""
        if state.base is not None:
            return FrameState(logits=prior_logits(self.image, key, state.base))
        frames = {**state.grown, **state.frames}
        return FrameState(logits=self._known_low_res(frames, key) if frames else None)

    def _known_low_res(self, frames: Mapping[Key, FrameState], key: Key) -> Tensor:
        """Reduce what other windows say about a window to a mask prompt: 0 where they say nothing."""
        end = tuple(k + n for k, n in zip(key, self.size, strict=True))
        logits, weights = blend_within(frames, self.size, key, end)
        logits[weights == 0] = 0
        return reduce(logits, self.image.engine.low_res_size)

    # -- growing ---------------------------------------------------------------------------------

    def grow(
        self, held: Mapping[Key, FrameState], max_windows: int
    ) -> tuple[dict[Key, FrameState], bool]:
        """Add windows while the object touches a face behind which the image goes on.

        Returns:
            The windows added, and whether `max_windows` stopped it.
        """
        frames = dict(held)
        queue = deque(held)
        while queue:
            key = queue.popleft()
            for axis, side in itertools.product(range(3), (0, 1)):
                new = self._neighbour(frames, key, axis, side)
                if new is None:
                    continue
                if len(frames) >= max_windows:
                    logger.info("an object grew over %d windows and was stopped there", max_windows)
                    return {k: f for k, f in frames.items() if k not in held}, True
                self.image.engine.progress("windows", len(frames), max_windows)
                frames[new] = self._answer_grown(frames, key, new)
                queue.append(new)
        return {k: f for k, f in frames.items() if k not in held}, False

    def _neighbour(
        self, frames: Mapping[Key, FrameState], key: Key, axis: int, side: int
    ) -> Key | None:
        """Name the window to add behind a face, or None if the object does not go on there."""
        n = self.size[axis]
        behind = key[axis] + n if side else key[axis] - 1
        if not 0 <= behind < self.lattice.shape[axis]:
            return None
        face = behind - 1 if side else behind + 1
        low = tuple(face if a == axis else key[a] for a in range(3))
        high = tuple(face + 1 if a == axis else key[a] + self.size[a] for a in range(3))
        logits, _ = blend_within(frames, self.size, low, high)
        touching = (logits > 0).movedim(axis, 0)[0]
        if int(touching.sum()) < TOUCH_VOXELS:
            return None
        others = [a for a in range(3) if a != axis]
        unseen = torch.ones_like(touching)
        for other in frames:
            if other[axis] <= behind < other[axis] + n:
                ends = [(other[a] - key[a], other[a] + self.size[a] - key[a]) for a in others]
                unseen[tuple(slice(max(first, 0), max(last, 0)) for first, last in ends)] = False
        if int((touching & unseen).sum()) < TOUCH_VOXELS:
            return None
        step = n // 2 if side else -(n // 2)
        new = self._inside(tuple(key[a] + step if a == axis else key[a] for a in range(3)))
        return None if new in frames else new

    def _answer_grown(self, frames: Mapping[Key, FrameState], source: Key, key: Key) -> FrameState:
        """Ask about a new window, given the mask known there and a click at its core."""
        known = self._known_low_res(frames, key)
        cell = np.unravel_index(int(_smoothed(known).argmax()), known.shape)
        scale = np.asarray(self.size) / np.asarray(known.shape)
        point = np.asarray(key) + (np.asarray(cell) + 0.5) * scale - 0.5
        index = self.image.volume.grid.mm_to_index(self.lattice.index_to_mm(point))
        alike = self.image.embedded(source, frames[source].statistics).statistics
        fresh = FrameState(logits=known, statistics=alike)
        return answer(self.image, key, fresh.with_click(index, True))


def _shared(start: float, n: int) -> int:
    """Round the start of a window of `n` voxels to where windows of other objects start as well."""
    step = max(n // SHARED_PARTS, 1)
    return round(start / step) * step


def _smoothed(logits: Tensor) -> Tensor:
    """Average over 3 x 3 x 3 cells, so that the largest value lies inside and not on a rim."""
    return F.avg_pool3d(logits[None, None], 3, stride=1, padding=1)[0, 0]
