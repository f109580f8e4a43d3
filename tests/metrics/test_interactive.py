"""The CVPR 2025 challenge's scores: means over classes, areas over five clicks, and what counts as 0."""

from __future__ import annotations

import math

import pytest

from samaritan.metrics import Row
from samaritan.metrics.interactive import (
    CLICKS,
    MOST_AUC,
    click_auc,
    mean_of,
    score_cases,
    score_classes,
)

ROUNDS = range(1, 7)
COLUMNS = [
    "CaseName", "TotalRunningTime", *(f"RunningTime_{n}" for n in ROUNDS),
    "DSC_AUC", "NSD_AUC", "DSC_Final", "NSD_Final",
    *(f"DSC_{n}" for n in ROUNDS), *(f"NSD_{n}" for n in ROUNDS),
    "num_class", "runtime_upperbound",
]  # fmt: skip


def row(case: str, label: int, clicks: int | None, dice: float, surface: float, seconds=0.5) -> Row:
    values = {"dice": dice, "surface_dice": surface, "seconds": seconds}
    return Row(
        case, label, f"organ {label}", "found", True, values, prompt="box+clicks", clicks=clicks
    )


def curve(case: str, label: int, dices, surfaces) -> list[Row]:
    start = CLICKS + 1 - len(dices)
    return [
        row(case, label, start + n, *pair)
        for n, pair in enumerate(zip(dices, surfaces, strict=True))
    ]


def test_areas_are_by_the_trapezoid_rule_and_not_normalised() -> None:
    assert click_auc([1.0] * CLICKS) == MOST_AUC == 4
    assert click_auc([0.2, 0.4, 0.6, 0.8, 1.0]) == pytest.approx(2.4)
    assert click_auc([1, 0, 0, 0, 0]) == 0.5


def test_a_case_is_the_mean_of_its_classes_and_the_box_is_in_no_area() -> None:
    rows = curve("a", 1, [0.9, 1, 1, 1, 1, 1], [0.5, 1, 1, 1, 1, 1])
    rows += curve("a", 2, [0.1, 0, 0.5, 0.5, 0.5, 0.5], [0.1, 0, 0.5, 0.5, 0.5, 0.5])
    (one,) = score_cases(rows)
    assert one.dsc == pytest.approx((0.5, 0.5, 0.75, 0.75, 0.75, 0.75))
    assert one.dsc_auc == pytest.approx(2.875)
    assert (one.n, one.limit) == (2, 180)
    told = one.columns()
    assert list(told) == COLUMNS
    assert told["TotalRunningTime"] == pytest.approx(6.0)
    assert told["RunningTime_3"] == pytest.approx(1.0)
    assert told["DSC_Final"] == told["DSC_6"] == pytest.approx(0.75)


def test_surface_dice_counts_only_above_a_mean_dice_of_a_fifth() -> None:
    rows = curve("a", 1, [0.2, 0.2, 0.21, 0.4, 0.4, 0.4], [0.9] * 6)
    (one,) = score_cases(rows)
    assert one.nsd == (0, 0, 0.9, 0.9, 0.9, 0.9)
    two = score_cases([*rows, *curve("a", 2, [0.9] * 6, [0.1] * 6)])[0]
    assert two.nsd == pytest.approx((0.5,) * 6)  # it is the mean that is compared
    (alone,) = score_classes(rows)
    assert alone.nsd == (0.9,) * 6


def test_without_a_box_the_first_round_scores_0_and_the_area_is_the_same() -> None:
    dices = [0.3, 0.5, 0.6, 0.7, 0.8]
    (without,) = score_cases(curve("a", 1, dices, dices))
    (with_box,) = score_cases(curve("a", 1, [0.9, *dices], [0.9, *dices]))
    assert without.dsc == (0, *dices)
    assert without.dsc_auc == with_box.dsc_auc
    assert without.seconds[0] == 0


def test_a_final_answer_alone_has_no_area() -> None:
    (one,) = score_cases([row("a", 1, None, 0.8, 0.7)])
    assert (one.dsc[-1], one.nsd[-1]) == (0.8, 0.7)
    assert math.isnan(one.dsc_auc)


def test_means_and_objects_of_a_case() -> None:
    rows = [*curve("a#1", 1, [1.0] * 6, [1.0] * 6), *curve("a#2", 1, [0.0] * 6, [0.0] * 6)]
    rows += curve("b", 1, [1.0] * 6, [1.0] * 6)
    scored = score_cases(rows, {"a#1": "a", "a#2": "a"})
    assert [(one.name, one.n, one.dsc_auc) for one in scored] == [("a", 2, 2.0), ("b", 1, 4.0)]
    assert mean_of(scored).dsc_auc == pytest.approx(3.0)
