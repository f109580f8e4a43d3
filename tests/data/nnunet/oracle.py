"""What nnunetv2 itself makes of real cases, and of fingerprints, as numbers: no voxel of an image is kept.

Where nnunetv2 is installed (pip install nnunetv2 into an environment of its own, since it needs torchvision):

    nnUNetv2_extract_fingerprint -d 4 27 60 82; nnUNetv2_plan_experiment -d 4 27 60 82
    export SAMARITAN_DATA=../shared/data THEIR_PLANS=$nnUNet_preprocessed
    python tests/data/nnunet/oracle.py > tests/data/nnunet/golden.json
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

SETS = ("Dataset004_Hippocampus", "Dataset027_ACDC", "Dataset060_CHAOST2", "Dataset082_BraTS15")

REGIONS = {
    "labels": {"background": 0, "whole": [1, 2, 3], "core": [1, 3], "bright": [3], "ignore": 4},
    "regions_class_order": [2, 1, 3],
}

VARIANTS: dict[
    str, tuple[str, tuple[str, ...], dict[str, Any], tuple[int, int, int], dict[str, Any]]
] = {
    "thick": (SETS[2], ("chaos_01",), {"spacing": [4.0, 1.7, 1.4]}, (0, 1, 2), {}),
    "turned": (
        SETS[2],
        ("chaos_01",),
        {"spacing": [2.0, 1.5, 6.0], "use_mask_for_norm": [True]},
        (1, 2, 0),
        {},
    ),
    "flat": (SETS[2], ("chaos_01",), {"inherits_from": "2d", "spacing": [1.6, 1.1]}, (0, 1, 2), {}),
    "heart": (
        SETS[1],
        ("patient001_frame01", "patient002_frame12"),
        {"spacing": [5.0, 1.25, 1.25], "normalization_schemes": ["CTNormalization"]},
        (0, 1, 2),
        {},
    ),
    "isotropic": (
        SETS[0],
        ("hippocampus_001", "hippocampus_004"),
        {"spacing": [1.3, 0.8, 0.9], "normalization_schemes": ["RescaleTo01Normalization"]},
        (2, 0, 1),
        {},
    ),
    "as planned": (SETS[1], ("patient002_frame12",), {}, (0, 1, 2), {}),
    "regions": (
        SETS[3],
        ("brats_2013_pat0001_1",),
        {"spacing": [2.0, 2.0, 2.2], "use_mask_for_norm": [True, True]},
        (0, 1, 2),
        REGIONS,
    ),
}
"""Name -> data set, cases, what differs from 3d_fullres, transposition, what differs in dataset.json."""

FINGERPRINTS: dict[str, dict[str, Any]] = {
    "large CT": {
        "spacing": (1.0, 0.78, 0.78),
        "shape": (315, 512, 512),
        "channels": ["CT"],
        "n": 131,
    },
    "thick cine": {
        "spacing": (10.0, 1.56, 1.56),
        "shape": (9, 237, 208),
        "channels": ["MRI"],
        "n": 200,
    },
    "brain": {
        "spacing": (1.0, 1.0, 1.0),
        "shape": (138, 170, 137),
        "channels": ["a"] * 4,
        "n": 484,
    },
    "pictures": {
        "spacing": (999.0, 1.0, 1.0),
        "shape": (1, 512, 600),
        "channels": ["R"] * 3,
        "n": 90,
    },
    "sideways": {"spacing": (0.7, 0.7, 4.4), "shape": (320, 320, 22), "channels": ["MRI"], "n": 32},
    "whole body": {
        "spacing": (3.0, 2.0, 2.0),
        "shape": (400,) * 3,
        "channels": ["CT", "MR"],
        "n": 9,
    },
}
"""Made up: the median spacing and shape of a set; cases vary around them by known parts."""


def made_up(name: str) -> dict[str, Any]:
    """Make dataset_fingerprint.json of one of `FINGERPRINTS`."""
    facts = FINGERPRINTS[name]
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    flat = facts["shape"][0] == 1
    spacings, shapes = [], []
    for _ in range(facts["n"]):
        parts = np.ones(3) if flat else rng.choice([0.5, 0.8, 1.0, 1.0, 1.0, 1.25], 3)
        spacings.append([float(s * p) for s, p in zip(facts["spacing"], parts, strict=True)])
        sizes = rng.uniform(0.85, 1.15, 3)
        shapes.append(
            [1 if n == 1 else int(n * p) for n, p in zip(facts["shape"], sizes, strict=True)]
        )
    known = {"max": 9.0, "mean": 1.0, "median": 1.0, "min": -9.0, "percentile_00_5": -5.0}
    known |= {"percentile_99_5": 5.0, "std": 2.0}
    return {
        "foreground_intensity_properties_per_channel": {
            str(c): known for c in range(len(facts["channels"]))
        },
        "median_relative_size_after_cropping": 0.6 if name == "brain" else 1.0,
        "shapes_after_crop": shapes,
        "spacings": spacings,
    }


def dataset_json(name: str) -> dict[str, Any]:
    """Make dataset.json of one of `FINGERPRINTS`."""
    facts = FINGERPRINTS[name]
    return {
        "channel_names": {str(c): n for c, n in enumerate(facts["channels"])},
        "labels": {"background": 0, "one": 1, "two": 2},
        "numTraining": facts["n"],
        "file_ending": ".png" if facts["shape"][0] == 1 else ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }


def summed_up(array: np.ndarray) -> list[float]:
    """Sum an array up: mean, deviation, ends, and sums with random signs, which tell voxels apart."""
    flat = np.asarray(array, np.float64).ravel()
    rng = np.random.default_rng(0)
    signs = [
        float((flat * rng.choice([-1.0, 1.0], flat.size)).sum() / flat.size**0.5) for _ in range(4)
    ]
    return [float(flat.mean()), float(flat.std()), float(flat.min()), float(flat.max()), *signs]


def facts_of(
    image: np.ndarray, labels: np.ndarray, places: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Sum a preprocessed case up; labels (*grid), places (n, 3)."""
    values, counts = np.unique(labels, return_counts=True)
    return {
        "shape": list(image.shape),
        "image": summed_up(image),
        "labels": {str(int(v)): int(n) for v, n in zip(values, counts, strict=True)},
        "labels_crc": zlib.crc32(np.ascontiguousarray(labels, np.int16).tobytes()),
        "places": {
            key: [len(p), zlib.crc32(np.ascontiguousarray(p, np.int32).tobytes())]
            for key, p in places.items()
        },
    }


