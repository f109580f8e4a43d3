"""How sure a mean is: draw the cases again and again, and see how much it moves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from samaritan.metrics.overlap import Array

INTERVAL = (0.025, 0.975)
"""The 95 % interval."""

_MOST_WEIGHTS = 50_000_000
_FEWEST_DRAWS = 100


class Bootstrap:
    """Weights of cases in many seeded draws with replacement, used for every metric alike.

    All rows of a case (or patient) are drawn together, since they are not independent. There are fewer draws
    where cases are very many: the interval is narrow then.

    Args:
        clusters: the case or patient of each row, in any order, repeated as it comes.
        draws: how often to draw.
        seed: of the drawing.
    """

    def __init__(self, clusters: Sequence[str], *, draws: int = 2000, seed: int = 0) -> None:
        known = sorted(set(clusters))
        self._position = {name: at for at, name in enumerate(known)}
        n = len(known)
        draws = max(min(draws, _MOST_WEIGHTS // max(n, 1)), _FEWEST_DRAWS)
        random = np.random.default_rng(seed)
        self._weights = np.zeros((draws, n), np.float32)
        for weights in self._weights:
            weights[:] = np.bincount(random.integers(0, n, n), minlength=n) if n else 0

    def positions(self, clusters: Sequence[str]) -> Array:
        """Number the case of each row."""
        return np.array([self._position[name] for name in clusters], int)

    def interval_of_mean(
        self, values: Array, clusters: Array, labels: Array
    ) -> tuple[float, float]:
        """The 95 % interval of the mean of the labels' means.

        Args:
            values: (n,), may hold infinity.
            clusters: (n,): from `positions`.
            labels: (n,): the label of each value.

        Returns:
            Lower and upper end; NaN if all values are of one case.
        """
        if len(np.unique(clusters)) < 2:
            return math.nan, math.nan
        finite = np.isfinite(values)
        total, used = np.zeros(len(self._weights)), np.zeros(len(self._weights))
        for label in np.unique(labels):
            own = labels == label
            counts = self._drawn(clusters[own], np.ones(own.sum()))
            sums = self._drawn(clusters[own & finite], values[own & finite])
            infinite = self._drawn(clusters[own & ~finite], np.ones((own & ~finite).sum()))
            with np.errstate(invalid="ignore", divide="ignore"):
                means = np.where(infinite > 0, np.inf, sums / counts)
            drawn = counts > 0
            total[drawn] += means[drawn]
            used += drawn
        return _interval(total[used > 0] / used[used > 0])

    def interval_of_median(self, values: Array, clusters: Array) -> tuple[float, float]:
        """The 95 % interval of the median; NaN if all values are of one case."""
        if len(np.unique(clusters)) < 2:
            return math.nan, math.nan
        order = np.argsort(values, kind="stable")
        ranked, owners = values[order], clusters[order]
        medians = []
        step = max(1, 4_000_000 // max(len(values), 1))
        for start in range(0, len(self._weights), step):
            sums = np.cumsum(
                self._weights[start : start + step][:, owners], axis=1, dtype=np.float64
            )
            sums = sums[sums[:, -1] > 0]
            half = sums[:, -1:] / 2
            below, above = (sums < half).sum(axis=1), (sums <= half).sum(axis=1)
            medians.append((ranked[below] + ranked[above]) / 2)
        return _interval(np.concatenate(medians))

    def _drawn(self, clusters: Array, values: Array) -> Array:
        """Sum the values in every draw."""
        each = np.bincount(clusters, weights=values, minlength=self._weights.shape[1])
        (used,) = np.nonzero(each)  # most are 0 where the values are of a few cases
        summed: Array = self._weights[:, used] @ each[used]
        return summed


def _interval(drawn: Array) -> tuple[float, float]:
    if not drawn.size:
        return math.nan, math.nan
    low, high = np.quantile(drawn, INTERVAL, method="nearest")  # may be infinite: not interpolated
    return float(low), float(high)
