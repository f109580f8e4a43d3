"""The CVPR 2025 challenge on interactive 3D segmentation: all classes at once, a box, five clicks.

Its metrics are the protocol "cvpr25" of `samaritan.metrics`, its scores `samaritan.metrics.interactive`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.data.layout_cvpr25 import box_shift
from samaritan.data.manifest import Manifest
from samaritan.data.reading import case_labels
from samaritan.errors import ConfigError
from samaritan.evaluation.asking import Answer
from samaritan.evaluation.cvpr25_clicks import Axes, core_of_error
from samaritan.evaluation.prompting import Clicked
from samaritan.evaluation.targets import Mask, Subject, Target, read_subject
from samaritan.evaluation.trial import Trial
from samaritan.evaluation.trials import check_image, opened
from samaritan.infer import Predictor, Session
from samaritan.io.npz_prompts import SliceBox, read_interactions
from samaritan.metrics.interactive import CLICKS


def challenge_trial(predictor: Predictor, trial: Trial, *, chosen: bool) -> Trial:
    """Bring a trial to what the challenge asks: a box and five clicks, or five clicks alone.

    Args:
        predictor: the model: one that takes no boxes gets clicks alone.
        trial: what was wanted.
        chosen: whether its prompts were named, rather than left as they are.

    Raises:
        ConfigError: if other prompts or objects were named.
    """
    prompts: Any = trial.prompts
    if not chosen:
        prompts = ("box+clicks",) if predictor.takes_boxes else ("clicks",)
    if prompts not in (("box+clicks",), ("clicks",)) or trial.baseline or trial.objects != "labels":
        raise ConfigError(
            "protocol 'cvpr25' asks for whole labels with a box and five clicks: use --prompts box+clicks or "
            "clicks, and leave out --baseline and --objects"
        )
    return replace(trial, prompts=prompts, clicks=CLICKS)


def ask_as_cvpr25(
    predictor: Predictor, manifest: Manifest, subject: Subject, trial: Trial
) -> Iterator[tuple[Target, Answer]]:
    """Ask for all classes in turn, in one session: where they meet the more probable one wins.

    The box is that of the file, or drawn as the challenge draws it. A case whose file has none begins with
    clicks, and its first round scores 0.

    Raises:
        GeometryError: if the image is not one for this model.
        ConfigError: if classes overlap, or boxes do not go with labels.
    """
    check_image(predictor, subject)
    whole = read_subject(manifest, subject.case, trial)  # classes compete even where one is wanted
    _check_apart(whole)
    wanted = {(target.case, target.label) for target in subject.targets}
    (prompt,) = trial.prompts
    session, opening = opened(predictor, manifest, whole, trial.max_windows)
    boxes = _boxes(manifest, whole) if prompt == "box+clicks" else None
    round_of = _Round(session, whole, prompt, boxes)
    for number in range(0 if prompt == "box+clicks" else 1, CLICKS + 1):
        for target, answer in round_of.answers(number):
            if (target.case, target.label) in wanted:
                yield target, replace(answer, opening=opening)
                opening = None  # type: ignore[assignment]


class _Round:
    """The state between rounds: the session, the label map that it answered, and what was given."""

    def __init__(
        self, session: Session, subject: Subject, prompt: str, boxes: Sequence[SliceBox] | None
    ) -> None:
        self.session, self.subject, self.prompt = session, subject, prompt
        self.axes = Axes.of(subject.image.grid)
        self.ends = [self.axes.box_back(box) for box in boxes or ()]
        self.given: list[tuple[Clicked, ...]] = [() for _ in subject.targets]
        self.labels: npt.NDArray[Any] = np.zeros(subject.image.shape, np.uint8)

    def answers(self, number: int) -> Iterator[tuple[Target, Answer]]:
        """Give every class its box, or a click on its largest error; then answer for all."""
        before = self.session
        for at, target in enumerate(self.subject.targets):
            name = _name(at)
            if number == 0:
                if self.ends:
                    self.session = self.session.box(*self.ends[at], object=name)
                continue
            click = self.click(target, name)
            if click is not None:
                self.given[at] = (*self.given[at], click)
                self.session = self.session.click(click.at, positive=click.positive, object=name)
        seconds = None
        if self.session is not before:
            start = time.perf_counter()
            self.labels = np.asarray(self.session.mask.array)
            seconds = (time.perf_counter() - start) / len(self.subject.targets)
        for at, target in enumerate(self.subject.targets):
            known = _name(at) in self.session.objects
            yield (
                target,
                Answer(
                    self.prompt,
                    number,
                    self.mask(_name(at)),
                    self.session.quality(_name(at)) if known else None,
                    seconds,
                    box=self.ends[at] if self.ends else None,
                    points=self.given[at],
                ),
            )

    def mask(self, name: str) -> Mask:
        """What was answered for a class."""
        if name not in self.session.objects:
            return np.zeros(self.labels.shape, bool)
        found: Mask = self.labels == self.session.objects.index(name) + 1
        return found

    def click(self, target: Target, name: str) -> Clicked | None:
        predicted, reference = self.mask(name), target.mask(self.subject.image.shape)
        if self.subject.ignored is not None:
            predicted = predicted & ~self.subject.ignored
        found = core_of_error(self.axes.there(predicted), self.axes.there(reference))
        return None if found is None else Clicked(self.axes.back(found.at), found.positive)


def _boxes(manifest: Manifest, subject: Subject) -> Sequence[SliceBox] | None:
    """The boxes of the case's file; drawn ones, if it is of another format."""
    case, file = subject.case, manifest.path(subject.case.images[0])
    if file.suffix.lower() != ".npz":
        axes = Axes.of(subject.image.grid)
        return [
            SliceBox.around(
                axes.there(target.mask(subject.image.shape)), box_shift(target.case, target.label)
            )
            for target in subject.targets
        ]
    boxes = read_interactions(file).boxes
    if boxes is None or len(boxes) == len(subject.targets):
        return boxes
    values = case_labels(manifest, case)[0].labels()
    if len(values) != len(boxes):
        raise ConfigError(
            f"case {case.id!r} has {len(boxes)} boxes for {len(values)} labels {values[:8]}: expected "
            "one for each, in ascending order"
        )
    known = dict(zip(values, boxes, strict=True))
    return [known[target.label] for target in subject.targets]


def _check_apart(subject: Subject) -> None:
    """Raise if objects overlap: the challenge's answers are label maps."""
    drawn = np.zeros(subject.image.shape, bool)
    for target in subject.targets:
        if (drawn[target.where] & target.part).any():
            raise ConfigError(
                f"{target.name!r} overlaps other objects of case {subject.case.id!r}, and protocol 'cvpr25' "
                "is for label maps: measure with protocol 'samaritan'"
            )
        drawn[target.where] |= target.part


def _name(at: int) -> str:
    return f"class {at + 1}"
