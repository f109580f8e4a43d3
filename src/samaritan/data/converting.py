"""From one layout of volumes to another: nnU-Net, SAM-Med3D, NeuroSAM3D, CVPR 2025; resampled where asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.data.layout_cvpr25 import Cvpr25
from samaritan.data.layouts import Converted, Layout, Mask, NeuroSam3D, NnUNet, SamMed3D
from samaritan.data.manifest import Case, Manifest, told
from samaritan.data.reading import case_image, case_labels
from samaritan.data.slicing import file_facts, file_names
from samaritan.data.sources import load_manifest
from samaritan.data.sources.patients import write_patients
from samaritan.data.structures import structures_of
from samaritan.errors import ConfigError, SamaritanError
from samaritan.io.files import replacing
from samaritan.volume import LabelMap, Volume

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

LAYOUTS: dict[str, type[Layout]] = {
    "nnunet": NnUNet,
    "sam_med3d": SamMed3D,
    "neurosam3d": NeuroSam3D,
    "cvpr25": Cvpr25,
}
"""Names of layouts that volumes can be written in."""

_DONE = ".done"


@dataclass(frozen=True)
class ConvertOptions:
    """How volumes are converted; part of what a resumed run compares."""

    to: str
    """A key of `LAYOUTS`: "nnunet", "sam_med3d", "neurosam3d" or "cvpr25"."""
    spacing_mm: tuple[float, float, float] | None = None
    """Voxel sides to resample to, images linearly and labels by nearest neighbour; None: as they are."""
    channel: int | str | None = None
    """Take one channel, by number or name; the layouts of SAM-Med3D and NeuroSAM3D hold one."""
    min_volume_mm3: float = 0.0
    """Masks that are smaller are left out; empty ones always are. SAM-Med3D's own preparation has 10."""
    merge_overlaps: bool = False
    """Where masks overlap, let the smaller one lie on top in a label map; otherwise that is a problem."""

    def __post_init__(self) -> None:
        if self.to not in LAYOUTS:
            raise ConfigError(f"layout {self.to!r} is not known; expected {', '.join(LAYOUTS)}")
        sides = (1.0,) if self.spacing_mm is None else self.spacing_mm
        if not all(np.isfinite(s) and s > 0 for s in sides) or self.min_volume_mm3 < 0:
            raise ConfigError(
                "spacing must be positive and min_volume_mm3 not negative, got "
                f"{self.spacing_mm} and {self.min_volume_mm3}"
            )


def convert(
    manifest: Manifest,
    out: Path,
    options: ConvertOptions,
    *,
    workers: int = 2,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write every volume of a manifest in another layout, each file complete or not at all.

    A case that is there, made with the same options from the same files, is not made again: a run that
    was stopped goes on where it was. One volume for each worker is in memory.

    Returns:
        The manifest of what was written, read anew. SAM-Med3D's layout has no place for cases in which
        nothing is drawn: they are missing there.

    Raises:
        ConfigError: telling every case that cannot be converted; the others are written, but
            nothing that would make the folder look complete.
    """
    layout = LAYOUTS[options.to](manifest, out)
    names = _names(manifest)
    problems: list[str] = []
    rows: list[tuple[Case, Converted]] = []

    def one(case: Case) -> Converted | str:
        try:
            return _convert(manifest, case, names[case.id], layout, options)
        except SamaritanError as error:
            return f"case {case.id!r}: {error}"

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for done, made in enumerate(pool.map(one, manifest.cases)):
            if isinstance(made, str):
                problems.append(made)
            else:
                rows.append((manifest.cases[done], made))
            progress(done + 1, len(manifest))
    if problems:
        raise ConfigError(told(f"{len(problems)} of {len(manifest)} cases stay out", problems))
    layout.finish(rows)
    if any(case.patient != names[case.id] for case, _ in rows):
        write_patients(out, {file: case.patient for case, made in rows for file in made.images})
    return load_manifest(out)


def _convert(
    manifest: Manifest, case: Case, name: str, layout: Layout, options: ConvertOptions
) -> Converted:
    note = layout.out / _DONE / case.group / f"{name}.json"
    key = _key(manifest, case, options)
    if note.is_file():
        known = json.loads(note.read_text("utf-8"))
        files = [*known["images"], *(row[1] for row in known["masks"])]
        if known.pop("key", None) == key and all((layout.out / f).is_file() for f in files):
            return Converted(
                tuple(known["images"]), tuple(tuple(r) for r in known["masks"]), known["spacing"]
            )
    image = _image(manifest, case, options)
    masks, drawn = _masks(manifest, case, image, options)
    if options.spacing_mm is not None:
        grid = image.grid.resample(options.spacing_mm)
        image, drawn = image.to_grid(grid), [m.to_grid(grid) for m in drawn]
    made = layout.write(case, name, image, masks, drawn, options.merge_overlaps)
    with replacing(note) as (new,):
        new.write_text(json.dumps({"key": key, **asdict(made)}), "utf-8")
    return made


def _image(manifest: Manifest, case: Case, options: ConvertOptions) -> Volume:
    image = case_image(manifest, case)
    if image.grid.unit == "px" or case.place is not None:
        raise ConfigError("it is a picture, and these layouts hold volumes")
    if options.channel is not None and image.array.ndim == 4:
        return image.channel(options.channel)
    known = manifest.group_of(case).channels
    if isinstance(options.channel, str) and options.channel not in known:
        raise ConfigError(
            f"it has one channel, {', '.join(known) or 'without a name'}, and {options.channel!r} was asked "
            "for"
        )
    if image.n_channels > 1 and options.to != "nnunet":
        raise ConfigError(
            f"it has {image.n_channels} channels {image.channels} and this layout holds one: choose it by "
            "its name or number with --channel"
        )
    return image


def _masks(
    manifest: Manifest, case: Case, image: Volume, options: ConvertOptions
) -> tuple[list[Mask], list[LabelMap]]:
    """Read labels and list the structures that are large enough."""
    drawn = case_labels(manifest, case)
    for one in drawn:
        image.grid.require_same(one.grid, what="grids of image and labels")
    masks = []
    for structure in structures_of(case, manifest.group_of(case), drawn):
        array = drawn[structure.file].array
        volume = int(structure.mask(array).sum()) * image.grid.voxel_volume_mm3
        if volume >= options.min_volume_mm3:
            masks.append(Mask(structure, volume))
    return masks, drawn


def _names(manifest: Manifest) -> dict[str, str]:
    """Name the files of each case: as its id without the data set, which has a folder of its own."""
    short = {c.id: c.id.removeprefix(f"{c.group}/") for c in manifest}
    found: dict[str, str] = {}
    for group in manifest.groups:
        cases = [c for c in manifest if c.group == group]
        if len({short[c.id] for c in cases}) < len(cases):
            short |= {c.id: c.id for c in cases}
        own = Manifest(manifest.root, tuple(replace(c, id=short[c.id]) for c in cases))
        names = file_names(own)
        found |= {c.id: names[short[c.id]] for c in cases}
    return found


def _key(manifest: Manifest, case: Case, options: ConvertOptions) -> str:
    """Sum up what the files of a case depend on."""
    group = manifest.group_of(case)
    facts: list[Any] = [asdict(options), case.label_kind, case.objects, case.split, case.modality]
    facts += [sorted(group.labels.items()), sorted(group.regions.items()), group.ignore]
    facts += file_facts(manifest, case)
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
