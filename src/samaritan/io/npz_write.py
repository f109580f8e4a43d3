"""Write volumes as .npz files of the CVPR 2025 challenge: images, label maps, or whole cases with boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import GeometryError
from samaritan.io import npz
from samaritan.io.files import check_written, replacing
from samaritan.io.npz_prompts import SliceBox
from samaritan.io.options import ReadOptions
from samaritan.volume import LabelMap, Volume

Array = npt.NDArray[Any]

_ABLE = ".nii.gz, .nrrd or .mha"


def write(volume: Volume, path: Path) -> None:
    """Write an image as `imgs`, a label map as `segs`; with spacing, affine and names.

    Raises:
        GeometryError: if its axes do not run as (z, y, x), or it has channels.
    """
    name = "segs" if isinstance(volume, LabelMap) else "imgs"
    _save(path, volume, {name: volume.array, **_names(volume)})


def write_case(
    path: Path, image: Volume, labels: LabelMap | None, boxes: Sequence[SliceBox] | None
) -> None:
    """Write a case as the challenge hands it out: `imgs`, `gts`, `spacing` and `boxes`.

    Boxes are stored as a list of dictionaries, which the challenge's programs expect.

    Args:
        path: the file, complete or not at all.
        image: with axes (z, y, x).
        labels: on the same grid; None leaves `gts` out.
        boxes: one for each label in ascending order; None where boxes are a bad prompt.
    """
    arrays: dict[str, Any] = {"imgs": image.array}
    if labels is not None:
        arrays |= {"gts": labels.array, **_names(labels)}
    if boxes is not None:
        told = np.empty(len(boxes), object)
        told[:] = [box.to_dict() for box in boxes]
        arrays["boxes"] = told
    _save(path, image, arrays)


def _save(path: Path, volume: Volume, arrays: dict[str, Any]) -> None:
    grid = volume.grid
    if volume.array.ndim != 3:
        raise GeometryError(
            f"{path}: an .npz file holds one channel, got {volume.n_channels}. Write {_ABLE}, or one channel"
        )
    if grid.unit == "mm":
        if grid.orientation != npz.ORIENTATION:
            raise GeometryError(
                f"{path}: axes of an .npz file run z, y, x (orientation {npz.ORIENTATION}), got "
                f"{grid.orientation}. Write {_ABLE}, or volume.reorient({npz.ORIENTATION!r})"
            )
        arrays |= {"spacing": np.asarray(grid.spacing_mm), "affine": grid.affine}
    with replacing(path) as (new,):
        with new.open("wb") as file:
            np.savez_compressed(file, **arrays)
        names = tuple(arrays)
        found, _ = npz.grid_of(new, volume.shape, names, ReadOptions())
        if grid.unit == "mm":
            check_written(found, grid, path, _ABLE)


def _names(volume: Volume) -> dict[str, Array]:
    names = volume.names if isinstance(volume, LabelMap) else {}
    if not names:
        return {}
    return {
        "label_values": np.array([*names], np.int64),
        "label_names": np.array([*names.values()]),
    }