def smooth_logits(shape: tuple[int, ...], heads: int) -> np.ndarray:
    """Make logits that anyone can make again: waves of a phase for each head."""
    k, j, i = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij")
    waves = [
        np.sin(0.31 * k + h) + np.cos(0.17 * j - 2 * h) * np.sin(0.13 * i + h * h)
        for h in range(heads)
    ]
    return np.stack(waves).astype(np.float32)


def variant_plans(name: str, plans: dict[str, Any]) -> dict[str, Any]:
    """Put the changes of one of `VARIANTS` into plans of its data set."""
    _, _, changes, forward, _ = VARIANTS[name]
    made = json.loads(json.dumps(plans))
    made["transpose_forward"] = list(forward)
    made["transpose_backward"] = [list(forward).index(a) for a in range(3)]
    made["configurations"]["mine"] = {"inherits_from": "3d_fullres", **changes}
    return made


# -- with nnunetv2 -----------------------------------------------------------------------------------


def their_case(name: str, case: str, plans: dict[str, Any], raw: Path) -> dict[str, Any]:
    """Preprocess a case of a variant, and bring logits back, with nnunetv2."""
    from nnunetv2.inference.export_prediction import (
        convert_predicted_logits_to_segmentation_with_correct_shape as bring_back,
    )
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    which, _, _, _, described = VARIANTS[name]
    content = json.loads((raw / which / "dataset.json").read_text())
    files = get_filenames_of_train_images_and_targets(str(raw / which), content)[case]
    content |= described
    manager = PlansManager(variant_plans(name, plans))
    own = manager.get_configuration("mine")
    image, labels, properties = DefaultPreprocessor(verbose=False).run_case(
        files["images"], files["label"], manager, own, content
    )
    meant = manager.get_label_manager(content)
    logits = smooth_logits(image.shape[1:], meant.num_segmentation_heads)
    back, probabilities = bring_back(
        logits, manager, own, meant, properties, return_probabilities=True, num_threads_torch=1
    )
    places = {
        json.dumps([int(v) for v in k] if isinstance(k, tuple) else int(k)): np.asarray(p)[:, 1:]
        if len(p)
        else np.zeros((0, 3), np.int32)
        for k, p in properties["class_locations"].items()
    }
    return {
        "image": image,
        "labels": labels[0],
        "places": places,
        "box": [[int(a), int(b)] for a, b in properties["bbox_used_for_cropping"]],
        "spacing": [float(s) for s in properties["spacing"]],
        "back": back,
        "probabilities": probabilities,
    }


