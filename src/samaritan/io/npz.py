"""Images and labels in .npz files: the CVPR 2025 challenge's volumes, and the pictures of Synapse slices.

Arrays of volumes are (z, y, x). Such files tell a spacing but no orientation: slices are taken to run from
the feet to the head, rows to the back and columns to the patient's left, as ITK's arrays do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, GeometryError, UnsupportedFormat
from samaritan.geometry import Grid
from samaritan.io.npz_arrays import array_names, read_array
from samaritan.io.options import ReadOptions
from samaritan.io.values import choose_frame, non_finite_note
from samaritan.volume import Volume

Array = npt.NDArray[Any]

ORIENTATION = "SPL"
"""Where the axes (z, y, x) of a file without an affine are taken to point."""

IMAGES = ("imgs", "image")
LABELS = ("gts", "segs", "label")
"""Names of arrays, in the order in which they are looked for."""

_SPACING_TOLERANCE = 1e-3


def read(path: Path, options: ReadOptions) -> Volume:
    """Read the image of a file, or its labels if these are asked for or there is nothing else.

    Raises:
        UnsupportedFormat: if none of the known arrays is there.
        CorruptFile, TooLarge, GeometryError: naming the file.
    """
    names = array_names(path)
    wanted = LABELS if options.indices else (*IMAGES, *LABELS)
    name = next((name for name in wanted if name in names), None)
    if name is None:
        raise UnsupportedFormat(
            f"{path} holds the arrays {', '.join(names) or 'none'}, but none of {', '.join(wanted)}. Other "
            "arrays have no meaning here: make a samaritan.Volume of the array and a samaritan.Grid"
        )
    choose_frame(1, options.frame, path)
    array = read_array(path, name, max_bytes=options.max_bytes)
    if array.dtype.kind not in "buif":
        raise CorruptFile(f"{path}: {name} holds {array.dtype}, expected numbers")
    meta: dict[str, Any] = {"source": str(path), "format": "NPZ", "dtype": array.dtype.name}
    meta |= {"frames": 1, "array": name, "arrays": names}
    if array.ndim == 2:
        return Volume(array[:, :, None], Grid.pixels(array.shape), meta=meta)
    if array.ndim != 3 or not array.size:
        raise CorruptFile(
            f"{path}: {name} has shape {array.shape}, expected (z, y, x), or (rows, columns) of a picture"
        )
    if name in LABELS:
        meta["label_names"] = label_names(path)
    grid, notes = grid_of(path, array.shape, names, options)
    return Volume(array, grid, (), meta, (*notes, *non_finite_note(array)))


def grid_of(
    path: Path, shape: tuple[int, ...], names: tuple[str, ...], options: ReadOptions
) -> tuple[Grid, list[str]]:
    """Where the voxels lie, and what is not known of that.

    Raises:
        GeometryError: if the spacing or affine cannot be used.
    """
    if "spacing" not in names:
        return Grid.pixels(shape), ["The file tells no spacing: voxels are taken as pixels."]
    spacing = _numbers(path, "spacing", 3)
    if options.spacing_order == "xyz":
        spacing = spacing[::-1]
    try:
        grid = Grid.from_spacing(shape, spacing.tolist(), orientation=ORIENTATION)
        if "affine" not in names:
            return grid, _notes(spacing)
        placed = Grid(shape, _numbers(path, "affine", 16).reshape(4, 4))  # type: ignore[arg-type]
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    if not np.allclose(placed.spacing_mm, spacing, rtol=_SPACING_TOLERANCE):
        return grid, ["Its affine does not agree with its spacing, and was not used."]
    return placed, []


def label_names(path: Path) -> dict[int, str]:
    """Names of labels: those that we wrote, or the text prompts of the challenge."""
    names = array_names(path)
    if {"label_values", "label_names"} <= set(names):
        values, words = (read_array(path, n) for n in ("label_values", "label_names"))
        if values.dtype.kind not in "ui" or words.dtype.kind != "U" or len(values) != len(words):
            raise CorruptFile(f"{path}: label_values and label_names do not go together")
        return dict(zip(values.tolist(), words.tolist(), strict=True))
    if "text_prompts" not in names:
        return {}
    told = read_array(path, "text_prompts")
    found = told.flat[0] if told.dtype == object and told.size == 1 else {}
    if not isinstance(found, dict):
        return {}
    texts = {str(key): text for key, text in found.items() if isinstance(key, str | int)}
    return {int(k): text for k, text in texts.items() if k.isdigit() and isinstance(text, str)}


def _notes(spacing: Array) -> list[str]:
    notes = [
        "The file tells no orientation: its axes are taken as z, y, x: slices run from the feet to the "
        "head, rows to the back, columns to the left."
    ]
    z, y, x = spacing
    if np.isclose(z, y) and not np.isclose(y, x):
        notes.append(
            f"Its spacing {z:g}, {y:g}, {x:g} is read as z, y, x, but looks like x, y, z: then read it with "
            'spacing_order="xyz".'
        )
    return notes


def _numbers(path: Path, name: str, count: int) -> Array:
    found = read_array(path, name)
    if found.dtype.kind not in "uif" or found.size != count:
        raise CorruptFile(
            f"{path}: {name} holds {found.size} values of type {found.dtype}, expected {count} numbers"
        )
    return found.astype(float).reshape(-1)
