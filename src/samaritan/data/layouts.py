"""How each layout of volumes names its folders and files, and what stands beside them."""

from __future__ import annotations

import json
import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Case, Group, Manifest, told
from samaritan.data.sources.sets import modality_in
from samaritan.data.structures import Structure
from samaritan.errors import ConfigError, FileError
from samaritan.io import write
from samaritan.io.files import replacing
from samaritan.volume import LabelMap, Volume, smallest_label_dtype

Array = npt.NDArray[Any]

_SUFFIX = ".nii.gz"


class Mask(NamedTuple):
    """A structure of a case, and how large it is in its own file."""

    structure: Structure
    volume_mm3: float


@dataclass(frozen=True)
class Converted:
    """What was written of a case, relative to the folder."""

    images: tuple[str, ...]
    masks: tuple[tuple[Any, ...], ...]
    """Class, file, volume in mm3 and image of each mask; of a label map one row with all its values."""
    spacing: Sequence[float]


class Layout(ABC):
    """One way of laying out volumes. Made for the manifest that is converted."""

    def __init__(self, manifest: Manifest, out: Path) -> None:
        self.manifest, self.out = manifest, out

    @abstractmethod
    def write(
        self,
        case: Case,
        name: str,
        image: Volume,
        masks: Sequence[Mask],
        drawn: Sequence[LabelMap],
        merge: bool,
    ) -> Converted:
        """Write the files of one case."""

    def finish(self, rows: Iterable[tuple[Case, Converted]]) -> None:  # noqa: B027  # some need nothing
        """Write what makes the folder complete, once every case is there."""

    def _write(self, volume: Volume, file: str) -> str:
        write(volume, self.out / file)
        return file


