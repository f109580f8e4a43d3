"""Charts as inline SVG: every case as a dot, and scores against clicks as curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Self

import numpy as np

from samaritan.metrics import Row, Summary
from samaritan.metrics.names import metric
from samaritan.metrics.summary import Stat

MOST_DOTS = 300
"""More cases than this are thinned evenly, by rank."""

COLOURS = 6
"""The style sheet knows this many classes c0, c1, ..."""

_WIDTH, _NAME, _END, _ROW = 520, 118, 34, 34


def distribution(rows: Sequence[Row], summaries: Sequence[Summary], key: str) -> str:
    """Draw every case as a dot, a line for each label, with quartiles, median and mean.

    What is infinite stands in a column of its own at the right.

    Args:
        rows: those that count.
        summaries: by label, of the same rows.
        key: which metric.
    """
    shown = [s for s in summaries if key in s.stats]
    about = metric(key)
    values = [row.values[key] for row in rows if math.isfinite(row.values.get(key, math.inf))]
    low, high = _nice(min(values, default=0.0), max(values, default=1.0), about.is_part)
    ends = any(s.stats[key].n_infinite for s in shown)
    right = _WIDTH - 14 - (_END if ends else 0)

    def x(value: float) -> float:
        if math.isinf(value):
            return _WIDTH - 20.0
        return _NAME + (value - low) / (high - low) * (right - _NAME)

    height = _ROW * len(shown) + 30
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(about.title)}">']
    for tick in _ticks(low, high):
        parts.append(
            f'<line class="axis" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="4" y2="{height - 22}"/>'
            f'<text x="{x(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>'
        )
    if ends:
        parts.append(
            f'<text x="{_WIDTH - 20}" y="{height - 8}" text-anchor="middle">&infin;</text>'
        )
    for place, summary in enumerate(shown):
        y = 4 + _ROW * (place + 0.5)
        own = [r for r in rows if r.label == summary.key["label"] and key in r.values]
        parts.append(f'<text class="name" x="{_NAME - 10}" y="{y + 4:.0f}" text-anchor="end">')
        parts.append(f"{escape(_short(summary.name, 17))}</text>")
        parts.append(_spread(summary.stats[key], x, y))
        parts += _dots(own, key, x, y)
    return "".join((*parts, "</svg>"))


@dataclass(frozen=True)
class Point:
    """A place on a curve: a middle and its 95 % interval, and how many cases it stands for."""

    clicks: int | None
    middle: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, clicks: int | None, stat: Stat, *, median: bool) -> Self:
        """Take the mean, or the median where a mean is infinite."""
        if median:
            return cls(clicks, stat.median, stat.median_low, stat.median_high, stat.n)
        return cls(clicks, stat.mean, stat.low, stat.high, stat.n)


Lines = Mapping[str, Sequence[Point]]


def curves(lines: Lines, key: str, *, beside: Iterable[Lines] = ()) -> str:
    """Draw scores against the number of clicks, with their 95 % intervals.

    Args:
        lines: name -> points, clicks ascending; a point without clicks becomes a level line.
        key: which metric the numbers are of.
        beside: what other charts show, so that all have one scale.
    """
    about = metric(key)
    every = [point for one in (lines, *beside) for points in one.values() for point in points]
    clicks = sorted({point.clicks for point in every if point.clicks is not None})
    ends = [v for p in every for v in (p.middle, p.low, p.high) if math.isfinite(v)]
    low, high = _nice(min(ends, default=0), max(ends, default=1), about.is_part)
    top, bottom, left, right = 10.0, 210.0, 42.0, _WIDTH - 128.0

    def x(count: int) -> float:
        wide = max(clicks[-1] - clicks[0], 1)
        return left + 8 + (count - clicks[0]) / wide * (right - left - 8)

    def y(value: float) -> float:
        return bottom - (min(max(value, low), high) - low) / (high - low) * (bottom - top)

    title = f"{about.title} by clicks"
    parts = [f'<svg viewBox="0 0 {_WIDTH} 244" role="img" aria-label="{escape(title)}">']
    for tick in _ticks(low, high):
        parts.append(
            f'<line class="axis" x1="{left}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for count in clicks:
        parts.append(f'<text x="{x(count):.1f}" y="226" text-anchor="middle">{count}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="241" text-anchor="middle">clicks</text>')
    places = _apart([y(points[-1].middle) for points in lines.values()])
    for number, ((name, points), place) in enumerate(zip(lines.items(), places, strict=True)):
        drawn = (
            _level(name, points[0], y, left, right, about.digits)
            if points[0].clicks is None
            else _curve(name, points, x, y, about.digits)
        )
        end = f'<text class="end" x="{right + 10}" y="{place + 4:.1f}">{escape(_short(name, 17))}'
        parts.append(f'<g class="c{number % COLOURS}">{drawn}{end}</text></g>')
    return "".join((*parts, "</svg>"))


def calibration(bins: Sequence[tuple[float, float, int]]) -> str:
    """Draw what was reached against what was expected, both from 0 to 1, with the line where they agree.

    Args:
        bins: (expected, reached, number of answers).
    """
    left, right, top, bottom = 150.0, 390.0, 8.0, 248.0
    most = max((n for _, _, n in bins), default=1)

    def x(value: float) -> float:
        return left + min(max(value, 0.0), 1.0) * (right - left)

    def y(value: float) -> float:
        return bottom - min(max(value, 0.0), 1.0) * (bottom - top)

    parts = [f'<svg viewBox="0 0 {_WIDTH} 284" role="img" aria-label="true against expected IoU">']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(
            f'<path class="axis" d="M{x(tick):.1f} {top} V{bottom} M{left} {y(tick):.1f} H{right}"/>'
            f'<text x="{x(tick):.1f}" y="{bottom + 15}" text-anchor="middle">{tick:g}</text>'
            f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    parts.append(
        f'<path class="mean" stroke-dasharray="5 4" d="M{left} {bottom} L{right} {top}"/>'
        f'<text x="{(left + right) / 2}" y="{bottom + 32}" text-anchor="middle">expected IoU</text>'
        f'<text x="{left - 40}" y="{(top + bottom) / 2}" text-anchor="end">true IoU</text><g class="c0">'
    )
    for expected, reached, n in bins:
        told = f"expected {expected:.3f}, reached {reached:.3f}, n = {n}"
        size = 3 + 8 * math.sqrt(n / most)
        parts.append(
            f'<circle class="knot" fill-opacity=".6" cx="{x(expected):.1f}" cy="{y(reached):.1f}" '
            f'r="{size:.1f}"><title>{told}</title></circle>'
        )
    return "".join((*parts, "</g></svg>"))


def _curve(
    name: str,
    points: Sequence[Point],
    x: Callable[[int], float],
    y: Callable[[float], float],
    digits: int,
) -> str:
    """A line with its band."""
    finite = [(p.clicks or 0, p) for p in points if math.isfinite(p.middle)]
    line = " ".join(f"{x(n):.1f},{y(p.middle):.1f}" for n, p in finite)
    sure = [(n, p) for n, p in finite if not (math.isnan(p.low) or math.isnan(p.high))]
    band = [f"{x(n):.1f},{y(p.high):.1f}" for n, p in sure]
    band += [f"{x(n):.1f},{y(p.low):.1f}" for n, p in reversed(sure)]
    knots = "".join(
        f'<circle class="knot" cx="{x(n):.1f}" cy="{y(p.middle):.1f}" r="3.4"><title>'
        f"{escape(name)}, {n} clicks: {_words(p, digits)}</title></circle>"
        for n, p in finite
    )
    return (
        f'<polygon class="band" points="{" ".join(band)}"/>'
        f'<polyline class="curve" points="{line}"/>{knots}'
    )


def _level(
    name: str, point: Point, y: Callable[[float], float], left: float, right: float, digits: int
) -> str:
    """A dashed line at the score of a prompt that has no clicks."""
    return (
        f'<path class="curve" stroke-dasharray="5 4" d="M{left} {y(point.middle):.1f} H{right}">'
        f"<title>{escape(name)}: {_words(point, digits)}</title></path>"
    )


def _words(point: Point, digits: int) -> str:
    ends = (
        f" ({point.low:.{digits}f} to {point.high:.{digits}f})" if not math.isnan(point.low) else ""
    )
    return f"{point.middle:.{digits}f}{ends}, n = {point.n}"


def _spread(stat: Stat, x: Callable[[float], float], y: float) -> str:
    """Quartiles as a box, the median as a line, the mean with its interval as a diamond."""
    first, third = x(stat.quartiles[0]), x(stat.quartiles[1])
    wide, middle = max(third - first, 1), x(stat.median)
    told = (
        f'<rect class="box" x="{first:.1f}" y="{y - 10}" width="{wide:.1f}" height="20" rx="3"/>'
        f'<path class="median" d="M{middle:.1f} {y - 10} v20"/>'
    )
    if math.isfinite(stat.mean):
        at = x(stat.mean)
        told += f'<path class="mean" d="M{at:.1f} {y - 5} l5 5 -5 5 -5 -5z"/>'
        if math.isfinite(stat.low) and math.isfinite(stat.high):
            low, high = x(stat.low), x(stat.high)
            told += f'<path class="mean" d="M{low:.1f} {y} H{at:.1f} M{at:.1f} {y} H{high:.1f}"/>'
    return told


def _dots(rows: Sequence[Row], key: str, x: Callable[[float], float], y: float) -> list[str]:
    """A dot for each case, strewn up and down by a fixed pattern."""
    ranked = sorted(rows, key=lambda row: row.values[key])
    if len(ranked) > MOST_DOTS:
        ranked = [ranked[round(i)] for i in np.linspace(0, len(ranked) - 1, MOST_DOTS)]
    dots = []
    for place, row in enumerate(ranked):
        value = row.values[key]
        bad = " bad" if row.outcome != "found" else ""
        told = f"{row.case}: {'infinite' if math.isinf(value) else f'{value:.4g}'}"
        if bad:
            told += f", {row.outcome}"
        shift = (place * 0.618034 % 1 - 0.5) * 17
        dots.append(
            f'<circle class="dot{bad}" cx="{x(value):.1f}" cy="{y + shift:.1f}" r="3">'
            f"<title>{escape(told)}</title></circle>"
        )
    return dots


def _nice(least: float, most: float, is_part: bool) -> tuple[float, float]:
    """What an axis covers: from 0, or a round number below, to a round number above."""
    if is_part:
        return (0.0 if least < 0.5 else 0.5 if least < 0.8 else 0.8), 1.0
    step = _step(min(least, 0.0), most)
    low = math.floor(min(least, 0.0) / step) * step
    return low, max(math.ceil(most / step) * step, low + step)


def _step(low: float, high: float) -> float:
    """A round distance of about five ticks."""
    rough = max(high - low, 1e-6) / 5
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= rough * 0.999)


def _ticks(low: float, high: float) -> list[float]:
    step = _step(low, high)
    count = math.floor((high - low) / step + 1e-6)
    return [round(low + i * step, 10) for i in range(count + 1)]


def _apart(places: Sequence[float], gap: float = 14.0) -> list[float]:
    """Move names at the ends of curves so that they do not cover each other."""
    moved = [0.0] * len(places)
    last = -math.inf
    for index in sorted(range(len(places)), key=lambda i: places[i]):
        last = moved[index] = max(places[index], last + gap)
    return moved


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
