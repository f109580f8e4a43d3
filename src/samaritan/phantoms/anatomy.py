"""The phantom's body: which organs there are, where they lie in millimetres, and how bright they are.

x runs to the patient's right, y to the front, z to the head (RAS+). The liver is on the right, the spleen
on the left. Nothing here comes from a patient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from samaritan.phantoms.shapes import FAR_MM, Ellipsoid, Layers, Shape, Solid, Triple

ORGANS = (
    "body", "right lung", "left lung", "heart", "ribs", "spine", "aorta", "vena cava", "bowel", "bladder",
    "stomach", "pancreas", "gallbladder", "spleen", "liver", "right kidney", "left kidney", "lesion",
)  # fmt: skip
"""Names of the labels; the value of each is its place in this list, from 1."""

LABEL_OF = {name: value for value, name in enumerate(ORGANS, start=1)}

LEVELS: dict[str, dict[str, float]] = {
    "ct": {
        "air": -1000, "fat": -105, "muscle": 55, "visceral fat": -95, "right lung": -830, "left lung": -830,
        "heart": 120, "ribs": 320, "spine": 230, "disc": 95, "aorta": 165, "vena cava": 140, "bowel": 38,
        "bladder": 8, "stomach": 28, "pancreas": 95, "gallbladder": 12, "spleen": 122, "liver": 110,
        "right kidney": 180, "left kidney": 180, "lesion": 45,
    },
    "mr": {
        "air": 0, "fat": 640, "muscle": 190, "visceral fat": 600, "right lung": 30, "left lung": 30,
        "heart": 300, "ribs": 150, "spine": 360, "disc": 240, "aorta": 60, "vena cava": 75, "bowel": 430,
        "bladder": 1150, "stomach": 480, "pancreas": 400, "gallbladder": 1050, "spleen": 540, "liver": 310,
        "right kidney": 660, "left kidney": 660, "lesion": 860,
    },
}  # fmt: skip
"""Brightness of each tissue: Hounsfield units (portal-venous phase), or a T2-weighted scale of our own."""


@dataclass(frozen=True)
class Organ:
    """A shape that is painted with one tissue and one label (None keeps the label below)."""

    tissue: str
    shape: Shape
    label: str | None


@dataclass(frozen=True)
class Lesion:
    """A lesion and where it is.

    Attributes:
        organ: the organ that it lies in.
        centre_mm: its centre in the patient, RAS+ millimetres.
        radius_mm: its mean radius.
    """

    organ: str
    centre_mm: Triple
    radius_mm: float


CAVITY = Ellipsoid((0, 10, 0), (132, 80, FAR_MM))
_SPINE_BODY = Ellipsoid((0, -55, 0), (21, 16, FAR_MM))
_CANAL = Ellipsoid((0, -81, 0), (10, 8, FAR_MM))
_ARCH = Ellipsoid((0, -82, 0), (18, 13, FAR_MM))
_SPINOUS = Ellipsoid((0, -98, 0), (4.5, 11, FAR_MM))

_CORES = {
    "liver": Ellipsoid((78, 12, 62), (46, 50, 48)),
    "spleen": Ellipsoid((-93, -26, 66), (20, 28, 32)),
    "right kidney": Ellipsoid((68, -50, -12), (13, 13, 34)),
    "left kidney": Ellipsoid((-70, -50, 2), (13, 13, 34)),
}
"""The part of an organ that no other organ covers, where lesions may lie."""


def organs(rng: np.random.Generator) -> list[Organ]:
    """List the organs in the order in which they are painted, sizes varied by `rng`."""

    def egg(centre: Triple, radii: Triple, turn: Triple = (0, 0, 0)) -> Ellipsoid:
        moved = tuple(np.asarray(centre) + rng.uniform(-2, 2, 3))
        scaled = tuple(np.asarray(radii) * rng.uniform(0.96, 1.04, 3))
        return Ellipsoid(moved, scaled, turn)

    def tube(x: float, y: float, rx: float, ry: float) -> Ellipsoid:
        return Ellipsoid((x, y, 0), (rx, ry, FAR_MM))

    def kidney(side: float, z: float) -> Solid:
        bean = egg((side * 62, -50, z), (27, 23, 53), (0, side * 8, 0))
        return Solid((bean,), without=(egg((side * 36, -44, z), (13, 11, 17)),))

    wall = tube(0, 5, 144, 92)
    chest = Ellipsoid((0, 0, 170), (FAR_MM, FAR_MM, 210))
    loops = tuple(
        egg((x + rng.uniform(-9, 9), y + rng.uniform(-8, 8), z), (20, 17, 19))
        for x in (-75, -25, 25, 72)
        for y in (10, 50)
        for z in (-18, -60, -104)
    )
    solids: list[tuple[str, Shape]] = [
        ("right lung", Solid((egg((70, 2, 165), (58, 76, 128)),), (CAVITY,))),
        ("left lung", Solid((egg((-70, 2, 165), (56, 76, 124)),), (CAVITY,))),
        ("heart", egg((-18, 26, 150), (50, 42, 46), (20, 0, 25))),
        ("ribs", Solid((tube(0, 8, 140, 88),), (Layers(29, 5.5, 0.35), chest), (tube(0, 8, 132, 80),))),
        ("spine", Solid((_SPINE_BODY, _ARCH, _SPINOUS), without=(_CANAL,))),
        ("aorta", tube(-11, -28, 11, 11)),
        ("vena cava", tube(20, -27, 13, 9)),
        ("bowel", Solid(loops, (CAVITY,))),
        ("bladder", egg((0, 18, -142), (42, 33, 36))),
        ("stomach", Solid((egg((-58, 38, 58), (36, 30, 44), (0, 20, 0)),), (CAVITY,))),
        ("pancreas", egg((-8, 4, 12), (56, 11, 14), (0, 12, 12))),
        ("gallbladder", egg((48, 52, 8), (13, 13, 21), (0, -20, 0))),
        ("spleen", Solid((egg((-94, -26, 66), (33, 42, 48), (0, 0, 20)),), (CAVITY,))),
        (
            "liver",
            Solid(
                (egg((74, 10, 58), (64, 72, 70)), egg((8, 46, 78), (62, 30, 34), (0, -10, 0))),
                (CAVITY,),
            ),
        ),
        ("right kidney", kidney(1, -12)),
        ("left kidney", kidney(-1, 2)),
    ]  # fmt: skip
    disc = Solid((_SPINE_BODY,), (Layers(36, 4.5),))
    painted = [
        Organ("fat", tube(0, 0, 165, 112), "body"),
        Organ("muscle", wall, None),
        Organ("visceral fat", CAVITY, None),
    ]
    for name, shape in solids:
        painted.append(Organ(name, shape, name))
        if name == "spine":
            painted.append(Organ("disc", disc, None))
    return painted


def lesions(rng: np.random.Generator, n: int) -> list[tuple[Lesion, Organ]]:
    """Draw `n` lesions inside organs that do not touch each other while there is room (200 tries each)."""
    names, found = list(_CORES), list[tuple[Lesion, Organ]]()
    for _ in range(n):
        for _ in range(200):
            host = str(rng.choice(names, p=(0.55, 0.15, 0.15, 0.15)))
            core = _CORES[host]
            radius = float(rng.uniform(0.25, 0.6) * min(min(core.radii_mm), 30))
            direction = rng.normal(size=3)
            direction *= rng.uniform() ** (1 / 3) / np.linalg.norm(direction)
            room = np.maximum(np.asarray(core.radii_mm) - 1.15 * radius - 2, 0)
            centre = np.asarray(core.centre_mm) + direction * room * 0.85
            if all(
                np.linalg.norm(centre - other.centre_mm) > 1.2 * (radius + other.radius_mm) + 3
                for other, _ in found
            ):
                break
        radii = tuple(radius * rng.uniform(0.85, 1.15, 3))
        turn = tuple(rng.uniform(-40, 40, 3))
        shape = Ellipsoid(tuple(centre), radii, turn)
        found.append(
            (Lesion(host, tuple(centre.tolist()), radius), Organ("lesion", shape, "lesion"))
        )
    return found
