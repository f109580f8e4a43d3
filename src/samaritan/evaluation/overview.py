"""What a page says of a prompted model first: scores by data set and prompt, its own estimates, its pace."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from samaritan.evaluation import charts
from samaritan.evaluation.cells import cell, mean, number_cell, stat_cell, table
from samaritan.evaluation.estimates import Estimate, Pace
from samaritan.evaluation.trial import ASIDE, ELLIPSE, PROMPTS, told
from samaritan.metrics import Summary
from samaritan.metrics.names import metric
from samaritan.metrics.summary import Stat

if TYPE_CHECKING:
    from samaritan.evaluation.report import Report

Column = tuple[str, int | None]
"""A kind of prompt, and the number of points."""

SHOWN_CLICKS = (0, 1, 2, 3, 5, 10)
"""The overview has columns for these numbers of clicks, and for the last."""

FIRST = ("dice_best_in_window", "dice_in_window", "dice", "iou")
"""Scores, the one that is looked at first before the others."""

ALL_SETS = "mean of data sets"


def mean_of_sets(summaries: Sequence[Summary]) -> list[Summary]:
    """Means of the data sets' means, so that each weighs alike; without intervals.

    Args:
        summaries: by group, and by whatever else.
    """
    parts: dict[tuple[tuple[str, object], ...], list[Summary]] = {}
    for summary in summaries:
        key = tuple((k, v) for k, v in summary.key.items() if k != "group")
        parts.setdefault(key, []).append(summary)
    return [_mean(dict(key), own) for key, own in parts.items()]


def lines_of(report: Report) -> dict[str, dict[Column, Summary]]:
    """The summaries of each data set by prompt; where there are several, their mean comes last."""
    groups = report.summaries("group") if report.is_grouped else report.summaries()
    overall = mean_of_sets(groups) if report.is_grouped else []
    lines: dict[str, dict[Column, Summary]] = {}
    for summary in (*groups, *overall):
        name = str(summary.key.get("group", ALL_SETS if overall else "all cases")) or "no group"
        lines.setdefault(name, {})[column_of(summary)] = summary
    return lines


def score_of(report: Report) -> str:
    """The metric that is looked at first."""
    known = {key for row in report.rows for key in row.values}
    return next((key for key in FIRST if key in known), "")


def overview(report: Report) -> str:
    """A table with a line for each data set and a column for each prompt; nothing without prompts."""
    score, columns, lines = score_of(report), columns_of(report), lines_of(report)
    if not score or not report.prompts:
        return ""
    heads = [("data set", True), ("objects", False)]
    heads += [(told(*column) or "score", False) for column in columns]
    body = []
    for name, own in lines.items():
        first = next(iter(own.values()))
        cells = [cell(name, text=True), cell(str(first.n_found + first.n_missed))]
        for column in columns:
            stat = own[column].stats.get(score) if column in own else None
            cells.append('<td data-v=""></td>' if stat is None else stat_cell(stat, score))
        whole = ' class="all"' if name == ALL_SETS else ""
        body.append(f"<tr{whole}>{''.join(cells)}</tr>")
    return f"<h2>{escape(metric(score).title)} at a glance</h2>" + table(heads, body)


def prompt_tiles(report: Report) -> list[tuple[str, str, str, bool]]:
    """Title, number, small print and whether it is bad: how many objects, and the score of a few prompts."""
    lines, key = lines_of(report), score_of(report)
    first = next(iter(lines.values()))
    some = next(iter(first.values()))
    last = list(lines.values())[-1]
    total = next(iter(last.values()))
    sets = len(lines) - (ALL_SETS in lines)
    small = f"of {sets} data sets" if sets > 1 else f"in {some.n_cases} cases"
    tiles = [("objects", str(total.n_found + total.n_missed), small, False)]
    for column in few_columns(report):
        if key and column in last and key in last[column].stats:
            value, interval = mean(last[column].stats[key], key)
            baseline = last.get((ELLIPSE, None))
            worse = baseline is not None and _is_worse(last[column], baseline, key)
            tiles.append((f"{metric(key).title}, {told(*column)}", value, interval, worse))
    return tiles


def few_columns(report: Report, clicks: Sequence[int] = (1, 5)) -> list[Column]:
    """Prompts to tell in few words: those without clicks, one point, curves at few clicks and the last."""
    every = columns_of(report)
    last = {prompt: clicks for prompt, clicks in every if prompt not in ("points", *ASIDE)}
    kept = [
        (prompt, number)
        for prompt, number in every
        if number is None
        or (prompt == "clicks" and number in (*clicks, last[prompt]))
        or (prompt == "box+clicks" and number == last[prompt])
    ]
    if "clicks" not in last:
        kept += [column for column in every if column[0] == "points"]
    return kept


def _is_worse(summary: Summary, baseline: Summary, key: str) -> bool:
    """Whether a box answer scores below the box filled with an ellipse."""
    if summary.key.get("prompt") != "box" or key not in baseline.stats:
        return False
    return summary.stats[key].mean < baseline.stats[key].mean


def estimate_part(estimates: Sequence[Estimate], pace: Pace | None) -> str:
    """How well the model knows its own answers, and how long they take."""
    if not estimates and pace is None:
        return ""
    words = "<h2>The model about itself</h2>"
    if pace is not None:
        words += f'<p class="dim">{escape(pace_words(pace))}</p>'
    if not estimates:
        return words
    heads = [("prompt", True), ("answers", False), ("expected IoU", False), ("true IoU", False)]
    heads += [("mean absolute error", False), ("correlation", False)]
    body = []
    for one in estimates:
        cells = [cell(one.prompt or "all prompts", text=True), cell(str(one.n))]
        for value in (one.predicted, one.true, one.error, one.correlation):
            cells.append(number_cell(value, "iou"))
        whole = "" if one.prompt else ' class="all"'
        body.append(f"<tr{whole}>{''.join(cells)}</tr>")
    chart = charts.calibration(estimates[0].bins)
    return (
        f'{words}<div class="charts"><div class="card"><h3>Is it as good as it expects?</h3>{chart}</div>'
        f'<div>{table(heads, body)}<p class="dim">Each answer comes with an IoU that the model expects. '
        "A dot is a tenth of the scale, as large as it has answers; on the line a model knows itself."
        "</p></div></div>"
    )


def pace_words(pace: Pace) -> str:
    """The median times in a sentence.

    >>> pace_words(Pace(0.5, 0.0213, 3, 40))
    'Median time: 0.50 s for opening an image (3), 0.021 s for an answer (40).'
    """
    opening = f"{_seconds(pace.opening)} for opening an image ({pace.n_images}), "
    first = "" if math.isnan(pace.opening) else opening
    told = f"Median time: {first}{_seconds(pace.answer)} for an answer ({pace.n_answers})"
    if not pace.n_encoded:
        return f"{told}."
    encoding = f"{_seconds(pace.encoding)} for encoding where an answer needs it ({pace.n_encoded})"
    return f"{told}: {_seconds(pace.once_encoded)} once all is encoded, {encoding}."


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.095 else f"{value:.3f} s"


def column_of(summary: Summary) -> Column:
    """The kind of prompt that a summary is of, and the number of points."""
    return str(summary.key.get("prompt", "")), summary.key.get("clicks")


def columns_of(report: Report) -> list[Column]:
    """Prompts in the order of asking; of long curves only some numbers of clicks."""
    every = list(dict.fromkeys((row.prompt, row.clicks) for row in report.rows))
    every = [
        column for column in every if column != ("box+clicks", 0) or ("box", None) not in every
    ]
    last: dict[str, int] = {}
    for prompt, clicks in every:
        last[prompt] = max(last.get(prompt, 0), clicks or 0)
    order = {name: place for place, name in enumerate((*ASIDE, *PROMPTS))}
    kept = [
        (prompt, clicks)
        for prompt, clicks in every
        if clicks is None or prompt == "points" or clicks in (*SHOWN_CLICKS, last[prompt])
    ]
    return sorted(kept, key=lambda c: (order.get(c[0], 9), c[0], -1 if c[1] is None else c[1]))


def _mean(key: dict[str, object], own: Sequence[Summary]) -> Summary:
    first = own[0]
    metrics = list(dict.fromkeys(name for summary in own for name in summary.stats))
    stats = {name: _mean_stat([s.stats[name] for s in own if name in s.stats]) for name in metrics}
    counts = {
        field: sum(getattr(summary, field) for summary in own)
        for field in ("n_cases", "n_found", "n_missed", "n_invented", "n_absent")
    }
    return replace(first, key=key, name=ALL_SETS, stats=stats, **counts)


def _mean_stat(stats: Sequence[Stat]) -> Stat:
    def average(field: str) -> float:
        return float(np.mean([getattr(stat, field) for stat in stats]))

    means = [stat.mean for stat in stats]
    quartiles = tuple(float(np.mean([stat.quartiles[i] for stat in stats])) for i in (0, 1))
    nothing = math.nan
    return Stat(
        len(stats), average("mean"), average("median"), nothing, nothing, nothing, nothing, nothing,
        min(means), max(means), (quartiles[0], quartiles[1]),
        sum(math.isinf(m) for m in means), average("finite_mean"),
    )  # fmt: skip
