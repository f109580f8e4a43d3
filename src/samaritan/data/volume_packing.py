"""Volumes on a model's lattice, made once, in memory or memory-mapped, with an index of what is drawn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Case, Manifest
from samaritan.data.reading import case_image, case_labels
from samaritan.data.structures import Structure, structures_of
from samaritan.errors import ConfigError, FileError, SamaritanError
from samaritan.io.files import check_need, replacing
from samaritan.transforms import CubePreprocess, WindowPreprocess
from samaritan.volume import LabelMap, smallest_label_dtype

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]
Chain = WindowPreprocess | CubePreprocess


class Target(NamedTuple):
    """One structure of a volume, as a model is asked for it."""

    structure: Structure
    """Its name, its plane of labels, and its values there."""
    voxels: int
    """On the model's lattice."""
    volume_mm3: float
    """In the file."""
    start: tuple[int, int, int]
    """First voxel of its box on the lattice."""
    stop: tuple[int, int, int]
    """One past the last."""


@dataclass(frozen=True, eq=False)
class Packed:
    """One volume on the model's lattice.

    Attributes:
        image: (c, i, j, k), as stored or float32 where it was resampled; not normalised.
        planes: (planes, i, j, k) of label values, unsigned.
        targets: what is drawn on the planes.
        meta: what the chain wants to know: the modality, and "spacing_mm" of the lattice.
        statistics: of each channel, what the chain measures of whole volumes.
    """

    image: Array
    planes: Array
    targets: tuple[Target, ...]
    meta: dict[str, Any]
    statistics: tuple[dict[str, float], ...]


