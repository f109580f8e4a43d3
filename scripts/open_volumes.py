"""Volumes with free licences (CC BY, BSD-3, MIT, Apache-2.0) that the compact models learn from."""

import os
from dataclasses import replace
from pathlib import Path

import samaritan
from samaritan.data import Case, Group, Manifest, load_manifest

PARTS = {"train": 0.7, "val": 0.1, "test": 0.2}
SEED = 1

VOLUMES = {
    "ms_lesions": (
        (
            "MR",
            "train",
            "volumes/ms_lesions/patient07_FLAIR*.nii.gz",
            "volumes/ms_lesions/patient07_GOLD*",
        ),
        (
            "MR",
            "test",
            "volumes/ms_lesions/patient19_FLAIR*.nii.gz",
            "volumes/ms_lesions/patient19_GOLD*",
        ),
    ),
    "pyradiomics": (
        (
            "MR",
            "train",
            "volumes/pyradiomics/brain1_image.nrrd",
            "volumes/pyradiomics/brain1_label.nrrd",
        ),
        (
            "MR",
            "test",
            "volumes/pyradiomics/brain2_image.nrrd",
            "volumes/pyradiomics/brain2_label.nrrd",
        ),
        (
            "MR",
            "train",
            "volumes/pyradiomics/breast1_image.nrrd",
            "volumes/pyradiomics/breast1_label.nrrd",
        ),
        (
            "MR",
            "train",
            "volumes/pyradiomics/prostate_phantom_subvolume.nrrd",
            "volumes/pyradiomics/prostate_phantom_subvolume-label.nrrd",
        ),
    ),
    "sct": (
        ("MR", "train", "volumes/sct/t1/t1w.nii.gz", "volumes/sct/t1/t1w_seg-manual.nii.gz"),
        ("MR", "train", "volumes/sct/t2/t2.nii.gz", "volumes/sct/t2/t2_seg-manual.nii.gz"),
        ("MR", "train", "volumes/sct/t2s/t2s.nii.gz", "volumes/sct/t2s/t2s_seg.nii.gz"),
        ("MR", "train", "volumes/sct/mt/mt0.nii.gz", "volumes/sct/mt/mt0_seg.nii.gz"),
        (
            "MR",
            "train",
            "volumes/sct/mt/mt1.nii.gz",
            "volumes/sct/mt/mt1_gmseg_goldstandard.nii.gz",
        ),
    ),
    "totalsegmentator": (
        (
            "CT",
            "train",
            "totalsegmentator/example_ct.nii.gz",
            "totalsegmentator/example_seg_fast_force_split.nii.gz",
        ),
        (
            "CT",
            "train",
            "totalsegmentator/example_ct_dicom",
            "totalsegmentator/example_seg_dicom.nii.gz",
        ),
    ),
    "totalsegmentator_mr": (
        (
            "MR",
            "train",
            "totalsegmentator/example_mr_sm.nii.gz",
            "totalsegmentator/example_seg_mr.nii.gz",
        ),
    ),
}
"""Volumes one by one: modality, part, image, labels."""


def aligned(image: Path, labels: Path, out: Path) -> Path:
    """Labels on the grid of their image: those of one set are stored the other way round."""
    grid, drawn = samaritan.read(image).grid, samaritan.read(labels)
    if drawn.grid.same_as(grid):
        return labels
    path = out / "aligned" / labels.name
    path.parent.mkdir(parents=True, exist_ok=True)
    samaritan.write(drawn.to_grid(grid, interpolation="nearest"), path)
    return path


def volumes(data: Path, name: str, out: Path) -> Manifest:
    """The volumes of the table, put in parts by hand: there are too few to draw lots."""
    cases = []
    for modality, part, *patterns in VOLUMES[name]:
        image, labels = (next(iter(sorted(data.glob(pattern)))) for pattern in patterns)
        files = [os.path.relpath(p, data) for p in (image, aligned(image, labels, out))]
        cases.append(
            Case(
                Path(files[0]).name.split(".")[0],
                (files[0],),
                (files[1],),
                modality=modality,
                split=part,
            )
        )
    cases = [replace(case, group=name) for case in cases]
    return Manifest(data, tuple(cases), {name: Group()})


def hippocampus(data: Path) -> Manifest:
    """The hippocampi (CC BY-SA 4.0), patients in parts by lot."""
    found = load_manifest(data / "nnunet_raw" / "Dataset004_Hippocampus").split(PARTS, seed=SEED)
    return replace(found, cases=tuple(replace(c, modality="MR") for c in found))


def as_nifti(name: str, manifest: Manifest, out: Path) -> Manifest:
    """The same volumes in one folder and one format, whatever they came in."""
    cases = []
    for case in manifest:
        files = []
        for what, path in (("image", case.images[0]), ("labels", case.labels[0])):
            file = out / name / f"{case.id}_{what}.nii.gz"
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                samaritan.write(samaritan.read(manifest.path(path)), file)
            files.append(os.path.relpath(file, out))
        cases.append(replace(case, images=(files[0],), labels=(files[1],)))
    return replace(manifest, root=out, cases=tuple(cases))
