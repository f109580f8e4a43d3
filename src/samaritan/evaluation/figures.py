"""The pictures of a page: single cases, the worst first, kept inside the page itself."""

from __future__ import annotations

import base64
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samaritan.evaluation.report import Report

_MARKS = (
    "A green plus is a click on the object, a red cross one off it, the white frame the box; thin ones lie "
    "before or behind the slice. "
)  # fmt: skip


def figures(report: Report) -> str:
    """The worst, median and best cases as pictures with their captions."""
    if not report.pictures:
        return ""
    legend = "".join(
        f'<span><i style="background:{escape(colour)}"></i>{escape(name)}</span>'
        for name, colour in report.colours
    )
    shown = []
    wide = " wide" if report.prompts else ""
    for kind, title in (("worst", "Worst"), ("median", "Median"), ("best", "Best")):
        figures = [
            f'<figure><img alt="{escape(p.case)}" src="data:image/png;base64,'
            f'{base64.b64encode(p.png).decode()}"><figcaption><b>{escape(p.case)}</b> '
            f'<span class="dim">{escape(p.caption)}</span></figcaption></figure>'
            for p in report.pictures
            if p.kind == kind
        ]
        if figures:
            shown.append(
                f'<h3>{title} cases</h3><div class="pictures{wide}">{"".join(figures)}</div><br>'
            )
    marks, most = (_MARKS, "of the object") if report.prompts else ("", "disagreement")
    return (
        f'<h2>Pictures</h2><p class="dim">The slice with most {most}: the reference is filled, the '
        f'prediction outlined. {marks}Click to enlarge.</p><div class="legend">{legend}</div>{"".join(shown)}'
    )
