"""An nnU-Net raw folder as preprocessing reads it: dataset.json, and cases as nnU-Net lays arrays out."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Case, Manifest
from samaritan.data.nnunet.labels import LabelSet
from samaritan.data.reading import case_image, case_labels
from samaritan.data.sources import SourceOptions, nnunet
from samaritan.errors import ConfigError, FileError, SamaritanError
from samaritan.geometry import Grid
from samaritan.volume import LabelMap, Volume

logger = logging.getLogger(__name__)

Array = npt.NDArray[Any]

PICTURE_SPACING = 999.0
"""Of pictures nnU-Net says that slices are so much thicker than pixels are wide."""


@dataclass(frozen=True)
class RawSet:
    """A raw folder: what dataset.json says, and its training cases.

    Attributes:
        name: of the folder, such as "Dataset004_Hippocampus".
        channels: names, in order; they decide the normalisation.
        labels: what label values mean.
        file_ending: of images and labels.
        content: all of dataset.json.
        cases: those to learn from, by id; each with a label file.
    """

    name: str
    channels: tuple[str, ...]
    labels: LabelSet
    file_ending: str
    content: Mapping[str, Any]
    cases: Manifest

    @classmethod
    def open(cls, path: Path, *, patient: str | None = None) -> RawSet:
        """Read dataset.json and list the cases; `Task` folders of version 1 too.

        Args:
            path: the folder, or its dataset.json.
            patient: a regular expression on case ids whose first group is the patient.

        Raises:
            ConfigError: if dataset.json is wrong, or nothing is to be learned from.
        """
        root = path.parent if path.name == "dataset.json" else path
        if not nnunet.recognise(root):
            raise ConfigError(
                f"{root} is no nnU-Net folder: it needs dataset.json with labels, imagesTr and labelsTr"
            )
        found = nnunet.manifest(root, SourceOptions(patient=patient))
        content: dict[str, Any] = json.loads((root / "dataset.json").read_text("utf-8-sig"))
        cases = found.select(where=lambda c: bool(c.labels) and c.split != "test")
        if not len(cases):
            raise ConfigError(f"{root} has no images with labels: is labelsTr empty?")
        _tell_left_out(found, len(cases), content)
        cases = replace(cases, cases=tuple(sorted(cases.cases, key=lambda c: c.id)))
        channels = next(iter(cases.groups.values())).channels
        labels = LabelSet.from_json(content, str(root / "dataset.json"))
        ending = str(content.get("file_ending") or _ending(cases.cases[0]))
        return cls(root.resolve().name, channels, labels, ending, content, cases)

    def read(self, case: Case) -> RawCase:
        """Read a case with its labels.

        Raises:
            FileError: if a file is damaged, channels are missing, or a value has no name.
            GridMismatch: if image and labels lie on different grids.
        """
        try:
            raw = read_raw(self.cases, case)
            _check(raw, self)
        except SamaritanError as error:
            raise type(error)(f"case {case.id!r}: {error}") from error
        return raw


@dataclass(frozen=True, eq=False)
class RawCase:
    """One case before anything was done to it, the axes in nnU-Net's order.

    Attributes:
        image: (c, k, j, i) float32: the axes of the file, the last first; of pictures (c, 1, rows, columns).
        labels: (k, j, i), or None.
        spacing: of axes k, j and i, in mm.
        grid: of the file, its axes in the order i, j and k.
    """

    image: Array
    labels: Array | None
    spacing: tuple[float, float, float]
    grid: Grid

    @classmethod
    def of(cls, image: Volume, labels: LabelMap | None = None) -> RawCase:
        """Lay a scan out as nnU-Net does, with its labels if there are any.

        Raises:
            FileError: if voxels are not finite.
            GridMismatch: if the labels lie on another grid.
        """
        if labels is not None:
            image.grid.require_same(labels.grid, what="grids of image and labels")
        array = image.array if image.array.ndim == 4 else image.array[..., None]
        order = axes_of(image.grid)
        turned = np.ascontiguousarray(array.transpose(3, *order), np.float32)
        if not np.isfinite(turned).all():
            raise FileError("its image has values that are not finite (NaN or infinity)")
        drawn = None if labels is None else np.ascontiguousarray(labels.array.transpose(order))
        return cls(turned, drawn, spacing_of(image.grid), image.grid)


def read_raw(manifest: Manifest, case: Case) -> RawCase:
    """Read the image of a case, and its labels if it has any."""
    drawn = case_labels(manifest, case)
    return RawCase.of(case_image(manifest, case), drawn[0] if drawn else None)


def axes_of(grid: Grid) -> tuple[int, int, int]:
    """Say which axes of an array come first, second and third in nnU-Net: k, j, i; of pictures k, i, j."""
    return (2, 0, 1) if grid.unit == "px" else (2, 1, 0)


def to_file(array: Array, grid: Grid) -> Array:
    """Bring an array in nnU-Net's order of axes back to that of the file."""
    order = axes_of(grid)
    return np.ascontiguousarray(array.transpose([order.index(a) for a in range(3)]))


def spacing_of(grid: Grid) -> tuple[float, float, float]:
    """Tell the spacing in nnU-Net's order of axes; a number stands for the thickness of a picture.

    NIfTI keeps spacing as float32; taken from an affine it is off in the last digits, so it is rounded.
    """
    i, j, k = (float(np.float32(s)) for s in grid.spacing_mm)
    if grid.unit == "px":
        return PICTURE_SPACING, i, j
    return k, j, i


def _tell_left_out(found: Manifest, count: int, content: Mapping[str, Any]) -> None:
    """Warn of images to learn from that have no label, and of fewer cases than dataset.json counts."""
    bare = sorted(case.id for case in found if not case.labels and case.split != "test")
    if bare:
        some = ", ".join(bare[:5]) + (f" and {len(bare) - 5} more" if len(bare) > 5 else "")
        logger.warning("images without a label file are left out: %s", some)
    told = content.get("numTraining")
    if isinstance(told, int) and told != count:
        logger.warning(
            "dataset.json counts %d cases to learn from (numTraining), and %d are there",
            told,
            count,
        )


def _check(raw: RawCase, of: RawSet) -> None:
    if len(raw.image) != len(of.channels):
        raise FileError(
            f"it has {len(raw.image)} channel{'s' * (len(raw.image) > 1)}, but dataset.json names "
            f"{len(of.channels)}: {', '.join(of.channels)}"
        )
    if raw.labels is not None:
        known = {*of.labels.values, *(() if of.labels.ignore is None else (of.labels.ignore,))}
        odd = sorted(set(np.unique(raw.labels).tolist()) - known)
        if odd:
            raise FileError(
                f"its label map has values {odd[:10]} that dataset.json does not name; "
                f"it names {sorted(known)}"
            )


def _ending(case: Case) -> str:
    """Take the ending of the first image, both parts of a double one."""
    name = Path(case.images[0]).name
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix
