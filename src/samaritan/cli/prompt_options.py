"""What is typed: points "[NAME=]i,j,k[:+|-]", boxes "[NAME=]i0,j0,k0,i1,j1,k1", windows "low,high"."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from samaritan.errors import PromptError

if TYPE_CHECKING:
    from samaritan.infer import Predictor

DEFAULT_OBJECT = "object"

_NUMBER = r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\s*"
_POINT = re.compile(
    rf"^(?:(?P<name>[^=]+)=)?(?P<at>{_NUMBER}(?:,{_NUMBER}){{1,2}})(?::(?P<sign>[+-]))?$"
)
_BOX = re.compile(
    rf"^(?:(?P<name>[^=]+)=)?(?P<at>{_NUMBER}(?:,{_NUMBER}){{3}}(?:(?:,{_NUMBER}){{2}})?)$"
)


@dataclass(frozen=True)
class TypedPoint:
    """A point as it was typed: two or three numbers."""

    at: tuple[float, ...]
    positive: bool
    object: str


@dataclass(frozen=True)
class TypedBox:
    """A box as it was typed: start and stop of two or three numbers each."""

    start: tuple[float, ...]
    stop: tuple[float, ...]
    object: str


def parse_point(text: str) -> TypedPoint:
    """Read "40,120,88", "40,120,88:-" or "liver=40,120,88:+".

    Raises:
        PromptError: if it is none of these.

    >>> parse_point("liver=40,120,88:-")
    TypedPoint(at=(40.0, 120.0, 88.0), positive=False, object='liver')
    """
    found = _POINT.match(text.strip())
    if found is None:
        raise PromptError(
            f"point {text!r} is not understood: expected i,j,k in array order, then :+ (belongs to "
            "the object, the default) or :- (does not), such as 40,120,88:- or liver=40,120,88"
        )
    return TypedPoint(
        _numbers(found["at"]), found["sign"] != "-", (found["name"] or DEFAULT_OBJECT).strip()
    )


def parse_box(text: str) -> TypedBox:
    """Read "i0,j0,k0,i1,j1,k1", or "i0,j0,i1,j1" for a flat image; half-open.

    Raises:
        PromptError: if it is neither.

    >>> parse_box("10,20,50,60")
    TypedBox(start=(10.0, 20.0), stop=(50.0, 60.0), object='object')
    """
    found = _BOX.match(text.strip())
    if found is None:
        raise PromptError(
            f"box {text!r} is not understood: expected the first voxel and one past the last voxel in array "
            "order, i0,j0,k0,i1,j1,k1 (or i0,j0,i1,j1 for a flat image)"
        )
    numbers = _numbers(found["at"])
    half = len(numbers) // 2
    return TypedBox(numbers[:half], numbers[half:], (found["name"] or DEFAULT_OBJECT).strip())


def parse_pair(text: str, what: str) -> tuple[float, float]:
    """Read "low,high".

    Raises:
        PromptError: if it is not two numbers, the second above the first.
    """
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not low < high:
        raise PromptError(f"{what} {text!r} is not understood: expected low,high such as -160,240")
    return low, high


def cut_intensities(predictor: Predictor, window: tuple[float, float] | None) -> None:
    """Let a 3D model cut intensities to a window; 2D models take it whenever they open an image."""
    from samaritan.transforms import WindowPreprocess

    if window is not None and isinstance(predictor.preprocess, WindowPreprocess):
        predictor.preprocess = replace(predictor.preprocess, clamp=window, clamp_modalities=())


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))
