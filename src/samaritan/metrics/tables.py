"""Rows and summaries as CSV and JSON. Infinity is written as "inf", what is not defined is left empty."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from samaritan.metrics.rows import Row
from samaritan.metrics.summary import Summary

_ABOUT = ("case", "group", "patient", "prompt", "clicks", "label", "name", "outcome", "counted")
_KEYS = ("group", "prompt", "clicks", "label")
_STAT = ("n", "mean", "low", "high", "median", "median_low", "median_high", "std", "least", "most")
_MORE = ("n_infinite", "finite_mean")


def rows_csv(rows: Sequence[Row], *, stated: str = "") -> str:
    """One line for each case and label; columns that are empty everywhere are left out.

    Args:
        rows: what was measured.
        stated: the protocol, where every line must tell it.
    """
    metrics = list(dict.fromkeys(name for row in rows for name in row.values))
    about = [
        field for field in _ABOUT if any(getattr(row, field) not in ("", None) for row in rows)
    ]
    lines = [[*about, *metrics]]
    for row in rows:
        told = [getattr(row, field) for field in about]
        numbers = [_number(row.values[m]) if m in row.values else "" for m in metrics]
        lines.append([*(_word(value) for value in told), *numbers])
    return _csv(_with(lines, stated))


def summaries_csv(summaries: Sequence[Summary], *, stated: str = "") -> str:
    """One line for each summary and metric; `stated` as in `rows_csv`."""
    keys = [key for key in _KEYS if any(key in summary.key for summary in summaries)]
    counts = ("n_cases", "n_found", "n_missed", "n_invented", "n_absent")
    lines = [[*keys, "name", "metric", *_STAT, *_MORE, *counts]]
    for summary in summaries:
        told = [_word(summary.key.get(key)) for key in keys]
        numbers = [str(getattr(summary, count)) for count in counts]
        for metric, stat in summary.stats.items():
            values = [_number(getattr(stat, field)) for field in (*_STAT, *_MORE)]
            lines.append([*told, summary.name, metric, *values, *numbers])
    return _csv(_with(lines, stated))


def row_json(row: Row) -> dict[str, Any]:
    """A row as JSON holds it."""
    told = {field: getattr(row, field) for field in _ABOUT}
    told = {field: value for field, value in told.items() if value not in ("", None)}
    return {**told, "values": plain(row.values)}


def summary_json(summary: Summary) -> dict[str, Any]:
    """A summary as JSON holds it."""
    told = {field: getattr(summary, field) for field in Summary.__dataclass_fields__}
    told["key"] = dict(summary.key)
    told["stats"] = {name: plain(asdict(stat)) for name, stat in summary.stats.items()}
    return told


def plain(value: Any) -> Any:
    """What JSON can hold: infinity as "inf", NaN as null."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _with(lines: Sequence[Sequence[str]], stated: str) -> Sequence[Sequence[str]]:
    """Put a column "protocol" before all others, if there is something to state."""
    if not stated:
        return lines
    head, *body = lines
    return [["protocol", *head], *([stated, *line] for line in body)]


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    return "" if math.isnan(value) else f"{value:.6g}"


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)


def _csv(lines: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
