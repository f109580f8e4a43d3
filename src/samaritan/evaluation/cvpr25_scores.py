"""Tables of the CVPR 2025 challenge: its own columns for every case, and the same by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from samaritan.evaluation.sheets import Sheet
from samaritan.metrics import Row
from samaritan.metrics.interactive import (
    CLICKS,
    MOST_AUC,
    SECONDS_PER_CLASS,
    Interactive,
    mean_of,
    score_cases,
    score_classes,
)


def challenge_sheets(rows: Sequence[Row], cases: Sequence[str] = ()) -> tuple[Sheet, ...]:
    """The challenge's own table of cases, and one of classes.

    Args:
        rows: of every case, class and round.
        cases: ids of cases, so that objects "ID#2" are counted with their case.
    """
    known = set(cases)
    own = {r.case: r.case.rpartition("#")[0] for r in rows if known and r.case not in known}
    every = score_cases(rows, own)
    mean, classes = mean_of(every), score_classes(rows)
    late = [one.name for one in every if math.fsum(one.seconds) > one.limit]
    words = (
        f"DSC AUC {mean.dsc_auc:.3f}, NSD AUC {mean.nsd_auc:.3f} (of {MOST_AUC:g}); "
        f"final DSC {mean.dsc[-1]:.3f}, final NSD {mean.nsd[-1]:.3f}; {len(every)} cases"
    )
    if late:
        words += f"; {len(late)} took more than {SECONDS_PER_CLASS} s for each class: {', '.join(late[:5])}"
    about = (
        f"Mean over the classes of a case. Round 1 is the box, rounds 2 to {CLICKS + 1} are clicks; the "
        f"areas under the curves are over the clicks alone, at most {MOST_AUC:g}. Where the mean DSC is not "
        "above 0.2 the NSD of a case counts as 0. Without a box the first round scores 0. Running times are "
        f"of this machine; {SECONDS_PER_CLASS} s for each class are allowed in the challenge, and a case "
        "that takes longer scores 0 there, not here."
    )
    shown = ("CaseName", "DSC_AUC", "NSD_AUC", "DSC_Final", "NSD_Final", "TotalRunningTime")
    table = [one.columns() for one in every]
    return (
        Sheet(
            "cvpr25",
            "Scores of the challenge",
            about,
            table,
            (*shown, "num_class"),
            words,
            mean.columns(),
        ),
        Sheet(
            "cvpr25_classes",
            "The same by class",
            "Mean over the cases that have the class; NSD as it is, whatever the DSC.",
            [_class_columns(one) for one in classes],
            ("class", "cases", "DSC_AUC", "NSD_AUC", "DSC_Final", "NSD_Final"),
        ),
    )


def _class_columns(one: Interactive) -> dict[str, Any]:
    told = {k: v for k, v in replace(one, seconds=(0.0,) * (CLICKS + 1)).columns().items()}
    kept = {k: v for k, v in told.items() if k.startswith(("DSC", "NSD"))}
    return {"class": one.name, "cases": one.n, **kept}
