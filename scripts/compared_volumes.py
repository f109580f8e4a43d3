"""The volumes of scripts/compare_3d, in a folder that can travel: hippocampus, and what bases learn from."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from open_volumes import hippocampus, volumes

import samaritan
from samaritan.data import Case, Group, Manifest
from samaritan.data.manifest_files import merged
from samaritan.data.reading import case_image, case_labels
from samaritan.phantoms import phantom
from samaritan.volume import Volume

BASE_MM, OWN_MM = 2.0, 1.0
"""Voxels of the windows that bases learn from, and of those of hippocampus."""

BASE_SETS = {
    "phantom_ct": 1.5,
    "phantom_mr": 1.5,
    "phantom_shapes": 3.0,
    "ms_lesions": 0.5,
    "pyradiomics": 0.5,
    "sct": 0.5,
    "totalsegmentator": 2.0,
    "totalsegmentator_mr": 1.5,
}
"""What bases learn from, and its share: nothing that shows a hippocampus as an object."""

PHANTOMS = {"ct": 4, "mr": 4, "shapes": 14}
"""How many computed volumes: the trunk of every patient is much alike, shapes never are."""


def prepare(data: Path, out: Path) -> None:
    """Copy hippocampus with the split of scripts/train_samaritan_2d, and make the volumes of the bases."""
    if not (out / "hippocampus.json").exists():
        manifest = hippocampus(data)
        for case in manifest:
            for name in (*case.images, *case.labels):
                target = out / "hippocampus" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(manifest.path(name), target)
        moved = replace(manifest, root=out / "hippocampus")
        moved.write(out / "hippocampus.json")
        sys.stderr.write(f"hippocampus: {dict(moved.splits())}\n")
    if (out / "base.json").exists():
        return
    found = {
        name: phantoms(name.removeprefix("phantom_"), out / name)
        for name in BASE_SETS
        if "phantom" in name
    }
    for name in BASE_SETS.keys() - found.keys():
        listed = volumes(data, name, made(out / "as_found"))
        found[name] = shrunk(listed.select(split="train"), out / name)
    shutil.rmtree(out / "as_found")
    manifest = merged({name: found[name] for name in BASE_SETS}, out)
    manifest.write(out / "base.json")
    sys.stderr.write(f"for the bases: {manifest}\n")


def made(folder: Path) -> Path:
    """A folder that is there."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def phantoms(kind: Any, folder: Path) -> Manifest:
    """Computed patients in CT or MR, or objects of any form."""
    cases = []
    for seed in range(PHANTOMS[kind]):
        lesions = int(np.random.default_rng(seed).integers(2, 9))
        body = {"shape": (120, 88, 80), "spacing_mm": (3, 3, 3.5), "lesions": lesions}
        cube = {"shape": (72, 72, 72), "spacing_mm": (BASE_MM,) * 3}
        options: dict[str, Any] = cube if kind == "shapes" else body
        drawn = phantom(kind, seed=seed, **options)
        modality = "CT" if kind == "ct" else "MR"
        cases.append(written(f"{seed:03d}", drawn.image, drawn.labels, folder, modality))
    return Manifest(folder, tuple(cases), {"": Group()})


def shrunk(manifest: Manifest, folder: Path) -> Manifest:
    """The first channel of the same volumes, its voxels nowhere finer than the bases see, as NIfTI."""
    cases = []
    for case in manifest:
        image, (labels,) = case_image(manifest, case).channel(0), case_labels(manifest, case)
        coarse = tuple(max(side, BASE_MM) for side in image.grid.spacing_mm)
        grid = image.grid.resample(coarse)
        labels = labels.to_grid(grid)
        cases.append(written(case.id, image.to_grid(grid), labels, folder, str(case.modality)))
    return Manifest(folder, tuple(cases), {"": Group()})


def written(name: str, image: Volume, labels: Volume, folder: Path, modality: str) -> Case:
    """Write a volume in 16 bits: CT in HU, others so that their brightest voxels are 1000."""
    array = image.array.astype(np.float32)
    if modality != "CT":
        array = array * (1000 / max(float(np.quantile(array, 0.999)), 1e-6))
    whole = np.rint(np.clip(np.nan_to_num(array), -2000, 30000)).astype(np.int16)
    made(folder)
    samaritan.write(Volume(whole, image.grid), folder / f"{name}.nii.gz")
    samaritan.write(labels, folder / f"{name}_labels.nii.gz")
    names = (f"{name}.nii.gz",), (f"{name}_labels.nii.gz",)
    return Case(name, *names, modality=modality, split="train")
