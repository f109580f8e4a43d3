"""What stored numbers mean: scaling, byte order, colours, complex parts, labels, non-finite values."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, FileError, UnsupportedFormat
from samaritan.io.options import ComplexPart, Frame
from samaritan.volume import Volume, smallest_label_dtype

Array = npt.NDArray[Any]

_INTEGERS = (np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64)


def native(array: Array) -> Array:
    """Bring to this machine's byte order, in place."""
    if array.dtype.isnative:
        return array
    return array.byteswap(inplace=True).view(array.dtype.newbyteorder())


def rescale(array: Array, slope: float, intercept: float) -> Array:
    """Compute `slope * array + intercept`.

    Integers stay integers where slope and intercept are whole numbers; else the result is float32
    (float64 for stored 32-bit integers and doubles, which float32 cannot hold).
    """
    if slope == 1 and intercept == 0:
        return array
    if array.dtype.kind in "ui" and float(slope).is_integer() and float(intercept).is_integer():
        return _rescale_integers(array, int(slope), int(intercept))
    scaled = array.astype(np.result_type(array.dtype, np.float32), order="K")
    scaled *= slope
    scaled += intercept
    return scaled


def _rescale_integers(array: Array, slope: int, intercept: int) -> Array:
    ends = [int(array.min()) * slope + intercept, int(array.max()) * slope + intercept]
    kind = integer_dtype(min(ends), max(ends))
    if kind is None:
        return array.astype(np.float64) * slope + intercept
    if kind.itemsize < array.dtype.itemsize:
        kind = np.dtype(f"i{array.dtype.itemsize}")
    same = kind.itemsize == array.dtype.itemsize and array.flags.writeable
    out = array.view(kind) if same else np.empty_like(array, dtype=kind, order="K")
    for k in range(array.shape[-1]):
        out[..., k] = (array[..., k].astype(np.int64) * slope + intercept).astype(kind)
    return out


def integer_dtype(low: int, high: int) -> np.dtype[Any] | None:
    """Choose the smallest usual integer type that holds both, or None."""
    for kind in _INTEGERS:
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return None


def storable(array: Array, known: Container[str], path: Path, what: str) -> Array:
    """Bring voxels to a type that a format knows by name, without changing a value.

    Raises:
        UnsupportedFormat: if there is none.
    """
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype.name not in known:
        raise UnsupportedFormat(f"{path}: {what} is not written with voxels of type {array.dtype}")
    return array


def real_part(array: Array, part: ComplexPart, path: Path) -> Array:
    """Take what was asked of complex voxels.

    Raises:
        UnsupportedFormat: if nothing was asked.
    """
    if array.dtype.kind != "c":
        return array
    if part is None:
        raise UnsupportedFormat(
            f"{path} holds complex voxels ({array.dtype}). "
            'Pass complex_part="magnitude" (or "real", "imag") to choose what to read'
        )
    if part == "magnitude":
        return np.asarray(np.abs(array))
    return np.array(np.real(array) if part == "real" else np.imag(array), order="K")


def color_channels(array: Array) -> tuple[Array, tuple[str, ...]]:
    """Take a structured (R, G, B[, A]) array of any shape apart into a last axis of channels: a view."""
    names = array.dtype.names or ()
    if not names:
        return array, ()
    flat = array.ravel(order="K").view(np.uint8).reshape(len(names), *array.shape, order="F")
    return np.moveaxis(flat, 0, -1), tuple(name.upper() for name in names)


def choose_frame(count: int, frame: Frame, path: Path, what: str = "frames") -> int | None:
    """Decide which frame to read: an index, or None for all of them.

    Raises:
        FileError: if there are several and none was chosen, or there is no such frame.
    """
    if frame == "all":
        return None
    if frame is None:
        if count == 1:
            return 0
        raise FileError(
            f"{path} holds {count} {what}. Pass frame=0 to frame={count - 1} to pick one, "
            'or frame="all" to read them as channels (--frame or --channel of samaritan segment)'
        )
    if not 0 <= frame < count:
        raise FileError(f"{path} has no frame {frame}: it holds {count} {what}, counted from 0")
    return frame


def whole_numbers(array: Array, path: Path) -> Array:
    """Make integers of an array of labels.

    Raises:
        FileError: if a value is not a whole number, or negative.
    """
    if array.dtype.kind in "bu":
        return array.view(np.uint8) if array.dtype == np.bool_ else array
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise CorruptFile(f"{path}: labels must be whole numbers, but it holds NaN or infinity")
    if low < 0:
        raise FileError(f"{path}: labels must not be negative, but it holds {low}")
    if high >= 2**32:
        raise FileError(f"{path}: the label {high} is larger than a label can be (2^32 - 1)")
    if array.dtype.kind == "i":
        return array
    labels = array.astype(smallest_label_dtype(int(high)), order="K")
    if not np.array_equal(labels, array):
        odd = array[labels != array][0]
        raise FileError(
            f"{path}: labels must be whole numbers, but it holds {odd:g}. "
            "Is it an image or a probability map? Read it with samaritan.read and threshold it"
        )
    return labels


def count_non_finite(array: Array) -> int:
    """Count NaN and infinite values, slab by slab."""
    if array.dtype.kind != "f":
        return 0
    axis = int(np.argmax(array.strides)) if array.ndim else 0
    planes = np.moveaxis(array, axis, 0)
    return sum(int(plane.size - np.isfinite(plane).sum()) for plane in planes)


def non_finite_note(array: Array) -> tuple[str, ...]:
    """Note for people if an array holds NaN or infinity."""
    count = count_non_finite(array)
    if not count:
        return ()
    return (
        f"{count} of {array.size} values are NaN or infinite; samaritan.io.finite replaces them.",
    )


def finite(volume: Volume, *, fill: float = 0.0) -> Volume:
    """Replace NaN and infinite values by `fill`; the same volume if there are none."""
    if not count_non_finite(volume.array):
        return volume
    array = np.where(np.isfinite(volume.array), volume.array, np.asarray(fill, volume.dtype))
    return replace(volume, array=array)
