"""Summaries: means of what counts, seeded intervals, infinite distances, and tables."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest

from samaritan.metrics import Row, summarise
from samaritan.metrics.names import metric
from samaritan.metrics.tables import row_json, rows_csv, summaries_csv, summary_json


def row(case, value, label=1, outcome="found", counted=True, **about):
    return Row(case, label, f"name {label}", outcome, counted, {"dice": value}, **about)


def rows_of(values, label=1):
    return [row(f"case {i}", float(v), label) for i, v in enumerate(values)]


def test_a_summary_holds_plain_statistics() -> None:
    values = np.random.default_rng(0).random(30)
    (found,) = summarise(rows_of(values))
    stat = found.stats["dice"]
    assert (stat.n, found.name, found.n_cases) == (30, "name 1", 30)
    assert stat.mean == pytest.approx(values.mean())
    assert stat.std == pytest.approx(values.std(ddof=1))
    assert (stat.median, *stat.quartiles) == pytest.approx(np.quantile(values, (0.5, 0.25, 0.75)))
    assert (stat.least, stat.most) == (values.min(), values.max())


def test_intervals_are_seeded_and_hold_the_mean() -> None:
    rows = rows_of(np.random.default_rng(0).random(40))
    one, two, other = (summarise(rows, seed=seed)[0].stats["dice"] for seed in (1, 1, 2))
    assert one == two
    assert one != other
    assert one.low < one.mean < one.high
    assert one.median_low < one.median < one.median_high
    assert summarise(rows[::-1], seed=1)[0].stats["dice"].low == pytest.approx(one.low)


def test_intervals_are_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).standard_normal(200)
    stat = summarise(rows_of(values))[0].stats["dice"]
    assert stat.high - stat.low == pytest.approx(2 * 1.96 * stat.std / math.sqrt(200), rel=0.1)


def test_rows_of_one_patient_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(0).random(10), 20)
    apart = rows_of(values)
    together = [
        row(f"case {i}", float(v), patient=f"patient {i // 20}") for i, v in enumerate(values)
    ]
    wide, narrow = (summarise(rows)[0].stats["dice"] for rows in (together, apart))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_a_single_case_has_no_interval() -> None:
    stat = summarise(rows_of([0.5]))[0].stats["dice"]
    assert stat.mean == 0.5
    assert math.isnan(stat.low)
    assert math.isnan(stat.std)


def test_what_does_not_count_is_counted_but_not_averaged() -> None:
    rows = [
        row("a", 0.8),
        row("b", 0.0, outcome="missed"),
        row("c", 0.0, outcome="false positive"),
        row("d", 1.0, outcome="absent", counted=False),
    ]
    (found,) = summarise(rows)
    counts = (found.n_found, found.n_missed, found.n_invented, found.n_absent)
    assert counts == (1, 1, 1, 1)
    assert found.stats["dice"].mean == pytest.approx(0.8 / 3)


def test_all_labels_weigh_alike() -> None:
    rows = rows_of([1, 1, 1, 1], label=1) + rows_of([0], label=2)
    (found,) = summarise(rows, by=())
    assert (found.name, found.stats["dice"].mean) == ("all labels", 0.5)


def test_missed_objects_make_a_mean_infinite_but_not_undefined() -> None:
    stat = summarise(rows_of([1, 2, 3, math.inf]))[0].stats["dice"]
    assert (stat.mean, stat.n_infinite, stat.finite_mean) == (math.inf, 1, 2)
    assert stat.median == 2.5
    assert stat.high == math.inf
    assert math.isfinite(stat.low)
    most = summarise(rows_of([1, math.inf, math.inf]))[0].stats["dice"]
    assert most.median == most.quartiles[1] == math.inf


def test_rows_are_kept_apart_by_set_prompt_and_clicks() -> None:
    rows = [
        row("a", clicks / 10, group=group, prompt="points", clicks=clicks)
        for group in ("x", "y")
        for clicks in (9, 1, 3)
    ]
    found = summarise(rows, by=("group", "prompt", "clicks"))
    assert [tuple(s.key.values()) for s in found] == [
        (group, "points", clicks) for group in ("x", "y") for clicks in (1, 3, 9)
    ]


def test_tables_hold_every_row_and_say_infinity() -> None:
    rows = [row("a,b", 0.123456789), row("c", math.inf, group="g")]
    read = list(csv.DictReader(io.StringIO(rows_csv(rows))))
    assert [r["case"] for r in read] == ["a,b", "c"]
    assert [r["dice"] for r in read] == ["0.123457", "inf"]
    assert "prompt" not in read[0]
    lines = list(csv.DictReader(io.StringIO(summaries_csv(summarise(rows)))))
    assert lines[0]["mean"] == "inf"
    assert lines[0]["std"] == ""
    text = json.dumps([summary_json(s) for s in summarise(rows)] + [row_json(r) for r in rows])
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name))[-1]["values"] == {
        "dice": "inf"
    }


def test_no_rows_give_no_summaries() -> None:
    assert summarise([]) == []


def test_metrics_have_titles_with_units() -> None:
    assert metric("hd95_mm").title == "HD95 (mm)"
    assert metric("volume_error_px").better == "zero"
    assert metric("my_metric").title == "my metric"
