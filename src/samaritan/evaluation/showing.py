"""Pictures of single objects with the prompts that were given: asking again gives the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from samaritan.data.manifest import Case, Manifest
from samaritan.evaluation.asking import Answer
from samaritan.evaluation.choosing import choose_cases
from samaritan.evaluation.pictures import Panel, colour_of, draw_panels
from samaritan.evaluation.report import Picture
from samaritan.evaluation.targets import Subject, Target, read_subject
from samaritan.evaluation.trial import ASIDE, CEILING, ELLIPSE, Trial, told
from samaritan.evaluation.trials import Asking, Progress, ask_by_session
from samaritan.infer import Predictor
from samaritan.metrics import Row
from samaritan.prompts import Boxes, Points
from samaritan.volume import LabelMap

SHOWN_CLICKS = 5
"""Pictures show the answer after this many clicks, or after the last."""

Shown = tuple[str, int | None]
"""A kind of prompt, and the number of points."""


@dataclass(frozen=True)
class Gallery:
    """How to ask for pictures.

    Attributes:
        predictor: the model, as it was tried.
        manifest: the cases, as they were tried.
        trial: what was asked.
        asking: how it was asked.
    """

    predictor: Predictor
    manifest: Manifest
    trial: Trial
    asking: Asking = ask_by_session

    def pictures(
        self, rows: Sequence[Row], *, each: int = 3, progress: Progress | None = None
    ) -> tuple[list[Picture], list[tuple[str, str]]]:
        """Draw the worst, median and best objects, each with one answer of every kind of prompt.

        Objects are ranked by the first kind of prompt: by the box, where boxes are asked.

        Args:
            rows: what was measured.
            each: how many of each kind.
            progress: called with (what, done, total).

        Returns:
            The pictures, and (name, colour) for a legend.
        """
        shown = shown_prompts(rows)
        if not shown or not each:
            return [], []
        ranked = [row for row in rows if (row.prompt, row.clicks) == shown[0]]
        objects = {f"{row.case}\n{row.label}": row for row in ranked}
        metric = "dice" if "dice" in ranked[0].values else "iou"
        alone = [replace(row, case=key) for key, row in objects.items()]
        chosen = choose_cases(alone, each=each, by=metric)
        total = sum(map(len, chosen.values()))
        pictures: list[Picture] = []
        for kind, keys in chosen.items():
            for row in (objects[key] for key in keys):
                own = [r for r in rows if (r.case, r.label) == (row.case, row.label)]
                caption = _caption(own, shown, metric)
                pictures.append(
                    Picture(kind, row.case, caption, self._drawn(row, shown, own, metric))
                )
                if progress is not None:
                    progress("drawing", len(pictures), total)
        return pictures, [("the object", colour_of(0))]

    def _drawn(self, row: Row, shown: Sequence[Shown], own: Sequence[Row], metric: str) -> bytes:
        trial = replace(self.trial, ceiling=False)
        subject = read_subject(self.manifest, _case(self.manifest, row.case), trial)
        subject = replace(
            subject,
            targets=tuple(t for t in subject.targets if (t.case, t.label) == (row.case, row.label)),
        )
        found = {
            (answer.prompt, answer.clicks): answer
            for _, answer in self.asking(self.predictor, self.manifest, subject, trial)
        }
        scores = {(r.prompt, r.clicks): r.values[metric] for r in own}
        panels = [_panel(subject, found[key], f"{told(*key)}  {scores[key]:.3f}") for key in shown]
        (target,) = subject.targets
        return draw_panels(panels, _reference(subject, target), image=subject.image)


def shown_prompts(rows: Sequence[Row]) -> list[Shown]:
    """One of each kind of prompt; of several numbers of points a usual one."""
    counts: dict[str, set[int | None]] = {}
    for row in rows:
        if row.prompt not in ASIDE:
            counts.setdefault(row.prompt, set()).add(row.clicks)
    if "clicks" in counts:
        counts.pop("points", None)  # the same first click
    shown: list[Shown] = []
    for prompt, known in counts.items():
        numbers = sorted(n for n in known if n is not None)
        usual = 1 if prompt == "points" else SHOWN_CLICKS
        shown.append((prompt, (usual if usual in numbers else numbers[-1]) if numbers else None))
    return shown


def _caption(own: Sequence[Row], shown: Sequence[Shown], metric: str) -> str:
    scores = {(r.prompt, r.clicks): r.values[metric] for r in own}
    words = [f"{told(*key)} {scores[key]:.3f}" for key in shown if key in scores]
    for name in (ELLIPSE, CEILING):
        if (name, None) in scores:
            words.append(f"{name} {scores[name, None]:.3f}")
    return f"{own[0].name}: " + ", ".join(words)


def _panel(subject: Subject, answer: Answer, title: str) -> Panel:
    grid = subject.image.grid
    points = boxes = None
    if answer.points:
        at = np.array([click.at for click in answer.points], float)
        points = Points(at, np.array([int(click.positive) for click in answer.points]), grid)
    if answer.box is not None:
        boxes = Boxes(np.array([answer.box[0]], float), np.array([answer.box[1]], float), grid)
    return Panel(LabelMap(answer.mask.view(np.uint8), grid), title, points, boxes)


def _reference(subject: Subject, target: Target) -> LabelMap:
    mask = target.mask(subject.image.shape)
    return LabelMap(mask.view(np.uint8), subject.image.grid)


def _case(manifest: Manifest, name: str) -> Case:
    """The case of an object: its id, perhaps with a number behind it."""
    known = {case.id: case for case in manifest}
    return known[name] if name in known else known[name.rpartition("#")[0]]
