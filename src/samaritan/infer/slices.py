"""Objects of 2D models: each slice that holds a prompt is a frame of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from samaritan.errors import PromptError
from samaritan.infer import focus
from samaritan.infer.engine import OpenImage
from samaritan.infer.events import Box, Click, Prompt, Refine, StartFrom
from samaritan.infer.frames import FrameState, Key, answer, prior_logits, upsample
from samaritan.infer.objects import ObjectState, Patch, patch_on
from samaritan.transforms import FocusPreprocess
from samaritan.volume import Volume


def apply(image: OpenImage, state: ObjectState, prompt: Prompt) -> ObjectState:
    """Give one prompt to an object."""
    if isinstance(prompt, StartFrom):
        return ObjectState(base=prompt.to_mask())
    frames = dict(state.frames)
    keys = list(_keys(image, state, prompt))
    for done, key in enumerate(keys):
        image.engine.progress("slices", done, len(keys))
        place, frame = _answered(image, state, key, prompt)
        for old in [known for known in frames if known[:2] == key]:
            del frames[old]
        frames[place] = frame
    return replace(state, frames=frames)


def patches(image: OpenImage, state: ObjectState) -> Iterator[Patch]:
    """Give the probability of the object in each slice, on the image's grid."""
    for key, frame in state.frames.items():
        grid = image.frame_grid(key)
        rows, columns, _ = grid.shape
        assert frame.logits is not None
        values = upsample(frame.logits, (rows, columns)).sigmoid().numpy()[:, :, None]
        across = image.volume.grid.window(*_one_slice(image, key))
        patch = patch_on(across, Volume(values, grid))
        if patch is not None:
            start = [int(v) for v in patch.start]
            start[key[0]] = key[1]
            yield replace(patch, start=(start[0], start[1], start[2]))


def _one_slice(image: OpenImage, key: Key) -> tuple[list[int], list[int]]:
    start, shape = [0, 0, 0], list(image.volume.shape)
    start[key[0]], shape[key[0]] = key[1], 1
    return start, shape


def _keys(image: OpenImage, state: ObjectState, prompt: Prompt) -> Iterator[Key]:
    """Name the slices that a prompt is about."""
    axis = image.axis
    if isinstance(prompt, Click):
        yield (axis, min(max(round(prompt.index[axis]), 0), image.volume.shape[axis] - 1))
    elif isinstance(prompt, Box):
        first, last = round(prompt.start[axis]), round(prompt.stop[axis])
        for index in range(max(first, 0), min(max(last, first + 1), image.volume.shape[axis])):
            yield (axis, index)
    elif isinstance(prompt, Refine):
        drawn = {key[:2] for key in state.frames}
        if state.base is not None:
            others = tuple(a for a in range(3) if a != axis)
            drawn |= {(axis, int(i)) for i in np.flatnonzero(state.base.any(axis=others))}
        if not drawn:
            raise PromptError(
                f"{prompt.object!r} has no mask to refine: start from one, or click first"
            )
        yield from sorted(drawn)


def _answered(
    image: OpenImage, state: ObjectState, key: Key, prompt: Prompt
) -> tuple[Key, FrameState]:
    """Answer a prompt on a slice; give also where the answer lies: all over the slice, or in a window."""
    focused = isinstance(image.engine.preprocess, FocusPreprocess)
    key, frame = next((f for f in state.frames.items() if f[0][:2] == key), (key, FrameState()))
    base = state.base if frame.logits is None else None
    if base is not None and not np.take(base, key[1], axis=key[0]).any():
        base = None
    if base is not None and not focused:
        frame = replace(frame, logits=prior_logits(image, key, base))
    if isinstance(prompt, Click):
        frame = frame.with_click(np.asarray(prompt.index, float), prompt.positive)
    elif isinstance(prompt, Box):
        start, stop = np.asarray(prompt.start, float), np.asarray(prompt.stop, float)
        start[key[0]], stop[key[0]] = key[1], key[1] + 1
        frame = replace(frame, box=(start, stop))
    mask_only = isinstance(prompt, Refine)
    if focused:
        return focus.answered(image, key, frame, mask_only=mask_only, base=base)
    return key, answer(image, key, frame, mask_only=mask_only)
