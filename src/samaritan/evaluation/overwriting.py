"""Objects of one label map as a published program writes them: later labels overwrite earlier ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.evaluation.asking import Answer
from samaritan.evaluation.targets import Mask, Target


@dataclass(frozen=True, eq=False)
class _Kept:
    """An answer without its mask, which is kept as bits."""

    target: Target
    answer: Answer
    bits: npt.NDArray[np.uint8]

    @property
    def mask(self) -> Mask:
        shape = self.answer.mask.shape
        flat = np.unpackbits(self.bits, count=int(np.prod(shape)))
        found: Mask = flat.reshape(shape).view(bool)
        return found


def overwritten(asked: Iterable[tuple[Target, Answer]]) -> Iterator[tuple[Target, Answer]]:
    """Take from each answer what answers of the same kind to later labels say.

    Args:
        asked: of one case, labels ascending; all answers are waited for.
    """
    kept = [_Kept(target, _without(answer), np.packbits(answer.mask)) for target, answer in asked]
    taken: dict[tuple[Any, ...], Mask] = {}
    left: list[npt.NDArray[np.uint8]] = []
    for one in reversed(kept):
        kind, mask = (one.answer.prompt, one.answer.clicks), one.mask
        before = taken.get(kind)
        left.append(np.packbits(mask if before is None else mask & ~before))
        taken[kind] = mask if before is None else mask | before
    for one, bits in zip(kept, reversed(left), strict=True):
        found = replace(one, bits=bits)
        yield found.target, replace(found.answer, mask=found.mask)


def _without(answer: Answer) -> Answer:
    """An answer whose mask takes no memory, but has its shape."""
    return replace(answer, mask=np.broadcast_to(np.zeros((), bool), answer.mask.shape))
