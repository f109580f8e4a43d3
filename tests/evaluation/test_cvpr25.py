"""The CVPR 2025 challenge's test: boxes, clicks at the core of the largest error, all classes at once."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from infer.oracle import BrightnessOracle

from samaritan.data import load_manifest
from samaritan.data.converting import ConvertOptions, convert
from samaritan.errors import ConfigError
from samaritan.evaluation import cvpr25
from samaritan.evaluation.cvpr25 import ask_as_cvpr25, challenge_trial
from samaritan.evaluation.cvpr25_clicks import Axes, _depth, core_of_error
from samaritan.evaluation.cvpr25_scores import challenge_sheets
from samaritan.evaluation.targets import read_subject
from samaritan.evaluation.trial import Trial
from samaritan.evaluation.trials import try_model
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.io import write
from samaritan.io.npz_prompts import SliceBox
from samaritan.metrics import get_protocol
from samaritan.transforms import WindowPreprocess
from samaritan.volume import LabelMap, Volume

SHAPE = (8, 14, 16)
BOX = Trial(prompts=("box+clicks",), clicks=5)
OURS = get_protocol("cvpr25")


def organs() -> np.ndarray:
    gts = np.zeros(SHAPE, np.uint8)
    gts[2:6, 2:8, 3:8], gts[3:7, 9:12, 9:14] = 2, 5
    return gts


def challenge(folder, *, boxes=True, gts=None):
    drawn = organs() if gts is None else gts
    told = [SliceBox.around(drawn == v, 1).to_dict() for v in np.unique(drawn)[1:].tolist()]
    content = {
        "imgs": np.where(drawn, 200, 20).astype(np.uint8),
        "gts": drawn,
        "spacing": [2.0, 1, 1],
    }
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "a.npz", **content, **({"boxes": told} if boxes else {}))
    return load_manifest(folder)


def solid(kind=BrightnessOracle, **options) -> Predictor:
    chain = WindowPreprocess(size=(16,) * 3, spacing_mm=None)
    return Predictor(kind((16,) * 3, **options), chain, device="cpu")


class Double:
    """A session that answers a list of label maps, and remembers what it was told."""

    def __init__(self, maps, log=(), told=None):
        self.maps, self.log, self.told = maps, log, told if told is not None else []

    def _then(self, kind, where, name):
        self.told.append((kind, where, name))
        return Double(self.maps, (*self.log, (kind, where, name)), self.told)

    def click(self, point, *, positive=True, object="object"):
        return self._then("+" if positive else "-", tuple(point), object)

    def box(self, start, stop, *, object="object"):
        return self._then("box", (tuple(start), tuple(stop)), object)

    def quality(self, object="object"):
        return 0.5

    @property
    def objects(self):
        return tuple(dict.fromkeys(name for *_, name in self.log))

    @property
    def mask(self):
        return SimpleNamespace(array=self.maps.pop(0) if len(self.maps) > 1 else self.maps[0])


def asked(monkeypatch, manifest, maps, trial=BOX):
    double = Double(list(maps))
    monkeypatch.setattr(cvpr25, "opened", lambda *_: (double, 0.25))
    monkeypatch.setattr(cvpr25, "check_image", lambda *_: None)
    subject = read_subject(manifest, manifest.cases[0], trial)
    return list(ask_as_cvpr25(None, manifest, subject, trial)), double.told


# -- where is clicked --------------------------------------------------------------------------------


def by_the_book(predicted, reference):
    """The published rule, literally and slowly."""
    from scipy import ndimage

    wrong = predicted != reference
    parts, count = ndimage.label(wrong, np.ones((3, 3, 3)))
    sizes = [(parts == n).sum() for n in range(1, count + 1)]
    part = parts == 1 + int(np.argmax(sizes))
    inside, outside = np.argwhere(part), np.argwhere(~np.pad(part, 1)) - 1
    depth = np.array([((outside - at) ** 2).sum(1).min() for at in inside])
    deepest = inside[depth == depth.max()]
    return tuple(deepest[np.random.RandomState(42).choice(len(deepest))].tolist())


def test_clicks_are_at_the_core_of_the_largest_error() -> None:
    random = np.random.default_rng(0)
    for _ in range(10):
        reference = random.random((6, 7, 8)) < 0.4
        predicted = random.random((6, 7, 8)) < 0.3
        click = core_of_error(predicted, reference)
        assert click.at == by_the_book(predicted, reference)
        assert click.positive == reference[click.at]
        assert predicted[click.at] != reference[click.at]
    assert core_of_error(reference, reference) is None
    ball = np.zeros((9, 9, 9), bool)
    ball[2:7, 2:7, 2:7] = True
    assert core_of_error(np.zeros_like(ball), ball).at == (4, 4, 4)
    assert core_of_error(ball, np.zeros_like(ball)) == replace(
        core_of_error(np.zeros_like(ball), ball), positive=False
    )


def test_the_border_of_the_image_is_outside() -> None:
    whole = np.ones((5, 5, 5), bool)
    assert core_of_error(np.zeros_like(whole), whole).at == (2, 2, 2)


def test_very_large_errors_are_looked_at_in_blocks() -> None:
    part = np.zeros((20, 21, 22), bool)
    part[1:19, 2:20, 3:22] = True
    exact, coarse = _depth(part), _depth(part, large=100)
    assert coarse.shape == part.shape
    assert not coarse[~part].any()
    assert coarse[part].min() > 0
    deepest = np.argwhere(coarse == coarse.max())
    assert exact[tuple(deepest.T)].min() >= exact.max() - 2


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SPL", "PIR", "ASL"])
def test_axes_go_there_and_back(orientation) -> None:
    grid = Grid.from_spacing((3, 4, 5), (1, 1, 1), orientation=orientation)
    axes = Axes.of(grid)
    array = np.arange(60).reshape(3, 4, 5)
    there = axes.there(array)
    volume = Volume(array, grid).reorient("SPL")
    assert np.array_equal(there, volume.array)
    for at in ((0, 0, 0), (1, 2, 1)):
        assert array[axes.back(at)] == there[at]
    box = SliceBox(0, 1, 0, 1, 0, 2, 1)
    start, stop = axes.box_back(box)
    cut = array[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))]
    same = there[tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))]
    assert sorted(cut.ravel()) == sorted(same.ravel())
    pixels = Axes.of(Grid.pixels((3, 4, 5)))
    assert pixels.there(array) is array or np.array_equal(pixels.there(array), array)


# -- what is asked -----------------------------------------------------------------------------------


def test_every_class_gets_its_box_then_a_click_on_its_own_error(monkeypatch, tmp_path) -> None:
    gts = organs()
    truth = np.select([gts == 2, gts == 5], [1, 2])
    swapped = np.select([gts == 2, gts == 5], [1, 0])
    found, told = asked(monkeypatch, challenge(tmp_path), [swapped, truth])
    boxes = [where for kind, where, _ in told if kind == "box"]
    assert boxes[0] == ((2, 2, 3), (6, 8, 8))
    assert [(kind, name) for kind, _, name in told[2:]] == [("+", "class 2")]
    assert gts[told[2][1]] == 5
    assert [(t.label, a.clicks) for t, a in found] == [(v, n) for n in range(6) for v in (2, 5)]
    by_round = {(t.label, a.clicks): a for t, a in found}
    assert not by_round[5, 0].mask.any()
    assert (by_round[5, 1].mask == (gts == 5)).all()
    assert len(by_round[5, 5].points) == 1  # nothing was wrong any more
    assert by_round[5, 5].seconds is None
    assert [a.opening for _, a in found if a.opening is not None] == [0.25]


def test_a_case_without_boxes_begins_with_clicks(monkeypatch, tmp_path) -> None:
    gts = organs()
    truth = np.select([gts == 2, gts == 5], [1, 2])
    found, told = asked(monkeypatch, challenge(tmp_path, boxes=False), [truth])
    assert [kind for kind, *_ in told] == ["+", "+"]
    assert gts[told[0][1]] == 2
    assert [a.mask.any() for _, a in found] == [False] * 2 + [True] * 10
    clicks, _ = asked(monkeypatch, challenge(tmp_path), [truth], Trial(prompts=("clicks",)))
    assert [a.clicks for _, a in clicks] == [n for n in range(1, 6) for _ in range(2)]


def test_one_class_of_several_is_answered_as_among_all(monkeypatch, tmp_path) -> None:
    manifest, gts = challenge(tmp_path), organs()
    truth = np.select([gts == 2, gts == 5], [1, 2])
    double = Double([truth])
    monkeypatch.setattr(cvpr25, "opened", lambda *_: (double, 0.0))
    monkeypatch.setattr(cvpr25, "check_image", lambda *_: None)
    subject = read_subject(manifest, manifest.cases[0], BOX)
    alone = replace(subject, targets=subject.targets[1:])
    found = list(ask_as_cvpr25(None, manifest, alone, BOX))
    assert {t.label for t, _ in found} == {5}
    assert all((a.mask == (gts == 5)).all() for _, a in found)


def test_a_perfect_model_scores_4_and_an_empty_one_0(monkeypatch, tmp_path) -> None:
    manifest, gts = challenge(tmp_path), organs()
    truth = np.select([gts == 2, gts == 5], [1, 2])
    for answer, area in ((truth, 4.0), (truth * 0, 0.0)):
        double = Double([answer])
        monkeypatch.setattr(cvpr25, "opened", lambda *_, double=double: (double, 0.0))
        tried = try_model(solid(), manifest, BOX, OURS, asking=ask_as_cvpr25)
        assert not tried.problems
        cases, classes = challenge_sheets(tried.rows, ["a"])
        (one,) = cases.rows
        assert (one["CaseName"], one["num_class"]) == ("a", 2)
        assert one["DSC_AUC"] == one["NSD_AUC"] == area
        assert [line["class"] for line in classes.rows] == ["label 2", "label 5"]
        assert "DSC AUC" in cases.words


def test_volumes_and_their_converted_twins_are_asked_alike(tmp_path) -> None:
    grid = Grid.from_spacing((16, 14, 8), (1, 1, 2), orientation="RAS", origin_mm=(3, 4, 5))
    labels = np.zeros(grid.shape, np.uint8)
    labels[3:9, 2:8, 2:5], labels[10:14, 9:12, 3:6] = 1, 2
    noise = np.random.default_rng(0).integers(0, 90, grid.shape)
    image = (np.where(labels, 150, 20) + noise).astype(np.uint8)
    write(Volume(image, grid), tmp_path / "set/images/a.nii.gz")
    write(LabelMap(labels, grid), tmp_path / "set/masks/a.nii.gz")
    before = load_manifest(tmp_path / "set")
    after = convert(before, tmp_path / "npz", ConvertOptions("cvpr25"))
    told = []
    for manifest in (before, after):
        subject = read_subject(manifest, manifest.cases[0], BOX)
        found = list(ask_as_cvpr25(solid(), manifest, subject, BOX))
        grid = subject.image.grid
        told.append(
            [
                (
                    target.label, answer.clicks, int(answer.mask.sum()),
                    [(grid.index_to_mm(c.at).round(3).tolist(), c.positive) for c in answer.points],
                    np.sort(grid.index_to_mm(np.array(answer.box) - 0.5), axis=0).round(3).tolist(),
                )
                for target, answer in found
            ]
        )  # fmt: skip
    assert told[0] == told[1]
    assert any(points for _, _, _, points, _ in told[0])


def test_models_without_boxes_are_asked_by_clicks() -> None:
    assert challenge_trial(solid(), Trial(), chosen=False).prompts == ("box+clicks",)
    found = challenge_trial(solid(boxes=False), Trial(clicks=9), chosen=False)
    assert (found.prompts, found.clicks) == (("clicks",), 5)
    assert challenge_trial(solid(), Trial(prompts=("clicks",)), chosen=True).prompts == ("clicks",)
    for trial in (Trial(), Trial(prompts=("clicks",), baseline=True), Trial(objects="components")):
        with pytest.raises(ConfigError, match="asks for whole labels with a box and five clicks"):
            challenge_trial(solid(), trial, chosen=True)


def test_boxes_that_do_not_go_with_labels_are_told(tmp_path) -> None:
    manifest = challenge(tmp_path)
    gts = organs()
    gts[0, 0, 0] = 7
    with np.load(tmp_path / "a.npz", allow_pickle=True) as held:
        np.savez(tmp_path / "a.npz", **{**held, "gts": gts})
    tried = try_model(solid(), manifest, BOX, OURS, asking=ask_as_cvpr25)
    assert "2 boxes for 3 labels [2, 5, 7]" in tried.problems["a"]
