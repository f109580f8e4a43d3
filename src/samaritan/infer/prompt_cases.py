"""Prompts of a file and the images that they are meant for: checked all at once, then given to sessions."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from samaritan.data.manifest import Case, Manifest, told
from samaritan.data.sources.names import stem_of
from samaritan.errors import PromptError, SamaritanError
from samaritan.geometry import FloatArray, Grid
from samaritan.infer.prompt_files import Asked, CasePrompts, PromptFile
from samaritan.infer.session import Session
from samaritan.io import read_labels
from samaritan.volume import Volume

MOST_TOLD = 100
"""Problems of a file that one message lists."""

Opener = Callable[[Case], Session]
"""Opens a session on the image of a case."""


def check_prompts(
    prompts: PromptFile,
    manifest: Manifest,
    open_case: Opener,
    *,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> dict[str, CasePrompts]:
    """Check all prompts of a file against the images before anything is predicted.

    Each image that something is asked of is read once for this. One that cannot be read is left for
    the prediction to report.

    Args:
        prompts: from `read_prompts`.
        manifest: the cases.
        open_case: opens a session on a case; nothing is encoded.
        progress: called with (what, done, total).

    Returns:
        Prompts by the id of their case.

    Raises:
        PromptError: telling every problem with its line: what is not understood, cases that are not there,
            points outside, boxes without a size, masks that cannot be read, sessions of another image.
    """
    problems = list(prompts.problems)
    found = _by_case(prompts, manifest, problems)
    cases = {case.id: case for case in manifest if case.id in found}
    for done, (name, case) in enumerate(cases.items()):
        progress("checking prompts", done, len(cases))
        try:
            session = open_case(case)
        except SamaritanError:
            continue
        problems += _problems(session, found[name])
    if problems:
        problems.sort(key=_line)
        raise PromptError(told(f"{prompts.path} cannot be used", problems, most=MOST_TOLD))
    return found


def give(session: Session, prompts: CasePrompts) -> Session:
    """Give a session all that is asked: of each object its masks, then boxes, then points.

    An object of which there is a mask alone is redrawn by the model. Positive points come before
    negative ones.

    Raises:
        PromptError: if one of them cannot be used.
        GridMismatch: if a saved session is of another image.
    """
    if prompts.session is not None:
        return session.replay(prompts.session)
    for name, asked in prompts.objects.items():
        for one in sorted(asked, key=lambda a: _ORDER.index(a.kind)):
            session = _given(session, name, one)
        if all(one.kind == "mask" for one in asked):
            session = session.refine(object=name)
    return session


_ORDER = ("mask", "box", "point", "negative")


def _given(session: Session, name: str, asked: Asked) -> Session:
    """Give one prompt to a session; nothing is worked out yet."""
    grid = session.grid
    if asked.mm and grid.unit != "mm":
        raise PromptError("a picture without geometry has no millimetres: give array indices")
    if asked.kind == "mask":
        assert asked.file is not None
        return session.start_from(_all_of(read_labels(asked.file), grid), object=name)
    if asked.kind == "box":
        half = len(asked.numbers) // 2
        start, stop = np.array(asked.numbers[:half]), np.array(asked.numbers[half:])
        if asked.mm:
            start, stop = _upright(start, stop, grid)
        return session.box(start.tolist(), stop.tolist(), object=name)
    positive = asked.kind == "point"
    return session.click(asked.numbers, positive=positive, object=name, mm=asked.mm)


def _all_of(mask: Volume, grid: Grid) -> Volume:
    """Take everything that is not 0 as one mask; a picture lies on a slice of its size."""
    if mask.grid.unit == "px" and mask.shape == grid.shape:
        mask = replace(mask, grid=grid)
    return Volume((mask.array != 0).astype(np.uint8), mask.grid)


def _upright(low: FloatArray, high: FloatArray, grid: Grid) -> tuple[FloatArray, FloatArray]:
    """Bring a box in millimetres to the upright half-open box around it in array indices."""
    if len(low) != 3:
        raise PromptError(f"a box in millimetres needs three numbers a corner, got {low.tolist()}")
    if not (low < high).all():
        raise PromptError(
            f"box from {low.tolist()} to {high.tolist()} mm has no size: each stop must exceed its start"
        )
    ends = np.stack([low, high])
    corners = np.array([[ends[a, 0], ends[b, 1], ends[c, 2]] for a, b, c in np.ndindex(2, 2, 2)])
    moved = grid.mm_to_index(corners)
    return moved.min(axis=0) + 0.5, moved.max(axis=0) + 0.5


def _by_case(
    prompts: PromptFile, manifest: Manifest, problems: list[str]
) -> dict[str, CasePrompts]:
    """Find the case that each name means: its id, or a file name of it."""
    ids = [case.id for case in manifest]
    known = {name: case.id for case in manifest for name in _names(case)} | {i: i for i in ids}
    found: dict[str, CasePrompts] = {}
    for name, asked in _named(prompts, ids, problems):
        case = known.get(name)
        if case is None:
            near = difflib.get_close_matches(name, ids, n=2, cutoff=0.5)
            hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else _told(ids)
            problems.append(f"{asked.where}: there is no case {name!r}. {hint}")
        elif case in found:
            problems.append(f"{asked.where}: {name!r} and another name mean case {case!r}")
        else:
            found[case] = asked
    return found


def _named(
    prompts: PromptFile, ids: list[str], problems: list[str]
) -> Iterator[tuple[str, CasePrompts]]:
    yield from prompts.cases.items()
    if prompts.alone is not None and len(ids) == 1:
        yield ids[0], prompts.alone
    elif prompts.alone is not None:
        problems.append(
            f'it is a session of one image, and there are {len(ids)}. Write {{"CASE": SESSION, ...}}'
        )


def _names(case: Case) -> set[str]:
    """What a person may call a case: its file, with or without suffix and channel number."""
    files = {name.rsplit("/", 1)[-1] for name in case.images} - {"."}
    stems = {stem_of(name) for name in files}
    return files | stems | {re.sub(r"_\d{4}$", "", s) for s in stems if s.endswith("_0000")}


def _problems(session: Session, prompts: CasePrompts) -> Iterator[str]:
    """Everything that is wrong with the prompts of one case."""
    if prompts.session is not None:
        try:
            session.replay(prompts.session)
        except SamaritanError as error:
            yield f"{prompts.where}: {error}"
    for name, asked in prompts.objects.items():
        for one in asked:
            try:
                _given(session, name, one)
            except SamaritanError as error:
                yield f"{one.where}: {error}"


def _line(problem: str) -> int:
    """Where in a CSV a problem is; those of JSON files stay in their order."""
    found = re.match(r"line (\d+)", problem)
    return int(found[1]) if found else 0


def _told(ids: list[str]) -> str:
    more = ", ..." if len(ids) > 3 else ""
    return f"There are {len(ids)}: {', '.join(ids[:3])}{more}"
