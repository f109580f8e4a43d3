"""Segmentations of 3D Slicer, `.seg.nrrd`: NRRD whose fields name the segments and their layers."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, FileError, UnsupportedFormat
from samaritan.io import nrrd, nrrd_write
from samaritan.io.files import guard
from samaritan.io.nrrd_header import Layout, read_layout
from samaritan.io.options import ReadOptions
from samaritan.io.values import whole_numbers
from samaritan.volume import LabelMap, Volume, smallest_label_dtype

Array = npt.NDArray[Any]

_MOST_SEGMENTS = 100_000


@dataclass(frozen=True)
class Segment:
    """One segment: where it is stored and how it is shown."""

    id: str
    name: str
    value: int
    layer: int
    color: tuple[float, float, float]


def is_segmentation(path: Path) -> bool:
    """Whether an NRRD header describes segments."""
    return "Segment0_ID" in read_layout(path).fields


def read(path: Path, options: ReadOptions) -> Volume:
    """Read segments as a `LabelMap` with names; overlapping ones as `options.overlap` says.

    Segments of one layer keep their values. Where layers are merged, values that two segments share
    are numbered anew in the order of the segments.

    Raises:
        FileError: if segments overlap and nothing was chosen.
    """
    layout = read_layout(path)
    segments = _segments(layout.fields, path)
    layers = _layers(path, layout, options)
    notes = list(layout.notes)
    for segment in segments:
        if not 0 <= segment.layer < layers.shape[3]:
            raise CorruptFile(
                f"{path}: segment {segment.name!r} should lie in layer {segment.layer} "
                f"of {layers.shape[3]}"
            )
    meta: dict[str, Any] = {
        "source": str(path),
        "format": "NRRD segmentation",
        "dtype": layout.dtype.name,
        "layers": layers.shape[3],
    }
    if options.overlap == "channels":
        masks = np.stack([layers[..., s.layer] == s.value for s in segments], axis=-1)
        names = tuple(s.name for s in segments)
        return Volume(masks, layout.grid, names, meta, tuple(notes))
    if layers.shape[3] == 1:
        array = layers[..., 0]
        values = {n: s.value for n, s in enumerate(segments)}
    else:
        array, values = _merged(layers, segments, options, path, notes)
    names_of = {values[n]: s.name for n, s in enumerate(segments)}
    meta["colors"] = {values[n]: s.color for n, s in enumerate(segments)}
    return LabelMap(array, layout.grid, (), meta, tuple(notes), names_of)


def _segments(fields: Any, path: Path) -> list[Segment]:
    found: list[Segment] = []
    with guard(path):
        while f"Segment{len(found)}_ID" in fields and len(found) < _MOST_SEGMENTS:
            key = f"Segment{len(found)}_"
            found.append(
                Segment(
                    id=str(fields[key + "ID"]),
                    name=str(fields.get(key + "Name", fields[key + "ID"])),
                    value=int(fields.get(key + "LabelValue", len(found) + 1)),
                    layer=int(fields.get(key + "Layer", 0)),
                    color=_color(str(fields.get(key + "Color", ""))),
                )
            )
    return found


def _color(text: str) -> tuple[float, float, float]:
    values = [float(v) for v in text.split()]
    return (values[0], values[1], values[2]) if len(values) == 3 else (0.5, 0.5, 0.5)


def _layers(path: Path, layout: Layout, options: ReadOptions) -> Array:
    """(i, j, k, layer)."""
    if len(layout.others) > 1 or len(layout.spatial) != 3:
        raise UnsupportedFormat(
            f"{path}: a segmentation has three axes of space and one of layers, not sizes "
            f"{list(layout.sizes)}"
        )
    volume = nrrd.read(path, replace(options, frame="all" if layout.others else None))
    array = whole_numbers(volume.array, path)
    return array if array.ndim == 4 else array[..., None]


def _merged(
    layers: Array, segments: list[Segment], options: ReadOptions, path: Path, notes: list[str]
) -> tuple[Array, dict[int, int]]:
    """Bring all layers into one; also the value of each segment there."""
    stored = [s.value for s in segments]
    distinct = len(set(stored)) == len(stored) and min(stored) > 0
    values = {n: s.value if distinct else n + 1 for n, s in enumerate(segments)}
    array = np.zeros(layers.shape[:3], smallest_label_dtype(max(values.values())))
    overlapping, hidden = [], 0
    for n, segment in enumerate(segments):
        mask = layers[..., segment.layer] == segment.value
        covered = int(np.count_nonzero(array[mask]))
        if covered:
            overlapping.append(segment.name)
            hidden += covered
        array[mask] = values[n]
    if overlapping and options.overlap == "refuse":
        raise FileError(
            f"{path}: segments overlap ({', '.join(overlapping)} cover others in {hidden} voxels), which one "
            'label map cannot hold. Pass overlap="merge" to let the later segment win, or overlap="channels" '
            "to read one channel for each"
        )
    if overlapping:
        notes.append(f"Segments overlap in {hidden} voxels; there the later segment was kept.")
    if not distinct:
        notes.append("Segments of several layers share label values; they were numbered anew.")
    return array, values


# -- writing -------------------------------------------------------------------------------------


def write(volume: Volume, path: Path) -> None:
    """Write a label map for 3D Slicer, or boolean channels as overlapping layers.

    Raises:
        UnsupportedFormat: if it is neither.
    """
    if isinstance(volume, LabelMap):
        array = volume.array
        if array.dtype.itemsize > 4 or array.dtype.kind == "i":
            array = whole_numbers(array, path)
            array = array.astype(smallest_label_dtype(int(array.max())))
        values = sorted({*volume.labels(), *volume.names} - {0})
        names = {v: volume.names.get(v, f"Segment_{v}") for v in values}
        segments = [(v, 0, names[v], volume.array == v) for v in values]
        stored: Volume = replace(volume, array=array)
    elif volume.array.ndim == 4 and volume.dtype == np.bool_:
        segments = [
            (1, layer, name, volume.array[..., layer]) for layer, name in enumerate(volume.channels)
        ]
        stored = volume.with_array(volume.array.view(np.uint8))
    else:
        raise UnsupportedFormat(
            f"{path}: .seg.nrrd holds a LabelMap, or boolean channels as layers that may overlap, not "
            f"{volume.dtype} of shape {volume.array.shape}. Write .nrrd for images"
        )
    colors = volume.meta.get("colors", {})
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for n, (value, layer, name, mask) in enumerate(segments):
        color = colors.get(value, _default_color(n))
        fields |= {
            f"Segment{n}_ID": f"Segment_{n + 1}",
            f"Segment{n}_Name": name,
            f"Segment{n}_NameAutoGenerated": "0",
            f"Segment{n}_Color": " ".join(f"{c:.6g}" for c in color),
            f"Segment{n}_ColorAutoGenerated": "0",
            f"Segment{n}_LabelValue": str(value),
            f"Segment{n}_Layer": str(layer),
            f"Segment{n}_Extent": _extent(mask),
            f"Segment{n}_Tags": "|",
        }
    nrrd_write.write(stored, path, fields=fields, channel_kind="list")


def _extent(mask: Array) -> str:
    """First and last index along each axis, inclusive; Slicer's empty extent if there is none."""
    ends: list[int] = []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        used = np.flatnonzero(mask.any(axis=others))
        ends += [int(used[0]), int(used[-1])] if used.size else [0, -1]
    return " ".join(map(str, ends))


def _default_color(n: int) -> tuple[float, float, float]:
    """Colours that stay apart: hues by the golden ratio."""
    return colorsys.hsv_to_rgb((0.02 + n * 0.618034) % 1, 0.65, 0.9)
