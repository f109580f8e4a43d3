"""A CT-like or MR-like phantom of the trunk on any grid, painted slab by slab in bounded memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.phantoms.anatomy import LABEL_OF, LEVELS, ORGANS, Lesion, Organ, lesions, organs
from samaritan.phantoms.assorted import assorted, draw_spacing
from samaritan.phantoms.shapes import Waves, rotation
from samaritan.volume import LabelMap, Volume

Array = npt.NDArray[Any]

SLAB_VOXELS = 2**21
"""Voxels that one worker holds at a time, at about 40 bytes each."""

DEFORMATION_MM = 9.0
"""No point is moved further than this by the random deformation."""

NOTE = "this is a phantom: computed shapes, no patient was measured"

_NOISE = {"ct": 12.0, "mr": 18.0}


@dataclass(frozen=True, eq=False)
class Phantom:
    """A computed image with its known answer.

    Attributes:
        image: the picture, with `meta["source"] == "phantom"`.
        labels: the answer on the same grid, one label a voxel.
        lesions: what lesions there are, whether or not the grid shows them.
    """

    image: Volume
    labels: LabelMap
    lesions: tuple[Lesion, ...] = ()


@dataclass(frozen=True)
class _Scene:
    """Everything that a seed decides."""

    organs: list[Organ]
    levels: dict[str, float]
    deformation: Waves
    texture: Waves
    bias: Waves | None
    noise: float
    seed: int


def phantom(
    kind: Literal["ct", "mr", "shapes"] = "ct",
    *,
    shape: Sequence[int] = (160, 128, 100),
    spacing_mm: Sequence[float] | None = None,
    orientation: str = "LPS",
    oblique_degrees: float = 0.0,
    grid: Grid | None = None,
    seed: int = 0,
    lesions: int = 3,
    noise: float | None = None,
) -> Phantom:
    """Compute a trunk from the pelvis to the chest, seen by CT or MR, or a volume of objects of no anatomy.

    The anatomy is defined in millimetres in the patient and depends on `seed` and `lesions` alone: any grid
    shows the same organs in the same places. Only noise belongs to the voxels. Shapes belong to the grid:
    another shape or spacing is another scene.

    Args:
        kind: "ct" gives int16 Hounsfield units, "mr" uint16 with bias field and Rician noise; "shapes"
            uint16, up to 255 objects of any form, brightness and texture beside and inside each other.
        shape: voxels along each array axis; the default covers the trunk in orientation LPS.
        spacing_mm: voxel side along each array axis; None takes 2.5, 2.5 and 3, for shapes random ones.
        orientation: where each array axis points.
        oblique_degrees: turns the grid about its centre, off all patient axes.
        grid: the grid to use instead of the four arguments above.
        seed: one seed, one patient.
        lesions: how many lesions lie in liver, spleen and kidneys; shapes draw their own number.
        noise: standard deviation in the units of the image; None takes a usual one (for shapes a random one),
            0 none.

    Raises:
        ConfigError: if `kind` is not known, or `lesions` or `noise` is negative.

    >>> made = phantom("ct", shape=(40, 32, 20), spacing_mm=(10, 10, 15), seed=1)
    >>> made.image.dtype, made.labels.names[15], len(made.lesions)
    (dtype('int16'), 'liver', 3)
    """
    if kind not in (*LEVELS, "shapes"):
        raise ConfigError(f"no phantom of kind {kind!r}; known: {', '.join(LEVELS)}, shapes")
    if lesions < 0 or (noise is not None and noise < 0):
        raise ConfigError(f"lesions and noise cannot be negative, got {lesions} and {noise}")
    if kind == "shapes":
        spacing_mm = spacing_mm or draw_spacing(np.random.default_rng([seed, 5]))
        grid = grid or _centred(shape, spacing_mm, orientation, oblique_degrees)
        return _shapes(grid, seed, noise)
    grid = grid or _centred(shape, spacing_mm or (2.5, 2.5, 3.0), orientation, oblique_degrees)
    scene, found = _scene(kind, seed, lesions, _NOISE[kind] if noise is None else noise)
    image = np.empty(grid.shape, np.int16 if kind == "ct" else np.uint16)
    labels = np.empty(grid.shape, np.uint8)
    rows = max(1, SLAB_VOXELS // max(grid.shape[1] * grid.shape[2], 1))
    starts = range(0, grid.shape[0], rows)

    def paint(first: int) -> None:
        last = min(first + rows, grid.shape[0])
        _paint(scene, grid, first, image[first:last], labels[first:last])

    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4, len(starts))) as pool:
        list(pool.map(paint, starts))
    meta = {"source": "phantom", "modality": kind.upper(), "seed": seed}
    names = dict(enumerate(ORGANS, start=1))
    return Phantom(
        Volume(image, grid, meta=meta, notes=(NOTE,)),
        LabelMap(labels, grid, meta=meta, notes=(NOTE,), names=names),
        tuple(found),
    )


def _shapes(grid: Grid, seed: int, noise: float | None) -> Phantom:
    """Draw objects of no anatomy on a grid."""
    image, labels, names = assorted(
        grid.shape, grid.spacing_mm, rng=np.random.default_rng([seed, 4]), noise=noise
    )
    meta = {"source": "phantom", "modality": "SHAPES", "seed": seed}
    return Phantom(
        Volume(image, grid, meta=meta, notes=(NOTE,)),
        LabelMap(labels, grid, meta=meta, notes=(NOTE,), names=names),
    )


def _centred(
    shape: Sequence[int], spacing_mm: Sequence[float], orientation: str, oblique_degrees: float
) -> Grid:
    """Make a grid whose centre is the patient's origin."""
    upright = Grid.from_spacing(shape, spacing_mm, orientation=orientation)
    affine = upright.affine.copy()
    turn = rotation((oblique_degrees, -0.6 * oblique_degrees, 0.4 * oblique_degrees))
    affine[:3, :3] = turn @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(upright.shape) - 1) / 2)
    return replace(upright, affine=affine)


