"""A report: one folder with the page for people, and tables for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from samaritan.errors import FileError
from samaritan.evaluation.estimates import Estimate, estimates, pace
from samaritan.evaluation.overview import mean_of_sets
from samaritan.evaluation.sheets import Sheet
from samaritan.io.files import replacing
from samaritan.metrics import Protocol, Row, Summary, summarise
from samaritan.metrics.summary import Key
from samaritan.metrics.tables import plain, row_json, rows_csv, summaries_csv, summary_json

FILES = ("cases.csv", "summary.csv", "report.json", "report.html")
"""What a report's folder holds; the page is written last."""


@dataclass(frozen=True)
class Picture:
    """A picture of one case in the page.

    Attributes:
        kind: which end of the results it shows.
        case: name of the case.
        caption: a line below.
        png: the picture.
    """

    kind: Literal["worst", "median", "best"]
    case: str
    caption: str
    png: bytes = field(repr=False)


@dataclass(frozen=True)
class Report:
    """What was measured, and what there is to say about it.

    Rows with `prompt` and `clicks` give click curves; rows with `group` give a table of groups.

    Attributes:
        title: of the page.
        rows: of every case and label (and prompt).
        protocol: the convention.
        facts: what was compared, by name: folders, model, date.
        problems: case -> why it is in no number.
        notes: what else readers must know.
        pictures: of single cases.
        colours: (label name, colour) as in the pictures.
        seed: of the confidence intervals.
        sheets: tables of the protocol's own.
    """

    title: str
    rows: Sequence[Row]
    protocol: Protocol
    facts: Mapping[str, str] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    colours: Sequence[tuple[str, str]] = ()
    seed: int = 0
    sheets: Sequence[Sheet] = ()
    _summaries: dict[tuple[Key, ...], list[Summary]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def prompts(self) -> tuple[Key, ...]:
        """What keeps prompts apart, where there are any."""
        prompted = any(row.prompt or row.clicks is not None for row in self.rows)
        return ("prompt", "clicks") if prompted else ()

    @property
    def estimates(self) -> list[Estimate]:
        """How well a model knew its own answers; empty where none was asked."""
        return estimates(self.rows)

    @property
    def is_grouped(self) -> bool:
        """Whether rows belong to more than one set."""
        return len({row.group for row in self.rows}) > 1

    def summaries(self, *keys: Key) -> list[Summary]:
        """Summarise what shares these keys, prompts always apart."""
        if keys not in self._summaries:
            by = (*keys, *self.prompts)
            self._summaries[keys] = summarise(self.rows, by=by, seed=self.seed)
        return self._summaries[keys]


def as_json(report: Report, *, rows: bool = True) -> dict[str, Any]:
    """Everything but the pictures, as JSON holds it.

    With groups, "mean_of_groups" weighs them alike. Of a model that was asked, "iou_estimate" compares the
    IoU that it expected with the true one, and "median_seconds" tells its pace.

    Args:
        report: what to tell.
        rows: whether to hold every row too.
    """
    told: dict[str, Any] = {
        "title": report.title,
        "protocol": report.protocol.name,
        "caution": report.protocol.caution,
        "tolerance": report.protocol.tolerance,
        "convention": report.protocol.explanation,
        "facts": dict(report.facts),
        "problems": dict(report.problems),
        "notes": list(report.notes),
        "overall": [summary_json(summary) for summary in report.summaries()],
        "labels": [summary_json(summary) for summary in report.summaries("label")],
    }
    if report.is_grouped:
        told["groups"] = [summary_json(summary) for summary in report.summaries("group")]
        both = report.summaries("group", "label")
        told["groups_and_labels"] = [summary_json(summary) for summary in both]
        means = mean_of_sets(report.summaries("group"))
        told["mean_of_groups"] = [summary_json(summary) for summary in means]
    if report.estimates:
        told["iou_estimate"] = [asdict(estimate) for estimate in report.estimates]
    times = pace(report.rows)
    if times is not None:
        told["median_seconds"] = {
            "opening": times.opening,
            "encoding": times.encoding,
            "answer": times.answer,
            "once_encoded": times.once_encoded,
        }
    told |= {sheet.name: [dict(row) for row in sheet.rows] for sheet in report.sheets}
    if rows:
        told["cases"] = [row_json(row) for row in report.rows]
    checked: dict[str, Any] = plain(told)
    return checked


def write_report(report: Report, folder: Path) -> Path:
    """Write `report.html`, `report.json`, `summary.csv`, `cases.csv`, and the sheets: all or none.

    Args:
        report: what to tell.
        folder: where; made if it is missing, and files of an earlier report are replaced.

    Returns:
        The page.

    Raises:
        FileError: if the folder cannot be written.
    """
    from samaritan.evaluation.page import page

    check_folder(folder)
    tables = [*report.summaries(), *report.summaries("label")]
    if report.is_grouped:
        tables += [*report.summaries("group"), *report.summaries("group", "label")]
    stated = report.protocol.stated if report.protocol.caution else ""
    texts = (
        *(sheet.csv() for sheet in report.sheets),
        rows_csv(report.rows, stated=stated),
        summaries_csv(tables, stated=stated),
        json.dumps(as_json(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        page(report),
    )
    names = (*(f"{sheet.name}.csv" for sheet in report.sheets), *FILES)
    paths = tuple(folder / name for name in names)
    with replacing(*paths) as temporary:
        for path, text in zip(temporary, texts, strict=True):
            path.write_text(text, "utf-8")
    return paths[-1]


def check_folder(folder: Path) -> None:
    """Refuse now what `write_report` would refuse after long work.

    Raises:
        FileError: if the folder cannot be made or written.
    """
    present = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not present.is_dir() or not os.access(present, os.W_OK):
        raise FileError(
            f"{folder} cannot be made or written: {present} is not a folder that can be"
        )
