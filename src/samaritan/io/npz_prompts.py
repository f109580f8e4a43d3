"""What the CVPR 2025 challenge tells a model in its .npz files: boxes, clicks, and the answer before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile
from samaritan.io.npz_arrays import array_names, read_array

Index = tuple[int, int, int]

_SIDES = (
    "z_min", "z_max", "z_mid", "z_mid_x_min", "z_mid_y_min", "z_mid_x_max", "z_mid_y_max",
)  # fmt: skip


@dataclass(frozen=True)
class SliceBox:
    """A box around an object: how far it reaches along z, and a rectangle on one slice in its middle.

    All ends belong to it, as in the files.
    """

    z_min: int
    z_max: int
    z_mid: int
    z_mid_x_min: int
    z_mid_y_min: int
    z_mid_x_max: int
    z_mid_y_max: int

    @property
    def start(self) -> Index:
        """First voxel (z, y, x) of the upright box."""
        return self.z_min, self.z_mid_y_min, self.z_mid_x_min

    @property
    def stop(self) -> Index:
        """One past the last voxel (z, y, x)."""
        return self.z_max + 1, self.z_mid_y_max + 1, self.z_mid_x_max + 1

    def to_dict(self) -> dict[str, int]:
        """Describe it as the files do."""
        return {name: int(getattr(self, name)) for name in _SIDES}

    @classmethod
    def around(cls, mask: npt.NDArray[np.bool_], shift: int = 0) -> SliceBox:
        """Draw the box of a mask (z, y, x) that is not empty, as the challenge does.

        The slice is that of the middle voxel in array order; on it the rectangle is widened.

        Args:
            mask: where the object is.
            shift: 0 to 5: pixels of a slice of 256 by which the rectangle is wider on every side.

        Source: JunMa11/CVPR-MedSegFMCompetition, get_boxes.py, as of May 2025.
        """
        counts = np.cumsum(np.count_nonzero(mask, axis=(1, 2)))
        slices = np.flatnonzero(np.diff(counts, prepend=0))
        middle = int(np.searchsorted(counts, counts[-1] // 2, side="right"))
        rows, columns = (np.flatnonzero(mask[middle].any(axis=axis)) for axis in (1, 0))
        height, width = mask.shape[1:]
        dy, dx = int(shift * height / 256), int(shift * width / 256)
        return cls(
            int(slices[0]),
            int(slices[-1]),
            middle,
            max(0, int(columns[0]) - dx),
            max(0, int(rows[0]) - dy),
            min(width - 1, int(columns[-1]) + dx),
            min(height - 1, int(rows[-1]) + dy),
        )


@dataclass(frozen=True)
class Interactions:
    """What a file holds beside its image, for each class in ascending order.

    Attributes:
        boxes: None where boxes are no prompt for this case.
        clicks: of each class (voxel (z, y, x), whether on the object), in the order of clicking where the
            file tells it, else those on the object first.
    """

    boxes: tuple[SliceBox, ...] | None = None
    clicks: tuple[tuple[tuple[Index, bool], ...], ...] = ()


def read_interactions(path: Path) -> Interactions:
    """Read boxes and clicks, executing nothing.

    Raises:
        CorruptFile: if they are not of the form that the challenge writes.
    """
    names = array_names(path)
    boxes = clicks = None
    if "boxes" in names:
        boxes = tuple(
            _box(path, number, one) for number, one in enumerate(_items(path, "boxes"), 1)
        )
    if "clicks" in names:
        orders: Sequence[Any] = _items(path, "clicks_order") if "clicks_order" in names else ()
        every = _items(path, "clicks")
        clicks = tuple(
            _clicks(path, number, one, orders[number - 1] if len(orders) == len(every) else None)
            for number, one in enumerate(every, 1)
        )
    return Interactions(boxes, clicks or ())


def _items(path: Path, name: str) -> list[Any]:
    """The items of an array of objects: lists of lists of one length come as arrays of two axes."""
    found = read_array(path, name)
    if found.ndim == 0:
        inner = found.item()
        return inner if isinstance(inner, list) else [inner]
    return [one if not isinstance(one, np.ndarray) else one.tolist() for one in found]


def _box(path: Path, number: int, told: Any) -> SliceBox:
    if not isinstance(told, Mapping):
        raise CorruptFile(f"{path}: box {number} is no dictionary of {', '.join(_SIDES)}")
    values = {side: told.get(side) for side in _SIDES}
    wrong = [side for side, value in values.items() if not _is_index(value)]
    if wrong:
        raise CorruptFile(f"{path}: box {number} has no whole number for {', '.join(wrong)}")
    box = SliceBox(**{side: int(value) for side, value in values.items() if value is not None})
    if any(a >= b for a, b in zip(box.start, box.stop, strict=True)):
        raise CorruptFile(f"{path}: box {number} ends before it begins: {box.to_dict()}")
    return box


def _clicks(path: Path, number: int, told: Any, order: Any) -> tuple[tuple[Index, bool], ...]:
    if not isinstance(told, Mapping) or not {"fg", "bg"} <= told.keys():
        raise CorruptFile(f"{path}: clicks of class {number} are no dictionary of fg and bg")
    left = {kind: [_index(path, number, at) for at in _list(told[kind])] for kind in ("fg", "bg")}
    words = [word for word in _list(order) if word in ("fg", "bg")] if order is not None else []
    if any(words.count(kind) != len(left[kind]) for kind in left):
        words = ["fg"] * len(left["fg"]) + ["bg"] * len(left["bg"])
    return tuple((left[word].pop(0), word == "fg") for word in words)


def _list(value: Any) -> list[Any]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else []


def _index(path: Path, number: int, at: Any) -> Index:
    values = _list(at)
    if len(values) != 3 or not all(_is_index(value) for value in values):
        raise CorruptFile(f"{path}: a click of class {number} is no voxel (z, y, x)")
    z, y, x = map(int, values)
    return z, y, x


def _is_index(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        return False
    return bool(0 <= value < 2**31 and value == int(value))