def _scene(kind: str, seed: int, n_lesions: int, noise: float) -> tuple[_Scene, list[Lesion]]:
    """Draw the patient; anatomy and brightness from separate streams, so that kinds share the anatomy."""
    body, tissue = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    deformation = Waves.random(
        body, 5, wavelength_mm=(160, 320), amplitude=DEFORMATION_MM, components=3
    )
    painted = organs(body)
    drawn = lesions(body, n_lesions)
    levels = {
        name: level if name == "air" else level * tissue.uniform(0.96, 1.04)
        for name, level in LEVELS[kind].items()
    }
    grain = 14.0 if kind == "ct" else 30.0
    texture = Waves.random(tissue, 8, wavelength_mm=(14, 45), amplitude=grain)
    bias = Waves.random(tissue, 3, wavelength_mm=(450, 900), amplitude=0.35)
    scene = _Scene(
        [*painted, *(organ for _, organ in drawn)],
        levels, deformation, texture, bias if kind == "mr" else None, noise, seed,
    )  # fmt: skip
    return scene, [_moved(lesion, deformation) for lesion, _ in drawn]


def _moved(lesion: Lesion, deformation: Waves) -> Lesion:
    """Say where in the patient a lesion lies: where the deformation leads to its centre."""
    target = np.asarray(lesion.centre_mm)
    at = target.copy()
    for _ in range(50):
        at = target - deformation.at(at)
    return replace(lesion, centre_mm=tuple(at.tolist()))


def _paint(scene: _Scene, grid: Grid, first: int, image: Array, labels: Array) -> None:
    """Fill one slab, whose first row is row `first` of the grid, organ over organ."""
    slab = grid.window((first, 0, 0), image.shape)
    left, right = _lines(slab)
    x, y, z = (
        (
            (left[:, None, c] + right[None, :, c]).astype(np.float32)
            + scene.deformation.on_lines(left, right, c)
        ).reshape(slab.shape)
        for c in range(3)
    )
    value = np.full(slab.shape, scene.levels["air"], np.float32)
    texture = scene.texture.on_lines(left, right, 0).reshape(slab.shape)
    labels[...] = 0
    soften = np.float32(1 / slab.voxel_volume_mm3 ** (1 / 3))
    for organ in scene.organs:
        where = _reach(organ, slab)
        if where is None:
            continue
        outside = organ.shape.distance(x[where], y[where], z[where])
        if organ.label is not None:
            labels[where][outside < 0] = LABEL_OF[organ.label]
        part = np.clip(np.float32(0.5) - outside * soften, 0, 1)
        level = texture[where] + np.float32(scene.levels[organ.tissue])
        value[where] += part * (level - value[where])
    if scene.bias is not None:
        value *= np.exp(scene.bias.on_lines(left, right, 0)).reshape(slab.shape)
    _measure(value, scene, first)
    limits = np.iinfo(image.dtype)
    low = -1024 if image.dtype == np.int16 else 0
    np.clip(np.rint(value, out=value), low, limits.max, out=value)
    image[...] = value


def _lines(slab: Grid) -> tuple[Array, Array]:
    """Split positions into a part of the first two axes (n, 3) and a part of the last (m, 3)."""
    i, j = np.meshgrid(np.arange(slab.shape[0]), np.arange(slab.shape[1]), indexing="ij")
    index = np.stack([i.ravel(), j.ravel(), np.zeros(i.size)], axis=1)
    return slab.index_to_mm(index), np.outer(np.arange(slab.shape[2]), slab.affine[:3, 2])


def _reach(organ: Organ, slab: Grid) -> tuple[slice, slice, slice] | None:
    """Cut the slab to where an organ can be; None if it cannot be there."""
    low, high = organ.shape.bounds()
    margin = DEFORMATION_MM + 2 * max(slab.spacing_mm)
    ends = np.stack([low - margin, high + margin])
    corners = [[ends[a, 0], ends[b, 1], ends[c, 2]] for a, b, c in np.ndindex(2, 2, 2)]
    index = slab.mm_to_index(np.array(corners))
    start = np.maximum(np.floor(index.min(axis=0)), 0).astype(int)
    stop = np.minimum(np.ceil(index.max(axis=0)) + 1, slab.shape).astype(int)
    if (start >= stop).any():
        return None
    return tuple(slice(a, b) for a, b in zip(start, stop, strict=True))  # type: ignore[return-value]


def _measure(value: Array, scene: _Scene, first: int) -> None:
    """Add noise in place: normal for CT, Rician for MR. Each slab has a stream of its own."""
    if scene.noise == 0:
        return
    rng = np.random.default_rng([scene.seed, 2, first])
    value += np.float32(scene.noise) * rng.standard_normal(value.shape, np.float32)
    if scene.bias is not None:
        imaginary = np.float32(scene.noise) * rng.standard_normal(value.shape, np.float32)
        np.hypot(value, imaginary, out=value)
