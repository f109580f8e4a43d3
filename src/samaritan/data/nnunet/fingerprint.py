"""nnU-Net's fingerprint of a data set: spacings, shapes and what the foreground's intensities are."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.data.nnunet.cropping import nonzero_box, slices_of
from samaritan.data.nnunet.rawset import RawCase, RawSet
from samaritan.data.nnunet.together import each
from samaritan.errors import CorruptFile
from samaritan.io.files import file_size, replacing

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

FILE_NAME = "dataset_fingerprint.json"
VOXELS = 100_000_000
"""Foreground voxels that are drawn in all, as many of each case."""

SEED = 1234
_PIECE = 1 << 23
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Fingerprint:
    """What planning starts from; axes are k, j, i."""

    spacings: tuple[tuple[float, ...], ...]
    """Of each case."""
    shapes: tuple[tuple[int, ...], ...]
    """Of each case, cropped to what is not zero."""
    intensities: tuple[Mapping[str, float], ...]
    """Of the foreground of each channel: mean, std, min, max, median, percentile_00_5, percentile_99_5."""
    relative_size: float
    """Median part of the voxels that cropping leaves."""

    def to_json(self) -> dict[str, Any]:
        """Give it as nnU-Net writes it."""
        return {
            "foreground_intensity_properties_per_channel": {
                str(c): dict(values) for c, values in enumerate(self.intensities)
            },
            "median_relative_size_after_cropping": self.relative_size,
            "shapes_after_crop": [list(s) for s in self.shapes],
            "spacings": [list(s) for s in self.spacings],
        }

    def write(self, path: Path) -> Path:
        """Write dataset_fingerprint.json."""
        with replacing(path) as (new,):
            new.write_text(json.dumps(self.to_json(), indent=4), "utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Fingerprint:
        """Read dataset_fingerprint.json.

        Raises:
            CorruptFile: if something is missing in it.
        """
        try:
            if file_size(path) > _MOST_BYTES:
                raise ValueError("it is too large")
            content = json.loads(path.read_text("utf-8-sig"))
            found = content["foreground_intensity_properties_per_channel"]
            return cls(
                tuple(tuple(float(v) for v in s) for s in content["spacings"]),
                tuple(tuple(int(v) for v in s) for s in content["shapes_after_crop"]),
                tuple(found[k] for k in sorted(found, key=int)),
                float(content["median_relative_size_after_cropping"]),
            )
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
            raise CorruptFile(f"{path} is no fingerprint of a data set: {error!r}") from error


@dataclass(frozen=True, eq=False)
class _Seen:
    """One case: intensities of its foreground, each with how often it was drawn."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    relative: float
    drawn: tuple[tuple[Array, Array], ...]


def take_fingerprint(
    raw: RawSet, *, workers: int = 2, progress: Progress = lambda done, total: None
) -> Fingerprint:
    """Read every case once and sum it up.

    Voxels are drawn with nnU-Net's generator, but kept as distinct values with counts, so memory holds
    no more than the foreground's distinct intensities instead of 400 MB for each channel. Sums are made
    in float64; nnU-Net's float32 ones differ from them by some millionths.

    Raises:
        FileError: naming the cases that cannot be used.
    """
    cases = raw.cases.cases
    count = VOXELS // len(cases)
    seen = each(
        cases,
        lambda case: _look(raw.read(case), count),
        what="cases that cannot be used",
        workers=workers,
        progress=progress,
    )
    channels = range(len(raw.channels))
    return Fingerprint(
        tuple(s.spacing for s in seen),
        tuple(s.shape for s in seen),
        tuple(_statistics([s.drawn[c] for s in seen]) for c in channels),
        float(np.median([s.relative for s in seen])),
    )


def _look(raw: RawCase, count: int) -> _Seen:
    assert raw.labels is not None
    _, box = nonzero_box(raw.image)
    where = slices_of(box)
    foreground = raw.labels[where] > 0
    rng = np.random.RandomState(SEED)  # nnU-Net's generator: another draws other voxels
    drawn = []
    for channel in raw.image:
        values = channel[where][foreground]
        if len(values):
            times = _drawn(rng, len(values), count)
            distinct, place = np.unique(values, return_inverse=True)
            drawn.append((distinct, np.bincount(place.ravel(), weights=times).astype(np.int64)))
        else:
            drawn.append((np.zeros(0, np.float32), np.zeros(0, np.int64)))
    shape = tuple(b - a for a, b in box)
    relative = float(np.prod(shape) / np.prod(raw.image.shape[1:]))
    return _Seen(shape, raw.spacing, relative, tuple(drawn))


def _drawn(rng: np.random.RandomState, voxels: int, count: int) -> npt.NDArray[np.int64]:
    """Count how often each voxel is drawn; the stream of draws is the same in pieces."""
    times = np.zeros(voxels, np.int64)
    for start in range(0, count, _PIECE):
        piece = rng.randint(0, voxels, size=min(_PIECE, count - start))
        times += np.bincount(piece, minlength=voxels)
    return times


def _statistics(drawn: Sequence[tuple[Array, Array]]) -> dict[str, float]:
    """Sum up values that occur several times each.

    Raises:
        CorruptFile: if nothing is drawn in any case.
    """
    values = np.concatenate([v for v, _ in drawn]).astype(np.float64)
    times = np.concatenate([t for _, t in drawn])
    values, times = values[times > 0], times[times > 0]
    if not len(values):
        raise CorruptFile("no case has a voxel of any label: there is nothing to learn")
    order = np.argsort(values, kind="stable")
    values, upto = values[order], np.cumsum(times[order])
    total = int(upto[-1])
    mean = float(np.average(values, weights=times[order]))
    variance = float(np.average((values - mean) ** 2, weights=times[order]))
    low, middle, high = (_percentile(values, upto, total, p) for p in (0.5, 50.0, 99.5))
    return {
        "max": float(values[-1]),
        "mean": mean,
        "median": middle,
        "min": float(values[0]),
        "percentile_00_5": low,
        "percentile_99_5": high,
        "std": variance**0.5,
    }


def _percentile(values: Array, upto: Array, total: int, percent: float) -> float:
    """Interpolate between the two drawn values around a rank, as numpy does."""
    rank = percent / 100 * (total - 1)
    below = int(np.floor(rank))
    first, second = (
        float(values[np.searchsorted(upto, min(r, total - 1), side="right")])
        for r in (below, below + 1)
    )
    return first + (second - first) * (rank - below)
