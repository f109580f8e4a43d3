"""What a model is asked when it is evaluated: which objects, which simulated prompts, from which seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from samaritan.errors import ConfigError

Prompt = Literal["box", "points", "clicks", "box+clicks"]
Objects = Literal["labels", "components", "largest"]
"""Whole labels; every connected part of a label; or the largest connected part of each label."""
BoxKind = Literal["exact", "jitter"]
ClickKind = Literal["core", "random"]

PROMPTS: tuple[Prompt, ...] = get_args(Prompt)
ELLIPSE = "ellipse"
"""Name of the baseline among prompts: the box filled with an ellipse."""
CEILING, CEILING_SPACING, CEILING_WINDOW = "ceiling", "ceiling of spacing", "ceiling of one window"
"""Names of what perfect answers would reach; see `samaritan.evaluation.ceiling`."""
CEILINGS: tuple[str, ...] = (CEILING_SPACING, CEILING_WINDOW, CEILING)
ASIDE: tuple[str, ...] = (ELLIPSE, *CEILINGS)
"""Prompts, so to speak, to which no model answers."""


@dataclass(frozen=True)
class Trial:
    """What is asked of every object. The same trial asks the same of a model always.

    Raises:
        ConfigError: if a word is not known, or a number makes no sense.
    """

    prompts: tuple[Prompt, ...] = ("box", "points", "clicks")
    """Points are given as they are; clicks correct the answer before, which may be that to a box."""
    points: tuple[int, ...] = (1, 3, 5, 9)
    """How many points are given; of several, half (rounded down) lie on the object."""
    clicks: int = 10
    """How many clicks are given one after the other."""
    objects: Objects = "labels"
    """What counts as an object of a label map. Numbered objects and mask files stay as they are."""
    max_objects: int | None = None
    """At most this many objects of a case, drawn by the seed; None: all."""
    min_size: int = 1
    """Objects of fewer pixels or voxels are left out."""
    box: BoxKind = "exact"
    """The smallest box, or one whose faces are each moved by up to a tenth of its sides."""
    click: ClickKind = "core"
    """Clicks lie deep inside what they are about, or anywhere on it."""
    baseline: bool = False
    """Also measure an ellipse in the box, so that one sees whether the model earns its place."""
    ceiling: bool = False
    """Also measure what a perfect answer would reach, so that one sees what resolution costs."""
    channel: int | str | None = None
    """Which channel of images that have several the model sees; None: all of them."""
    max_windows: int = 32
    """How many windows of a 3D model an object may grow over."""
    seed: int = 0
    """Of every draw."""

    def __post_init__(self) -> None:
        _check_word("prompts", self.prompts, PROMPTS)
        _check_word("objects", (self.objects,), get_args(Objects))
        _check_word("box", (self.box,), get_args(BoxKind))
        _check_word("click", (self.click,), get_args(ClickKind))
        if not self.prompts:
            raise ConfigError(f"no prompts: name at least one of {', '.join(PROMPTS)}")
        numbers = {
            "clicks": self.clicks,
            "min_size": self.min_size,
            "max_windows": self.max_windows,
        }
        numbers |= {"max_objects": 1 if self.max_objects is None else self.max_objects}
        numbers |= {"points": min(self.points, default=0)} if "points" in self.prompts else {}
        for name, number in numbers.items():
            if number < 1:
                raise ConfigError(f"{name} must be 1 or more, got {number}")

    @property
    def needs_boxes(self) -> bool:
        """Whether the model must take boxes."""
        return bool({"box", "box+clicks"} & set(self.prompts))


def parse_prompts(text: str) -> tuple[Prompt, ...]:
    """Read "box,points,clicks,box+clicks".

    Raises:
        ConfigError: if a word is not known.

    >>> parse_prompts("box, clicks")
    ('box', 'clicks')
    """
    words: Any = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    _check_word("prompts", words, PROMPTS)
    return words  # type: ignore[no-any-return]


def parse_counts(text: str, what: str) -> tuple[int, ...]:
    """Read "1,3,5,9", ascending.

    Raises:
        ConfigError: if these are not whole numbers from 1.

    >>> parse_counts("5,1", "points")
    (1, 5)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise ConfigError(f"{what} {text!r}: expected whole numbers from 1, such as 1,3,5,9")
    return tuple(sorted({int(part) for part in parts}))


def told(prompt: str, clicks: int | None) -> str:
    """Name a kind of prompt with its number of points.

    >>> told("points", 1), told("clicks", 5), told("box+clicks", 3), told("box", None)
    ('1 point', '5 clicks', 'box + 3 clicks', 'box')
    """
    if clicks is None:
        return prompt
    *before, noun = (prompt or "clicks").split("+")
    counted = f"{clicks} {noun[:-1] if clicks == 1 else noun}"
    return " + ".join((*before, counted))


def _check_word(what: str, words: tuple[str, ...], known: tuple[str, ...]) -> None:
    for word in words:
        if word not in known:
            raise ConfigError(f"{what}: {word!r} is not known; use one of {', '.join(known)}")
