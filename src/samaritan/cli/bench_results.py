"""What benchmarks left, as one table: ours beside the best of the others, and how cost grows."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samaritan.errors import FileError

OURS = "samaritan"
"""Rows whose name begins so are ours."""


@dataclass(frozen=True)
class Timed:
    """One contestant: its name, seconds of every round, and what else was measured."""

    name: str
    times_s: tuple[float, ...]
    facts: Mapping[str, Any]

    @property
    def median(self) -> float:
        """Seconds of the middle round."""
        return statistics.median(self.times_s)

    @property
    def spread(self) -> float:
        """From the quickest round to the slowest, as a part of the median."""
        return (max(self.times_s) - min(self.times_s)) / self.median

    @property
    def peak_mib(self) -> float | None:
        """Most memory, above what model and input hold."""
        return self.facts.get("peak_mib")

    @property
    def gflop(self) -> float | None:
        """Operations, in units of 10^9."""
        return self.facts.get("gflop")


@dataclass(frozen=True)
class Compared:
    """One question: the best of ours and the best of the others, both None where there is none."""

    what: str
    rows: tuple[Timed, ...]

    @property
    def ours(self) -> Timed | None:
        """The quickest row of ours."""
        return _quickest(row for row in self.rows if row.name.startswith(OURS))

    @property
    def other(self) -> Timed | None:
        """What ours is held against: the row that it names with `of`, else the quickest of the others."""
        ours = self.ours
        named = None if ours is None else ours.facts.get("of")
        others = [row for row in self.rows if not row.name.startswith(OURS)]
        return _quickest(row for row in others if named in (None, row.name))

    @property
    def ratio(self) -> float | None:
        """How many times as long the other takes."""
        ours, other = self.ours, self.other
        return None if ours is None or other is None else other.median / ours.median


@dataclass(frozen=True)
class Growth:
    """Seconds of one way at several sizes, and the exponent that fits them."""

    what: str
    over: str
    sizes: tuple[float, ...]
    times_s: tuple[float, ...]
    exponent: float


@dataclass(frozen=True)
class Results:
    """What one benchmark left."""

    name: str
    machine: Mapping[str, Any]
    compared: tuple[Compared, ...]
    growth: tuple[Growth, ...]


def read_results(path: Path) -> Results:
    """Read the file that a benchmark wrote with `--json`; its form is told in docs/speed.md.

    Raises:
        FileError: if it has another form.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        compared = tuple(
            Compared(what, tuple(_timed(rows))) for what, rows in values.get("cases", {}).items()
        )
        growth = tuple(
            Growth(
                what,
                str(row["over"]),
                tuple(map(float, row["sizes"])),
                tuple(map(float, row["times_s"])),
                float(row["exponent"]),
            )
            for what, row in values.get("growth", {}).items()
        )
        machine = {k: v for k, v in values.items() if k not in ("cases", "growth")}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(
            f"{path} is not what a benchmark writes: {error!r}. docs/speed.md tells the form"
        ) from error
    return Results(path.stem, machine, compared, growth)


def markdown(results: Sequence[Results], failed: Mapping[str, str]) -> str:
    """Write everything as one page."""
    parts = ["# Benchmarks", _machine(results)]
    lines = [_compared_line(c) for found in results for c in found.compared if c.ours]
    if lines:
        head = "what | ours | s | beside | s | times as fast | spread | peak MiB"
        parts += ["## Beside others", _table(head, lines)]
    lines = [_growth_line(g) for found in results for g in found.growth]
    if lines:
        head = "what | over | from | to | s | s | exponent"
        parts += ["## How cost grows", _table(head, lines)]
    lines = [
        _row_line(c, row, _rate(found.machine, row))
        for found in results
        for c in found.compared
        for row in c.rows
    ]
    if lines:
        head = "what | who | median s | least | most | rounds | GFLOP | of the machine's rate | peak MiB"
        parts += ["## Everything", _table(head, lines)]
    if failed:
        parts += ["## Failed", "\n".join(f"- {name}: {why}" for name, why in failed.items())]
    return "\n\n".join(parts) + "\n"


def _timed(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[Timed]:
    for name, row in rows.items():
        if row.get("times_s"):
            yield Timed(name, tuple(map(float, row["times_s"])), row)


def _quickest(rows: Iterator[Timed]) -> Timed | None:
    return min(rows, key=lambda row: row.median, default=None)


def _machine(results: Sequence[Results]) -> str:
    """One line for each benchmark: they may have run under different loads."""
    lines = []
    for found in results:
        facts = found.machine
        rates = [
            f"{facts[key]:.0f} GFLOP/s in {kind}"
            for key, kind in (
                ("matmul_gflops", "float32"),
                ("matmul_gflops_bfloat16", "bfloat16"),
            )
            if isinstance(facts.get(key), float | int)
        ]
        lines.append(
            f"- {found.name}: {facts.get('processor', '?')}, {facts.get('threads', '?')} threads, "
            f"torch {facts.get('torch', '?')}, load {facts.get('load', 0.0):.1f} at its start; "
            f"matrix product {' and '.join(rates) or 'not measured'}"
        )
    return "\n".join(lines)


def _rate(machine: Mapping[str, Any], row: Timed) -> float | None:
    """Operations a second as a part of the machine's matrix product, in the row's precision."""
    half = "bfloat16" in row.name
    most = machine.get("matmul_gflops_bfloat16" if half else "matmul_gflops")
    if row.gflop is None or not most:
        return None
    return row.gflop / row.median / float(most)


def _compared_line(found: Compared) -> list[str]:
    ours, other = found.ours, found.other
    assert ours is not None
    beside = ["", "", ""] if other is None else [other.name, _s(other.median), f"{found.ratio:.2f}"]
    return [
        found.what,
        ours.name,
        _s(ours.median),
        *beside,
        f"{ours.spread:.0%}",
        _optional(ours.peak_mib, ".0f"),
    ]


def _growth_line(found: Growth) -> list[str]:
    first, last = f"{found.sizes[0]:.4g}", f"{found.sizes[-1]:.4g}"
    times = (_s(found.times_s[0]), _s(found.times_s[-1]))
    return [found.what, found.over, first, last, *times, f"{found.exponent:.2f}"]


def _row_line(found: Compared, row: Timed, rate: float | None) -> list[str]:
    return [
        found.what,
        row.name,
        _s(row.median),
        _s(min(row.times_s)),
        _s(max(row.times_s)),
        str(len(row.times_s)),
        _optional(row.gflop, ".0f"),
        _optional(rate, ".0%"),
        _optional(row.peak_mib, ".0f"),
    ]


def _table(head: str, lines: Sequence[Sequence[str]]) -> str:
    rows = [head.split(" | "), ["---"] * len(head.split(" | ")), *lines]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows)


def _s(seconds: float) -> str:
    return f"{seconds:.3g}"


def _optional(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
