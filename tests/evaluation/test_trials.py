"""A model that knows the answer scores 1, one that finds nothing 0; nothing depends on order or subset."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation.pictures_of import Nothing, disc, seer, three_discs, write_set
from evaluation.volumes_of import solid, write_case
from infer.oracle import BrightnessOracle

from samaritan import simulate
from samaritan.data import load_manifest
from samaritan.errors import ConfigError
from samaritan.evaluation.asking import answers
from samaritan.evaluation.prompting import correction, ellipse, points_for
from samaritan.evaluation.targets import Target, read_subject
from samaritan.evaluation.trial import Trial, parse_counts, parse_prompts
from samaritan.evaluation.trials import suited, try_model
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.io import write
from samaritan.metrics import dice, get_protocol
from samaritan.transforms import WindowPreprocess
from samaritan.volume import LabelMap, Volume

ALL = Trial(prompts=("box", "points", "clicks", "box+clicks"), clicks=4, baseline=True)
OURS = get_protocol()


def target_of(mask: np.ndarray, case: str = "p") -> Target:
    where = np.argwhere(mask)
    low, high = where.min(axis=0), where.max(axis=0) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    return Target(case, 1, "disc", tuple(low.tolist()), mask[box])


@dataclass(frozen=True)
class Double:
    """A session that answers from a list: the nth prompt gets the nth mask, the last one for ever."""

    masks: tuple[np.ndarray, ...]
    log: tuple[object, ...] = ()

    def click(self, point, *, positive=True):
        return replace(self, log=(*self.log, (tuple(point), positive)))

    def box(self, start, stop):
        return replace(self, log=(*self.log, (tuple(start), tuple(stop))))

    def quality(self):
        return 0.5

    @property
    def notes(self):
        return ()

    @property
    def mask(self):
        return SimpleNamespace(array=self.masks[min(len(self.log), len(self.masks)) - 1])


def comparable(rows):
    """Rows without what a clock says."""
    kept = [
        replace(r, values={k: v for k, v in r.values.items() if "seconds" not in k}) for r in rows
    ]
    return sorted(map(repr, kept))


# -- what is asked -----------------------------------------------------------------------------------


def test_a_perfect_answer_is_not_corrected_and_stays() -> None:
    mask = disc((30, 30), 9)[:, :, None]
    found = list(answers(Double((mask,)), target_of(mask), mask.shape, ALL))
    assert [(a.prompt, a.clicks) for a in found] == [
        ("ellipse", None), ("box", None),
        *(("points", n) for n in (1, 3, 5, 9)),
        *(("clicks", n) for n in (1, 2, 3, 4)), *(("box+clicks", n) for n in (0, 1, 2, 3, 4)),
    ]  # fmt: skip
    assert all((a.mask == mask).all() for a in found if a.prompt != "ellipse")
    assert [len(a.points) for a in found if a.prompt == "clicks"] == [1, 1, 1, 1]
    assert [a.seconds is None for a in found if a.prompt == "clicks"] == [False, True, True, True]


def test_each_click_corrects_the_last_answer() -> None:
    mask = disc((30, 30), 12)[:, :, None]
    too_large, too_small = disc((30, 30), 20)[:, :, None], disc((30, 30), 4)[:, :, None]
    trial = Trial(prompts=("clicks",), clicks=3)
    found = list(answers(Double((too_large, too_small, mask)), target_of(mask), mask.shape, trial))
    first, off, on = found[-1].points
    assert first.positive
    assert mask[first.at]
    assert not off.positive
    assert too_large[off.at] > mask[off.at]
    assert on.positive
    assert mask[on.at] > too_small[on.at]


def test_points_are_half_on_the_object_and_the_first_is_the_first_click() -> None:
    mask = disc((30, 20), 9)[:, :, None]
    for count, on in ((1, 1), (3, 1), (5, 2), (9, 4)):
        points = points_for(target_of(mask), mask.shape, count, Trial())
        assert len(points) == count
        assert [p.positive for p in points] == [True] * on + [False] * (count - on)
        assert all(mask[p.at] == p.positive for p in points)
    (alone,) = points_for(target_of(mask), mask.shape, 1, Trial())
    assert math.dist(alone.at, (30, 20, 0)) < 6  # at the core
    assert points_for(target_of(mask), mask.shape, 1, Trial(seed=1)) != (alone,)


@pytest.mark.parametrize("shape", [(40, 50, 1), (14, 15, 16)])
def test_corrections_on_a_part_of_the_grid_are_those_on_the_whole(shape) -> None:
    random = np.random.default_rng(0)
    for seed in range(5):
        reference = np.zeros(shape, bool)
        reference[3:9, 4:11] = True
        predicted = reference.copy()
        predicted[6:12, 5:7] ^= random.random((6, 2, shape[2])) < 0.9
        draws = torch.Generator().manual_seed(seed)
        click = correction(predicted, reference, draws, Trial())
        flat = [torch.from_numpy(m.squeeze())[None] for m in (predicted, reference)]
        draws = torch.Generator().manual_seed(seed)
        coords, labels = simulate.error_points(*flat, 1, draws, at_core=True)
        assert click is not None
        assert list(click.at)[: coords.shape[2]] == coords[0, 0].tolist()
        assert click.positive == bool(labels[0, 0])
    assert correction(reference, reference, draws, Trial()) is None


def test_an_ellipse_fills_a_disc_and_most_of_a_square() -> None:
    round_one = disc((50, 50), 40, size=100)
    start, stop = (10, 10), (91, 91)
    assert dice(ellipse(start, stop, (100, 100)), round_one) > 0.985
    square = np.zeros((100, 100), bool)
    square[10:91, 10:91] = True
    area = math.pi / 4
    assert dice(ellipse(start, stop, (100, 100)), square) == pytest.approx(
        2 * area / (1 + area), abs=0.005
    )
    ball = ellipse((2, 2, 2), (33, 33, 33), (35, 35, 35))
    assert ball.sum() / 31**3 == pytest.approx(math.pi / 6, abs=0.01)
    assert ellipse((4, 5, 0), (9, 8, 1), (10, 10, 1)).shape == (10, 10, 1)


# -- models ------------------------------------------------------------------------------------------


def test_a_model_that_knows_scores_1_and_sees_each_image_once(tmp_path) -> None:
    predictor, manifest = seer(), three_discs(tmp_path)
    tried = try_model(predictor, manifest, ALL, OURS)
    assert not tried.problems
    asked = [row for row in tried.rows if row.prompt != "ellipse"]
    assert len(asked) == 3 * (1 + 4 + 4 + 5)
    assert {row.values["dice"] for row in asked} == {1.0}
    assert all(row.values["hd95_px"] == 0 for row in asked)
    assert predictor.model.encoded == 3
    assert sum("opening_seconds" in row.values for row in tried.rows) == 3
    ellipses = [row.values["dice"] for row in tried.rows if row.prompt == "ellipse"]
    assert min(ellipses) > 0.92


def test_a_model_that_finds_nothing_misses_everything(tmp_path) -> None:
    tried = try_model(seer(Nothing), three_discs(tmp_path), replace(ALL, baseline=False), OURS)
    assert {(row.values["dice"], row.outcome, row.counted) for row in tried.rows} == {
        (0.0, "missed", True)
    }
    assert {row.values["hd95_px"] for row in tried.rows} == {math.inf}


def test_rows_depend_on_the_object_alone(tmp_path) -> None:
    manifest = three_discs(tmp_path)
    trial = Trial(box="jitter", click="random", clicks=3, baseline=True)
    whole = try_model(seer(Nothing), manifest, trial, OURS).rows
    again = try_model(seer(Nothing), manifest, trial, OURS).rows
    assert comparable(whole) == comparable(again)
    turned = replace(manifest, cases=manifest.cases[::-1])
    assert comparable(try_model(seer(Nothing), turned, trial, OURS).rows) == comparable(whole)
    one = try_model(seer(Nothing), manifest.select(ids=["p1"]), trial, OURS).rows
    assert comparable(one) == comparable(row for row in whole if row.case == "p1")
    other = try_model(seer(Nothing), manifest, replace(trial, seed=1), OURS).rows
    assert comparable(other) != comparable(whole)


def test_a_case_that_fails_is_told_and_the_others_go_on(tmp_path) -> None:
    manifest = three_discs(tmp_path)
    manifest.path(manifest.cases[0].images[0]).write_bytes(b"garbage")

    class Sometimes(BrightnessOracle):
        def _encode(self, x):
            if self.encoded == 1:
                raise RuntimeError("out of memory")
            return super()._encode(x)

    tried = try_model(seer(Sometimes), manifest, Trial(), OURS)
    assert list(tried.problems) == ["p0", "p2"]
    assert "RuntimeError: out of memory" in tried.problems["p2"]
    assert {row.case for row in tried.rows} == {"p1"}


def test_2d_models_refuse_volumes_and_3d_models_pictures(tmp_path) -> None:
    grid = Grid.from_spacing((6, 7, 5), (1, 1, 2))
    labels = np.zeros(grid.shape, np.uint8)
    labels[2:4, 2:5, 1:3] = 1
    write(Volume(labels * 100, grid), tmp_path / "v" / "images" / "a.nii.gz")
    write(LabelMap(labels, grid), tmp_path / "v" / "masks" / "a.nii.gz")
    tried = try_model(seer(), load_manifest(tmp_path / "v"), Trial(), OURS)
    assert "samaritan prepare slices" in tried.problems["a"]
    chain = WindowPreprocess(size=(8,) * 3)
    solid = Predictor(BrightnessOracle((8,) * 3), chain, device="cpu")
    tried = try_model(solid, three_discs(tmp_path / "p"), Trial(), OURS)
    assert "3D model for volumes" in tried.problems["p0"]


def test_3d_models_are_asked_in_3d_and_measured_in_mm(tmp_path) -> None:
    grid = Grid.from_spacing((20, 22, 24), (1.5, 1.5, 1.5))
    labels = np.zeros(grid.shape, np.uint8)
    labels[6:13, 7:15, 8:17] = 1
    write(Volume(20 + 180.0 * labels.astype(np.float32), grid), tmp_path / "images" / "a.nii.gz")
    write(LabelMap(labels, grid), tmp_path / "masks" / "a.nii.gz")
    chain = WindowPreprocess(size=(32,) * 3, spacing_mm=(1.5,) * 3)
    solid = Predictor(BrightnessOracle((32,) * 3), chain, device="cpu")
    tried = try_model(solid, load_manifest(tmp_path), replace(ALL, points=(1,)), OURS)
    assert not tried.problems
    asked = [row for row in tried.rows if row.prompt != "ellipse"]
    assert len(asked) == 1 + 1 + 4 + 5
    assert min(row.values["dice"] for row in asked) > 0.95
    assert max(row.values["hd95_mm"] for row in asked) <= 1.5


def test_objects_beyond_one_window_are_asked_and_measured_whole(tmp_path) -> None:
    labels = np.zeros((60, 20, 20), np.uint8)
    labels[4:56, 6:14, 6:14] = 1
    folder = write_case(tmp_path, LabelMap(labels, Grid.from_spacing(labels.shape)))
    trial = Trial(prompts=("box", "clicks"), clicks=1)
    whole = try_model(solid(16, 1.0), load_manifest(folder), trial, OURS)
    assert not whole.notes
    assert [row.values["dice"] for row in whole.rows] == [1.0, 1.0]
    encoding = [row.values["encoding_seconds"] for row in whole.rows]
    assert all(
        0 < spent < row.values["seconds"] for spent, row in zip(encoding, whole.rows, strict=True)
    )


def test_answers_that_were_stopped_are_told(tmp_path) -> None:
    labels = np.zeros((60, 20, 20), np.uint8)
    labels[4:56, 6:14, 6:14] = 1
    folder = write_case(tmp_path, LabelMap(labels, Grid.from_spacing(labels.shape)))
    found = try_model(
        solid(16, 1.0),
        load_manifest(folder),
        Trial(prompts=("clicks",), clicks=2, max_windows=2),
        OURS,
    )
    assert found.rows[0].values["dice"] < 0.7
    assert len(found.notes) == 1
    assert found.notes[0].startswith("2 answers: the object")
    assert "2 windows" in found.notes[0]


def test_a_trial_suits_the_model() -> None:
    both = suited(Trial(), solid())
    assert both.prompts == ("box", "clicks")
    blind = solid()
    blind.model.config.num_point_embeddings = 2
    assert suited(Trial(), blind).prompts == ("clicks",)
    assert suited(Trial(), seer()).prompts == Trial().prompts


def test_one_channel_is_shown(tmp_path) -> None:
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[6:14, 6:14, 6:14] = 1
    grid = Grid.from_spacing(labels.shape, (1.5,) * 3)
    folder = write_case(tmp_path, LabelMap(labels, grid))
    both = np.stack([np.zeros(labels.shape), 200 * labels], axis=-1).astype(np.float32)
    write(Volume(both, grid), folder / "images" / "a.nii.gz")
    trial = Trial(prompts=("clicks",), clicks=1)
    manifest = load_manifest(folder)
    several = try_model(solid(), manifest, trial, OURS)
    assert "has 2 channels" in several.problems["a"]
    (row,) = try_model(solid(), manifest, replace(trial, channel=1), OURS).rows
    assert row.values["dice"] == 1.0
    missing = try_model(solid(), manifest, replace(trial, channel="T1c"), OURS)
    assert "no channel 'T1c'" in missing.problems["a"]


def test_models_without_boxes_say_so(tmp_path) -> None:
    predictor = seer()
    predictor.model.config.num_point_embeddings = 2
    with pytest.raises(ConfigError, match=r"takes no boxes.*--prompts points,clicks"):
        try_model(predictor, three_discs(tmp_path), Trial(), OURS)


# -- objects -----------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path):
    """A label of two parts, and one of one part."""
    mask = np.zeros((64, 64), np.uint8)
    mask[5:15, 5:15] = 1
    mask[30:34, 40:44] = 1
    mask[50:60, 50:60] = 2
    return load_manifest(write_set(tmp_path, {"a": mask}))


def sizes(manifest, **options):
    subject = read_subject(manifest, manifest.cases[0], Trial(**options))
    return {(target.case, target.label): target.size for target in subject.targets}


def test_objects_are_labels_their_parts_or_the_largest_of_them(parts) -> None:
    assert sizes(parts) == {("a", 1): 116, ("a", 2): 100}
    assert sizes(parts, objects="largest") == {("a", 1): 100, ("a", 2): 100}
    assert sizes(parts, objects="components") == {("a#1", 1): 100, ("a#2", 1): 16, ("a", 2): 100}
    # names stay when small ones are left out
    assert sizes(parts, objects="components", min_size=50) == {("a#1", 1): 100, ("a", 2): 100}


def test_numbered_objects_are_drawn_by_the_seed(tmp_path) -> None:
    numbers = np.kron(np.arange(1, 17).reshape(4, 4), np.ones((16, 16))).astype(np.uint16)
    write_set(tmp_path, {"a": np.ones((64, 64))})
    labels = LabelMap(numbers[:, :, None], Grid.pixels((64, 64, 1)))
    write(labels, tmp_path / "masks" / "a.png")
    manifest = load_manifest(tmp_path)
    assert manifest.cases[0].label_kind == "instances"
    assert len(sizes(manifest)) == 16
    few = sizes(manifest, max_objects=3)
    assert len(few) == 3
    assert sizes(manifest, max_objects=3) == few
    assert set(few) < set(sizes(manifest, max_objects=5))
    assert any(set(sizes(manifest, max_objects=3, seed=s)) != set(few) for s in range(1, 4))


# -- words -------------------------------------------------------------------------------------------


def test_wrong_words_and_numbers_are_told() -> None:
    assert parse_prompts(" clicks,box ") == ("clicks", "box")
    with pytest.raises(ConfigError, match="'scribbles' is not known; use one of box, points"):
        parse_prompts("box,scribbles")
    with pytest.raises(ConfigError, match="points '1,x': expected whole numbers"):
        parse_counts("1,x", "points")
    with pytest.raises(ConfigError, match="'parts' is not known"):
        Trial(objects="parts")
    with pytest.raises(ConfigError, match="clicks must be 1 or more, got 0"):
        Trial(clicks=0)
    with pytest.raises(ConfigError, match="no prompts"):
        Trial(prompts=())
