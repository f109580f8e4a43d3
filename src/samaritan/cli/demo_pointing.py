"""How the scenes of `samaritan demo` are pointed at: wishes, and clicks where a person would put them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from samaritan.infer import Session
    from samaritan.prompts import Boxes, Points
    from samaritan.volume import Volume

Index = tuple[int, int, int]


@dataclass(frozen=True)
class Click:
    """A point that belongs to the object, or does not."""

    at: Index
    positive: bool = True


@dataclass(frozen=True)
class Wish:
    """One object, and how it is pointed at."""

    name: str
    box: tuple[Index, Index] | None = None
    clicks: tuple[Click, ...] = ()

    @property
    def told(self) -> str:
        """The prompts in words, such as "box, 1 click off it"."""
        on = sum(click.positive for click in self.clicks)
        counts = ((on, "on it"), (len(self.clicks) - on, "off it"))
        words = [f"{n} click{'s' if n > 1 else ''} {where}" for n, where in counts if n]
        return ", ".join((["box"] if self.box else []) + words)

    @property
    def options(self) -> list[str]:
        """The same for the command line, word by word."""
        name = f"{self.name}=" if self.name else ""
        words = []
        if self.box is not None:
            words += ["--box", name + ",".join(str(v) for v in (*self.box[0], *self.box[1]))]
        for click in self.clicks:
            at = ",".join(str(v) for v in click.at)
            words += ["--point", f"{name}{at}{'' if click.positive else ':-'}"]
        return words

    def ask(self, session: Session) -> Session:
        """Give the prompts to a session."""
        if self.box is not None:
            session = session.box(*self.box, object=self.name)
        for click in self.clicks:
            session = session.click(click.at, positive=click.positive, object=self.name)
        return session


def prompts_of(wishes: Sequence[Wish], image: Volume) -> tuple[Points | None, Boxes | None]:
    """All points and boxes of some wishes, for a picture."""
    from samaritan.prompts import Boxes, Points

    clicks = [click for wish in wishes for click in wish.clicks]
    boxes = [wish.box for wish in wishes if wish.box is not None]
    points = None
    if clicks:
        at, signs = np.array([c.at for c in clicks]), np.array([int(c.positive) for c in clicks])
        points = Points(at, signs, image.grid)
    starts, stops = np.array([b[0] for b in boxes]), np.array([b[1] for b in boxes])
    return points, Boxes(starts, stops, image.grid) if boxes else None


def around(inside: Any) -> tuple[Index, Index]:
    """The half-open box around a mask."""
    at = np.argwhere(inside)
    return index_of(at.min(axis=0)), index_of(at.max(axis=0) + 1)


def moved(at: Index, by: Index) -> Index:
    """An index so far from another."""
    return index_of(np.add(at, by))


def core(inside: Any) -> Click:
    """A click where a person would point to mean the whole of it."""
    found = worst(np.zeros_like(inside), inside)
    assert found is not None
    return found


def worst(mask: Any, reference: Any) -> Click | None:
    """A click deep in the largest part that is missing or does not belong; None where nothing is wrong."""
    import torch

    from samaritan import simulate

    shape = (1, *(mask.shape[:2] if mask.shape[2] == 1 else mask.shape))
    wrong = [
        simulate.largest_component(torch.from_numpy(where.reshape(shape)))
        for where in (reference & ~mask, mask & ~reference)
    ]
    sizes = [int(part.sum()) for part in wrong]
    if not any(sizes):
        return None
    missing = sizes[0] >= sizes[1]
    draws = torch.Generator().manual_seed(0)
    coords = simulate.core_points(wrong[0 if missing else 1], 1, draws)
    return Click(index_of([*coords[0, 0], 0][:3]), missing)


def index_of(values: Any) -> Index:
    """Three whole numbers."""
    i, j, k = (int(v) for v in values)
    return i, j, k


def call_of(click: Click) -> str:
    """The call of a session that gives a click."""
    return f".click({click.at}{'' if click.positive else ', positive=False'})"
