"""Score answers on disk as the CVPR 2025 challenge does: its results of all rounds, or final masks alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import CorruptFile, GridMismatch, SamaritanError
from samaritan.evaluation.comparing import Comparison, Progress, Settings, load
from samaritan.evaluation.matching import Matched, Pair
from samaritan.io.npz_arrays import holds, read_array
from samaritan.metrics import Protocol, Row, measure_case
from samaritan.metrics.interactive import CLICKS

Array = npt.NDArray[Any]

PROMPT = "box+clicks"

_ROUNDS = CLICKS + 1
_KEPT = {
    _ROUNDS: (0, 1),  # number of stored answers -> the round of the first, and which of them count
    CLICKS: (1, 1),
    2 * _ROUNDS - 1: (0, 2),  # the published evaluator stores most answers twice
    2 * CLICKS: (1, 2),
}


def compare_rounds(
    matched: Matched, settings: Settings, protocol: Protocol, *, progress: Progress | None = None
) -> Comparison:
    """Measure every round of every case; a case that cannot be measured is told, and the others go on.

    The final answer is `segs`, that of all rounds `all_segs`, in .npz files as the challenge's evaluator
    leaves them. Masks of other formats are final answers. A missing file is an empty answer to everything.

    Args:
        matched: from `match`.
        settings: how masks are read.
        protocol: "cvpr25".
        progress: called with (what, done, total).
    """
    rows: list[Row] = []
    problems: dict[str, str] = {}
    final = False
    for done, pair in enumerate(matched.pairs, 1):
        try:
            found = list(_rows(pair, settings, protocol))
        except (SamaritanError, MemoryError) as error:
            problems[pair.case] = str(error) or type(error).__name__
        else:
            rows += found
            final = final or any(row.clicks is None for row in found)
        if progress is not None:
            progress("measuring", done, len(matched.pairs))
    notes = [f"{name} has no prediction: its objects are missed." for name in matched.missing]
    if final:
        notes.append(
            "Some predictions hold a final answer alone (no all_segs), so no area under a curve."
        )
    return Comparison(tuple(rows), problems, tuple(notes))


def rounds_of(path: Path, shape: tuple[int, ...]) -> dict[int, Array] | None:
    """The answers of all rounds in a result file; None if it holds none.

    Raises:
        CorruptFile: if they are not as many as the challenge has rounds.
        GridMismatch: if they are not of this shape.
    """
    if path.suffix.lower() != ".npz" or not holds(path, "all_segs"):
        return None
    stored = read_array(path, "all_segs")
    if stored.ndim != 4 or stored.dtype.kind not in "bui" or len(stored) not in _KEPT:
        raise CorruptFile(
            f"{path}: all_segs holds {stored.dtype} of shape {stored.shape}, expected label maps of "
            f"{', '.join(map(str, _KEPT))} rounds"
        )
    if stored.shape[1:] != shape:
        raise GridMismatch(
            f"{path}: answers of shape {stored.shape[1:]} do not lie on a reference of shape {shape}. Both "
            "must be arrays (z, y, x) of one size"
        )
    first, step = _KEPT[len(stored)]
    begin = step - 1 if first else 0  # without a box an empty answer stands before the first
    return {first + n: answer for n, answer in enumerate(stored[begin::step])}


def _rows(pair: Pair, settings: Settings, protocol: Protocol) -> Iterator[Row]:
    prediction, reference = load(pair, settings)
    names = {**prediction.names, **reference.names, **(settings.names or {})}
    answers: dict[int | None, Array] = {None: prediction.array}
    if pair.prediction is None:
        answers = dict.fromkeys(range(_ROUNDS), prediction.array)
    else:
        rounds = rounds_of(pair.prediction, reference.shape)
        answers = {n: rounds[n] for n in rounds} if rounds is not None else answers
    labels = [int(v) for v in np.unique(reference.array) if v]
    for number, answer in answers.items():
        yield from measure_case(
            answer,
            reference.array,
            case=pair.case,
            spacing=reference.grid.spacing_mm,
            unit=reference.grid.unit,
            protocol=protocol,
            labels=labels,
            names=names,
            prompt="" if number is None else PROMPT,
            clicks=number,
        )
