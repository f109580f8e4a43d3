"""What `samaritan evaluate` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from samaritan.evaluation import Report
    from samaritan.evaluation.overview import Column
    from samaritan.metrics import Summary
    from samaritan.metrics.summary import Stat

_PRINTED = ("dice", "surface_dice", "hd95")
_CLICKS = (1, 2, 3, 5, 10)
_MOST_STRUCTURES = 12


def tell(report: Report, page: Path, as_json: bool) -> None:
    """Print what came of it, and fail where cases could not be measured."""
    from samaritan.errors import FileError
    from samaritan.evaluation.report import as_json as told_as_json

    if as_json:
        typer.echo(json.dumps({**told_as_json(report, rows=False), "page": str(page)}, indent=1))
    else:
        (_print_prompts if report.prompts else _print)(report)
        for sheet in report.sheets:
            if sheet.words:
                typer.echo(sheet.words)
        typer.echo(f"report: {page}")
    if report.problems:
        raise FileError(problems_told(report.problems))


def problems_told(problems: Any) -> str:
    """Name the cases that could not be measured."""
    lines = [f"  {case}: {why}" for case, why in problems.items()]
    more = f"\n  and {len(lines) - 20} more, see the report" if len(lines) > 20 else ""
    n = len(lines)
    return (
        f"{n} {'cases' if n > 1 else 'case'} could not be measured, left out of every number:\n"
        + "\n".join(lines[:20])
        + more
    )


def _print(report: Report) -> None:
    """Print a short table."""
    from rich.console import Console
    from rich.table import Table

    from samaritan.metrics.names import metric

    labels = report.summaries("label")
    lines = [*labels, *(report.summaries() if len(labels) > 1 else ())]
    known = list(dict.fromkeys(key for line in lines for key in line.stats))
    keys = [key for key in known if key.startswith(_PRINTED)] or known[:3]
    infinite = any(stat.n_infinite for line in lines for stat in line.stats.values())
    caption = "in brackets: the median, where a mean is infinite" if infinite else None
    table = Table(caption=caption)
    for head in ("label", "cases", "missed", "invented", *(metric(key).title for key in keys)):
        table.add_column(head, justify="left" if head == "label" else "right")
    for line in lines:
        counts = (line.n_cases, line.n_missed, line.n_invented)
        values = [_mean(line.stats[key], key) if key in line.stats else "" for key in keys]
        table.add_row(line.name, *map(str, counts), *values)
    Console(highlight=False).print(table)


def _print_prompts(report: Report) -> None:
    """Print a table for each of the first scores, by data set and structure; and how long it took."""
    from rich.console import Console

    from samaritan.evaluation.estimates import pace
    from samaritan.evaluation.overview import few_columns, pace_words
    from samaritan.evaluation.trial import CEILINGS

    console, columns = Console(highlight=False), few_columns(report, _CLICKS)
    lines, scores = _prompted_lines(report), _first_scores(report)
    ceilings = [column for column in columns if column[0] in CEILINGS]
    asked = [column for column in columns if column not in ceilings]
    for key in scores if asked else ():
        console.print(_prompted_table(report, lines, asked, key))
    for key in [key for key in scores if key == "dice"] if ceilings else ():
        console.print(_prompted_table(report, lines, ceilings, key))
    times = pace(report.rows)
    if times is not None:
        typer.echo(pace_words(times))


def _first_scores(report: Report) -> list[str]:
    """The scores that are looked at first, and those that a published test counts itself."""
    from samaritan.evaluation.overview import score_of

    known = dict.fromkeys(key for row in report.rows for key in row.values)
    first = score_of(report)
    return [first, *(key for key in known if key.startswith(_PRINTED) and key != first)]


def _prompted_lines(report: Report) -> dict[str, dict[Column, Summary]]:
    """Data sets, each followed by its structures where it has several, and the mean of the sets."""
    from samaritan.evaluation.overview import column_of, lines_of

    told: dict[str, dict[Column, Summary]] = {}
    labels = report.summaries("group", "label")
    for name, own in lines_of(report).items():
        told[name] = own
        parts = [
            s for s in labels if (s.key["group"] or "no group") == name or not report.is_grouped
        ]
        names = list(dict.fromkeys(s.name for s in parts))
        for part in names if 1 < len(names) <= _MOST_STRUCTURES else ():
            told[f"  {part}"] = {column_of(s): s for s in parts if s.name == part}
    return told


def _prompted_table(
    report: Report, lines: dict[str, dict[Column, Summary]], columns: Sequence[Column], key: str
) -> Table:
    """One score: a line for each data set or structure, a column for each prompt."""
    from rich.table import Table

    from samaritan.evaluation.trial import told
    from samaritan.metrics.names import metric

    infinite = any(
        own[c].stats[key].n_infinite for own in lines.values() for c in columns if _has(own, c, key)
    )
    caption = ", in brackets the median" if infinite else ""
    caution = f"\n{report.protocol.stated}" if report.protocol.caution else ""
    table = Table(caption=f"{metric(key).title}{caption}{caution}")
    for head in ("data set", "objects", *("\n".join(told(*c).rsplit(" ", 1)) for c in columns)):
        table.add_column(head, justify="left" if head == "data set" else "right")
    for name, own in lines.items():
        first = next(iter(own.values()))
        values = [_mean(own[c].stats[key], key) if _has(own, c, key) else "" for c in columns]
        table.add_row(name, str(first.n_found + first.n_missed), *values)
    return table


def _has(own: dict[Column, Summary], column: Column, key: str) -> bool:
    return column in own and key in own[column].stats


def _mean(stat: Stat, key: str) -> str:
    from samaritan.metrics.names import metric

    digits = metric(key).digits
    if stat.n_infinite:
        return f"inf ({stat.median:.{digits}f})"
    return f"{stat.mean:.{digits}f}"