@dataclass
class PackedVolumes:
    """All volumes of a manifest, in its order."""

    _packed: list[Packed] | None
    _files: tuple[Path, ...] = ()
    _notes: tuple[dict[str, Any], ...] = ()

    def __len__(self) -> int:
        return len(self._notes if self._packed is None else self._packed)

    def __getitem__(self, index: int) -> Packed:
        """Give a volume; arrays from files are memory-mapped, so only what is cut out is read."""
        if self._packed is not None:
            return self._packed[index]
        file, note = self._files[index], self._notes[index]
        try:
            image = np.load(_image_file(file), mmap_mode="r", allow_pickle=False)
            planes = np.load(_planes_file(file), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise FileError(f"{file.parent} has changed under the run: {error}") from error
        return _from_note(image, planes, note)

    def targets(self, index: int) -> tuple[Target, ...]:
        """List what is drawn in a volume, without opening it."""
        if self._packed is not None:
            return self._packed[index].targets
        return _targets(self._notes[index])


def pack_volumes(
    manifest: Manifest,
    chain: Chain,
    *,
    cache: Path | None = None,
    workers: int = 2,
    progress: Progress = lambda done, total: None,
) -> PackedVolumes:
    """Turn and resample every volume of a manifest as the chain does, and index what is drawn.

    Args:
        manifest: of volumes with labels of any kind.
        chain: of the model; its size and prompts make no difference here.
        cache: a folder for three files of each volume, found again while volume and chain are the same;
            all processes share it. None keeps everything in memory, if that is enough.
        workers: volumes at a time; each is in memory twice for a moment.
        progress: called with (volumes done, volumes in all).

    Raises:
        FileError: naming the case that cannot be read.
        ConfigError: if a case is a picture, or labels have no name.
        TooLarge: if they do not fit into memory; give a cache then.
    """
    packed: list[Packed] = []
    files: list[Path] = []
    notes: list[dict[str, Any]] = []

    def one(case: Case) -> tuple[Packed | None, Path, dict[str, Any]]:
        try:
            return _kept(manifest, case, chain, cache)
        except SamaritanError as error:
            raise type(error)(f"case {case.id!r}: {error}") from error

    total = 0
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for start in range(0, len(manifest), 4 * workers):  # so that results never pile up
            some = manifest.cases[start : start + 4 * workers]
            for done, (volume, file, note) in enumerate(pool.map(one, some), start + 1):
                progress(done, len(manifest))
                files.append(file)
                notes.append(note)
                if volume is not None:
                    packed.append(volume)
                    total += volume.image.nbytes + volume.planes.nbytes
                    if done % 8 == 0:
                        check_need(manifest.root, total * (len(manifest) - done) // done, None)
    if cache is None:
        return PackedVolumes(packed)
    return PackedVolumes(None, tuple(files), tuple(notes))


def pack_volume(manifest: Manifest, case: Case, chain: Chain) -> Packed:
    """Bring one volume and its labels to the lattice of the chain."""
    image = case_image(manifest, case)
    if image.grid.unit == "px" or case.place is not None:
        raise ConfigError("it is a picture, and volumes are learned from here")
    image = replace(image, meta={"modality": case.modality or image.meta.get("modality", "")})
    drawn = case_labels(manifest, case)
    for other in drawn:
        image.grid.require_same(other.grid, what="grids of image and labels")
    structures = structures_of(case, manifest.group_of(case), drawn)
    unit = image.grid.voxel_volume_mm3
    sizes = [int(s.mask(drawn[s.file].array).sum()) * unit for s in structures]
    lattice = chain.stored_grid(image.grid)
    channels = [image.channel(c) for c in range(image.n_channels)]
    statistics = tuple(chain.statistics(one) for one in channels)
    moved = np.stack([np.ascontiguousarray(one.to_grid(lattice).array) for one in channels])
    planes, structures = _planes(structures, [m.to_grid(lattice) for m in drawn], lattice.shape)
    targets = tuple(
        found
        for s, size in zip(structures, sizes, strict=True)
        if (found := _target(s, planes, size)) is not None
    )
    meta = {**image.meta, "spacing_mm": list(lattice.spacing_mm)}
    return Packed(_tidy(moved), planes, targets, meta, statistics)


def _tidy(image: Array) -> Array:
    """Keep whole numbers as they are stored; others as finite float32."""
    if image.dtype.kind in "ui":
        return image
    return np.nan_to_num(image.astype(np.float32, copy=False))


def _planes(
    structures: Sequence[Structure], drawn: Sequence[LabelMap], shape: tuple[int, ...]
) -> tuple[Array, tuple[Structure, ...]]:
    """Put label files on few planes: masks that do not overlap share one."""
    if len(drawn) <= 1:
        whole = drawn[0].array if drawn else np.zeros(shape, np.uint8)
        return _small(whole[None]), tuple(structures)
    planes: list[Array] = []
    counts: list[int] = []
    moved = []
    for one in structures:
        inside = one.mask(drawn[one.file].array)
        free = (i for i, p in enumerate(planes) if counts[i] < 255 and not p[inside].any())
        place = next(free, len(planes))
        if place == len(planes):
            planes.append(np.zeros(shape, np.uint8))
            counts.append(0)
        counts[place] += 1
        planes[place][inside] = counts[place]
        moved.append(Structure(one.name, place, (counts[place],)))
    return np.stack(planes) if planes else np.zeros((1, *shape), np.uint8), tuple(moved)


def _small(planes: Array) -> Array:
    return np.ascontiguousarray(planes.astype(smallest_label_dtype(int(planes.max(initial=0)))))


def _target(structure: Structure, planes: Array, volume_mm3: float) -> Target | None:
    """Measure a structure on the lattice; None if no voxel of it is left there."""
    inside = structure.mask(planes[structure.file])
    lines = [np.flatnonzero(inside.any(axis=tuple({0, 1, 2} - {a}))) for a in range(3)]
    if not all(len(line) for line in lines):
        return None
    i, j, k = ((int(line[0]), int(line[-1]) + 1) for line in lines)
    return Target(structure, int(inside.sum()), volume_mm3, (i[0], j[0], k[0]), (i[1], j[1], k[1]))


# -- keeping -----------------------------------------------------------------------------------------


def _kept(
    manifest: Manifest, case: Case, chain: Chain, cache: Path | None
) -> tuple[Packed | None, Path, dict[str, Any]]:
    """Find a volume in the cache, or make it and put it there."""
    if cache is None:
        return pack_volume(manifest, case, chain), Path(), {}
    file = cache / f"volume-{_key(manifest, case, chain)}.json"
    if not all(path.is_file() for path in (_image_file(file), _planes_file(file), file)):
        made = pack_volume(manifest, case, chain)
        with replacing(_image_file(file), _planes_file(file), file) as (image, planes, note):
            for path, array in ((image, made.image), (planes, made.planes)):
                with path.open("wb") as out:
                    np.save(out, array, allow_pickle=False)
            content = {
                "targets": made.targets,
                "meta": made.meta,
                "statistics": made.statistics,
            }
            note.write_text(json.dumps(content), "utf-8")
    return None, file, json.loads(file.read_text("utf-8"))


def _key(manifest: Manifest, case: Case, chain: Chain) -> str:
    """Sum up what a packed volume depends on: its files, what they mean, and the chain."""
    wanted = {"kind": chain.kind, **asdict(replace(chain, size=(1, 1, 1)))}
    wanted.pop("prompting")
    group = manifest.group_of(case)
    meaning: list[Any] = [case.modality, case.label_kind, case.objects, group.ignore]
    meaning += [sorted(group.labels.items()), sorted(group.regions.items())]
    facts: list[Any] = ["spacing", wanted, meaning]
    for name in (*case.images, *case.labels):
        path = manifest.path(name)
        if not path.exists():
            raise FileError(f"{path} is missing")
        stat = path.stat()
        facts.append([str(path.resolve()), stat.st_size, stat.st_mtime_ns])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _image_file(file: Path) -> Path:
    return file.with_suffix(".image.npy")


def _planes_file(file: Path) -> Path:
    return file.with_suffix(".labels.npy")


def _targets(note: dict[str, Any]) -> tuple[Target, ...]:
    return tuple(
        Target(Structure(s[0], s[1], tuple(s[2])), voxels, size, tuple(start), tuple(stop))
        for s, voxels, size, start, stop in note["targets"]
    )


def _from_note(image: Array, planes: Array, note: dict[str, Any]) -> Packed:
    return Packed(image, planes, _targets(note), note["meta"], tuple(note["statistics"]))
