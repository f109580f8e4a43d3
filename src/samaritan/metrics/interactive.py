"""Scores of the CVPR 2025 challenge on interactive segmentation: a box, then five clicks, for all classes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from samaritan.metrics.rows import Row

CLICKS = 5
"""Rounds of clicks after the box."""

MOST_AUC = float(CLICKS - 1)
"""The best area under a curve: it is not normalised."""

LEAST_DICE = 0.2
"""Where the mean Dice of a case is not above this, its surface Dice counts as 0."""

SECONDS_PER_CLASS = 90
"""Time that a case may take in all, for each of its classes."""


@dataclass(frozen=True)
class Interactive:
    """How a case went, or one class of all cases.

    Attributes:
        name: of the case, or of the class.
        n: classes of the case, or cases of the class.
        dsc: mean Dice after the box and after each click; NaN where nothing is known.
        nsd: mean surface Dice at 2 mm.
        seconds: time of each round; 0 where nobody was asked.
    """

    name: str
    n: int
    dsc: tuple[float, ...]
    nsd: tuple[float, ...]
    seconds: tuple[float, ...] = ()

    @property
    def dsc_auc(self) -> float:
        """Area under the curve of Dice over the clicks."""
        return click_auc(self.dsc[1:])

    @property
    def nsd_auc(self) -> float:
        """Area under the curve of surface Dice over the clicks."""
        return click_auc(self.nsd[1:])

    @property
    def limit(self) -> int:
        """Seconds that a case may take."""
        return SECONDS_PER_CLASS * self.n

    def columns(self) -> dict[str, Any]:
        """Name the numbers as the challenge's own tables do."""
        rounds = range(1, CLICKS + 2)
        return {
            "CaseName": self.name,
            "TotalRunningTime": math.fsum(self.seconds),
            **{f"RunningTime_{r}": self.seconds[r - 1] for r in rounds},
            "DSC_AUC": self.dsc_auc,
            "NSD_AUC": self.nsd_auc,
            "DSC_Final": self.dsc[-1],
            "NSD_Final": self.nsd[-1],
            **{f"DSC_{r}": self.dsc[r - 1] for r in rounds},
            **{f"NSD_{r}": self.nsd[r - 1] for r in rounds},
            "num_class": self.n,
            "runtime_upperbound": self.limit,
        }


def click_auc(scores: Sequence[float]) -> float:
    """Area under a curve by the trapezoid rule, one click between its points; at most their number less 1.

    Source: JunMa11/CVPR-MedSegFMCompetition, CVPR25_iter_eval.py: the round of the box is not in it.

    >>> click_auc([1.0] * 5), click_auc([0.0, 0.5, 0.5, 1.0, 1.0])
    (4.0, 2.5)
    """
    return math.fsum((a + b) / 2 for a, b in itertools.pairwise(scores))


def score_cases(rows: Iterable[Row], cases: Mapping[str, str] | None = None) -> list[Interactive]:
    """Score every case as the challenge does: the mean over its classes in every round.

    Args:
        rows: with `clicks` 0 for the box (or None for a final answer alone), then 1 to 5.
        cases: name in rows -> case, where objects of a case have names of their own.
    """
    own: dict[str, list[Row]] = {}
    for row in rows:
        own.setdefault((cases or {}).get(row.case, row.case), []).append(row)
    return [_scored(name, some) for name, some in own.items()]


def score_classes(rows: Iterable[Row]) -> list[Interactive]:
    """The mean over all cases of each class, by name; surface Dice as it is."""
    own: dict[str, list[Row]] = {}
    for row in rows:
        own.setdefault(row.name, []).append(row)
    return [
        Interactive(name, _count(some), _curve(some, "dice"), _curve(some, "surface_dice"))
        for name, some in own.items()
    ]


def mean_of(scored: Sequence[Interactive], name: str = "mean") -> Interactive:
    """The mean of cases: its areas are the means of their areas."""
    rounds = range(CLICKS + 1)

    def average(field: str) -> tuple[float, ...]:
        return tuple(float(np.mean([getattr(one, field)[r] for one in scored])) for r in rounds)

    return Interactive(name, sum(one.n for one in scored), *map(average, ("dsc", "nsd", "seconds")))


def _scored(name: str, rows: list[Row]) -> Interactive:
    dsc = _curve(rows, "dice")
    nsd = tuple(
        surface if math.isnan(dice) or dice > LEAST_DICE else 0.0
        for dice, surface in zip(dsc, _curve(rows, "surface_dice"), strict=True)
    )
    seconds = tuple(
        math.fsum(row.values.get("seconds", 0.0) for row in rows if row.clicks == r)
        for r in range(CLICKS + 1)
    )
    return Interactive(name, _count(rows), dsc, nsd, seconds)


def _count(rows: Sequence[Row]) -> int:
    return len({(row.case, row.label) for row in rows})


def _curve(rows: Sequence[Row], key: str) -> tuple[float, ...]:
    """The mean in every round. A round of the box that nobody was asked scores 0, others are not known."""
    found = []
    alone = all(row.clicks is None for row in rows)
    for number in range(CLICKS + 1):
        last = alone and number == CLICKS
        values = [row.values[key] for row in rows if row.clicks == number or last]
        empty = 0.0 if number == 0 and not alone else math.nan
        found.append(float(np.mean(values)) if values else empty)
    return tuple(found)
