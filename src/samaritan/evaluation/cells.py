"""Tables of the page: cells that show rounded numbers and sort by exact ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from samaritan.metrics.names import metric
from samaritan.metrics.summary import Stat


def table(
    heads: Sequence[tuple[str, bool]], body: Sequence[str], *, ident: str = "", kind: str = ""
) -> str:
    """A table whose columns sort: heads are (text, whether it is words), body is rows of cells."""
    told = "".join(
        f'<th scope="col"{" class=t" if text else ""}><button>{escape(head)}</button></th>'
        for head, text in heads
    )
    name = f' id="{ident}"' if ident else ""
    return (
        f'<div class="scroll{kind}"><table{name}><thead><tr>{told}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def cell(value: str, *, text: bool = False, bad: bool = False) -> str:
    """A cell of words or of a count."""
    kinds = " ".join(k for k, on in (("t", text), ("bad", bad)) if on)
    return f"<td{f' class={chr(34)}{kinds}{chr(34)}' if kinds else ''}>{escape(value)}</td>"


def stat_cell(stat: Stat, key: str) -> str:
    """A cell with a mean and its interval."""
    value, small = mean(stat, key)
    return f'<td data-v="{_sortable(stat.mean)}">{value}<span class="sub">{small}</span></td>'


def number_cell(value: float, key: str) -> str:
    """A cell with one number."""
    return f'<td data-v="{_sortable(value)}">{_told(value, metric(key).digits)}</td>'


def mean(stat: Stat, key: str) -> tuple[str, str]:
    """The mean and its interval; where it is infinite the median says more."""
    digits = metric(key).digits
    if math.isinf(stat.mean):
        rest = f"{_told(stat.finite_mean, digits)} without {stat.n_infinite}"
        return _told(stat.mean, digits), f"median {_told(stat.median, digits)}<br>{rest}"
    if math.isnan(stat.low):
        return _told(stat.mean, digits), f"n = {stat.n}"
    return _told(stat.mean, digits), f"{_told(stat.low, digits)} to {_told(stat.high, digits)}"


def _told(value: float, digits: int) -> str:
    if math.isnan(value):
        return "\N{EN DASH}"
    sign = "\N{MINUS SIGN}" if value < 0 else ""
    return sign + ("\N{INFINITY}" if math.isinf(value) else f"{abs(value):.{digits}f}")


def _sortable(value: float) -> str:
    if math.isnan(value):
        return ""
    return f"{math.copysign(1e30, value):g}" if math.isinf(value) else f"{value:.6g}"