def their_plans(name: str) -> dict[str, Any]:
    """Plan one of `FINGERPRINTS` with nnunetv2."""
    with tempfile.TemporaryDirectory() as folder:
        raw, made = Path(folder, "raw", "Dataset001_X"), Path(folder, "pre", "Dataset001_X")
        for part in (raw / "imagesTr", raw / "labelsTr", made):
            part.mkdir(parents=True)
        content = dataset_json(name)
        ending = content["file_ending"]
        for channel in content["channel_names"]:
            (raw / f"imagesTr/a_{int(channel):04d}{ending}").touch()
        (raw / f"labelsTr/a{ending}").touch()
        (raw / "dataset.json").write_text(json.dumps(content))
        (made / "dataset_fingerprint.json").write_text(json.dumps(made_up(name)))
        return _planned(Path(folder))


def _planned(folder: Path) -> dict[str, Any]:
    os.environ |= {"nnUNet_raw": str(folder / "raw"), "nnUNet_preprocessed": str(folder / "pre")}
    os.environ |= {"nnUNet_results": str(folder / "results"), "nnUNet_n_proc_DA": "1"}
    import nnunetv2.experiment_planning.experiment_planners.default_experiment_planner as planner

    planner.nnUNet_raw = str(folder / "raw")
    planner.nnUNet_preprocessed = str(folder / "pre")
    with open(os.devnull, "w") as nowhere:
        before, sys.stdout = sys.stdout, nowhere
        try:
            planner.ExperimentPlanner("Dataset001_X").plan_experiment()
        finally:
            sys.stdout = before
    return json.loads((folder / "pre/Dataset001_X/nnUNetPlans.json").read_text())


def main() -> None:
    """Print golden numbers."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    data = Path(os.environ["SAMARITAN_DATA"]) / "nnunet_raw"
    folders = {s: Path(os.environ["THEIR_PLANS"], s) for s in SETS}
    plans = {s: json.loads((f / "nnUNetPlans.json").read_text()) for s, f in folders.items()}
    prints = {
        s: json.loads((f / "dataset_fingerprint.json").read_text()) for s, f in folders.items()
    }
    cases = {}
    for name, (which, ids, _, _, _) in VARIANTS.items():
        for case in ids:
            found = their_case(name, case, plans[which], data)
            facts = facts_of(found["image"], found["labels"], found["places"])
            facts |= {"box": found["box"], "spacing": found["spacing"]}
            facts["back"] = summed_up(found["back"])
            facts["probabilities"] = summed_up(found["probabilities"])
            cases[f"{name}/{case}"] = facts
    folds = {}
    for s in SETS[:3]:
        ids = sorted(
            p.name.removesuffix(".nii.gz") for p in (data / s / "labelsTr").glob("*.nii.gz")
        )
        folds[s] = zlib.crc32(json.dumps(generate_crossval_split(ids)).encode())
    golden = {
        "plans": plans,
        "fingerprints": {
            s: {k: v for k, v in p.items() if k not in ("spacings", "shapes_after_crop")}
            | {"crc": zlib.crc32(json.dumps([p["shapes_after_crop"]]).encode())}
            for s, p in prints.items()
        },
        "cases": cases,
        "folds": folds,
        "made_up": {name: their_plans(name)["configurations"] for name in FINGERPRINTS},
    }
    json.dump(golden, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
