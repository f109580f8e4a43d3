"""What is drawn in a volume, by name: labels and regions of a map, mask files, numbered objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Case, Group
from samaritan.errors import ConfigError
from samaritan.volume import LabelMap

Array = npt.NDArray[Any]


class Structure(NamedTuple):
    """One thing that is drawn: binary on the fly, whatever the file holds."""

    name: str
    """Its class, as the data set calls it."""
    file: int
    """Which of the label files it is drawn in."""
    values: tuple[int, ...]
    """The values that it has there."""

    def mask(self, array: Array) -> npt.NDArray[np.bool_]:
        """Binarise a label array: where this structure is."""
        if len(self.values) == 1:
            found: npt.NDArray[np.bool_] = array == self.values[0]
            return found
        return np.isin(array, self.values)


def structures_of(case: Case, group: Group, found: Sequence[LabelMap]) -> tuple[Structure, ...]:
    """List what is drawn in the label files of a case, empty structures left out.

    Regions count instead of the labels that they are made of, where a data set has them. An ignored
    label is no structure.

    Raises:
        ConfigError: if a value has no name while others have.
    """
    made = tuple(_every(case, group, found))
    present = [set(m.labels()) for m in found]
    return tuple(s for s in made if present[s.file] & set(s.values))


def _every(case: Case, group: Group, found: Sequence[LabelMap]) -> Iterator[Structure]:
    if case.label_kind == "masks":
        names = case.objects or tuple(f"object {i + 1}" for i in range(len(found)))
        yield from (Structure(name, i, (1,)) for i, name in enumerate(names))
    elif case.label_kind == "instances":
        for i, one in enumerate(found):
            yield from (Structure("object", i, (value,)) for value in one.labels())
    else:
        for i, one in enumerate(found):
            yield from _of_map(case, group, i, one)


def _of_map(case: Case, group: Group, file: int, one: LabelMap) -> Iterator[Structure]:
    values = [v for v in one.labels() if v != group.ignore]
    odd = [v for v in values if v not in group.labels]
    if group.labels and odd:
        raise ConfigError(
            f"case {case.id!r} holds labels {odd[:8]} that have no name; named are {dict(group.labels)}. "
            "Mend them (`samaritan prepare check` tells all)"
        )
    if group.regions:
        yield from (Structure(name, file, tuple(v)) for name, v in group.regions.items())
        return
    names = group.labels or one.names
    yield from (Structure(names.get(v, f"label {v}"), file, (v,)) for v in values)
