"""What `samaritan demo` shows: a real scan that a dependency brings, and a phantom whose answer is known."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samaritan.cli.demo_pointing import Click, Index, Wish, around, call_of, core, moved, worst

if TYPE_CHECKING:
    from samaritan.infer import Predictor, Session
    from samaritan.volume import LabelMap, Volume

SESSION_OBJECT = "left kidney"
"""What the session of the phantom is about."""

_HAND = (-4, -3, 0), (3, 6, 0)
"""How far a box that is drawn in passing misses the object, at its start and at its end."""


@dataclass(frozen=True, eq=False)
class Scene:
    """An image with what is pointed at in it.

    Attributes:
        name: what its files are called after.
        title: above its picture.
        source: what it is, where it comes from, and its licence.
        image: what is looked at.
        wishes: the objects.
        answer: what is right, where that is known.
        at: the voxel that the planes of its picture go through, of a volume.
    """

    name: str
    title: str
    source: str
    image: Volume
    wishes: tuple[Wish, ...]
    answer: LabelMap | None = None
    at: Index | None = None

    def reference(self, name: str) -> Any:
        """Where an object truly is; None where that is not known."""
        if self.answer is None:
            return None
        (label,) = (value for value, known in self.answer.names.items() if known == name)
        return self.answer.array == label


@dataclass(frozen=True)
class Found:
    """What came of one wish or step; Dice where the answer is known."""

    name: str
    prompt: str
    pixels: int
    area_cm2: float
    quality: float | None
    dice: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class Segmented:
    """A scene with its masks."""

    scene: Scene
    mask: LabelMap
    found: tuple[Found, ...]


@dataclass(frozen=True, eq=False)
class Played:
    """A session step by step: box, click, correction, undo."""

    scene: Scene
    steps: tuple[Session, ...]
    found: tuple[Found, ...]
    box: tuple[Index, Index]
    clicks: tuple[Click, ...] = field(default=())

    @property
    def lines(self) -> tuple[str, ...]:
        """The three lines of Python that do the same, but for the name of the image: {image}."""
        calls = "".join(call_of(click) for click in self.clicks)
        return (
            'predictor = samaritan.Predictor.from_checkpoint("samaritan_2d")',
            'session = predictor.session(samaritan.read("{image}"))'
            f".box({self.box[0]}, {self.box[1]}){calls}.undo()",
            'samaritan.write(session.mask, "mask.nii.gz")',
        )


def scan() -> Scene | None:
    """The abdominal MR slice among pydicom's examples; None where this pydicom has none.

    Names and dates in its header are not taken over.
    """
    import importlib.metadata

    from samaritan.io import read
    from samaritan.volume import Volume

    path = _example("overlay")
    if path is None:
        return None
    read_as = read(path)
    if read_as.shape != (484, 300, 1):
        return None
    version = importlib.metadata.version("pydicom")
    return Scene(
        "scan",
        "MR of an abdomen (an example of pydicom), segmented by samaritan_2d",
        f"a real MR slice of an abdomen: {path.name} of the Python package pydicom {version} (MIT licence), "
        "as published there for trying software; installed with samaritan, nothing was downloaded",
        Volume(read_as.array, read_as.grid),
        (
            Wish("liver", ((53, 82, 0), (160, 194, 1)), (Click((145, 140, 0), False),)),
            Wish("right kidney", ((118, 188, 0), (186, 250, 1))),
            Wish("left kidney", None, (Click((320, 240, 0)), Click((300, 220, 0)))),
            Wish("aorta", ((240, 152, 0), (270, 184, 1))),
            Wish("vertebra", ((204, 178, 0), (262, 232, 1))),
        ),
    )


def computed() -> Scene:
    """A slice of a phantom, one that the model did not learn from."""
    from samaritan.phantoms import phantom

    made = phantom("ct", shape=(250, 180, 1), spacing_mm=(1.4, 1.4, 5.0), seed=101)
    names = {value: name for value, name in made.labels.names.items()}
    wishes = []
    for name, how in (
        ("liver", "box"),
        ("left kidney", "box"),
        ("pancreas", "box"),
        ("aorta", "click"),
    ):
        (label,) = (value for value, known in names.items() if known == name)
        inside = made.labels.array == label
        if how == "box":
            wishes.append(Wish(name, around(inside)))
        else:
            wishes.append(Wish(name, None, (core(inside),)))
    return Scene(
        "phantom",
        "a phantom, segmented by samaritan_2d",
        "a computed CT slice of no patient, so that the right answer is known: made by samaritan "
        "(Apache-2.0), like those that the model learned from but not one of them",
        made.image,
        tuple(wishes),
        made.labels,
    )


def segment(predictor: Predictor, scene: Scene) -> Segmented:
    """Ask for all objects of a scene."""
    session = predictor.session(scene.image)
    found = []
    for wish in scene.wishes:
        start = time.perf_counter()
        session = wish.ask(session)
        mask = mask_of(session, wish.name)
        found.append(
            _found(scene, session, wish.name, wish.told, mask, time.perf_counter() - start)
        )
    return Segmented(scene, session.mask, tuple(found))


def play(predictor: Predictor, scene: Scene, name: str = SESSION_OBJECT) -> Played:
    """Draw a box, click on what is most wrong, correct what then is, and take that back.

    The clicks are where a person would click who knows the right answer: deep in the largest error.
    """
    reference = scene.reference(name)
    start, stop = around(reference)
    box = moved(start, _HAND[0]), moved(stop, _HAND[1])
    begun = predictor.session(scene.image)
    steps, found, clicks = [], [], []

    def take(session: Session, what: str) -> None:
        began = time.perf_counter()
        mask = mask_of(session, "object")
        steps.append(session)
        found.append(
            _found(scene, session, "object", what, mask, time.perf_counter() - began, reference)
        )

    take(begun.box(*box), "box")
    for word in ("click", "correct"):
        wrong = worst(mask_of(steps[-1], "object"), reference)
        if wrong is None:
            break
        clicks.append(wrong)
        where = "on it" if wrong.positive else "off it"
        take(steps[-1].click(wrong.at, positive=wrong.positive), f"{word}: {where}")
    if clicks:
        take(steps[-1].undo(), "undo")
    return Played(scene, tuple(steps), tuple(found), box, tuple(clicks))


def wishes_so_far(played: Played) -> Iterator[Wish]:
    """What had been pointed at after each step."""
    given = len(played.clicks)
    for taken in (*range(given + 1), *([given - 1] if given else [])):
        yield Wish("object", played.box, played.clicks[:taken])


def _example(name: str) -> Path | None:
    """The file of one of pydicom's examples, if this version has it."""
    try:
        from pydicom import examples

        path = Path(examples.get_path(name))
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
    return path if path.is_file() else None


def mask_of(session: Session, name: str) -> Any:
    """Where an object is, whatever else there is."""
    return session.probability(name).array > 0.5


def _found(
    scene: Scene,
    session: Session,
    name: str,
    prompt: str,
    mask: Any,
    seconds: float,
    reference: Any = None,
) -> Found:
    from samaritan.metrics import dice

    truth = scene.reference(name) if reference is None else reference
    pixels = int(mask.sum())
    sides = scene.image.grid.spacing_mm
    return Found(
        name,
        prompt,
        pixels,
        pixels * sides[0] * sides[1] / 100,
        session.quality(name),
        None if truth is None else float(dice(mask, truth)),
        seconds,
    )