class NnUNet(Layout):
    """imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz and dataset.json; a folder for each data set."""

    def __init__(self, manifest: Manifest, out: Path) -> None:
        super().__init__(manifest, out)
        groups = list(manifest.groups)
        self.folder = {name: "" for name in groups}
        if len(groups) > 1:
            self.folder = {g: f"Dataset{501 + i}_{_safe(g)}/" for i, g in enumerate(groups)}
        self.labels = {name: self._labels(name) for name in groups}

    def write(
        self,
        case: Case,
        name: str,
        image: Volume,
        masks: Sequence[Mask],
        drawn: Sequence[LabelMap],
        merge: bool,
    ) -> Converted:
        """Write a file for each channel, and one label map."""
        where, part = self.folder[case.group], "Ts" if case.split == "test" else "Tr"
        label = self._map(case, masks, drawn, merge) if drawn else None  # all that can fail first
        files = [
            self._write(image.channel(c), f"{where}images{part}/{name}_{c:04d}{_SUFFIX}")
            for c in range(image.n_channels)
        ]
        rows = []
        if label is not None:
            file = self._write(label, f"{where}labels{part}/{name}{_SUFFIX}")
            rows.append((label.labels(), file, None, files[0]))
        return Converted(tuple(files), tuple(rows), image.grid.spacing_mm)

    def finish(self, rows: Iterable[tuple[Case, Converted]]) -> None:
        """Write dataset.json, and splits_final.json where cases are held out."""
        every = list(rows)
        for name, group in self.manifest.groups.items():
            own = [(c, r) for c, r in every if c.group == name]
            count = max((len(r.images) for _, r in own), default=1)
            content = {
                "channel_names": {
                    str(i): n for i, n in enumerate(self._channels(group, own, count))
                },
                "labels": self._told(name, [r for _, r in own]),
                "numTraining": sum(c.split != "test" for c, _ in own),
                "file_ending": _SUFFIX,
                "name": name,
            }
            if group.regions:
                content["regions_class_order"] = _class_order(group)
            folder = self.out / self.folder[name]
            held_out = [_case_name(r) for c, r in own if c.split == "val"]
            if held_out:
                learned = [_case_name(r) for c, r in own if c.split in (None, "train")]
                fold = {"train": learned, "val": held_out}
                write_json([fold], folder / "splits_final.json")
            write_json(content, folder / "dataset.json")

    def _labels(self, name: str) -> dict[str, int]:
        """Number the classes of a data set: as it does itself, or mask files by name."""
        group = self.manifest.groups[name]
        if group.labels:
            return {label: value for value, label in group.labels.items()}
        cases = [c for c in self.manifest if c.group == name and c.label_kind == "masks"]
        return {
            label: i for i, label in enumerate(sorted({o for c in cases for o in c.objects}), 1)
        }

    def _told(self, name: str, made: Sequence[Converted]) -> dict[str, Any]:
        group = self.manifest.groups[name]
        held = sorted({v for one in made for row in one.masks for v in row[0]})
        known = self.labels[name] or {f"label {v}": v for v in held}
        told: dict[str, Any] = {"background": 0, **known}
        if group.regions:
            told = {"background": 0, **{n: list(v) for n, v in _nested(group)}}
        if group.ignore is not None:
            told["ignore"] = group.ignore
        return told

    def _map(
        self, case: Case, masks: Sequence[Mask], drawn: Sequence[LabelMap], merge: bool
    ) -> LabelMap:
        """Put the masks of a case into one map; a map that is one already keeps its values."""
        names = self.labels[case.group]
        if case.label_kind == "map":
            kept = drawn[0].array
            gone = {v for s in masks for v in s.structure.values}
            small = [v for v in drawn[0].labels() if v in names.values() and v not in gone]
            array = np.where(np.isin(kept, small), 0, kept) if small else kept
            return LabelMap(array.astype(smallest_label_dtype(int(array.max()))), drawn[0].grid)
        if case.label_kind == "instances":
            raise ConfigError(
                "numbered objects make no classes: nnU-Net needs a value for each class"
            )
        array = np.zeros(drawn[0].shape, smallest_label_dtype(max(names.values(), default=1)))
        for one in sorted(masks, key=lambda m: -m.volume_mm3):
            inside = one.structure.mask(drawn[one.structure.file].array)
            both = int(np.count_nonzero(array[inside]))
            if both and not merge:
                raise ConfigError(
                    f"{one.structure.name!r} overlaps other masks in {both} voxels, which a label map cannot "
                    "hold: --merge-overlaps lets the smaller one lie on top"
                )
            array[inside] = names[one.structure.name]
        return LabelMap(array, drawn[0].grid)

    @staticmethod
    def _channels(group: Group, own: Sequence[tuple[Case, Converted]], count: int) -> Sequence[str]:
        if len(group.channels) == count:
            return group.channels
        kinds = {c.modality for c, _ in own}
        known = next(iter(kinds)) if len(kinds) == 1 else None
        return [known or "image"] if count == 1 else [f"channel {c}" for c in range(count)]


class SamMed3D(Layout):
    """TARGET/DATASET/imagesTr and labelsTr, binary; the image lies in the folder of every target."""

    def write(
        self,
        case: Case,
        name: str,
        image: Volume,
        masks: Sequence[Mask],
        drawn: Sequence[LabelMap],
        merge: bool,
    ) -> Converted:
        """Write a mask for each target; images after the first are hard links where that is possible.

        A case in which nothing is drawn has no place here.
        """
        part, dataset = part_of(case), _safe(case.group)
        if case.modality and modality_in(dataset) != case.modality:
            dataset = f"{case.modality.lower()}_{dataset}"  # SAM-Med3D looks for "/ct_" in paths
        if not masks:
            raise ConfigError(
                "nothing is drawn in it, and this layout has a folder for each target"
            )
        images: list[str] = []
        rows = []
        for one, mask in binary(masks, drawn):
            where = f"{_safe(one.name)}/{dataset}"
            file = f"{where}/images{part}/{name}{_SUFFIX}"
            if file not in images:
                images.append(self._image(image, file, images))
            label = self._write(mask, f"{where}/labels{part}/{name}{_SUFFIX}")
            rows.append((one.name, label, one.volume_mm3, file))
        return Converted(tuple(images), tuple(rows), image.grid.spacing_mm)

    def _image(self, image: Volume, file: str, before: Sequence[str]) -> str:
        if not before:
            return self._write(image, file)
        with replacing(self.out / file) as (new,):
            new.unlink()
            try:
                os.link(self.out / before[0], new)
            except OSError:
                shutil.copyfile(self.out / before[0], new)
        return file


