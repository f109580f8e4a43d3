"""Curves of a run as a picture: loss, Dice and learning rate over iterations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from samaritan.io.files import replacing
from samaritan.train.log import read_log

Lines = list[dict[str, Any]]


def draw_curves(log: Path, picture: Path) -> None:
    """Draw what a log holds; nothing is drawn from an empty one."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_log(log)
    train = [line for line in lines if line["kind"] == "train"]
    validation = [line for line in lines if line["kind"] == "validation"]
    if not train:
        return
    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    loss, dice, speed = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1))
    _plot(loss, train, "loss", "training", color="tab:blue")
    loss.set_ylabel("loss")
    if min(line["loss"] for line in train) > 0:
        loss.set_yscale("log")
    _plot(dice, train, "dice", "training", color="tab:blue", alpha=0.5)
    names = sorted({n for line in validation for n in line if n.startswith("dice")})
    for name in names:
        _plot(
            dice, validation, name, f"held out: {name.replace('_', ' ')}", marker="o", markersize=3
        )
    for name in sorted({n for line in validation for n in line if n.startswith("class_")}):
        _plot(dice, validation, name, name.removeprefix("class_"), linewidth=0.8, linestyle="--")
    dice.set_ylim(0, 1)
    dice.set_ylabel("Dice")
    dice.legend(loc="lower right", fontsize="small")
    _plot(speed, train, "lr", "learning rate", color="tab:grey")
    speed.set_ylabel("learning rate")
    speed.set_xlabel("iteration")
    for axes in (loss, dice, speed):
        axes.grid(alpha=0.3)
    with replacing(picture) as (temporary,):
        figure.savefig(temporary, dpi=110)


def _plot(axes: Any, lines: Lines, name: str, label: str, **style: Any) -> None:
    found = [(line["iteration"], line[name]) for line in lines if line.get(name) is not None]
    if len(found) == 1:
        style.setdefault("marker", ".")  # a line through one point shows nothing
    axes.plot([x for x, _ in found], [y for _, y in found], label=label, **style)
