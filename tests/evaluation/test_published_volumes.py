"""Published tests of 3D models are reproduced: where they look, what they show, what they count."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from cli.run import samaritan
from evaluation.pictures_of import seer
from evaluation.volumes_of import ball, near, oblique, solid, turned, write_case
from infer.oracle import BrightnessOracle

from samaritan.assembly import create_model
from samaritan.checkpoints import save_weights
from samaritan.data import load_manifest
from samaritan.errors import ConfigError
from samaritan.evaluation.asking import Answer
from samaritan.evaluation.overwriting import overwritten
from samaritan.evaluation.published_volumes import (
    M_SAM,
    NEUROSAM3D,
    PUBLISHED,
    SAM_MED3D,
    SAM_MED3D_2024,
    deeper,
    window_of,
)
from samaritan.evaluation.targets import Target
from samaritan.evaluation.trial import Trial
from samaritan.evaluation.trials import try_model
from samaritan.evaluation.ways import protocol_named, way_of
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.io import read_labels
from samaritan.metrics import dice
from samaritan.transforms import CubePreprocess, WindowPreprocess
from samaritan.volume import LabelMap, Volume


def asked(folder, test, predictor, *, clicks=None, **options):
    """What the model was shown, and the rows."""
    trial, asking = way_of(
        test.protocol, predictor, Trial(**options), clicks=clicks, chosen=False
    )  # fmt: skip
    tried = try_model(predictor, load_manifest(folder), trial, test.protocol, asking=asking)
    assert not tried.problems
    return predictor.model.prompts, tried.rows


def one_ball(tmp_path, centre=(10, 12, 13), radius=6, grid=None):
    mask = ball((24, 26, 28), centre, radius).astype(np.uint8)
    labels = LabelMap(mask, grid or Grid.from_spacing(mask.shape))
    return write_case(tmp_path, labels), labels


# -- windows -----------------------------------------------------------------------------------------


def test_windows_are_centred_on_the_box_of_the_object() -> None:
    mask = np.zeros((40, 40, 40), np.uint8)
    mask[2:5, 20:24, 30:39] = 1
    chain, draws = WindowPreprocess(size=(16,) * 3, spacing_mm=None), torch.Generator()
    drawn = Volume(mask, Grid.from_spacing(mask.shape))
    first = window_of(drawn, M_SAM, chain, draws)
    laid = drawn.to_grid(chain.frame_grid(drawn.grid, first)).array
    assert laid.sum() == mask.sum()
    where = np.argwhere(laid)
    assert where.min(axis=0).tolist() == [7, 6, 4]
    assert where.max(axis=0).tolist() == [9, 9, 12]
    mask[:, 10:40, :] = 1  # longer than the window: cut on both sides alike
    assert window_of(drawn, M_SAM, chain, draws) == (12, 17, 12)


def test_neurosam3d_looks_at_a_voxel_of_the_object_and_stays_inside() -> None:
    mask = ball((40, 40, 40), (6, 30, 20), 5).astype(np.uint8)
    chain = WindowPreprocess(size=(16,) * 3, spacing_mm=None)
    drawn = Volume(mask, Grid.from_spacing(mask.shape))
    places = {
        window_of(drawn, NEUROSAM3D, chain, torch.Generator().manual_seed(n)) for n in range(8)
    }
    assert len(places) > 4
    for place in places:
        assert all(0 <= start <= 24 for start in place)
        assert mask[tuple(slice(a, a + 16) for a in place)].any()


def ways(labels):
    yield labels
    yield turned(labels, (1, 2, 0), (0, 2))
    yield turned(labels, (2, 1, 0), (1,))
    yield oblique(turned(labels, (0, 2, 1), (0,)))
    yield labels.to_grid(labels.grid.resample((0.8, 1.1, 2.7)))


def round_trip(labels):
    """Dice of the published way there and back, with plain resampling: all by nearest neighbour."""
    lattice = labels.grid.resample((1.5,) * 3).reorient("RAS")
    mask = LabelMap((labels.array > 0).astype(np.uint8), labels.grid)
    return dice(mask.to_grid(lattice).to_grid(labels.grid).array, mask.array)


@pytest.mark.parametrize("way", range(5))
def test_oracles_reproduce_the_published_ceiling(tmp_path, way) -> None:
    mask = ball((44, 46, 48), (20, 22, 23), 12).astype(np.uint8)
    grid = Grid.from_spacing(mask.shape, (0.7, 0.8, 0.9), orientation="LPS", origin_mm=(4, 5, -6))
    reproduced(tmp_path, list(ways(LabelMap(mask, grid)))[way])


@pytest.mark.parametrize("way", range(5))
@pytest.mark.parametrize(
    "file",
    [
        "nnunet_raw/Dataset004_Hippocampus/labelsTr/hippocampus_001.nii.gz",
        "volumes/sct/t2s/t2s_seg.nii.gz",
    ],
)
def test_oracles_reproduce_the_ceiling_of_real_volumes(data_dir, tmp_path, file, way) -> None:
    labels = near(read_labels(data_dir / file))
    labels = LabelMap((labels.array > 0).astype(np.uint8), labels.grid)
    reproduced(tmp_path, list(ways(labels))[way])


def reproduced(folder, labels) -> None:
    write_case(folder, labels)
    _, rows = asked(folder, SAM_MED3D, solid(64, kind=Sharp), clicks=1, ceiling=True)
    found = {row.prompt: row.values["dice"] for row in rows}
    expected = round_trip(labels)
    # voxel centres that lie exactly between two of the other grid go to either, as rounding has it
    assert found["ceiling of one window"] == pytest.approx(expected, abs=0.01)
    assert found["ceiling"] == found["ceiling of one window"]
    assert found["clicks"] == pytest.approx(expected, abs=0.03)


class Sharp(BrightnessOracle):
    """Whatever is at least half bright."""

    def _encode(self, x):
        self.encoded += 1
        return x[:, :1] - (x.max() + x.min()) / 2


# -- clicks ------------------------------------------------------------------------------------------


class Halting(BrightnessOracle):
    """Finds nothing at first, then too much, then the object."""

    def _decode(self, **options):
        logits, quality = super()._decode(**options)
        turn = len(self.prompts) - 1
        return (logits, logits * 0 - 5, logits * 0 + 5)[min(turn, 2) - 2], quality


def test_sam_med3d_shows_all_clicks_and_the_last_mask(tmp_path) -> None:
    folder, _ = one_ball(tmp_path, grid=Grid.from_spacing((24, 26, 28), (1.5, 1.5, 1.5)))
    shown, rows = asked(folder, SAM_MED3D, solid(kind=Halting), clicks=4)
    labels = [one["points"][1][0].tolist() for one in shown]
    assert [len(one) for one in labels] == [1, 2, 3, 4]
    assert labels[-1][0] == labels[-1][1] == 1  # what is missing, twice
    assert labels[-1][2] == 0  # what is too much
    assert labels[-1][3] == 1  # nothing is wrong: once more on the object
    assert not shown[0]["masks"].any()
    assert (shown[1]["masks"] == -5).all()
    assert [row.clicks for row in rows] == [1, 2, 3, 4]
    assert set(rows[0].values) == {"dice", "surface_dice", "seconds", "encoding_seconds"}
    assert "encoding_seconds" not in rows[1].values


@pytest.mark.parametrize("test", [SAM_MED3D_2024, M_SAM])
def test_others_show_the_newest_click(tmp_path, test) -> None:
    folder, labels = one_ball(tmp_path)
    shown, rows = asked(folder, test, solid(kind=Halting))
    assert [one["points"][1].tolist() for one in shown] == [[[1]], [[1]], [[0]]]
    assert len(rows) == test.clicks
    # where nothing is wrong any more the answer stays
    assert [row.values["dice_in_window"] for row in rows[2:]] == [1.0] * (test.clicks - 2)
    assert labels.array.sum() > 0


def test_neurosam3d_leaves_one_turn_in_the_middle_without_clicks(tmp_path) -> None:
    class Never(BrightnessOracle):
        def _decode(self, **options):
            logits, quality = super()._decode(**options)
            return logits * 0 - 5, quality

    folder, _ = one_ball(tmp_path)
    shown, _ = asked(folder, NEUROSAM3D, solid(kind=Never))
    without = [turn for turn, one in enumerate(shown) if one["points"] is None]
    assert len(shown) == 11
    assert len(without) == 1
    assert 2 <= without[0] <= 8
    counts = [one["points"][1].shape[1] for one in shown if one["points"] is not None]
    assert counts == [n for n in range(1, 12) if n != without[0] + 1]


def test_first_clicks_of_the_older_test_lie_at_the_core_of_the_deeper_error() -> None:
    missing, too_much = (torch.zeros(1, 20, 20, 20, dtype=torch.bool) for _ in range(2))
    missing[0, 2:5, 2:5, 2:5] = True
    too_much[0, 8:17, 8:17, 8:17] = True
    core = deeper(missing, too_much)
    assert core[0, 12, 12, 12]
    assert not (core & ~too_much).any()
    assert core.sum() < too_much.sum() / 4
    assert deeper(missing, too_much & False)[0, 3, 3, 3]


# -- scores ------------------------------------------------------------------------------------------


def test_what_lies_outside_the_window_counts_on_the_grid_and_not_in_the_window(tmp_path) -> None:
    mask = np.zeros((40, 12, 12), np.uint8)
    mask[2:38, 3:9, 3:9] = 1
    write_case(tmp_path, LabelMap(mask, Grid.from_spacing(mask.shape)))
    _, rows = asked(tmp_path, M_SAM, solid(16, kind=Sharp))
    assert rows[-1].values["dice_in_window"] == 1.0
    assert rows[-1].values["dice"] == pytest.approx(2 * 16 / (16 + 36), abs=1e-6)


def test_the_older_test_keeps_the_best_of_all_clicks(tmp_path) -> None:
    class Worse(BrightnessOracle):
        def _decode(self, **options):
            logits, quality = super()._decode(**options)
            return (logits - 0.4 * len(self.prompts)), quality

    folder, _ = one_ball(tmp_path)
    _, rows = asked(folder, SAM_MED3D_2024, solid(kind=Worse), clicks=5)
    best = [row.values["dice_best_in_window"] for row in rows]
    now = [row.values["dice_in_window"] for row in rows]
    assert best == [max(now[: n + 1]) for n in range(5)]
    assert all(value == round(value, 4) for value in now)


def test_later_labels_overwrite_earlier_ones() -> None:
    part = np.ones((2, 3, 1), bool)
    one, two = part.copy(), part.copy()
    two[:, 1:] = False
    pairs = [
        (Target("a", label, "x", (0, 0, 0), part), Answer("clicks", n, mask))
        for label, mask in ((1, one), (2, two))
        for n in (1, 2)
    ]
    pairs[3] = (pairs[3][0], Answer("clicks", 2, part & False))
    found = {(t.label, a.clicks): a.mask for t, a in overwritten(pairs)}
    assert (found[1, 1] == ~two).all()
    assert found[1, 2].all()
    assert (found[2, 1] == two).all()
    assert not found[2, 2].any()


def test_an_object_that_the_lattice_misses_is_missed(tmp_path) -> None:
    mask = np.zeros((12, 12, 12), np.uint8)
    mask[0, 0, 0] = 1
    grid = Grid.from_spacing(mask.shape, (0.2, 0.2, 0.2))
    write_case(tmp_path, LabelMap(mask, grid))
    shown, rows = asked(tmp_path, SAM_MED3D, solid(8), clicks=2)
    assert not shown
    assert [(row.values["dice"], row.outcome) for row in rows] == [(0.0, "missed")] * 2


# -- words -------------------------------------------------------------------------------------------


def test_what_a_published_test_does_not_have_is_refused(tmp_path) -> None:
    volumes = solid()
    for test in PUBLISHED.values():
        assert "ground-truth-centred" in test.protocol.stated
        assert test.caution in test.protocol.explanation
        with pytest.raises(ConfigError, match="has clicks alone: leave out --prompts"):
            way_of(test.protocol, volumes, Trial(), clicks=None, chosen=True)
        with pytest.raises(ConfigError, match="windows of volumes, and 'oracle' is a 2D model"):
            way_of(test.protocol, seer(), Trial(), clicks=None, chosen=False)
        cubes = Predictor(BrightnessOracle((8,) * 3), CubePreprocess(size=(8,) * 3), device="cpu")
        with pytest.raises(ConfigError, match="looks at cubes of any size"):
            way_of(test.protocol, cubes, Trial(), clicks=None, chosen=False)
    with pytest.raises(ConfigError, match=r"'nobody' is not known: use one of .*neurosam3d"):
        protocol_named("nobody")
    with pytest.raises(ConfigError, match="fixes its own measures"):
        protocol_named("m_sam", tolerance=2.0)


def test_every_output_says_what_it_is(capsys, tmp_path) -> None:
    torch.manual_seed(0)
    save_weights(create_model("sam3d_tiny"), tmp_path / "tiny.safetensors")
    folder, _ = one_ball(tmp_path / "data")
    options = ("-m", tmp_path / "tiny.safetensors", "-d", folder, "-o", tmp_path / "out")
    done = samaritan(capsys, "evaluate", *options, "--protocol", "sam_med3d", "--clicks", 2)
    assert done.code == 0, done.err
    words = "ground-truth-centred: the window lies where the reference says"
    assert words in " ".join(done.out.split())
    assert words in " ".join(done.err.split())
    for name in ("report.html", "report.json", "cases.csv", "summary.csv"):
        assert words in (tmp_path / "out" / name).read_text("utf-8"), name
    lines = (tmp_path / "out" / "cases.csv").read_text("utf-8").splitlines()
    assert all(words in line for line in lines[1:])
    assert len(lines) == 3
    told = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))
    assert told["caution"] == words
    assert "2 clicks as published" in told["facts"]["asked"]
