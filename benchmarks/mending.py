"""What one click does to an automatic label map in which a part of a structure is missing.

    python benchmarks/mending.py DATASET [CASES]      a table: structures of an nnU-Net folder's first cases
    python benchmarks/mending.py --picture OUT.png    a phantom, before and after two clicks

The map is the reference with a ball bitten out of a structure's edge, as wide as half of its length. The
click lies at the core of what is missing. "anew" is what a box around the structure gives, the map unknown.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from samaritan import Predictor
from samaritan.data import load_manifest
from samaritan.data.reading import case_image, case_labels
from samaritan.metrics import dice
from samaritan.phantoms import phantom
from samaritan.pictures import save_picture
from samaritan.pictures.steps import Step, draw_steps
from samaritan.prompts import Points
from samaritan.volume import LabelMap

Array = np.ndarray[Any, Any]
MODEL = "samaritan_3d"


def bitten(labels: LabelMap, label: int) -> tuple[LabelMap, Array]:
    """Bite a ball out of the edge of a structure; also tell what is missing."""
    mask = labels.array == label
    rng = np.random.default_rng(label)
    spacing = np.asarray(labels.grid.spacing_mm)
    edge = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    middle = edge[rng.integers(len(edge))]
    reach = (np.ptp(np.argwhere(mask), axis=0) * spacing).max() / 4
    places = np.stack(np.indices(mask.shape), axis=-1)
    missing = mask & ((((places - middle) * spacing) ** 2).sum(axis=-1) < reach**2)
    return labels.with_array(np.where(missing, 0, labels.array)), missing


def core(mask: Array) -> tuple[float, ...]:
    """The deepest voxel."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))
    return tuple(float(v) - 1 for v in np.unravel_index(depth.argmax(), depth.shape))


def table(folder: Path, count: int) -> None:
    """Print a row for each structure."""
    predictor, manifest = Predictor.from_checkpoint(MODEL), load_manifest(folder)
    names = next(iter(manifest.groups.values())).labels
    print("case, structure: before, after a click, anew; voxels of others that changed")
    for case in manifest.cases[:count]:
        volume, (labels,) = case_image(manifest, case), case_labels(manifest, case)
        for label in labels.labels():
            name, mask = names[label], labels.array == label
            before, missing = bitten(LabelMap(labels.array, labels.grid, names=names), label)
            session = predictor.session(volume).start_from(before)
            after = session.click(core(missing), object=name).mask
            where = np.argwhere(mask)
            box = predictor.session(volume).box(where.min(axis=0), where.max(axis=0) + 1)
            others = ((after.array != before.array) & ~missing & (before.array != label)).sum()
            others -= ((after.array == label) & (before.array == 0) & ~missing).sum()
            scores = [m == label for m in (before.array, after.array)] + [box.mask.array == 1]
            told = ", ".join(f"{dice(score, mask):.3f}" for score in scores)
            print(f"{case.id}, {name}: {told}; {others}", flush=True)


def picture(path: Path) -> None:
    """Draw a liver that lacks a part, and a kidney with too much, mended."""
    made = phantom("mr", shape=(160, 128, 100), spacing_mm=(2.25, 2.25, 3.0), seed=101, lesions=5)
    truth = made.labels
    values = {name: value for value, name in truth.names.items()}
    liver, kidney = values["liver"], values["left kidney"]
    places = np.stack(np.indices(truth.shape), axis=-1)
    edge = np.argwhere(truth.array == kidney)
    middle = np.array([edge[:, 0].mean(), edge[:, 1].min(), edge[:, 2].mean()]).round()
    extra = (((places - middle) ** 2).sum(axis=-1) < 49) & (truth.array != kidney)
    cut = np.argwhere((truth.array == liver) & (places[..., 2] == middle[2]))
    hole = ((places - [cut[:, 0].max(), cut[:, 1].mean(), middle[2]]) ** 2).sum(axis=-1) < 196
    missing = hole & (truth.array == liver)
    drawn = truth.with_array(np.where(missing, 0, np.where(extra, kidney, truth.array)))
    on, off = ((*core(part[..., int(middle[2])]), middle[2]) for part in (missing, extra))
    session = Predictor.from_checkpoint(MODEL).session(made.image).start_from(drawn)
    one = session.click(on, object="liver")
    two = one.click(off, positive=False, object="left kidney")
    shown = [(session, "automatic label map", []), (one, "a click on the liver", [on])]
    shown.append((two, "a click off the kidney", [on, off]))
    steps = [_step(s.mask, truth, (liver, kidney), t, c, int(middle[2])) for s, t, c in shown]
    across = made.image.slice(2, int(middle[2]))
    note = "left: a liver with a bite out of it, a kidney with a growth; phantom, samaritan_3d"
    save_picture(draw_steps(across, steps, note=note), path, dpi=100)


def _step(
    found: LabelMap,
    truth: LabelMap,
    chosen: tuple[int, ...],
    title: str,
    clicks: list[Any],
    across: int,
) -> Step:
    scores = [f"{truth.names[v]} {dice(found.array == v, truth.array == v):.3f}" for v in chosen]
    kept = found.with_array(np.where(np.isin(found.array, chosen), found.array, 0))
    flat = kept.slice(2, across)
    at = np.array([(i, j, 0) for i, j, _ in clicks])
    points = Points(at, np.array([1, 0][: len(clicks)]), flat.grid) if clicks else None
    return Step(flat, title, "Dice: " + ", ".join(scores), points)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--picture"]:
        picture(Path(sys.argv[2]))
    else:
        table(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 2)
