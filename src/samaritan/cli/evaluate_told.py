"""What `samaritan evaluate` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from samaritan.evaluation import Report
    from samaritan.metrics.summary import Stat

_PRINTED = ("dice", "surface_dice", "hd95")


def tell(report: Report, page: Path, as_json: bool) -> None:
    """Print what came of it, and fail where cases could not be measured."""
    from samaritan.errors import FileError
    from samaritan.evaluation.report import as_json as told_as_json

    if as_json:
        typer.echo(json.dumps({**told_as_json(report, rows=False), "page": str(page)}, indent=1))
    else:
        (_print_prompts if report.prompts else _print)(report)
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
    """Print the first score of every set and prompt."""
    from rich.console import Console
    from rich.table import Table

    from samaritan.evaluation.overview import few_columns, lines_of, score_of
    from samaritan.evaluation.trial import told
    from samaritan.metrics.names import metric

    lines, columns, key = lines_of(report), few_columns(report), score_of(report)
    table = Table(caption=metric(key).title)
    for head in ("data set", "objects", *(told(*column) for column in columns)):
        table.add_column(head, justify="left" if head == "data set" else "right")
    for name, own in lines.items():
        first = next(iter(own.values()))
        values = [_mean(own[c].stats[key], key) if c in own else "" for c in columns]
        table.add_row(name, str(first.n_found + first.n_missed), *values)
    Console(highlight=False).print(table)


def _mean(stat: Stat, key: str) -> str:
    from samaritan.metrics.names import metric

    digits = metric(key).digits
    if stat.n_infinite:
        return f"inf ({stat.median:.{digits}f})"
    return f"{stat.mean:.{digits}f}"
