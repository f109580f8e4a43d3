"""The files of a case as volumes: what `samaritan.io` reads, and Synapse's .npy.h5."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Case, Manifest
from samaritan.errors import CorruptFile, FileError, GridMismatch
from samaritan.geometry import Grid
from samaritan.io import read, read_labels
from samaritan.io.files import check_need, guard
from samaritan.io.hdf5 import h5py_for
from samaritan.io.values import whole_numbers
from samaritan.volume import LabelMap, Volume

Array = npt.NDArray[Any]
AnyVolume = TypeVar("AnyVolume", bound=Volume)

_ARRAYS = (".h5", ".hdf5")


def case_image(manifest: Manifest, case: Case) -> Volume:
    """Read the image of a case, with all its channels; a slice comes on its place in the volume.

    Raises:
        FileError: if a file is missing or damaged.
        GridMismatch: if its channels lie on different grids.
    """
    volumes = [read_image(manifest.path(name)) for name in case.images]
    first = volumes[0]
    for name, other in zip(case.images[1:], volumes[1:], strict=True):
        first.grid.require_same(other.grid, what=f"channels {case.images[0]} and {name}")
    known = manifest.group_of(case).channels
    if len(volumes) == 1 and first.array.ndim == 4 and len(known) == first.n_channels:
        first = replace(first, channels=known)
    if len(volumes) > 1:
        if any(v.array.ndim == 4 for v in volumes):
            raise FileError(
                f"case {case.id!r} has a file for each channel, but one of them has several"
            )
        channels = known if len(known) == len(volumes) else ()
        first = replace(first, array=np.stack([v.array for v in volumes], -1), channels=channels)
    return placed(case, first)


def case_labels(manifest: Manifest, case: Case) -> list[LabelMap]:
    """Read the label files of a case, each as a label map; empty if it has none.

    Masks of objects become 0 and 1: whatever is above zero belongs to the object.
    """
    found = [read_label_file(manifest.path(name)) for name in case.labels]
    if case.label_kind == "masks":
        found = [replace(m, array=(m.array > 0).astype(np.uint8)) for m in found]
    return [placed(case, m) for m in found]


def placed(case: Case, picture: AnyVolume) -> AnyVolume:
    """Put a slice on the grid that it was cut from; other volumes come back as they are.

    Raises:
        GridMismatch: if its size is not that of the slice.
    """
    if case.place is None:
        return picture
    from samaritan.data.places import slice_grid

    grid = slice_grid(case.place)
    if picture.shape != grid.shape:
        raise GridMismatch(
            f"case {case.id!r} is a picture of {picture.shape[:2]} pixels, but its slice of "
            f"{case.place.volume!r} has {grid.shape[:2]}: prepare the slices again"
        )
    return replace(picture, grid=grid)


def read_image(path: Path) -> Volume:
    """Read an image file or DICOM folder; files of several frames give channels."""
    if path.name.lower().endswith(_ARRAYS):
        return _read_array(path, "image")
    if path.name.lower().endswith((".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")):
        return read(path, frame="all")
    return read(path)


def read_label_file(path: Path) -> LabelMap:
    """Read a label map, also from .npy.h5.

    Raises:
        FileError: if it does not hold whole numbers.
    """
    if path.name.lower().endswith(_ARRAYS):
        drawn = _read_array(path, "label")
        return LabelMap(whole_numbers(drawn.array, path), drawn.grid, (), drawn.meta)
    return read_labels(path)


def _read_array(path: Path, name: str) -> Volume:
    if not path.is_file():
        raise FileError(f"{path} is missing")
    with guard(path):
        array, grid = _from_h5(path, name)
    if array.dtype.kind not in "buif":
        raise CorruptFile(f"{path}: {name} holds {array.dtype}, expected numbers")
    return Volume(array, grid, meta={"source": str(path), "dtype": array.dtype.name})


def _from_h5(path: Path, name: str) -> tuple[Array, Grid]:
    """Read (z, y, x); with an affine it is given back as (x, y, z), else as pages of pictures."""
    h5py = h5py_for("read Synapse volumes (.npy.h5)")
    with h5py.File(path, "r") as file:
        dataset = file[name]
        if len(dataset.shape) != 3:
            raise CorruptFile(f"{path}: {name} has shape {dataset.shape}, expected (z, y, x)")
        check_need(path, int(np.prod(dataset.shape)) * dataset.dtype.itemsize, None)
        array: Array = dataset[()]
        affine = file.attrs.get("affine")
    if affine is not None:
        array = array.transpose(2, 1, 0)
        return array, Grid(array.shape, affine)
    array = np.moveaxis(array, 0, 2)
    return array, Grid.pixels(array.shape)
