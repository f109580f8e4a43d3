"""The scene of `samaritan demo` in 3D: organs and a lesion of a phantom, each corrected once."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from samaritan.cli.demo_pointing import Click, Wish, around, core, index_of, worst
from samaritan.cli.demo_scenes import Scene, mask_of

if TYPE_CHECKING:
    from samaritan.infer import Predictor, Session
    from samaritan.phantoms import Phantom
    from samaritan.volume import LabelMap

LESION = "lesion"
"""The one lesion that is pointed at; the phantom's others are not."""

_ASKED = {
    "liver": "box",
    "left kidney": "box",
    "right kidney": "box",
    "stomach": "box",
    "heart": "click",
    "bladder": "click",
    LESION: "click",
}

_SHOWN = "bladder", "left kidney", LESION
"""What the sagittal, the coronal and the axial plane of the picture go through."""


@dataclass(frozen=True)
class Corrected:
    """What came of one object: of its first prompt, and of a click on what then was most wrong.

    Attributes:
        name: of the object.
        prompt: "box" or "click".
        dice_first: after the prompt.
        correction: "on it" or "off it"; "none" where nothing was wrong.
        dice: after the correction.
        voxels: of the mask then.
        volume_ml: likewise.
        quality: the IoU that the model expects of it.
        seconds: that both took.
    """

    name: str
    prompt: str
    dice_first: float
    correction: str
    dice: float
    voxels: int
    volume_ml: float
    quality: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Volumetric:
    """A volume with its masks; `scene.wishes` hold the corrections as well."""

    scene: Scene
    session: Session
    mask: LabelMap
    found: tuple[Corrected, ...]


def computed_volume() -> Scene:
    """A phantom as a whole volume, one that the model did not learn from."""
    from samaritan.phantoms import phantom

    made = phantom("mr", shape=(160, 128, 100), spacing_mm=(2.25, 2.25, 3.0), seed=101, lesions=5)
    scene = Scene(
        "volume",
        "a phantom in 3D, segmented by samaritan_3d",
        "a computed MR volume of no patient, so that the right answer is known: made by samaritan "
        "(Apache-2.0), like those that the model learned from but not one of them",
        made.image,
        (),
        _one_lesion(made),
    )
    wishes = {name: _wish(scene, name, how) for name, how in _ASKED.items()}
    seen = (core(scene.reference(name)).at[axis] for axis, name in enumerate(_SHOWN))
    return replace(scene, wishes=tuple(wishes.values()), at=index_of(seen))


def segment_volume(predictor: Predictor, scene: Scene) -> Volumetric:
    """Ask for all objects of a volume, and correct each once, where a person would who knows the answer."""
    session = predictor.session(scene.image)
    wishes, found = [], []
    for wish in scene.wishes:
        begun = time.perf_counter()
        reference = scene.reference(wish.name)
        session = wish.ask(session)
        first = mask_of(session, wish.name)
        correction = worst(first, reference)
        if correction is not None:
            session = Wish(wish.name, None, (correction,)).ask(session)
        mask = mask_of(session, wish.name)
        seconds = time.perf_counter() - begun
        found.append(_corrected(scene, session, wish, (first, mask), correction, seconds))
        wishes.append(replace(wish, clicks=(*wish.clicks, *([correction] if correction else []))))
    asked = replace(scene, wishes=tuple(wishes))
    return Volumetric(asked, session, session.mask, tuple(found))


def _corrected(
    scene: Scene,
    session: Session,
    wish: Wish,
    masks: tuple[Any, Any],
    correction: Click | None,
    seconds: float,
) -> Corrected:
    from samaritan.metrics import dice

    reference = scene.reference(wish.name)
    first, last = (float(dice(mask, reference)) for mask in masks)
    voxels = int(masks[-1].sum())
    where = "none" if correction is None else "on it" if correction.positive else "off it"
    return Corrected(
        wish.name,
        "box" if wish.box is not None else "click",
        first,
        where,
        last,
        voxels,
        voxels * scene.image.grid.voxel_volume_mm3 / 1000,
        session.quality(wish.name),
        seconds,
    )


def _wish(scene: Scene, name: str, how: str) -> Wish:
    reference = scene.reference(name)
    if how == "click":
        return Wish(name, None, (core(reference),))
    return Wish(name, around(reference))


def _one_lesion(made: Phantom) -> LabelMap:
    """The labels with the largest lesion of the spleen apart from all others."""
    from scipy import ndimage

    inside = [one for one in made.lesions if one.organ == "spleen"]
    chosen = max(inside, key=lambda one: one.radius_mm)
    (label,) = (value for value, name in made.labels.names.items() if name == LESION)
    parts, _ = ndimage.label(made.labels.array == label)
    at = index_of(np.rint(made.labels.grid.mm_to_index(chosen.centre_mm)))
    array, other = made.labels.array.copy(), max(made.labels.names) + 1
    array[(parts > 0) & (parts != parts[at])] = other
    names = {**made.labels.names, other: "other lesions"}
    return replace(made.labels, array=array, names=names)
