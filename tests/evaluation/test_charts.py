"""Charts and curves draw what they are given, and infinite values too."""

from __future__ import annotations

import itertools
import math
import re
from xml.etree import ElementTree

import pytest

from samaritan.evaluation import Report, charts
from samaritan.evaluation.page import page
from samaritan.metrics import Row, get_protocol, summarise


def row(case, label, dice, hd95, outcome="found", **about):
    values = {"dice": dice, "hd95_mm": hd95}
    return Row(case, label, f"<organ {label}>", outcome, True, values, **about)


ROWS = [
    *(row(f"case {i}", 1 + i % 2, 0.6 + i / 50, float(i)) for i in range(16)),
    row("gone & lost", 1, 0.0, math.inf, "missed"),
]


@pytest.mark.parametrize("key", ["dice", "hd95_mm"])
def test_every_case_is_a_dot_with_its_name(key) -> None:
    chart = ElementTree.fromstring(
        charts.distribution(ROWS, summarise(ROWS), key).replace("&infin;", "inf")
    )
    dots = chart.findall("circle")
    assert len(dots) == len(ROWS)
    assert {dot.find("title").text.split(":")[0] for dot in dots} == {r.case for r in ROWS}
    assert [dot.get("class") for dot in dots].count("dot bad") == 1
    places = [float(dot.get("cx")) for dot in dots]
    assert all(0 < at < 520 for at in places)
    assert "nan" not in ElementTree.tostring(chart, "unicode")


def test_many_cases_are_thinned() -> None:
    rows = [row(f"case {i}", 1, i / 2000, 1.0) for i in range(2000)]
    chart = charts.distribution(rows, summarise(rows, draws=100), "dice")
    assert chart.count("<circle") == charts.MOST_DOTS


@pytest.mark.parametrize(
    ("least", "most", "ticks"),
    [(0, 1, 6), (0, 37.2, 5), (-3, 12, 5), (0, 0, 2), (0, 1e-5, 2), (0, 4e5, 5)],
)
def test_axes_have_few_round_ticks(least, most, ticks) -> None:
    low, high = charts._nice(least, most, False)
    found = charts._ticks(low, high)
    assert low <= least
    assert high >= most
    assert ticks - 1 <= len(found) <= ticks + 5


def curve_rows():
    return [
        row(f"{group} {case}", 1, 0.4 + 0.05 * clicks + case / 100, 9.0 - clicks, group=group,
            prompt=prompt, clicks=clicks)
        for group in ("hearts", "livers")
        for case in range(4)
        for prompt in ("points", "iterated")
        for clicks in (1, 3, 5)
    ]  # fmt: skip


def test_curves_have_a_knot_for_every_number_of_clicks() -> None:
    text = page(Report("clicks", curve_rows(), get_protocol()))
    assert "Scores against clicks" in text
    # 2 prompts x 3 numbers of clicks, in four charts: Dice of all, hearts, livers; HD95 of all
    assert text.count('class="knot"') == 4 * 2 * 3
    assert "points, 3 clicks: 0.565" in text
    first = re.search(r"<svg.*?</svg>", text, re.DOTALL).group()
    ys = [float(y) for y in re.findall(r'class="knot" cx="[\d.]+" cy="([\d.]+)"', first)]
    assert ys[:3] == sorted(ys[:3], reverse=True)  # scores rise


def test_names_at_the_ends_of_curves_do_not_cover_each_other() -> None:
    places = sorted(charts._apart([50.0, 51.0, 52.0, 90.0]))
    assert min(b - a for a, b in itertools.pairwise(places)) >= 14


def test_a_prompt_without_clicks_is_a_level_line() -> None:
    rows = [*curve_rows(), *(row(f"hearts {case}", 1, 0.9, 2.0, prompt="box") for case in range(4))]
    text = page(Report("clicks", rows, get_protocol()))
    assert "<title>box: 0.900 (0.900 to 0.900), n = 4</title>" in text
    assert "Dice at a glance" in text
    assert text.count("every prompt, every metric") == 2 + ("no group" in text)


def test_curves_of_infinite_distances_show_medians() -> None:
    rows = curve_rows()
    rows[0] = row("hearts 0", 1, 0.0, math.inf, "missed", prompt="points", clicks=1)
    text = page(Report("clicks", rows, get_protocol()))
    assert "median HD95 (mm): mean of data sets" in text
    assert "nan" not in text.lower().split("<script>")[0].replace("finance", "")
