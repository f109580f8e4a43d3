"""Synapse volumes as SAMed and TransUNet prepare them: .npz slices, .npy.h5 volumes, lists of both.

Source: hitachinsk/SAMed, preprocess/preprocess_data.py. Intensities are clipped to -125..275 and brought to
[0, 1]; axes go from (x, y, z) to (z, y, x); labels are renumbered by a table. There the geometry is dropped;
here spacing and affine are kept as attributes of the .npy.h5 file, which the published reader overlooks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Case, Manifest
from samaritan.data.reading import case_image, case_labels
from samaritan.errors import ConfigError
from samaritan.io.files import replacing
from samaritan.io.hdf5 import h5py_for

Array = npt.NDArray[Any]

SYNAPSE_LABELS: dict[int, int] = {1: 1, 2: 2, 3: 3, 4: 4, 6: 5, 7: 6, 8: 7, 11: 8}
"""Label of the abdomen challenge -> SAMed's label; all others become background."""

SYNAPSE_TEST = (8, 22, 38, 36, 32, 2, 29, 3, 1, 4, 25, 35)
"""Numbers of the published test cases, in the published order."""

SYNAPSE_TRAIN = (5, 6, 7, 9, 10, 21, 23, 24, 26, 27, 28, 30, 31, 33, 34, 37, 39, 40)
"""Numbers of the published training cases."""

LOW, HIGH = -125.0, 275.0
"""Hounsfield units that become 0 and 1."""


def synapse_intensity(values: Array) -> Array:
    """Clip Hounsfield units and bring them to [0, 1], float32.

    >>> [float(v) for v in synapse_intensity(np.array([-2000, -125, 75, 275, 900]))]
    [0.0, 0.0, 0.5, 1.0, 1.0]
    """
    clipped = np.clip(values.astype(np.float32), np.float32(LOW), np.float32(HIGH))
    scaled: Array = (clipped - np.float32(LOW)) / np.float32(HIGH - LOW)
    return scaled


def renumbered(labels: Array, table: Mapping[int, int] = SYNAPSE_LABELS) -> Array:
    """Replace label values by a table, float32 as published; values that are not in it become 0.

    >>> renumbered(np.array([11, 5, 6, 1])).tolist()
    [8.0, 0.0, 5.0, 1.0]
    """
    lookup = np.zeros(max(int(labels.max(initial=0)), *table) + 1, np.float32)
    for old, new in table.items():
        lookup[old] = new
    return lookup[labels]


def synapse_part(case: Case) -> str | None:
    """Tell the published part of a case by the four digits in its id, or None."""
    digits = re.findall(r"(?<!\d)\d{4}(?!\d)", case.id)
    number = int(digits[-1]) if digits else -1
    return "test" if number in SYNAPSE_TEST else "train" if number in SYNAPSE_TRAIN else None


def make_synapse(
    manifest: Manifest,
    out: Path,
    *,
    table: Mapping[int, int] | None = SYNAPSE_LABELS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Write `train_npz/`, `test_vol_h5/` and `lists/` as SAMed reads them.

    Cases that are in a part of the manifest stay in it ("train", else test); of others the number in the
    id says which of the 18 and 12 published cases they are.

    Args:
        manifest: of CT volumes with label maps.
        out: a folder.
        table: label of the files -> label that is written; None keeps them.
        progress: called with (volumes done, volumes in all).

    Raises:
        ConfigError: naming the cases of which it is not known whether they train or test.
    """
    parts = {c.id: c.split or synapse_part(c) for c in manifest.cases}
    unknown = [case for case, part in parts.items() if part is None]
    if unknown:
        raise ConfigError(
            f"{len(unknown)} cases are neither in a part nor among the published numbers, such as "
            f"{unknown[0]!r}: split the manifest first"
        )
    train: list[str] = []
    test: list[str] = []
    for done, case in enumerate(manifest.cases):
        name = synapse_name(case)
        if parts[case.id] == "train":
            train += _write_case(manifest, case, out / "train_npz", name, table, volume=False)
        else:
            test += _write_case(manifest, case, out / "test_vol_h5", name, table, volume=True)
        progress(done + 1, len(manifest))
    order = {f"case{n:04d}": position for position, n in enumerate(SYNAPSE_TEST)}
    test.sort(key=lambda stem: order.get(stem, len(order)))
    whole = sorted({*(re.sub(r"_slice\d+$", "", s) for s in train), *test})
    lists = {"train": train, "test_vol": test, "all": [f"{s}.npy.h5" for s in whole]}
    for stem, lines in lists.items():
        with replacing(out / "lists" / f"{stem}.txt") as (new,):
            new.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    from samaritan.data.sources import load_manifest

    return load_manifest(out, kind="synapse")


def synapse_name(case: Case) -> str:
    """Name a case as published, `case0005`, if it has a number of four digits; else by its id."""
    digits = re.findall(r"(?<!\d)\d{4}(?!\d)", case.id)
    return f"case{digits[-1]}" if digits else re.sub(r"[^\w-]", "_", case.id)


def _write_case(
    manifest: Manifest,
    case: Case,
    folder: Path,
    name: str,
    table: Mapping[int, int] | None,
    *,
    volume: bool,
) -> list[str]:
    """Write one volume, or its slices; give the stems for the list file."""
    image = case_image(manifest, case)
    drawn = case_labels(manifest, case)
    if image.array.ndim != 3 or len(drawn) != 1:
        raise ConfigError(f"case {case.id!r} must have one channel and one label map")
    image.grid.require_same(drawn[0].grid, what=f"grids of image and labels of {case.id!r}")
    values = np.ascontiguousarray(synapse_intensity(image.array).transpose(2, 1, 0))
    labels = drawn[0].array
    labels = labels.astype(np.float32) if table is None else renumbered(labels, table)
    labels = np.ascontiguousarray(labels.transpose(2, 1, 0))
    if volume:
        h5py = h5py_for("write Synapse volumes (.npy.h5)")
        with (
            replacing(folder / f"{name}.npy.h5") as (new,),
            h5py.File(new, "w") as file,
        ):
            file.create_dataset("image", data=values)
            file.create_dataset("label", data=labels)
            file.attrs["affine"] = image.grid.affine
            file.attrs["spacing_mm"] = image.grid.spacing_mm
        return [name]
    stems = []
    for index, (picture, label) in enumerate(zip(values, labels, strict=True)):
        stems.append(f"{name}_slice{index:03d}")
        with replacing(folder / f"{stems[-1]}.npz") as (new,), new.open("wb") as file:
            np.savez(file, image=picture, label=label)
    return stems
