"""Which cases to show: the worst, those in the middle, and the best."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from samaritan.errors import SamaritanError
from samaritan.evaluation.comparing import Settings, load
from samaritan.evaluation.matching import Pair
from samaritan.evaluation.pictures import colour_of, draw_case
from samaritan.evaluation.report import Picture
from samaritan.io import read
from samaritan.metrics import Row

logger = logging.getLogger(__name__)

Kind = Literal["worst", "median", "best"]
Progress = Callable[[str, int, int], None]

MOST_COLOURED = 12
"""Pictures show this many labels at most."""


def choose_cases(rows: Sequence[Row], *, each: int = 3, by: str = "dice") -> dict[Kind, list[str]]:
    """Choose cases by their mean score over the labels that count; none stands twice.

    Args:
        rows: from `compare`.
        each: how many of each kind.
        by: which metric; larger is better.
    """
    scores: dict[str, list[float]] = {}
    for row in rows:
        if row.counted and row.outcome != "absent" and by in row.values:
            scores.setdefault(row.case, []).append(row.values[by])
    ranked = sorted(scores, key=lambda case: (sum(scores[case]) / len(scores[case]), case))
    each = min(each, max(1, len(ranked) // 3))
    start = max((len(ranked) - each) // 2, 0)
    chosen: dict[Kind, list[str]] = {"worst": ranked[:each], "best": [], "median": []}
    for kind, wanted in (("best", ranked[::-1][:each]), ("median", ranked[start : start + each])):
        taken = {case for cases in chosen.values() for case in cases}
        chosen[kind] = [case for case in wanted if case not in taken]  # type: ignore[index]
    return chosen


def picture_cases(
    pairs: Sequence[Pair],
    rows: Sequence[Row],
    settings: Settings,
    *,
    each: int = 3,
    progress: Progress | None = None,
) -> tuple[list[Picture], list[tuple[str, str]]]:
    """Draw the chosen cases; one whose image cannot be read is drawn without it.

    Args:
        pairs: from `match`.
        rows: what was measured of them.
        settings: as they were measured.
        each: how many of each kind.
        progress: called with (what, done, total).

    Returns:
        The pictures, and (label name, colour) for a legend.
    """
    names = {row.label: row.name for row in rows}
    labels = sorted(names)[:MOST_COLOURED]
    chosen = choose_cases(rows, each=each)
    wanted: Mapping[str, Pair] = {pair.case: pair for pair in pairs}
    total = sum(map(len, chosen.values()))
    pictures: list[Picture] = []
    for kind, cases in chosen.items():
        for case in cases:
            png = _draw(wanted[case], settings, labels)
            pictures.append(Picture(kind, case, caption_of(case, rows), png))
            if progress is not None:
                progress("drawing", len(pictures), total)
    return pictures, [(names[label], colour_of(at)) for at, label in enumerate(labels)]


def _draw(pair: Pair, settings: Settings, labels: Sequence[int]) -> bytes:
    prediction, reference = load(pair, settings)
    image = None
    if pair.image is not None:
        try:
            image = read(Path(pair.image))
            return draw_case(prediction, reference, image=image, labels=labels)
        except SamaritanError as error:
            logger.warning("%s is shown without its image: %s", pair.case, error)
    return draw_case(prediction, reference, labels=labels)


def caption_of(case: str, rows: Sequence[Row]) -> str:
    """The scores of a case in words."""
    own = [row for row in rows if row.case == case and row.counted and "dice" in row.values]
    told = [f"{row.name} {row.values['dice']:.3f}" for row in own[:6]]
    return "Dice " + ", ".join(told) + (", ..." if len(own) > 6 else "")
