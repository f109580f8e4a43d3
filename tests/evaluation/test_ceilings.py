"""What a perfect answer would reach: the same however a volume lies, and what an oracle reaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluation.volumes_of import ball, near, oblique, solid, turned, write_case
from infer.oracle import BrightnessOracle

from samaritan.assembly import create_model
from samaritan.data import load_manifest
from samaritan.evaluation.ceiling import ceiling_dice, ceilings, nearest_logits
from samaritan.evaluation.trial import CEILING, CEILING_SPACING, CEILING_WINDOW, CEILINGS, Trial
from samaritan.evaluation.trials import try_model
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.io import read_labels
from samaritan.metrics import dice, get_protocol
from samaritan.transforms import CubePreprocess, SlicePreprocess
from samaritan.volume import LabelMap, Volume

OURS = get_protocol()


# -- what resolution costs ---------------------------------------------------------------------------


def test_nothing_is_lost_where_nothing_is_resampled() -> None:
    mask = ball((20, 22, 24), (9, 11, 12), 7)
    found = ceilings(solid(spacing=1.0), Volume(mask, Grid.from_spacing(mask.shape)))
    assert list(found) == [CEILING_SPACING, CEILING_WINDOW, CEILING]
    assert all((one == mask).all() for one in found.values())


def test_each_cost_is_told_apart() -> None:
    mask = ball((60, 40, 40), (20, 20, 20), 9) | ball((60, 40, 40), (44, 20, 20), 9)
    labels = LabelMap(mask.astype(np.uint8), Grid.from_spacing(mask.shape))
    (fine,) = ceiling_dice(solid(16), labels).values()
    (large,) = ceiling_dice(solid(64), labels).values()
    (rough,) = ceiling_dice(solid(64, low=16), labels).values()
    assert fine[CEILING_SPACING] == large[CEILING_SPACING] == rough[CEILING_SPACING] > 0.97
    assert fine[CEILING_WINDOW] < 0.7 < 0.97 < large[CEILING_WINDOW]
    assert fine[CEILING] > 0.96  # windows grow over the whole object
    assert 0.8 < rough[CEILING] < large[CEILING] - 0.01


def test_logits_near_an_object_are_better_than_its_share_of_each_cell() -> None:
    values = torch.from_numpy(ball((32, 32, 32), (15, 14, 17), 5)).float()
    shares = torch.logit(F.adaptive_avg_pool3d(values[None, None], 8).clamp(0.01, 0.99))
    found = nearest_logits(values, (8, 8, 8))

    def score(logits):
        large = F.interpolate(logits.reshape(1, 1, 8, 8, 8), (32,) * 3, mode="trilinear")
        return dice((large[0, 0] > 0).numpy(), values.numpy() > 0)

    assert score(found) > score(shares) + 0.1
    assert torch.equal(nearest_logits(values, (32, 32, 32)) > 0, values > 0)
    assert (nearest_logits(torch.zeros(8, 8), (2, 2)) < 0).all()


def test_models_of_pictures_have_a_ceiling_too() -> None:
    disc = (np.hypot(*(np.indices((48, 40)) - 20)) < 12)[:, :, None]
    chain = SlicePreprocess(size=(64, 64))
    model = BrightnessOracle((64, 64), channels=3)
    model.config.low_res_size = (16, 16)
    found = ceilings(Predictor(model, chain, device="cpu"), Volume(disc, Grid.pixels(disc.shape)))
    assert list(found) == [CEILING]
    assert dice(found[CEILING], disc) > 0.97


def test_models_that_look_at_cubes_have_a_ceiling_too() -> None:
    mask = ball((48, 50, 52), (20, 22, 30), 12)
    grid = Grid.from_spacing(mask.shape, (1.0, 1.0, 1.5))
    model = BrightnessOracle((32,) * 3)
    model.config.low_res_size = (16,) * 3
    cubes = Predictor(model, CubePreprocess(size=(32,) * 3), device="cpu")
    found = ceilings(cubes, Volume(mask, grid))
    assert list(found) == [CEILING]
    assert dice(found[CEILING], mask) > 0.95


def test_ceilings_stand_beside_the_answers(tmp_path) -> None:
    mask = ball((24, 26, 28), (11, 12, 13), 7)
    write_case(tmp_path, LabelMap(mask.astype(np.uint8), Grid.from_spacing(mask.shape)))
    trial = Trial(prompts=("clicks",), clicks=2, ceiling=True)
    tried = try_model(solid(low=8), load_manifest(tmp_path), trial, OURS)
    assert not tried.problems
    assert [(row.prompt, row.clicks) for row in tried.rows] == [
        *((name, None) for name in CEILINGS), ("clicks", 1), ("clicks", 2)
    ]  # fmt: skip
    assert all({"dice", "surface_dice", "hd95_mm"} <= set(row.values) for row in tried.rows)
    assert not any("seconds" in row.values for row in tried.rows if row.prompt in CEILINGS)
    model = create_model("sam3d_tiny")
    tried = try_model(Predictor(model, device="cpu"), load_manifest(tmp_path), trial, OURS)
    assert not tried.problems


# -- geometry: T16 and T17 of the specification ------------------------------------------------------


WAYS = (((1, 2, 0), (0,)), ((2, 1, 0), (1, 2)), ((0, 1, 2), (0, 1)))


def agree(labels: LabelMap, model: Predictor, tolerance: float) -> dict[int, dict[str, float]]:
    known = ceiling_dice(model, labels)
    for order, flips in WAYS:
        same = turned(labels, order, flips)
        for other in (same, oblique(same)):
            for label, found in ceiling_dice(model, other).items():
                assert found == pytest.approx(known[label], abs=tolerance), (order, flips)
    return known


def test_ceilings_agree_however_a_volume_lies() -> None:
    one = ball((34, 40, 12), (15, 18, 6), 5) | ball((34, 40, 12), (17, 26, 5), 4)
    array = one + 2 * ball((34, 40, 12), (25, 12, 5), 4).astype(np.uint8)
    grid = Grid.from_spacing(array.shape, (0.9, 0.9, 2.6), orientation="LAS", origin_mm=(3, -9, 40))
    known = agree(LabelMap(array.astype(np.uint8), grid), solid(32, low=8), 0.03)
    assert min(one[CEILING_SPACING] for one in known.values()) > 0.95


@pytest.mark.parametrize(
    ("file", "least"),
    [
        ("nnunet_raw/Dataset004_Hippocampus/labelsTr/hippocampus_001.nii.gz", 0.96),
        ("volumes/sct/t2/t2_seg-manual.nii.gz", 0.9),
    ],
)
def test_ceilings_of_real_volumes_agree_however_they_lie(data_dir, file, least) -> None:
    labels = near(read_labels(data_dir / file))
    known = agree(labels, solid(48, low=24), 0.02)
    assert min(found[CEILING_SPACING] for found in known.values()) > least


class Seer(BrightnessOracle):
    """Sees how much of each voxel is bright, and says so."""

    def _encode(self, x):
        share = (x - x.min()) / (x.max() - x.min())
        self.encoded += 1
        return torch.logit(share[:, :1].clamp(0.0025, 0.9975)) / 10


@pytest.mark.parametrize("way", ["as it is", "permuted", "oblique", "anisotropic"])
def test_an_oracle_in_a_session_reproduces_the_ceiling(data_dir, tmp_path, way) -> None:
    labels = read_labels(
        data_dir / "nnunet_raw/Dataset004_Hippocampus/labelsTr/hippocampus_001.nii.gz"
    )
    labels = replace(labels, array=(labels.array > 0).astype(np.uint8))
    if way == "permuted":
        labels = turned(labels, (2, 0, 1), (0, 2))
    elif way == "oblique":
        labels = oblique(labels)
    elif way == "anisotropic":
        labels = labels.to_grid(labels.grid.resample((0.8, 1.0, 3.0)))
    write_case(tmp_path, labels)
    trial = Trial(prompts=("box", "clicks"), clicks=1, ceiling=True)
    tried = try_model(solid(32, kind=Seer), load_manifest(tmp_path), trial, OURS)
    assert not tried.problems
    found = {row.prompt: row.values["dice"] for row in tried.rows}
    assert found["ceiling"] > 0.94
    assert found["box"] == pytest.approx(found["ceiling"], abs=0.01)
    assert found["clicks"] == pytest.approx(found["ceiling"], abs=0.01)
