"""What benchmarks left, as one picture: bars of how many times as fast, and lines of how cost grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from samaritan.cli.bench_results import Compared, Growth, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST = 60
"""Names are cut to so many letters."""


def plot(results: Sequence[Results], path: Path) -> None:
    """Draw what was measured into a PNG file."""
    from matplotlib.figure import Figure

    compared = [c for found in results for c in found.compared if c.ratio is not None]
    growth = [g for found in results for g in found.growth]
    parts: list[tuple[float, Callable[[Axes], None]]] = []
    if compared:
        parts.append((max(2.5, 0.45 * len(compared) + 1.2), partial(_bars, compared=compared)))
    if growth:
        parts.append((max(4.0, 0.22 * len(growth) + 1.0), partial(_lines, growth=growth)))
    heights = [height for height, _ in parts] or [1.0]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    figures = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, (_, draw) in zip(figures, parts, strict=False):
        draw(part.subplots())
    figure.savefig(path, dpi=110)


def _bars(axes: Axes, compared: Sequence[Compared]) -> None:
    """How many times as long the other takes, on a scale of doublings."""
    names = [
        f"{_short(c.what)}\nbeside {_short(c.other.name)}" for c in compared if c.other is not None
    ]
    ratios = [c.ratio or 1.0 for c in compared]
    places = range(len(compared))
    axes.barh(places, [r - 1 for r in ratios], left=1, color="#3b7ea1")
    axes.set_xscale("log", base=2)
    axes.axvline(1, color="#444444", linewidth=0.8)
    for place, ratio in zip(places, ratios, strict=True):
        axes.annotate(f" {ratio:.2f}", (max(ratio, 1), place), va="center", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    axes.invert_yaxis()
    ticks = [2.0**n for n in range(-3, 6) if min(ratios) / 2 <= 2.0**n <= max(ratios) * 2]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_xlabel("times as fast")
    axes.spines[["top", "right"]].set_visible(False)


def _lines(axes: Axes, growth: Sequence[Growth]) -> None:
    """Seconds against size, both as multiples of the smallest, with exponents; beside what is linear."""
    from matplotlib import colormaps

    axes.set_prop_cycle(color=colormaps["tab20"](range(20)))
    for found in growth:
        sizes = [n / found.sizes[0] for n in found.sizes]
        times = [t / found.times_s[0] for t in found.times_s]
        name = _short(f"{found.exponent:.2f} over {found.over}: {found.what}")
        axes.plot(sizes, times, marker="o", markersize=3, label=name)
    most = max(g.sizes[-1] / g.sizes[0] for g in growth)
    axes.plot([1, most], [1, most], color="#888888", linestyle=":", label="linear")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("times the smallest size")
    axes.set_ylabel("times its seconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
