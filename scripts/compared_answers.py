"""Judge the runs of scripts/compare_3d by clicks on held-out patients: table, chart and report in OUT.

Usage: .venv/bin/python scripts/compared_answers.py OUT [--device cpu] [--limit 2]
OUT/trained holds weights and costs; hippocampus.json says who was held out. Answers are kept in OUT/answers.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from samaritan.data import Manifest
from samaritan.evaluation import Report, write_report
from samaritan.evaluation.charts import Point
from samaritan.evaluation.trial import Trial, told
from samaritan.evaluation.trials import try_model
from samaritan.infer import Predictor
from samaritan.io.files import replacing
from samaritan.metrics import Row, get_protocol, summarise
from samaritan.metrics.bootstrap import Bootstrap

CLICKS = 10
SHOWN = (1, 2, 3, 5, 10)
"""Numbers of clicks that the table has."""

COMPARED = (
    ("lora", "plain"),
    ("m_sam", "plain"),
    ("m_sam", "lora"),
    ("dinov2", "plain"),
    ("plain", "scratch"),
)
"""Which differences are told: each case's own, so that hard cases do not blur them."""

COLOURS = {
    "scratch": "0.55",
    "plain": "#4477aa",
    "lora": "#66a5ad",
    "m_sam": "#c1554a",
    "dinov2": "#8a6bb1",
}


def judge(out: Path, names: Sequence[str], *, device: str | None, limit: int | None) -> None:
    """Ask every model, and write OUT/table.md, table.csv, chart.png and report/."""
    cost = json.loads((out / "trained" / "costs.json").read_text("utf-8"))
    rows = {name: answers(out, name, device, limit) for name in names}
    text = table(rows, cost) + "\n" + differences(rows)
    for file, content in (("table.md", text), ("table.csv", sheet(rows, cost))):
        with replacing(out / file) as (new,):
            new.write_text(content, "utf-8")
    chart(rows, cost, out / "chart.png")
    titled = [replace(r, group=cost[name]["title"]) for name, own in rows.items() for r in own]
    protocol = get_protocol("samaritan")
    write_report(Report("Hippocampus by clicks", titled, protocol, head(cost)), out / "report")
    sys.stdout.write(text)


def answers(out: Path, name: str, device: str | None, limit: int | None) -> list[Row]:
    """What came of asking a model for both structures of every test patient; kept for the next time."""
    file = out / "answers" / f"{name}_{limit or 'all'}.json"
    weights = out / "trained" / f"{name}.safetensors"
    if not file.exists() or file.stat().st_mtime < weights.stat().st_mtime:
        manifest = Manifest.read(out / "hippocampus.json").select(split="test")
        manifest = replace(manifest, cases=manifest.cases[:limit])
        predictor = Predictor.from_checkpoint(weights, device=device)
        trial = Trial(prompts=("clicks",), clicks=CLICKS)
        found = try_model(predictor, manifest, trial, get_protocol("samaritan"))
        if found.problems:
            raise SystemExit(f"{name}: {len(found.problems)} cases failed: {dict(found.problems)}")
        file.parent.mkdir(exist_ok=True)
        with replacing(file) as (new,):
            new.write_text(json.dumps([asdict(row) for row in found.rows]), "utf-8")
        sys.stderr.write(f"{name}: {len(manifest)} patients\n")
    return [Row(**row) for row in json.loads(file.read_text("utf-8"))]


def curve(rows: Iterable[Row]) -> dict[int, Point]:
    """Mean Dice over both structures after each click, with its interval over patients."""
    points = {}
    for summary in summarise(rows, by=("clicks",)):
        clicks = summary.key["clicks"]
        points[clicks] = Point.of(clicks, summary.stats["dice"], median=False)
    return points


