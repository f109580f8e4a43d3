"""Ask a model for one object, prompt by prompt, as a person with a session does."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np

from samaritan.evaluation.prompting import (
    Clicked,
    Index,
    box_around,
    correction,
    ellipse,
    generator,
    points_for,
)
from samaritan.evaluation.targets import Mask, Target
from samaritan.evaluation.trial import ELLIPSE, Trial


class Asked(Protocol):
    """What is needed of a `samaritan.infer.Session`."""

    def click(self, point: Any, *, positive: bool = True) -> Self:
        """Add a click."""

    def box(self, start: Any, stop: Any) -> Self:
        """Add a box."""

    def quality(self) -> float | None:
        """Tell the model's own estimate of its IoU."""

    @property
    def mask(self) -> Any:
        """Give the answer as a label map."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Tell what a person should know about the answer."""


@dataclass(frozen=True, eq=False)
class Answer:
    """What came of one prompt.

    Attributes:
        prompt: its kind.
        clicks: how many points were given; None for a prompt without any.
        mask: on the grid of the image.
        quality: the model's own estimate of its IoU; None where there is none.
        seconds: how long this answer took; None where nobody was asked.
        opening: how long the image took before; told with its first answer alone.
        encoding: how much of `seconds` went into encoding what had not been looked at before.
        box: what was drawn.
        points: what was pointed at.
        scores: what a published test counts itself, beside what the protocol measures.
        notes: what a reader should know about it.
    """

    prompt: str
    clicks: int | None
    mask: Mask
    quality: float | None = None
    seconds: float | None = None
    opening: float | None = None
    encoding: float | None = None
    box: tuple[Index, Index] | None = None
    points: tuple[Clicked, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def answers(session: Asked, target: Target, shape: Index, trial: Trial) -> Iterator[Answer]:
    """Ask for an object with every prompt of a trial.

    Args:
        session: one without any prompts, on the image.
        target: the object.
        shape: of the image's grid.
        trial: what to ask.
    """
    box = box_around(target, shape, trial)
    if trial.baseline:
        yield Answer(ELLIPSE, None, ellipse(*box, shape), box=box)
    if "box" in trial.prompts:
        yield _answer(session.box(*box), "box", None, box=box)
    if "points" in trial.prompts:
        for count in trial.points:
            given = points_for(target, shape, count, trial)
            pointed = session
            for point in given:
                pointed = pointed.click(point.at, positive=point.positive)
            yield _answer(pointed, "points", count, points=given)
    if "clicks" in trial.prompts:
        (first,) = points_for(target, shape, 1, trial)
        begun = session.click(first.at)
        answer = _answer(begun, "clicks", 1, points=(first,))
        yield from _corrected(begun, answer, target, shape, trial)
    if "box+clicks" in trial.prompts:
        begun = session.box(*box)
        answer = _answer(begun, "box+clicks", 0, box=box)
        yield from _corrected(begun, answer, target, shape, trial)


def _corrected(
    session: Asked, answer: Answer, target: Target, shape: Index, trial: Trial
) -> Iterator[Answer]:
    """Correct an answer click by click; where nothing is wrong any more it stays as it is."""
    yield answer
    reference = target.mask(shape)
    draws = generator(trial, target, answer.prompt)
    for count in range((answer.clicks or 0) + 1, trial.clicks + 1):
        click = correction(answer.mask, reference, draws, trial)
        if click is None:
            answer = replace(answer, clicks=count, seconds=None, encoding=None)
        else:
            session = session.click(click.at, positive=click.positive)
            given = (*answer.points, click)
            answer = _answer(session, answer.prompt, count, box=answer.box, points=given)
        yield answer


def _answer(session: Asked, prompt: str, clicks: int | None, **given: Any) -> Answer:
    """Wait for the mask, and look at the clock."""
    start = time.perf_counter()
    mask: Mask = np.asarray(session.mask.array) != 0
    seconds = time.perf_counter() - start
    return Answer(prompt, clicks, mask, session.quality(), seconds, notes=session.notes, **given)
