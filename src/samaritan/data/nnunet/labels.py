"""What the labels of an nnU-Net data set mean: classes, regions that overlap, and the ignored label."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from samaritan.errors import ConfigError

MOST_LABELS = 32_767
"""Preprocessed label maps have 16 bits, one of them for the sign."""

Key = int | tuple[int, ...]
"""A label value, or the values that make up a region."""


@dataclass(frozen=True)
class LabelSet:
    """The `labels` of dataset.json, version 2 (name to values) or 1 (value to name).

    Without regions a model has a head for each label, background first, and the largest wins. With regions
    it has a head for each region; those above one half are painted one over the other.
    """

    names: Mapping[str, Key]
    """Name -> value or values, in the order of the file, without the background and the ignored label."""
    region_order: tuple[int, ...] | None = None
    """With regions: the value that each paints, the later over the earlier; None: no regions."""
    ignore: int | None = None
    """Value of voxels that nobody decided."""

    @property
    def has_regions(self) -> bool:
        """Whether heads are regions, which may overlap."""
        return self.region_order is not None

    @property
    def values(self) -> tuple[int, ...]:
        """Every value of a label map, background first, without the ignored one."""
        every = {0, *(v for key in self.names.values() for v in _listed(key))}
        return tuple(sorted(every))

    @property
    def foreground(self) -> tuple[Key, ...]:
        """What is looked for: label values in rising order, or regions in the order of the file."""
        if self.has_regions:
            return tuple(self.names.values())
        return self.values[1:]

    @property
    def heads(self) -> int:
        """How many channels the output of a model has."""
        return len(self.foreground) if self.has_regions else len(self.values)

    @property
    def annotated(self) -> tuple[int, ...]:
        """The key of all voxels that somebody decided, as nnU-Net calls it; -1 is outside the image."""
        return (-1, *self.values)

    def titles(self) -> dict[int, str]:
        """Name each value of a label map, as `LabelMap` wants it."""
        if self.region_order is not None:
            return dict(sorted(zip(self.region_order, self.names, strict=True)))
        return {v: name for name, key in self.names.items() for v in _listed(key)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> LabelSet:
        """Read `labels` and `regions_class_order`.

        Raises:
            ConfigError: telling everything that is wrong with them.
        """
        problems: list[str] = []
        every = _both_ways(content.get("labels"), problems)
        ignore = every.pop("ignore", None)
        background = every.pop("background", None)
        if background is None:  # version 1 calls it as it likes
            zero = [name for name, key in every.items() if key == 0]
            background = every.pop(zero[0]) if zero else None
        if background != 0:
            problems.append(f'"background" must be label 0, got {background}')
        names = {n: k for n, k in every.items() if k != 0 and set(_listed(k)) != {0}}
        regions = any(isinstance(k, tuple) and len(k) > 1 for k in names.values())
        if not regions:
            names = {n: _listed(k)[0] for n, k in names.items()}
        order = content.get("regions_class_order")
        made = cls(names, tuple(order) if regions and isinstance(order, list) else None, None)
        if regions and (made.region_order is None or len(made.region_order) != len(names)):
            problems.append(
                f'"regions_class_order" must list a label value for each of the {len(names)} regions, '
                f"got {order}"
            )
        missing = sorted(set(range(min(max(made.values), MOST_LABELS) + 1)) - set(made.values))
        if max(made.values) > MOST_LABELS:
            problems.append(
                f"label {max(made.values)} is above {MOST_LABELS}, the highest that is read"
            )
        if missing:
            problems.append(
                f"labels must be numbered without gaps, but nothing is called {missing[:10]}; "
                f"there are {list(made.values)[:20]}. Renumber the label files and dataset.json"
            )
        if ignore is not None and ignore != max(made.values) + 1:
            problems.append(
                f'"ignore" must be the label after the highest, {max(made.values) + 1}, got {ignore}'
            )
        if problems:
            raise ConfigError(f"{where} has labels that cannot be used: " + "; ".join(problems))
        return cls(names, made.region_order, ignore if isinstance(ignore, int) else None)


def _listed(key: Key) -> tuple[int, ...]:
    return key if isinstance(key, tuple) else (key,)


def _both_ways(given: Any, problems: list[str]) -> dict[str, Key]:
    """Read name -> value(s), or value -> name."""
    if not isinstance(given, Mapping) or not given:
        problems.append(f'"labels" must be like {{"background": 0, "liver": 1}}, got {given!r}')
        return {"background": 0}
    found: dict[str, Key] = {}
    for left, right in given.items():
        name, value = (
            (right, left) if isinstance(right, str) and not right.isdigit() else (left, right)
        )
        try:
            key: Key = tuple(int(v) for v in value) if isinstance(value, list) else int(value)
        except (TypeError, ValueError):
            problems.append(
                f"label {name!r} must be a whole number or a list of them, got {value!r}"
            )
            continue
        if min(_listed(key), default=-1) < 0:
            problems.append(f"label {name!r} must not be negative or empty, got {value!r}")
            continue
        found[str(name)] = key
    return found