def lines(rows: Mapping[str, list[Row]], cost: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each model: what it costs, and what it brings."""
    found = []
    for name, own in rows.items():
        facts, points = cost[name], curve(own)
        seconds = [row.values["seconds"] for row in own if "seconds" in row.values]
        found.append(
            {
                "way": facts["title"],
                "weights, million": f"{facts['parameters'] / 1e6:.2f}",
                "trained, million": f"{facts['trained'] / 1e6:.2f}",
                "file, MB": f"{facts['trained'] * 4 / 1e6:.1f}",
                "s an update": "" if facts["seconds"] is None else f"{facts['seconds']:.3f}",
                "memory, GiB": "" if facts["memory_gib"] is None else f"{facts['memory_gib']:.2f}",
                **{f"Dice {n}": f"{points[n].middle:.3f}" for n in SHOWN},
                "s an answer": f"{float(np.median(seconds)):.3f}" if seconds else "",
            }
        )
    return found


def table(rows: Mapping[str, list[Row]], cost: Mapping[str, Any]) -> str:
    """The lines as Markdown, and what they are about."""
    first = next(iter(cost.values()))
    patients = {row.cluster for own in rows.values() for row in own}
    found = lines(rows, cost)
    made = [f"| {' | '.join(found[0])} |", "|" + "---|" * len(found[0])]
    made += [f"| {' | '.join(map(str, line.values()))} |" for line in found]
    about = (
        f"{len(patients)} test patients, both structures; {first['updates']} updates of {first['batch']} "
        f"crops and {first['clicks']} clicks each; costs measured alone on {first['device']}."
    )
    return "\n".join([about, "", *made, ""])


def differences(rows: Mapping[str, list[Row]]) -> str:
    """How much better one way is than another on the same objects, with 95 % intervals over patients."""
    columns = " | ".join(told("clicks", n) for n in SHOWN)
    made = [f"| difference in Dice | {columns} |", "|" + "---|" * (1 + len(SHOWN))]
    for one, other in COMPARED:
        cells = [difference(rows[one], rows[other], clicks) for clicks in SHOWN]
        made.append(f"| {one} - {other} | " + " | ".join(cells) + " |")
    return "\n".join([*made, ""])


def difference(one: list[Row], other: list[Row], clicks: int) -> str:
    """The mean difference, and its interval."""
    own, its = ({key(r): r for r in rows if r.clicks == clicks} for rows in (one, other))
    pairs = [(own[k], its[k]) for k in own]
    values = np.array([a.values["dice"] - b.values["dice"] for a, b in pairs])
    labels = np.array([a.label for a, _ in pairs])
    bootstrap = Bootstrap([a.cluster for a, _ in pairs])
    clusters = bootstrap.positions([a.cluster for a, _ in pairs])
    low, high = bootstrap.interval_of_mean(values, clusters, labels)
    middle = np.mean([values[labels == label].mean() for label in np.unique(labels)])
    return f"{middle:+.3f} ({low:+.3f} to {high:+.3f})"


def key(row: Row) -> tuple[str, int]:
    """Which object a row is about."""
    return row.case, row.label


def sheet(rows: Mapping[str, list[Row]], cost: Mapping[str, Any]) -> str:
    """The lines as CSV, with Dice of each structure after every click behind them."""
    made = io.StringIO()
    found = lines(rows, cost)
    for line, own in zip(found, rows.values(), strict=True):
        for summary in summarise(own, by=("label", "clicks")):
            column = f"{summary.name}, {told('clicks', summary.key['clicks'])}"
            line[column] = f"{summary.stats['dice'].mean:.4f}"
    writer = csv.DictWriter(made, list(found[0]))
    writer.writeheader()
    writer.writerows(found)
    return made.getvalue()


def chart(rows: Mapping[str, list[Row]], cost: Mapping[str, Any], path: Path) -> None:
    """Dice against clicks, a curve with its interval for each way."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, own in rows.items():
        points = curve(own)
        at, colour = list(points), COLOURS.get(name)
        axes.plot(
            at,
            [p.middle for p in points.values()],
            "o-",
            ms=3,
            color=colour,
            label=cost[name]["title"],
        )
        ends = [p.low for p in points.values()], [p.high for p in points.values()]
        axes.fill_between(at, *ends, color=colour, alpha=0.12, lw=0)
    axes.set(xlabel="clicks", ylabel="Dice, mean of both structures")
    axes.set_xticks(range(1, CLICKS + 1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=100)


def head(cost: Mapping[str, Any]) -> dict[str, str]:
    """What was compared, for the head of the page."""
    first = next(iter(cost.values()))
    return {
        "data": "hippocampus, test part",
        "asked": f"clicks at the core of what is wrong, up to {CLICKS}",
        "budget": f"{first['updates']} updates of {first['batch']} crops and {first['clicks']} clicks",
    }


def main() -> None:
    """Judge what is there."""
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--limit", type=int)
    given = parser.parse_args()
    cost = json.loads((given.out / "trained" / "costs.json").read_text("utf-8"))
    judge(given.out, list(cost), device=given.device, limit=given.limit)


if __name__ == "__main__":
    main()
