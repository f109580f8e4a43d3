"""Objects of small 3D models that look at one object at a time, through one cube."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from samaritan.errors import PromptError
from samaritan.infer import focus
from samaritan.infer.engine import OpenImage
from samaritan.infer.events import Box, Click, Prompt, Refine, StartFrom
from samaritan.infer.frames import FrameState, upsample
from samaritan.infer.objects import ObjectState, Patch, patch_on
from samaritan.volume import Volume


def apply(image: OpenImage, state: ObjectState, prompt: Prompt) -> ObjectState:
    """Give one prompt to an object."""
    if isinstance(prompt, StartFrom):
        return ObjectState(base=prompt.to_mask())
    key, frame = next(iter(state.frames.items()), ((), FrameState()))
    base = state.base if frame.logits is None else None
    if isinstance(prompt, Click):
        frame = frame.with_click(np.asarray(prompt.index, float), prompt.positive)
    elif isinstance(prompt, Box):
        box = np.asarray(prompt.start, float), np.asarray(prompt.stop, float)
        frame = replace(frame, box=box)
    elif frame.logits is None and (base is None or not base.any()):
        raise PromptError(
            f"{prompt.object!r} has no mask to refine: start from one, or click first"
        )
    if base is not None and not base.any():
        base = None
    only = isinstance(prompt, Refine)
    key, frame = focus.answered(image, key, frame, mask_only=only, base=base)
    return replace(state, frames={key: frame})


def patches(image: OpenImage, state: ObjectState, *, whole: bool = False) -> Iterator[Patch]:
    """Give the probability of the object on the image's grid, as far as it reaches, or all over the cube."""
    for key, frame in state.frames.items():
        grid = image.frame_grid(key)
        assert frame.logits is not None
        values = upsample(frame.logits, grid.shape).sigmoid().numpy()
        found = Volume(values, grid)
        covered = None
        if state.base is None and not whole:
            start, stop = _reach(values > 0.5)
            found = found.window(start, [b - a for a, b in zip(start, stop, strict=True)])
        elif state.base is not None:
            covered = Volume(np.ones(grid.shape, bool), grid)
        patch = patch_on(image.volume.grid, found, covered)
        if patch is not None:
            yield patch


def _reach(inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> tuple[list[int], list[int]]:
    """The box of what is marked, two voxels wider; a single voxel if nothing is."""
    if not inside.any():
        return [0, 0, 0], [1, 1, 1]
    first, last = focus.span(inside)
    return [max(int(a) - 2, 0) for a in first], [
        min(int(b) + 2, n) for b, n in zip(last, inside.shape, strict=True)
    ]
