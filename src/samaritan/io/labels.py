"""An image that was read, taken as a segmentation: whole numbers, and names where they are known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from samaritan.errors import CorruptFile, FileError, UnsupportedFormat
from samaritan.io.values import whole_numbers
from samaritan.volume import LabelMap, Volume

_SIDECAR_BYTES = 4 << 20
_SUFFIX = re.compile(
    r"(\.seg\.nrrd|\.nii\.gz|\.nii|\.hdr|\.img|\.nrrd|\.nhdr|\.mha|\.mhd|\.mg[zh]|\.npz|\.png|\.tiff?|\.bmp)$",
    re.IGNORECASE,
)


def as_label_map(volume: Volume, path: Path) -> LabelMap:
    """Make a label map of a volume that was read from `path`."""
    sidecar = _sidecar(path)
    if isinstance(volume, LabelMap):
        return volume
    if volume.meta.get("format") == "JPEG":
        raise UnsupportedFormat(
            f"{path}: JPEG changes values, so labels in it cannot be trusted. Store labels as PNG"
        )
    array, notes = volume.array, list(volume.notes)
    if array.ndim == 4:
        array = _one_channel(array, path, notes)
    names = sidecar or volume.meta.get("label_names", {})
    labels = whole_numbers(array, path)
    return LabelMap(labels, volume.grid, (), volume.meta, tuple(notes), names)


def _one_channel(array: Any, path: Path, notes: list[str]) -> Any:
    """Grey stored as equal colours is one channel; other colours are no labels."""
    colors = array[..., :3] if array.shape[-1] in (3, 4) else array[..., :1]
    rest_is_alpha = array.shape[-1] in (2, 4)
    if array.shape[-1] in (2, 3, 4) and np.array_equal(
        colors, np.broadcast_to(colors[..., :1], colors.shape)
    ):
        if rest_is_alpha and int(array[..., -1].min()) != 255:
            raise FileError(f"{path}: a picture with transparency is not a label map")
        notes.append("The channels are equal; the first was taken as labels.")
        return np.ascontiguousarray(array[..., 0])
    raise FileError(
        f"{path} has {array.shape[-1]} channels that differ, but a label map has one. "
        "Read it with samaritan.read and choose a channel"
    )


def _sidecar(path: Path) -> dict[int, str]:
    """Names from `NAME.labels.json` beside the file, if there is one."""
    file = path.with_name(_SUFFIX.sub("", path.name) + ".labels.json")
    if not file.is_file():
        return {}
    if file.stat().st_size > _SIDECAR_BYTES:
        raise CorruptFile(f"{file} is too large to be a list of label names")
    try:
        content = json.loads(file.read_text("utf-8"))
        return {int(key): str(name) for key, name in content.items()}
    except (ValueError, AttributeError, RecursionError) as error:
        raise CorruptFile(
            f'{file} must hold label names such as {{"1": "liver"}}: {error}'
        ) from error
