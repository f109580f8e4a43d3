"""Largest components: which structures are kept to their largest part, decided by validation, and kept so.

Source: nnU-Net 2.8.1, postprocessing/remove_connected_components.py: first all structures together, if the
mean Dice rises and that of none falls; then each by itself, if its own rises.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from samaritan.data.nnunet.labels import Key, LabelSet
from samaritan.data.nnunet.results import Compared, compare, summarise
from samaritan.errors import CorruptFile, FileError
from samaritan.io import read_labels
from samaritan.io.files import file_size, replacing
from samaritan.volume import LabelMap

Array = npt.NDArray[Any]
Pair = Callable[[], tuple[Array, Array]]
"""Reads the prediction of a case, and its reference."""

NAME = "postprocessing.json"
_FUNCTION = "remove_all_but_largest_component_from_segmentation"
_MOST_BYTES = 16 << 20


@dataclass(frozen=True)
class Cleaning:
    """Which structures are kept to their largest connected part, one step after the other.

    Attributes:
        steps: of each step the labels that count as one structure.
        told: what was measured before and after, as nnU-Net tells it.
    """

    steps: tuple[tuple[Key, ...], ...] = ()
    told: Mapping[str, Any] = field(default_factory=dict, compare=False)

    def __call__(self, array: Array) -> Array:
        """Keep the largest parts of a label map; what else there was becomes background."""
        for step in self.steps:
            array = largest_only(array, step)
        return array

    def of_map(self, labels: LabelMap) -> LabelMap:
        """Clean a label map."""
        return labels.with_array(self(labels.array)) if self.steps else labels

    def words(self, labels: LabelSet) -> str:
        """Say what it does."""
        if not self.steps:
            return "nothing: no structure got better"
        named = {key: name for name, key in labels.names.items()}
        listed = [" + ".join(named.get(key, str(key)) for key in step) for step in self.steps]
        return "the largest part of " + ", then of ".join(listed)

    def write(self, path: Path) -> Path:
        """Write it in the words of nnU-Net's file of this name."""
        content = {
            **self.told,
            "postprocessing_fns": [_FUNCTION] * len(self.steps),
            "postprocessing_kwargs": [
                {"labels_or_regions": [list(k) if isinstance(k, tuple) else k for k in step]}
                for step in self.steps
            ],
        }
        with replacing(path) as (new,):
            new.write_text(json.dumps(content, indent=4), "utf-8")
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read what `write` or nnU-Net wrote.

        Raises:
            CorruptFile: if it is no such file, or asks for something else.
        """
        try:
            if file_size(path) > _MOST_BYTES:
                raise ValueError("it is too large")
            content = json.loads(path.read_text("utf-8-sig"))
            functions, settings = content["postprocessing_fns"], content["postprocessing_kwargs"]
            odd = sorted({str(f) for f in functions} - {_FUNCTION})
            if odd:
                raise ValueError(f"{odd} are not known")
            steps = tuple(_step(s["labels_or_regions"]) for s in settings)
            told = {k: content[k] for k in ("input_folder", "postprocessed") if k in content}
            return cls(steps, told)
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise CorruptFile(
                f"{path} tells no postprocessing of nnU-Net: {error!r}. Determine it again with samaritan "
                "evaluate --clean"
            ) from error


def largest_only(array: Array, structure: Sequence[Key]) -> Array:
    """Keep the largest connected part of some labels together, corners touching; the rest becomes 0.

    >>> largest_only(np.array([[[1, 0, 2, 2]]]), (1, 2)).tolist()
    [[[0, 0, 2, 2]]]
    """
    from scipy import ndimage

    values = [v for key in structure for v in (key if isinstance(key, tuple) else (key,))]
    inside = np.isin(array, values)
    parts, count = ndimage.label(inside, np.ones((3,) * array.ndim))
    if count < 2:
        return array
    sizes = np.bincount(parts.ravel())[1:]
    cleaned = array.copy()
    cleaned[inside & (parts != 1 + int(sizes.argmax()))] = 0
    return cleaned


def determine(
    pairs: Mapping[str, Pair],
    labels: LabelSet,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cleaning:
    """Decide by validation which structures are kept to their largest part.

    Cases are read again for each structure; of none more than one is in memory.

    Args:
        pairs: of each case how its prediction and reference are read.
        labels: what is measured.
        progress: called with (structures tried, structures).

    Raises:
        FileError: if there is no case.
    """
    if not pairs:
        raise FileError("there is no validated case to decide by")

    def measured(steps: tuple[tuple[Key, ...], ...]) -> dict[str, Any]:
        clean = Cleaning(steps)
        rows = []
        for case, pair in pairs.items():
            prediction, reference = pair()
            rows.append(Compared(case, case, compare(clean(prediction), reference, labels)))
        return summarise(rows, labels)

    values: tuple[Key, ...] = labels.values[1:]
    total = 1 + (len(labels.foreground) if len(labels.foreground) > 1 else 0)
    before = now = measured(())
    steps: tuple[tuple[Key, ...], ...] = ()
    tried = measured((values,))
    progress(1, total)
    if _mean(tried) > _mean(now) and all(
        not _dice(tried, key) < _dice(now, key) for key in labels.foreground
    ):
        steps, now = (values,), tried
    for done, key in enumerate(labels.foreground if total > 1 else (), 2):
        tried = measured((*steps, (key,)))
        if _dice(tried, key) > _dice(now, key):
            steps, now = (*steps, (key,)), tried
        progress(done, total)
    told = {
        name: {k: found[k] for k in ("foreground_mean", "mean")}
        for name, found in (("input_folder", before), ("postprocessed", now))
    }
    return Cleaning(steps, told)


def pair_of(prediction: Path, reference: Path) -> Pair:
    """Read a case from its files, which must lie on one grid."""

    def read() -> tuple[Array, Array]:
        one, two = read_labels(prediction), read_labels(reference)
        one.grid.require_same(two.grid, what=f"grids of {prediction.name} and its reference")
        return one.array, two.array

    return read


def _mean(summary: Mapping[str, Any]) -> float:
    return float(summary["foreground_mean"]["Dice"])


def _dice(summary: Mapping[str, Any], key: Key) -> float:
    return float(summary["mean"][str(key)]["Dice"])


def _step(given: Any) -> tuple[Key, ...]:
    """Read what nnU-Net writes: one label, one region, or a list of either."""
    if isinstance(given, int):
        return (given,)
    return tuple(tuple(int(v) for v in k) if isinstance(k, list) else int(k) for k in given)
