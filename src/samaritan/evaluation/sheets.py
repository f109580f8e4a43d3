"""Tables of a protocol's own: in the page, as a CSV file of the columns that others expect, and in JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from samaritan.evaluation.cells import cell, table


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        name: of its file without suffix, and in JSON.
        title: above it in the page.
        about: what readers must know, in sentences.
        rows: column -> value; all with the same columns.
        shown: columns that the page shows.
        words: the sum of it, for the terminal.
        total: a last row, which the page alone has.
    """

    name: str
    title: str
    about: str
    rows: Sequence[Mapping[str, Any]]
    shown: Sequence[str]
    words: str = ""
    total: Mapping[str, Any] | None = None

    def csv(self) -> str:
        """All columns; what is not known is left empty."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.rows[0].keys() if self.rows else ())
        writer.writerows([_plain(value) for value in row.values()] for row in self.rows)
        return text.getvalue()

    def html(self) -> str:
        """The columns that are shown, with heading and explanation."""
        heads = [(name, number == 0) for number, name in enumerate(self.shown)]
        body = [
            "<tr>" + "".join(_cell(row[name], text) for name, text in heads) + "</tr>"
            for row in self.rows
        ]
        if self.total is not None:
            cells = "".join(_cell(self.total[name], text) for name, text in heads)
            body.append(f'<tr class="all">{cells}</tr>')
        about = f'<p class="dim">{escape(self.about)}</p>'
        return f"<h2>{escape(self.title)}</h2>{about}{table(heads, body)}"


def _cell(value: Any, text: bool) -> str:
    if not isinstance(value, float):
        return cell(str(value), text=text)
    if math.isnan(value):
        return '<td data-v="">\N{EN DASH}</td>'
    return f'<td data-v="{value:.6g}">{value:.3f}</td>'


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)
