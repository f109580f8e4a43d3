"""Flat masks as lengths of runs, in the layout and the compressed spelling of COCO."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile

BoolArray = npt.NDArray[np.bool_]

_BITS = 5
_SIGN, _MORE, _FIRST = 0x10, 0x20, 48


@dataclass(frozen=True)
class RunLengths:
    """One mask of (rows, columns) as lengths of runs outside and inside by turns, first outside.

    Runs go down the columns, the left column first, as in COCO.

    Attributes:
        shape: rows and columns.
        counts: lengths of the runs; they add up to rows x columns. The first may be 0.

    Raises:
        CorruptFile: if the runs do not fill the shape exactly.

    >>> runs = RunLengths.from_mask(np.array([[0, 1, 1], [0, 0, 1]], bool))
    >>> runs.counts, runs.area
    ((2, 1, 1, 2), 3)
    """

    shape: tuple[int, int]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        rows, columns = self.shape
        if min(self.counts, default=0) < 0 or sum(self.counts) != rows * columns:
            raise CorruptFile(
                f"runs that add up to {sum(self.counts)} (smallest {min(self.counts, default=0)}) do not "
                f"fill a mask of {rows} x {columns}: expected lengths of 0 or more, {rows * columns} in all"
            )

    @classmethod
    def from_mask(cls, mask: BoolArray) -> Self:
        """Encode one mask (rows, columns)."""
        return cls.from_window(mask, (0, 0), (mask.shape[0], mask.shape[1]))

    @classmethod
    def from_window(
        cls, window: BoolArray, corner: tuple[int, int], shape: tuple[int, int]
    ) -> Self:
        """Encode a mask that is empty outside of a window, whose first row and column are `corner`."""
        return cls(shape, _counts(window, corner, shape))

    @classmethod
    def from_coco(cls, shape: Sequence[int], text: str) -> Self:
        """Decode COCO's compressed spelling.

        Raises:
            CorruptFile: if the text is cut off, or its runs do not fill the shape.
        """
        return cls((int(shape[0]), int(shape[1])), tuple(_undo_differences(_read_numbers(text))))

    @property
    def area(self) -> int:
        """Number of pixels inside."""
        return sum(self.counts[1::2])

    def mask(self) -> BoolArray:
        """Decode to a boolean array (rows, columns)."""
        inside = np.arange(len(self.counts)) % 2 == 1
        return np.repeat(inside, self.counts).reshape(self.shape[::-1]).T

    def to_coco(self) -> str:
        """Spell the runs as COCO compresses them.

        From the fourth run on the difference to the run before the last is written. Numbers are cut
        into groups of five bits, lowest first; each group is one character from "0" on, with a bit for
        "more follows"; the sign is the highest bit of the last group.

        Source: the format of cocodataset/cocoapi, common/maskApi.c (rleToString).
        """
        earlier = (0, 0, 0, *self.counts[1:-2])
        differences = [n - e for n, e in zip(self.counts, earlier, strict=False)]
        return "".join(_spell(number) for number in differences)

    def to_dict(self, *, compressed: bool) -> dict[str, Any]:
        """Describe the mask in JSON types, under COCO's names: size (rows, columns) and counts."""
        counts = self.to_coco() if compressed else list(self.counts)
        return {"size": list(self.shape), "counts": counts}


def _counts(window: BoolArray, corner: tuple[int, int], shape: tuple[int, int]) -> tuple[int, ...]:
    """Measure the runs of a mask that is empty outside of a window."""
    rows, columns = window.shape
    fenced = np.zeros((columns, rows + 2), bool)
    fenced[:, 1:-1] = window.T
    column, row = np.nonzero(fenced[:, 1:] != fenced[:, :-1])
    edges = (column + corner[1]) * shape[0] + row + corner[0]
    again = (
        edges[1:] == edges[:-1]
    )  # a run goes on from the foot of one column to the head of the next
    through = np.concatenate([again, [False]]) | np.concatenate([[False], again])
    whole = shape[0] * shape[1]
    ends = np.concatenate([[0], edges[~through[: len(edges)]]])
    if ends[-1] < whole or len(ends) == 1:
        ends = np.append(ends, whole)
    return tuple(np.diff(ends).tolist())


def _spell(number: int) -> str:
    """Write one whole number in groups of five bits."""
    text = ""
    more = True
    while more:
        group = number & (_MORE - 1)
        number >>= _BITS
        more = number != (-1 if group & _SIGN else 0)
        text += chr(_FIRST + (group | _MORE if more else group))
    return text


def _read_numbers(text: str) -> Iterable[int]:
    """Read whole numbers from groups of five bits."""
    number, shift = 0, 0
    for character in text:
        group = ord(character) - _FIRST
        if not 0 <= group < 2 * _MORE:
            raise CorruptFile(
                f"compressed runs hold the character {character!r}; expected '0' to 'o'"
            )
        number |= (group & (_MORE - 1)) << shift
        shift += _BITS
        if not group & _MORE:
            yield number - (1 << shift) if group & _SIGN else number
            number, shift = 0, 0
    if shift:
        raise CorruptFile("compressed runs end in the middle of a number: the text was cut off")


def _undo_differences(numbers: Iterable[int]) -> list[int]:
    """Turn differences to the run before the last back into lengths."""
    counts: list[int] = []
    for place, number in enumerate(numbers):
        counts.append(number + counts[place - 2] if place > 2 else number)
    return counts
