"""The page of a report: one HTML file that needs nothing else, and asks no other computer for anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from samaritan.evaluation import charts
from samaritan.evaluation.cells import cell, mean, number_cell, stat_cell, table
from samaritan.evaluation.estimates import APART, pace
from samaritan.evaluation.figures import figures
from samaritan.evaluation.overview import (
    ALL_SETS,
    estimate_part,
    mean_of_sets,
    overview,
    prompt_tiles,
)
from samaritan.metrics import Row, Summary
from samaritan.metrics.names import metric
from samaritan.metrics.summary import Stat

if TYPE_CHECKING:
    from samaritan.evaluation.report import Report

MOST_ROWS = 3000
"""The table of cases holds this many rows at most, the worst first; `cases.csv` holds all."""

CHARTED = ("dice", "surface_dice", "hd95")
"""Metrics that get a chart of all cases."""

_MOST_LABELS = 40


def page(report: Report) -> str:
    """Make the page."""
    here = files("samaritan.evaluation")
    style, script = (here.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    body = "".join(
        (
            _head(report),
            _tiles(report),
            _alerts(report),
            *(sheet.html() for sheet in report.sheets),
            overview(report),
            _curves(report),
            _summaries(report),
            _distributions(report),
            _groups(report),
            figures(report),
            estimate_part(report.estimates, pace(report.rows)),
            _cases(report),
            f"<h2>How it was measured</h2><p>{escape(report.protocol.explanation)}</p>"
            f"<p>{escape(_INTERVALS)}</p>",
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(report.title)}</title><style>{style}</style></head>\n"
        f"<body><main>{body}</main><script>{script}</script></body></html>\n"
    )


_INTERVALS = (
    "Small print below a number is the 95 % confidence interval of the mean: cases (patients, where they are "
    "known) are drawn 2000 times with replacement. All labels weigh alike in the row “all labels”."
)  # fmt: skip


def _head(report: Report) -> str:
    facts = {"protocol": report.protocol.stated, **report.facts}
    lines = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f'<h1>{escape(report.title)}</h1><dl class="facts">{lines}</dl>'


def _tiles(report: Report) -> str:
    """The few numbers that one looks for first; with prompts these stand in the tables."""
    overall = report.summaries()
    tiles = [("cases", f"{len({row.case for row in report.rows})}", "", False)]
    if report.prompts:
        tiles = prompt_tiles(report)
    elif len(overall) == 1:
        (summary,) = overall
        wanted = {"dice", "surface", "hd95"} if "dice" in summary.stats else {"iou"}
        for key in list(summary.stats):
            if key.split("_")[0] in wanted and len(tiles) < 5:
                tiles.append((*_tile(summary.stats[key], key), False))
        there = summary.n_found + summary.n_missed
        tiles.append(
            (
                "objects found",
                f"{summary.n_found} of {there}",
                f"{summary.n_missed} missed",
                bool(summary.n_missed),
            )
        )
        if summary.n_invented:
            tiles.append(
                ("invented objects", str(summary.n_invented), "not in the reference", True)
            )
    return (
        '<div class="tiles">'
        + "".join(
            f'<div class="tile{" bad" if bad else ""}"><span class="dim">{escape(name)}</span><b>{value}</b>'
            f'<span class="sub">{small}</span></div>'
            for name, value, small, bad in tiles
        )
        + "</div>"
    )


def _tile(stat: Stat, key: str) -> tuple[str, str, str]:
    """Title, number and small print; an infinite mean says less than its median."""
    title, (value, small) = metric(key).title, mean(stat, key)
    if math.isinf(stat.mean) and math.isfinite(stat.median):
        plain = f"{stat.median:.{metric(key).digits}f}"
        return f"median {title}", plain, f"mean {value}: {stat.n_infinite} infinite"
    return title, value, small


def _alerts(report: Report) -> str:
    told = ""
    if report.problems:
        lines = (f"<b>{escape(case)}</b>: {escape(why)}" for case, why in report.problems.items())
        n = len(report.problems)
        told += _alert(
            f"{n} {'cases' if n > 1 else 'case'} could not be measured, left out of every number",
            lines,
        )
    if report.notes:
        told += _alert("To keep in mind", (escape(note) for note in report.notes), " mild")
    return told


def _alert(title: str, lines: Iterable[str], kind: str = "") -> str:
    every = list(lines)
    items = "".join(f"<li>{line}</li>" for line in every[:12])
    more = ""
    if len(every) > 12:
        rest = "".join(f"<li>{line}</li>" for line in every[12:])
        more = f"<details><summary>and {len(every) - 12} more</summary><ul>{rest}</ul></details>"
    return f'<div class="alert{kind}"><b>{title}</b><ul>{items}</ul>{more}</div>'


def _curves(report: Report) -> str:
    """Scores against clicks: each metric over all cases, and the first one in every group."""
    if not any(row.clicks is not None for row in report.rows):
        return ""
    sets: dict[str, list[Summary]] = {"all cases": report.summaries()}
    if report.is_grouped:
        sets = {ALL_SETS: mean_of_sets(report.summaries("group"))}
        for summary in report.summaries("group"):
            sets.setdefault(str(summary.key["group"]) or "no group", []).append(summary)
    cards = []
    for place, key in enumerate(_charted(report.rows)):
        lines = {name: _lines(summaries, key) for name, summaries in sets.items()}
        median = _needs_median(next(iter(sets.values())), key)
        for name in lines if place == 0 else tuple(lines)[:1]:
            if lines[name]:
                beside = lines.values() if place == 0 else ()
                chart = charts.curves(lines[name], key, beside=beside)
                title = f"{'median ' if median else ''}{metric(key).title}: {name}"
                cards.append(f'<div class="card"><h3>{escape(title)}</h3>{chart}</div>')
    return (
        '<h2>Scores against clicks</h2><p class="dim">Means with their 95 % intervals, at each number '
        "of clicks; dashed: prompts without clicks.</p>"
        f'<div class="charts">{"".join(cards)}</div>'
    )


def _lines(summaries: Sequence[Summary], key: str) -> dict[str, list[charts.Point]]:
    """Points of every kind of prompt."""
    median = _needs_median(summaries, key)
    lines: dict[str, list[charts.Point]] = {}
    for summary in summaries:
        if key in summary.stats:
            clicks, prompt = summary.key.get("clicks"), str(summary.key.get("prompt") or "clicks")
            point = charts.Point.of(clicks, summary.stats[key], median=median)
            lines.setdefault(prompt, []).append(point)
    return lines


def _needs_median(summaries: Sequence[Summary], key: str) -> bool:
    return any(s.stats[key].n_infinite for s in summaries if key in s.stats)


def _distributions(report: Report) -> str:
    """Every case as a dot; with prompts, one row of charts for each would be too many."""
    if report.prompts:
        return ""
    summaries = report.summaries("label")[:_MOST_LABELS]
    rows = [row for row in report.rows if row.counted]
    cards = []
    for key in _charted(rows):
        chart = charts.distribution(rows, summaries, key)
        cards.append(f'<div class="card"><h3>{escape(metric(key).title)}</h3>{chart}</div>')
    return (
        '<h2>Every case</h2><p class="dim">A dot is a case (point at it for its name), red if missed or '
        "invented; the box holds the middle half, the line is the median, the diamond the mean with its "
        "interval.</p>"
        f'<div class="charts">{"".join(cards)}</div>'
    )


def _summaries(report: Report) -> str:
    """By label with all labels below; with prompts, these first and labels only if there are several."""
    overall, labels = report.summaries(), report.summaries("label")
    if not report.prompts:
        return _table_of_summaries("By label", labels, overall if len(labels) > 1 else ())
    told = "" if report.is_grouped else _table_of_summaries("By prompt", overall, ())
    if len({(row.group, row.label) for row in report.rows}) < 2 or len(_sets(report)) > 1:
        return told
    return told + _folded("by label", _table_of_summaries("", labels, ()))


def _groups(report: Report) -> str:
    """One table; with prompts, a table for each set, with its labels where it has several."""
    if not report.is_grouped:
        return ""
    summaries = report.summaries("group")
    if not report.prompts:
        return _table_of_summaries("By group", summaries, ())
    told = "<h2>By data set</h2>"
    for name in _sets(report):
        own = [s for s in summaries if s.key["group"] == name]
        several = len({row.label for row in report.rows if row.group == name}) > 1
        labels = report.summaries("group", "label") if several else ()
        lines = [s for s in labels if s.key["group"] == name]
        told += _folded(name or "no group", _table_of_summaries("", lines, own))
    return told


def _folded(name: str, part: str) -> str:
    """A long table that opens when asked for."""
    title = f"<b>{escape(name)}</b>: every prompt, every metric"
    return f"<details><summary>{title}</summary>{part}</details>"


def _sets(report: Report) -> list[str]:
    return list(dict.fromkeys(row.group for row in report.rows))


def _table_of_summaries(
    title: str, summaries: Sequence[Summary], overall: Sequence[Summary]
) -> str:
    """A line for each summary: counts, then mean and interval of each metric."""
    lines = [*summaries, *overall]
    known = dict.fromkeys(key for summary in lines for key in summary.stats)
    metrics = [key for key in known if key not in APART]
    keys = [key for key in ("group", "prompt", "clicks") if any(key in s.key for s in lines)]
    named = any("label" in s.key for s in lines)
    heads = [(key, True) for key in keys] + ([("label", True)] if named else [])
    heads += [("cases", False), ("found", False), ("missed", False), ("invented", False)]
    heads += [(metric(key).title, False) for key in metrics]
    body = []
    for summary in lines:
        cells = [
            cell(str(summary.key.get(key) if summary.key.get(key) is not None else ""), text=True)
            for key in keys
        ]
        if named:
            cells.append(cell(summary.name, text=True))
        cells += [
            cell(str(summary.n_cases - (summary.n_absent if "label" in summary.key else 0))),
            cell(str(summary.n_found)),
        ]
        cells += [cell(str(n), bad=n > 0) for n in (summary.n_missed, summary.n_invented)]
        for key in metrics:
            stat = summary.stats.get(key)
            cells.append("<td></td>" if stat is None else stat_cell(stat, key))
        whole = ' class="all"' if named and "label" not in summary.key else ""
        body.append(f"<tr{whole}>{''.join(cells)}</tr>")
    return (f"<h2>{escape(title)}</h2>" if title else "") + table(heads, body)


def _cases(report: Report) -> str:
    """Every row, the worst first."""
    rows = list(report.rows)
    metrics = [k for k in dict.fromkeys(k for row in rows for k in row.values) if k not in APART]
    first = metrics[0] if metrics else ""
    rows.sort(key=lambda row: (not row.counted, row.values.get(first, math.inf)))
    about = [
        f
        for f in ("group", "prompt", "clicks")
        if any(getattr(r, f) not in ("", None) for r in rows)
    ]
    heads = [("case", True), *((f, True) for f in about), ("label", True), ("outcome", True)]
    heads += [(metric(key).title, False) for key in metrics]
    body = []
    for row in rows[:MOST_ROWS]:
        told = [
            row.case,
            *(str(getattr(row, f)) if getattr(row, f) is not None else "" for f in about),
            row.name,
        ]
        cells = [cell(text, text=True) for text in told]
        cells.append(cell(row.outcome, text=True, bad=row.outcome in ("missed", "false positive")))
        for key in metrics:
            cells.append(
                number_cell(row.values[key], key)
                if key in row.values and row.outcome != "absent"
                else '<td data-v=""></td>'
            )
        body.append(f"<tr>{''.join(cells)}</tr>")
    note = (
        ""
        if len(rows) <= MOST_ROWS
        else f" The worst {MOST_ROWS} of {len(rows)}; all are in cases.csv."
    )
    return (
        f'<h2>Cases</h2><p class="dim">Click a heading to sort.{note}</p>'
        '<input type="search" placeholder="Filter, such as: liver missed" aria-label="Filter cases" '
        'data-for="cases">' + table(heads, body, ident="cases", kind=" tall")
    )


def _charted(rows: Sequence[Row]) -> list[str]:
    """Metrics that get charts, of those that the rows have."""
    known = list(dict.fromkeys(key for row in rows if row.counted for key in row.values))
    return [key for want in CHARTED for key in known if key == want or key.startswith(f"{want}_")]
