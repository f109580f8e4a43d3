"""Clicks on a mask that one started from: what they point at is mended, and the rest stays as it was.

An automatic label map is right nearly everywhere. A model that is clicked on draws the whole object anew, on
voxels of its own; of what it says otherwise than the map, only the part that holds the click is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from samaritan.infer.events import Click, Prompt, StartFrom
from samaritan.infer.objects import Mask, Patch

SHARE = 0.35
"""A part ends where what differs is thinner than this share of its depth at the click."""

CORNERS = 1.75
"""So many times further than it was eroded a part grows back, into its corners."""


def repairs(prompts: Sequence[Prompt]) -> tuple[Click, ...]:
    """Tell the clicks that mend a mask; none where a box or refinement draws the object anew."""
    if not prompts or not isinstance(prompts[0], StartFrom):
        return ()
    clicks = tuple(p for p in prompts[1:] if isinstance(p, Click))
    return clicks if len(clicks) == len(prompts) - 1 else ()


def repaired(
    base: Mask,
    patches: Iterable[Patch],
    clicks: Sequence[Click],
    others: Mapping[str, Mask],
    spacing: Sequence[float],
) -> list[Patch]:
    """Keep of patches what clicks point at.

    Args:
        base: the mask that one started from.
        patches: what the model says, all clicks known.
        clicks: in order.
        others: masks of other objects, by name; they stay, but where a click on this object lies in one,
            that one may lose what belongs to it.
        spacing: of the voxels, in mm.

    Returns:
        A patch for each that changes something, its `covered` being all that changes.
    """
    at = [tuple(int(v) for v in np.rint(click.index)) for click in clicks]
    taken = [mask for mask in others.values() if not _holds(mask, at, clicks)]
    found = []
    for patch in patches:
        where = patch.where
        inside, before = patch.probability > 0.5, base[where]
        if patch.covered is not None:
            inside = np.where(patch.covered, inside, before)
        gained = inside & ~before
        for mask in taken:
            gained &= ~mask[where]
        lost = before & ~inside
        changed = np.zeros(inside.shape, bool)
        for click, index in zip(clicks, at, strict=True):
            local = tuple(i - s for i, s in zip(index, patch.start, strict=True))
            if all(0 <= i < n for i, n in zip(local, inside.shape, strict=True)):
                changed |= part_of(gained if click.positive else lost, local, spacing)
        if changed.any():
            sure = np.where(changed, patch.probability, np.float32(0))
            found.append(Patch(patch.start, sure, changed))
    return found


def part_of(differs: Mask, at: Sequence[int], spacing: Sequence[float]) -> Mask:
    """Find the part of what differs that holds a voxel, without what hangs on it by bridges or as a skin.

    >>> row = np.array([1, 1, 1, 0, 1], bool).reshape(5, 1, 1)
    >>> part_of(row, (1, 0, 0), (1, 1, 1)).ravel().tolist()
    [True, True, True, False, False]
    """
    from scipy import ndimage

    part = np.zeros(differs.shape, bool)
    if not differs[tuple(at)]:
        return part
    whole, _ = ndimage.label(differs, np.ones((3, 3, 3)))
    mine = int(whole[tuple(at)])
    box = ndimage.find_objects(whole, mine)[mine - 1]
    inner = np.pad(whole[box] == mine, 1)
    depth = ndimage.distance_transform_edt(inner, spacing)
    here = tuple(i - s.start + 1 for i, s in zip(at, box, strict=True))
    radius = SHARE * float(depth[here])
    cores, _ = ndimage.label(depth > radius, np.ones((3, 3, 3)))
    core = cores == cores[here]
    grown = ndimage.distance_transform_edt(~core, spacing) <= CORNERS * radius
    part[box] = (inner & grown)[1:-1, 1:-1, 1:-1]
    return part


def _holds(mask: Mask, at: Sequence[tuple[int, ...]], clicks: Sequence[Click]) -> bool:
    """Whether a click that adds lies in a mask."""
    return any(c.positive and bool(mask[i]) for c, i in zip(clicks, at, strict=True))
