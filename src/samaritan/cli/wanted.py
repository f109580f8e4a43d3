"""The prompts of one call of `samaritan segment`: read, checked against the image, given to a session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from samaritan.cli.prompt_options import (
    DEFAULT_OBJECT,
    TypedBox,
    TypedPoint,
    parse_box,
    parse_point,
)

if TYPE_CHECKING:
    from samaritan.geometry import Grid
    from samaritan.infer import Session
    from samaritan.volume import LabelMap


@dataclass(frozen=True)
class Wanted:
    """The prompts of one call, as typed."""

    points: tuple[TypedPoint, ...]
    boxes: tuple[TypedBox, ...]
    mask: Path | None
    replay: Path | None
    mm: bool
    stages: int = 0
    """In which all objects are redrawn at the end."""

    @classmethod
    def parse(
        cls,
        points: list[str] | None,
        boxes: list[str] | None,
        mask: Path | None,
        everything: bool,
        replay: Path | None,
        mm: bool,
        stages: int,
    ) -> Wanted:
        """Read what was typed.

        Raises:
            BadParameter: if there is nothing, or what does not go together.
            PromptError: if a point or box is not understood.
        """
        prompts = bool(points or boxes or mask or replay)
        if everything and (prompts or stages):
            raise typer.BadParameter(
                "--everything needs no prompts: leave out --point, --box, --mask, --session and --refine"
            )
        if not everything and not prompts:
            raise typer.BadParameter(
                "say what to segment: --point, --box, --mask, --session or --everything"
            )
        return cls(
            tuple(parse_point(text) for text in points or ()),
            tuple(parse_box(text) for text in boxes or ()),
            mask,
            replay,
            mm,
            stages,
        )

    def check(self, grid: Grid) -> None:
        """Refuse what lies outside before anything slow happens."""
        import numpy as np

        from samaritan.prompts import Boxes, Points

        for point in self.points:
            at, label = np.array([point.at]), np.array([1])
            Points.from_mm(at, label, grid) if self.mm else Points(at, label, grid)
        for box in self.boxes:
            Boxes(np.array([box.start]), np.array([box.stop]), grid)

    def run(self, session: Session) -> Session:
        """Give all prompts to a session: saved ones, the mask, boxes, points."""
        from samaritan.io import read_labels

        if self.replay is not None:
            session = session.replay(self.replay)
        if self.mask is not None:
            drawn = read_labels(self.mask)
            session = session.start_from(drawn, object=self._renamed(drawn))
        for box in self.boxes:
            session = session.box(box.start, box.stop, object=box.object)
        for point in self.points:
            session = session.click(
                point.at, positive=point.positive, object=point.object, mm=self.mm
            )
        alone = self.mask is not None and not (self.points or self.boxes)
        stages = max(self.stages, int(alone))
        for name in session.objects if stages else ():
            session = session.refine(object=name, stages=stages)
        return session

    def _renamed(self, drawn: LabelMap) -> str | None:
        """Name the object of a mask as the prompts do; labels of a map keep their names.

        Raises:
            PromptError: if the prompts do not say which of several structures they are about.
        """
        from samaritan.errors import PromptError

        asked = {p.object for p in self.points} | {b.object for b in self.boxes}
        known, labels = set(drawn.names.values()), drawn.labels()
        if len(labels) == 1 and len(asked) == 1:
            return None if asked <= known else asked.pop()
        if DEFAULT_OBJECT in asked and len(labels) > 1 and known and DEFAULT_OBJECT not in known:
            raise PromptError(
                f"{self.mask} holds several structures ({', '.join(sorted(known))}): say which one a prompt "
                f"is about, such as --point {sorted(known)[0]}=40,120,88"
            )
        return None
