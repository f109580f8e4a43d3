"""Conventions have the published values, with their oddities, and ours counts what was missed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from samaritan.errors import ConfigError, GeometryError
from samaritan.metrics import PROTOCOLS, get_protocol, measure_case
from samaritan.metrics.protocols import Voxel, sam_med2d_scores


def measured(one, two, protocol="samaritan", spacing=(1, 1, 1), **options):
    return measure_case(
        one, two, case="a", spacing=spacing, protocol=get_protocol(protocol), **options
    )


def boxes():
    one, two = np.zeros((2, 4, 32, 32), np.uint8)
    one[1:3, 5:20, 5:20] = 1
    two[1:3, 8:22, 5:20] = 1
    return one, two


def test_samed_has_the_published_example() -> None:
    (row,) = measured(*boxes(), "samed", spacing=(3, 0.5, 0.5))
    assert row.values == pytest.approx({"dice": 0.8275862, "hd95_voxels": 2.0}, abs=1e-7)


def test_samed_scores_what_is_empty_as_published() -> None:
    none, some = np.zeros((2, 4, 5), np.uint8), np.ones((2, 4, 5), np.uint8)
    wanted = {(1, 0): (1, 0), (0, 1): (0, 0), (0, 0): (0, 0)}
    for (predicted, there), (score, distance) in wanted.items():
        (row,) = measured([none, some][predicted], [none, some][there], "samed", labels=[1])
        assert row.values == {"dice": score, "hd95_voxels": distance}
        assert row.counted


def test_sam_med2d_has_the_published_example() -> None:
    n = np.arange(2 * 64 * 64).reshape(2, 1, 64, 64)
    scores = sam_med2d_scores(3 * np.sin(n / 37), np.cos(n / 53) > 0.3, logits=True)
    assert scores["iou"] == pytest.approx([0.313412, 0.283850], abs=1e-6)
    assert scores["dice"] == pytest.approx([0.477249, 0.442186], abs=1e-6)


def test_logits_that_are_all_positive_are_a_mask_unless_as_published() -> None:
    logits, ones = np.full((1, 1, 8, 8), 0.2), np.ones((1, 1, 8, 8))
    assert sam_med2d_scores(logits, ones, logits=True)["dice"] == 1
    published = sam_med2d_scores(logits, ones, logits=True, compat=True)
    assert published["dice"] == pytest.approx(1.56e-9, rel=0.01)


def test_sam_med2d_rounds_each_mask_and_calls_empty_masks_equal() -> None:
    one, two = np.zeros((2, 3, 7), np.uint8)
    one[0, :3] = two[0, :4] = 1
    (row,) = measured(one, two, "sam_med2d", spacing=(1, 1))
    assert row.values == {"iou": 0.75, "dice": 0.8571}
    (row,) = measured(one * 0, two * 0, "sam_med2d", spacing=(1, 1), labels=[1])
    assert row.values == {"iou": 1, "dice": 1}
    assert row.counted


def test_sam_med3d_looks_at_labels_of_the_reference_alone() -> None:
    one, two = boxes()
    one[3, 30:, 30:] = 2
    rows = measured(one, two, "sam_med3d")
    assert [(row.label, row.counted) for row in rows] == [(1, True), (2, False)]
    assert set(rows[0].values) == {"dice", "surface_dice"}


def test_ours_counts_what_was_missed_or_invented_and_only_lists_what_is_absent() -> None:
    one, two = np.zeros((2, 4, 5, 6), np.uint8)
    one[0, 0, :3] = two[0, 0, :4] = 1
    two[2, 2, 2] = 2
    one[3, 3, 3] = 3
    one[0, 4, 4], two[3, 0, 0] = 5, 5
    found, missed, invented, absent, elsewhere = measured(one, two, labels=[1, 2, 3, 4, 5])
    assert (found.outcome, found.counted) == ("found", True)
    for row in (missed, invented):
        assert row.counted
        assert row.values["dice"] == row.values["surface_dice"] == 0
        assert row.values["hd95_mm"] == row.values["assd_mm"] == math.inf
    assert (missed.outcome, invented.outcome) == ("missed", "false positive")
    assert (absent.outcome, absent.counted, absent.values["dice"]) == ("absent", False, 1)
    assert elsewhere.outcome == "missed"  # nothing of it was found where it is
    assert math.isfinite(elsewhere.values["hd95_mm"])


def test_ours_is_in_millimetres_and_millilitres() -> None:
    (row,) = measured(*boxes(), spacing=(3, 0.8, 0.8))
    assert row.values["hd95_mm"] == pytest.approx(2.4)
    assert row.values["volume_error_ml"] == pytest.approx(30 * 3 * 0.64 / 1000)


def test_pictures_are_measured_in_pixels() -> None:
    one, two = (volume[1][..., None] for volume in boxes())
    (row,) = measured(one, two, unit="px")
    assert row.values["hd95_px"] == 3
    assert row.values["volume_error_px"] == 15
    assert not [name for name in row.values if name.endswith(("_mm", "_ml"))]


def test_a_slice_is_measured_as_the_plane_that_it_is() -> None:
    one, two = (volume[1:2] for volume in boxes())
    (row,) = measured(one, two, spacing=(9, 0.8, 0.5))
    (flat,) = measured(one[0], two[0], spacing=(0.8, 0.5))
    for name in ("surface_dice", "hd95_mm", "assd_mm"):
        assert row.values[name] == flat.values[name]
    assert row.values["volume_error_ml"] == pytest.approx(9 * flat.values["volume_error_ml"])


def test_an_object_of_one_slice_in_a_volume_has_faces() -> None:
    one, two = np.zeros((2, 5, 9, 9), np.uint8)
    one[2, 1:8, 1:8] = 1
    two[2, 2:8, 1:8] = 1
    (row,) = measured(one, two, spacing=(4, 1, 1))
    assert row.values["assd_mm"] == pytest.approx(7 / (49 + 42))


def test_labels_are_found_whatever_their_values() -> None:
    one, two = (volume.astype(np.uint32) for volume in boxes())
    for factor in (1, 255, 70_000):
        (row,) = measured(one * factor, two * factor)
        assert row.label == factor
        assert row.values["dice"] == pytest.approx(0.8275862)
    assert measured(one * 0, two * 0) == []


def test_protocols_say_what_they_do() -> None:
    for name in PROTOCOLS:
        protocol = get_protocol(name)
        assert protocol.name == name
        assert len(protocol.explanation) > 100
        ones = np.ones((3, 4), bool)
        assert protocol.measure(ones, ones, Voxel((1, 1)))["dice"] == 1
    assert "1.5 mm" in get_protocol(tolerance=1.5).explanation


def test_unknown_names_and_tolerances_are_told() -> None:
    with pytest.raises(
        ConfigError, match="protocol 'medpy' is not known: use one of samaritan, samed"
    ):
        get_protocol("medpy")
    with pytest.raises(ConfigError, match="'samed' fixes its own measures"):
        get_protocol("samed", tolerance=1)
    with pytest.raises(ConfigError, match="a distance of 0 or more, got nan"):
        get_protocol(tolerance=math.nan)
    with pytest.raises(GeometryError, match="one grid"):
        measured(np.zeros((2, 3, 4), int), np.zeros((2, 4, 3), int))
