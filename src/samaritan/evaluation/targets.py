"""The objects of a case that a model is asked for, each as a mask on the grid of the image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Case, Group, Manifest
from samaritan.data.reading import case_image, case_labels
from samaritan.errors import ConfigError
from samaritan.evaluation.trial import Objects, Trial
from samaritan.volume import LabelMap, Volume

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Target:
    """One object, cut to its box.

    Attributes:
        case: id of the case, with "#n" behind it where several objects have one label.
        label: its label value; 1 for numbered objects, the position of mask files.
        name: of the label.
        start: the first voxel of its box.
        part: the mask inside the box.
    """

    case: str
    label: int
    name: str
    start: tuple[int, ...]
    part: Mask

    @property
    def size(self) -> int:
        """Voxels of the object."""
        return int(np.count_nonzero(self.part))

    @property
    def stop(self) -> tuple[int, ...]:
        """One past the last voxel of its box."""
        return tuple(a + n for a, n in zip(self.start, self.part.shape, strict=True))

    def mask(self, shape: tuple[int, ...]) -> Mask:
        """The object on the whole grid."""
        whole = np.zeros(shape, bool)
        whole[self.where] = self.part
        return whole

    @property
    def where(self) -> tuple[slice, ...]:
        """Its box."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))


@dataclass(frozen=True, eq=False)
class Subject:
    """A case that was read: its image, the objects to ask for, and voxels that nobody decided."""

    case: Case
    image: Volume
    targets: tuple[Target, ...]
    ignored: Mask | None = None


def read_subject(manifest: Manifest, case: Case, trial: Trial) -> Subject:
    """Read a case and find its objects.

    Raises:
        FileError: if a file cannot be read.
        GridMismatch: if image and labels do not share one grid.
        ConfigError: if the case has no labels.
        GeometryError: if there is no such channel.
    """
    if not case.labels:
        raise ConfigError(f"case {case.id!r} has no labels to measure against: leave it out")
    image, found = case_image(manifest, case), case_labels(manifest, case)
    if trial.channel is not None:
        image = image.channel(trial.channel)
    for labels in found:
        image.grid.require_same(labels.grid, what="grids of image and labels")
    group = manifest.group_of(case)
    every = [t for t in _targets(case, found, group, trial.objects) if t.size >= trial.min_size]
    ignored = None
    if group.ignore is not None and case.label_kind == "map":
        ignored = found[0].array == group.ignore
    return Subject(case, image, tuple(_drawn(case, every, trial)), ignored)


def seed_of(*parts: object) -> int:
    """One seed from several words and numbers: of the same parts always the same."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


def _drawn(case: Case, every: list[Target], trial: Trial) -> list[Target]:
    """As many objects as are wanted, in their order; which ones depends on case and seed alone."""
    if trial.max_objects is None or len(every) <= trial.max_objects:
        return every
    ranked = sorted(
        every, key=lambda target: seed_of(trial.seed, case.id, target.case, target.label, "object")
    )
    chosen = set(map(id, ranked[: trial.max_objects]))
    return [target for target in every if id(target) in chosen]


def _targets(case: Case, found: list[LabelMap], group: Group, how: Objects) -> Iterator[Target]:
    if case.label_kind == "masks":
        for label, labels in enumerate(found, 1):
            name = case.objects[label - 1] if case.objects else f"object {label}"
            yield from _whole(case.id, label, name, labels.array > 0)
        return
    array = found[0].array
    names = {**found[0].names, **group.labels}
    if case.label_kind == "instances":
        yield from _numbered(case.id, 1, names.get(1, "object"), array)
        return
    for label, name, mask in _masks(array, names, group):
        if how == "labels":
            yield from _whole(case.id, label, name, mask)
        else:
            yield from _parts(case.id, label, name, mask, how)


def _masks(array: Array, names: Mapping[int, str], group: Group) -> Iterator[tuple[int, str, Mask]]:
    """Every label as a mask, or every region where a data set has overlapping ones."""
    if group.regions:
        for position, (name, values) in enumerate(group.regions.items(), 1):
            yield position, name, np.isin(array, values)
        return
    for value in np.unique(array).tolist():
        if value not in (0, group.ignore):
            yield int(value), names.get(int(value), f"label {int(value)}"), array == value


def _whole(case: str, label: int, name: str, mask: Mask) -> Iterator[Target]:
    from scipy.ndimage import find_objects

    boxes = find_objects(mask.astype(np.uint8))
    if boxes:
        yield Target(case, label, name, tuple(s.start for s in boxes[0]), mask[boxes[0]])


def _parts(case: str, label: int, name: str, mask: Mask, how: Objects) -> Iterator[Target]:
    """The connected parts of a label, diagonal neighbours included; or the largest of them alone."""
    from scipy import ndimage

    numbers, count = ndimage.label(mask, np.ones((3,) * mask.ndim, int))
    if how == "largest" and count:
        sizes = np.bincount(numbers.ravel())
        sizes[0] = 0
        yield from _whole(case, label, name, numbers == int(sizes.argmax()))
        return
    yield from _numbered(case, label, name, numbers)


def _numbered(case: str, label: int, name: str, numbers: Array) -> Iterator[Target]:
    """A target for each number on a map."""
    from scipy.ndimage import find_objects

    boxes = find_objects(numbers)
    alone = sum(box is not None for box in boxes) == 1
    for number, box in enumerate(boxes, 1):
        if box is not None:
            told = case if alone else f"{case}#{number}"
            part = numbers[box] == number
            yield Target(told, label, name, tuple(s.start for s in box), part)
