"""Pages of prompted models: sets weigh alike, models are held to their own estimates, prompts are drawn."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from evaluation.pictures_of import disc, seer, three_discs
from PIL import Image

from samaritan.evaluation import Report
from samaritan.evaluation.estimates import estimates, pace
from samaritan.evaluation.overview import columns_of, few_columns, mean_of_sets
from samaritan.evaluation.page import page
from samaritan.evaluation.pictures import Panel, draw_panels
from samaritan.evaluation.report import as_json
from samaritan.evaluation.showing import Gallery, shown_prompts
from samaritan.evaluation.trial import Trial
from samaritan.evaluation.trials import try_model
from samaritan.geometry import Grid
from samaritan.metrics import Row, get_protocol
from samaritan.pictures.marks import POSITIVE
from samaritan.prompts import Boxes, Points
from samaritan.volume import LabelMap, Volume


def row(case, dice, group="", prompt="box", clicks=None, **values):
    return Row(case, 1, "disc", "found", True, {"dice": dice, **values}, group, "", prompt, clicks)


def two_sets():
    rows = [row(f"a{i}", 0.9, "a") for i in range(9)] + [row("b", 0.5, "b")]
    return [*rows, row("a0", 0.95, "a", "ellipse"), row("b", 0.45, "b", "ellipse")]


def test_every_set_weighs_alike_in_the_mean() -> None:
    report = Report("sets", two_sets(), get_protocol())
    means = {s.key["prompt"]: s for s in mean_of_sets(report.summaries("group"))}
    assert means["box"].stats["dice"].mean == pytest.approx(0.7)
    assert means["box"].n_found == 10
    told = as_json(report)["mean_of_groups"]
    assert {m["key"]["prompt"] for m in told} == {"box", "ellipse"}
    text = page(report)
    assert "mean of data sets" in text
    assert ">0.700<" in text


def test_a_box_below_its_ellipse_is_shown_in_red() -> None:
    worse = Report("worse", [row("a", 0.8), row("a", 0.9, prompt="ellipse")], get_protocol())
    better = Report("better", [row("a", 0.9), row("a", 0.8, prompt="ellipse")], get_protocol())
    assert 'class="tile bad"' in page(worse)
    assert 'class="tile bad"' not in page(better)


def test_columns_tell_prompts_in_the_order_of_asking() -> None:
    rows = [row("a", 0.5, prompt="clicks", clicks=n) for n in range(1, 13)]
    rows += [row("a", 0.5, prompt="points", clicks=n) for n in (1, 9)]
    rows += [row("a", 0.5), row("a", 0.5, prompt="ellipse")]
    report = Report("columns", rows, get_protocol())
    assert columns_of(report) == [
        ("ellipse", None), ("box", None), ("points", 1), ("points", 9),
        *(("clicks", n) for n in (1, 2, 3, 5, 10, 12)),
    ]  # fmt: skip
    assert few_columns(report)[-3:] == [("clicks", 1), ("clicks", 5), ("clicks", 12)]
    assert shown_prompts(rows) == [("clicks", 5), ("box", None)]


def test_models_are_held_to_their_own_estimates() -> None:
    expected, true = [0.2, 0.4, 0.9, 0.95], [0.1, 0.5, 0.8, 0.85]
    rows = [
        row("a", 0.5, prompt="clicks", clicks=n, predicted_iou=e, iou=t, seconds=0.1 * (n + 1))
        for n, (e, t) in enumerate(zip(expected, true, strict=True))
    ]
    rows.append(row("a", 0.9, prompt="ellipse", iou=0.8))
    (one,) = estimates(rows)
    assert one.n == 4
    assert one.error == pytest.approx(0.1)
    assert one.correlation == pytest.approx(np.corrcoef(expected, true)[0, 1])
    assert [n for _, _, n in one.bins] == [1, 1, 2]
    times = pace(rows)
    assert times is not None
    assert times.answer == pytest.approx(0.25)
    assert math.isnan(times.opening)
    report = Report("estimates", rows, get_protocol())
    text = page(report)
    assert "The model about itself" in text
    assert "Median time: 0.25 s for an answer (4)." in text
    assert as_json(report)["iou_estimate"][0]["error"] == pytest.approx(0.1)
    assert as_json(report)["median_seconds"] == {
        "opening": None, "encoding": None,
        "answer": pytest.approx(0.25), "once_encoded": pytest.approx(0.25),
    }  # fmt: skip
    assert estimates([row("a", 0.5)]) == []
    assert pace([row("a", 0.5)]) is None


def test_encoding_is_told_apart_from_answering() -> None:
    rows = [row("a", 0.5, prompt="clicks", clicks=n, seconds=0.1) for n in range(2, 6)]
    rows.append(row("a", 0.5, prompt="clicks", clicks=1, seconds=2.0, encoding_seconds=1.9))
    times = pace(rows)
    assert times is not None
    assert times.encoding == pytest.approx(1.9)
    assert times.n_encoded == 1
    assert times.once_encoded == pytest.approx(0.1)
    text = page(Report("times", rows, get_protocol()))
    words = "0.10 s for an answer (5): 0.10 s once all is encoded, 1.90 s for encoding where an"
    assert words in text
    assert "encoding seconds" not in text


def test_an_estimate_that_never_changes_has_no_correlation() -> None:
    rows = [row(c, 0.5, predicted_iou=0.5, iou=i / 10) for i, c in enumerate("abc")]
    assert math.isnan(estimates(rows)[0].correlation)
    assert "nan" not in page(Report("flat", rows, get_protocol())).split("<script>")[0].lower()


# -- pictures ----------------------------------------------------------------------------------------


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def near(picture: np.ndarray, colour: str) -> int:
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(picture - wanted).max(axis=2) < 40).sum())


def test_prompts_are_drawn_beside_the_image() -> None:
    grid = Grid.pixels((64, 64, 1))
    mask = LabelMap(disc((30, 40), 9)[:, :, None].astype(np.uint8), grid)
    image = Volume(np.full((64, 64, 1), 60, np.uint8), grid)
    points = Points(np.array([[30.0, 40, 0]]), np.array([1]), grid)
    boxes = Boxes(np.array([[21.0, 31, 0]]), np.array([[40.0, 50, 1]]), grid)
    bare = pixels(draw_panels([Panel(mask)], mask, image=image))
    drawn = pixels(draw_panels([Panel(mask, "one", points, boxes)], mask, image=image))
    assert near(bare, POSITIVE) == 0
    assert near(drawn, POSITIVE) > 20
    assert near(drawn, "#ffffff") > 100 > near(bare, "#ffffff")
    half = drawn.shape[1] // 2
    assert near(drawn[:, : half - 4], "#ffffff") == 0
    many = pixels(draw_panels([Panel(mask, "", points)] * 3, mask, image=image))
    assert many.shape[0] == pytest.approx(2 * drawn.shape[0], rel=0.05)  # two by two


def test_a_prompted_volume_shows_the_slice_with_most_of_the_object() -> None:
    grid = Grid.from_spacing((20, 20, 5), (1, 1, 4))
    labels = np.zeros(grid.shape, np.uint8)
    labels[5:15, 5:15, 3] = 1
    wrong = np.zeros(grid.shape, np.uint8)
    wrong[:, :, 0] = 1
    points = Points(np.array([[10.0, 10, 3]]), np.array([1]), grid)
    reference, prediction = LabelMap(labels, grid), LabelMap(wrong, grid)
    picture = pixels(draw_panels([Panel(prediction, "", points)], reference))
    assert near(picture, POSITIVE) > 20


def test_the_gallery_draws_what_was_asked(tmp_path) -> None:
    predictor, manifest = seer(), three_discs(tmp_path)
    trial = Trial(clicks=2, points=(1,), baseline=True)
    rows = try_model(predictor, manifest, trial, get_protocol()).rows
    pictures, colours = Gallery(predictor, manifest, trial).pictures(rows, each=1)
    assert [p.kind for p in pictures] == ["worst", "best", "median"]
    assert {p.case for p in pictures} == {"p0", "p1", "p2"}
    assert all("box 1.000, 2 clicks 1.000, ellipse 0.9" in p.caption for p in pictures)
    assert len(colours) == 1
    assert Gallery(predictor, manifest, trial).pictures(rows, each=0) == ([], [])
