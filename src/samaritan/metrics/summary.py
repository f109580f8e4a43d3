"""From rows to a few numbers: means, medians, confidence intervals, and what was missed or invented."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from samaritan.metrics.bootstrap import Bootstrap
from samaritan.metrics.overlap import Array
from samaritan.metrics.rows import Row

Key = Literal["label", "group", "prompt", "clicks"]


@dataclass(frozen=True)
class Stat:
    """One metric over some rows. Missed objects have infinite distance, and make such a mean infinite.

    Attributes:
        n: number of values.
        mean: over all values; over several labels, the mean of the labels' means.
        median: over all values.
        std: of the values (n - 1); NaN if one is infinite or there is but one.
        low: lower end of the mean's 95 % interval; NaN for a single case.
        high: upper end.
        median_low: lower end of the median's 95 % interval.
        median_high: upper end.
        least: smallest value.
        most: largest value.
        quartiles: 25th and 75th percentile.
        n_infinite: how many values are infinite.
        finite_mean: mean of the others.
    """

    n: int
    mean: float
    median: float
    std: float
    low: float
    high: float
    median_low: float
    median_high: float
    least: float
    most: float
    quartiles: tuple[float, float]
    n_infinite: int
    finite_mean: float


@dataclass(frozen=True)
class Summary:
    """What rows with something in common come to.

    Attributes:
        key: what they have in common: label, group, prompt, clicks.
        name: of the label; "all labels" where labels are not kept apart.
        stats: metric -> numbers, over the rows that count.
        n_cases: cases that hold such rows.
        n_found: objects found.
        n_missed: objects with which the prediction shares no voxel.
        n_invented: objects that the reference does not have.
        n_absent: cases in which neither mask has the label.
    """

    key: Mapping[str, Any]
    name: str
    stats: Mapping[str, Stat]
    n_cases: int
    n_found: int
    n_missed: int
    n_invented: int
    n_absent: int


def summarise(
    rows: Iterable[Row],
    *,
    by: Sequence[Key] = ("label",),
    seed: int = 0,
    draws: int = 2000,
) -> list[Summary]:
    """Summarise rows that share label, group, prompt or number of clicks.

    Confidence intervals come from drawing cases (patients, where rows name them) with replacement.

    Args:
        rows: from `measure_case`.
        by: what keeps rows apart; () for one summary of all.
        seed: of the drawing: the same rows and seed give the same intervals.
        draws: how often to draw.

    Returns:
        In the order in which the rows first show each key.
    """
    every = list(rows)
    bootstrap = Bootstrap([row.cluster for row in every], draws=draws, seed=seed)
    parts: dict[tuple[Any, ...], list[Row]] = {}
    for row in every:
        parts.setdefault(tuple(getattr(row, field) for field in by), []).append(row)
    found = [_summary(dict(zip(by, k, strict=True)), part, bootstrap) for k, part in parts.items()]
    return sorted(found, key=_order)


def _order(summary: Summary) -> tuple[Any, ...]:
    """Keep the order of rows, but clicks ascending within a prompt and labels ascending."""
    key = summary.key
    clicks = key.get("clicks")
    return (
        key.get("group", ""), key.get("prompt", ""), -1 if clicks is None else clicks, key.get("label", 0)
    )  # fmt: skip


def _summary(key: Mapping[str, Any], rows: list[Row], bootstrap: Bootstrap) -> Summary:
    counted = [row for row in rows if row.counted]
    metrics = list(dict.fromkeys(name for row in counted for name in row.values))
    outcomes = [row.outcome for row in rows]
    return Summary(
        key,
        rows[0].name if "label" in key else "all labels",
        {name: _stat(counted, name, bootstrap) for name in metrics},
        len({row.case for row in rows}),
        outcomes.count("found"),
        outcomes.count("missed"),
        outcomes.count("false positive"),
        outcomes.count("absent"),
    )


def _stat(rows: list[Row], metric: str, bootstrap: Bootstrap) -> Stat:
    rows = [row for row in rows if metric in row.values]
    values: Array = np.array([row.values[metric] for row in rows], float)
    clusters = bootstrap.positions([row.cluster for row in rows])
    labels = np.array([row.label for row in rows])
    finite = values[np.isfinite(values)]
    means = [float(values[labels == label].mean()) for label in np.unique(labels)]
    low, high = bootstrap.interval_of_mean(values, clusters, labels)
    median_low, median_high = bootstrap.interval_of_median(values, clusters)
    spread = len(finite) == len(values) > 1
    return Stat(
        len(values),
        math.fsum(means) / len(means),
        _quantile(values, 0.5),
        float(values.std(ddof=1)) if spread else math.nan,
        low,
        high,
        median_low,
        median_high,
        float(values.min()),
        float(values.max()),
        (_quantile(values, 0.25), _quantile(values, 0.75)),
        len(values) - len(finite),
        float(finite.mean()) if len(finite) else math.nan,
    )


def _quantile(values: Array, part: float) -> float:
    """Interpolate between neighbours, which may be infinite."""
    ranked = np.sort(values)
    at = part * (len(ranked) - 1)
    low, high = float(ranked[math.floor(at)]), float(ranked[math.ceil(at)])
    return low if low == high else low + (high - low) * (at - math.floor(at))