class NeuroSam3D(Layout):
    """DATASET/imagesTr and labelsTr/CLASS, and DATASET_Tr.json with a row for each mask."""

    def write(
        self,
        case: Case,
        name: str,
        image: Volume,
        masks: Sequence[Mask],
        drawn: Sequence[LabelMap],
        merge: bool,
    ) -> Converted:
        """Write the image once, and a mask for each class."""
        part, dataset = part_of(case), _safe(case.group)
        file = self._write(image, f"{dataset}/images{part}/{name}{_SUFFIX}")
        rows = []
        for one, mask in binary(masks, drawn):
            label = f"{dataset}/labels{part}/{_safe(one.name)}/{name}{_SUFFIX}"
            rows.append((one.name, self._write(mask, label), one.volume_mm3, file))
        return Converted((file,), tuple(rows), image.grid.spacing_mm)

    def finish(self, rows: Iterable[tuple[Case, Converted]]) -> None:
        """Write the index files that NeuroSAM3D's data module reads; paths are relative to them."""
        index: dict[str, list[dict[str, Any]]] = {}
        for case, made in rows:
            listed = index.setdefault(f"{_safe(case.group)}_{part_of(case)}", [])
            spacing = str(tuple(round(float(s), 6) for s in made.spacing))
            for name, label, volume, image in made.masks:
                row = {"image": image, "label": label, "class": name, "volume": volume}
                listed.append({**row, "spacing": spacing})
        for name, listed in index.items():
            write_json(listed, self.out / f"{name}.json")


class Bit(NamedTuple):
    """A class of a case, with all that is drawn of it."""

    name: str
    volume_mm3: float


def binary(masks: Sequence[Mask], drawn: Sequence[LabelMap]) -> Iterable[tuple[Bit, LabelMap]]:
    """Give one binary mask for each class: numbered objects of one class together.

    Raises:
        ConfigError: if two classes would have one folder.
    """
    classes: dict[str, list[Mask]] = {}
    for one in masks:
        classes.setdefault(one.structure.name, []).append(one)
    folders: dict[str, list[str]] = {}
    for name in classes:
        folders.setdefault(_safe(name).lower(), []).append(name)
    alike = [f"{' and '.join(map(repr, names))}" for names in folders.values() if len(names) > 1]
    if alike:
        raise ConfigError(told("classes would lie in one folder; rename them", alike))
    for name, some in classes.items():
        inside = np.zeros(drawn[0].shape, bool)
        for one in some:
            inside |= one.structure.mask(drawn[one.structure.file].array)
        if not inside.any():
            continue  # too small for the new spacing
        volume = sum(one.volume_mm3 for one in some)
        yield Bit(name, volume), LabelMap(inside.view(np.uint8), drawn[0].grid)


def part_of(case: Case) -> str:
    """Say which set a case goes to."""
    return {"val": "Val", "test": "Ts"}.get(str(case.split), "Tr")


def write_json(content: Any, path: Path) -> None:
    """Write JSON, complete or not at all."""
    with replacing(path) as (new,):
        new.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")


def _case_name(made: Converted) -> str:
    return Path(made.images[0]).name.removesuffix(f"_0000{_SUFFIX}")


def _nested(group: Group) -> list[tuple[str, tuple[int, ...]]]:
    """Order regions from the outer to the inner."""
    return sorted(group.regions.items(), key=lambda item: -len(item[1]))


def _class_order(group: Group) -> list[int]:
    """Choose for each region the value that is in it and in no later one, as nnU-Net paints them."""
    ordered = [values for _, values in _nested(group)]
    found = []
    for i, values in enumerate(ordered):
        inner = {v for later in ordered[i + 1 :] for v in later}
        found.append(next((v for v in values if v not in inner), values[0]))
    return found


def _safe(name: str) -> str:
    """Make a name fit for a folder: spaces and the like become underscores."""
    made = re.sub(r"[^\w.+-]+", "_", name.strip()).strip(".")
    if not made:
        raise FileError(f"{name!r} cannot be the name of a folder: rename that class or data set")
    return made
