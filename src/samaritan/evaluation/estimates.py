"""What a model thinks of its own answers, beside what they are worth; and how long it takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from samaritan.metrics import Row

QUALITY, SECONDS = "predicted_iou", "seconds"
"""Values of a row beside the metrics: the model's own estimate, and the time of the answer."""

ENCODING, OPENING = "encoding_seconds", "opening_seconds"
"""How much of an answer's time went into encoding; and how long the image took before the first."""

APART = (ENCODING, OPENING)
"""Times that not every row has, so that tables leave them out."""

_BINS = 10


@dataclass(frozen=True)
class Estimate:
    """How well a model knows how good its answers are.

    Attributes:
        prompt: kind of prompt; "" for all together.
        n: answers.
        predicted: mean of the IoU that the model expects.
        true: mean of the IoU that it reaches.
        error: mean absolute difference.
        correlation: Pearson's; NaN where one side never changes.
        bins: (expected IoU, true IoU, answers), by tenths of the expected one.
    """

    prompt: str
    n: int
    predicted: float
    true: float
    error: float
    correlation: float
    bins: tuple[tuple[float, float, int], ...] = ()


@dataclass(frozen=True)
class Pace:
    """Median times in seconds; NaN where nothing was timed.

    Attributes:
        opening: of an image, until it can be asked.
        answer: of one answer.
        n_images: images that were timed.
        n_answers: answers that were timed.
        encoding: of the answers that had something to encode, such as a new window of a volume.
        n_encoded: how many these were.
        once_encoded: of one answer, without encoding.
    """

    opening: float
    answer: float
    n_images: int
    n_answers: int
    encoding: float = math.nan
    n_encoded: int = 0
    once_encoded: float = math.nan


def estimates(rows: Sequence[Row]) -> list[Estimate]:
    """Compare expected with true IoU: of all answers, then of each kind of prompt; empty without any."""
    known = [row for row in rows if QUALITY in row.values and "iou" in row.values]
    if not known:
        return []
    kinds = list(dict.fromkeys(row.prompt for row in known))
    own = [_estimate(kind, [row for row in known if row.prompt == kind]) for kind in kinds]
    return [_estimate("", known), *(own if len(own) > 1 else ())]


def pace(rows: Sequence[Row]) -> Pace | None:
    """The median times of opening, encoding and answering; None if nothing was timed."""
    opening = [row.values[OPENING] for row in rows if OPENING in row.values]
    timed = [row.values for row in rows if SECONDS in row.values]
    if not timed:
        return None
    encoding = [values[ENCODING] for values in timed if ENCODING in values]
    rest = [values[SECONDS] - values.get(ENCODING, 0.0) for values in timed]
    return Pace(
        _median(opening),
        _median([values[SECONDS] for values in timed]),
        len(opening),
        len(timed),
        _median(encoding),
        len(encoding),
        _median(rest),
    )


def _estimate(prompt: str, rows: Sequence[Row]) -> Estimate:
    predicted = np.array([row.values[QUALITY] for row in rows])
    true = np.array([row.values["iou"] for row in rows])
    moves = len(rows) > 1 and predicted.std() > 1e-12 and true.std() > 1e-12
    correlation = float(np.corrcoef(predicted, true)[0, 1]) if moves else math.nan
    place = np.clip((predicted * _BINS).astype(int), 0, _BINS - 1)
    bins = [
        (float(predicted[own].mean()), float(true[own].mean()), int(own.sum()))
        for own in (place == number for number in np.unique(place))
    ]
    return Estimate(
        prompt,
        len(rows),
        float(predicted.mean()),
        float(true.mean()),
        float(np.abs(predicted - true).mean()),
        correlation,
        tuple(bins),
    )


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else math.nan
