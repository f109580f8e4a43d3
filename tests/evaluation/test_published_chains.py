"""Published evaluations are reproduced with their inputs: SAM-Med2D's laying and draws, SAMed's splines."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from evaluation.pictures_of import disc, seer, write_set
from infer.oracle import BrightnessOracle
from scipy.ndimage import zoom

from samaritan.assembly import create_model
from samaritan.data import load_manifest
from samaritan.data.places import place_of, slice_grid
from samaritan.errors import ConfigError
from samaritan.evaluation.labelling import (
    label_cases,
    samed_input,
    samed_intensities,
    samed_labels,
)
from samaritan.evaluation.sam_med2d import MedFrame, ask_as_sam_med2d, check_trial
from samaritan.evaluation.trial import Trial
from samaritan.evaluation.trials import try_model
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.io import write
from samaritan.metrics import get_protocol
from samaritan.models import ClassSam
from samaritan.models.classes import ClassOutput
from samaritan.models.sam import SamOutput
from samaritan.transforms import SlicePreprocess, WindowPreprocess
from samaritan.volume import LabelMap, Volume

MED2D, SAMED = get_protocol("sam_med2d"), get_protocol("samed")


# -- SAM-Med2D ---------------------------------------------------------------------------------------


def test_small_pictures_are_padded_around_and_come_back_exactly() -> None:
    frame = MedFrame((155, 225), (256, 256))
    assert frame.offset == (50, 15)
    picture = np.random.default_rng(0).random((155, 225)).astype(np.float32)
    laid = frame.lay(picture)
    assert laid[50, 15] == picture[0, 0]
    assert laid[:50].sum() == laid[:, 240:].sum() == 0
    logits = torch.from_numpy(laid)
    at_once = F.interpolate(logits[None, None, ::4, ::4], (256, 256), mode="bilinear")[0, 0]
    assert torch.equal(frame.back(logits[::4, ::4]), at_once[50:205, 15:240])
    assert frame.back(logits).numpy().tolist() == picture.tolist()


def test_other_pictures_are_stretched_by_the_pixel_at_the_upper_left() -> None:
    frame = MedFrame((181, 258), (256, 256))
    assert not frame.padded
    rows, columns = np.mgrid[:181, :258]
    laid = frame.lay(1000 * rows + columns)
    for i, j in ((0, 0), (1, 1), (2, 100), (255, 255)):
        assert laid[i, j] == 1000 * int(i * 181 / 256) + int(j * 258 / 256)
    assert frame.back(torch.zeros(64, 64)).shape == (181, 258)


class Watched(BrightnessOracle):
    """Its second mask of three is right and rated best; the others are empty."""

    def _decode(self, **options):
        logits, _ = super()._decode(**options)
        quality = torch.tensor([[0.1, 0.9, 0.2]])[:, : logits.shape[1]]
        logits = logits.clone()
        logits[:, [0, 2]] = -1
        return logits, quality


def asked(tmp_path, mask, **options):
    predictor = seer(Watched)
    manifest = load_manifest(write_set(tmp_path, {"a": mask}))
    tried = try_model(predictor, manifest, Trial(**options), MED2D, asking=ask_as_sam_med2d)
    assert not tried.problems
    return predictor.model.prompts, tried.rows


def test_the_best_of_three_masks_is_taken_and_measured_by_the_published_metrics(tmp_path) -> None:
    _, rows = asked(tmp_path, disc((30, 20), 9), clicks=3)
    assert len(rows) == 1 + 4 + 3
    assert {row.values["dice"] for row in rows} == {1.0}
    assert all(row.values["predicted_iou"] == pytest.approx(0.9) for row in rows)
    assert set(rows[0].values) - {"opening_seconds"} == {
        "dice", "iou", "predicted_iou", "seconds"
    }  # fmt: skip


def test_boxes_hold_the_largest_part_and_end_one_past_it(tmp_path) -> None:
    mask = disc((30, 20), 9) | disc((55, 55), 3)
    prompts, _ = asked(tmp_path, mask, prompts=("box",))
    assert prompts[0]["boxes"].tolist() == [[11, 21, 30, 40]]  # x0, y0, x1, y1


def test_points_are_one_shot_and_clicks_add_up_with_the_last_answer(tmp_path) -> None:
    prompts, _ = asked(tmp_path, disc((30, 20), 9), prompts=("points", "clicks"), clicks=3)
    labels = [p["points"][1][0].tolist() for p in prompts]
    assert [sorted(one) for one in labels[:4]] == [
        [1], [0, 0, 1], [0, 0, 0, 1, 1], [0] * 5 + [1] * 4
    ]  # fmt: skip
    assert [len(one) for one in labels[4:]] == [1, 2, 3]
    assert labels[-1] == [1, -1, -1]  # nothing is wrong: points without meaning, as published
    assert [p["masks"] is None for p in prompts] == [True] * 5 + [False] * 2


def test_pictures_of_unequal_sides_keep_their_axes(tmp_path) -> None:
    mask = np.zeros((40, 90), bool)
    mask[5:30, 50:80] = True
    _, rows = asked(tmp_path, mask, prompts=("box",))
    assert rows[0].values["dice"] > 0.95
    padded, rows = asked(tmp_path / "small", mask[:, 40:85], prompts=("box",))
    assert rows[0].values["dice"] == 1
    assert padded[0]["boxes"].tolist() == [[10 + 9, 5 + 12, 40 + 9, 30 + 12]]


def test_what_the_published_test_does_not_have_is_refused() -> None:
    for trial in (Trial(prompts=("box+clicks",)), Trial(box="jitter")):
        with pytest.raises(ConfigError, match="exact boxes, points and clicks"):
            check_trial(seer(), trial)
    chain = WindowPreprocess(size=(8,) * 3)
    solid = Predictor(BrightnessOracle((8,) * 3), chain, device="cpu")
    with pytest.raises(ConfigError, match="it is a 3D model"):
        check_trial(solid, Trial())


# -- SAMed -------------------------------------------------------------------------------------------


def test_slices_are_shrunk_and_enlarged_by_cubic_splines() -> None:
    plane = np.random.default_rng(0).random((100, 80)).astype(np.float32)
    wanted = zoom(zoom(plane, (224 / 100, 224 / 80), order=3), (512 / 224, 512 / 224), order=3)
    assert np.array_equal(samed_input(plane, (512, 512)), wanted)
    direct = zoom(plane, (512 / 100, 512 / 80), order=3)
    assert np.array_equal(samed_input(plane, (512, 512), shrink=None), direct)
    edge = np.zeros((224, 224), np.float32)
    edge[:, 112:] = 1
    assert samed_input(edge, (512, 512)).max() > 1.05  # cubic splines overshoot


class Bright(ClassSam):
    """Class 1 is bright, class 2 very bright; remembers its inputs."""

    def __init__(self) -> None:
        super().__init__(create_model("sam_tiny", num_classes=2, image_size=64).config)
        self.seen = []

    def forward(self, images, *_, **__):
        self.seen.append(images)
        logits = -torch.cat([(images[:, :1] - value).abs() for value in (0.0, 0.5, 1.0)], dim=1)
        return ClassOutput(logits, logits, torch.zeros(len(images), 3))


@pytest.fixture
def labeller(monkeypatch):
    def forward(model, images, **_):
        logits = model(images).low_res_logits
        low = F.interpolate(logits, model.low_res_size, mode="area")
        return SamOutput(low, torch.zeros(len(images), 3))

    monkeypatch.setattr("samaritan.models.Sam.forward", forward)
    chain = SlicePreprocess(
        size=(64, 64), mean=(0.0,) * 3, std=(255.0,) * 3, resize="stretch", window=(-125.0, 275.0)
    )
    return Predictor(Bright(), chain, device="cpu")


def body() -> tuple[Volume, np.ndarray]:
    grid = Grid.from_spacing((40, 30, 4), (1.0, 1.0, 5.0))
    truth = np.zeros(grid.shape, np.uint8)
    truth[4:24, 4:25, 1:3] = 1
    truth[28:38, 12:28, 1:4] = 2
    return Volume(np.array([-400, 75, 600], np.int16)[truth], grid), truth


def test_volumes_are_labelled_as_samed_does(labeller) -> None:
    volume, truth = body()
    values = samed_intensities(labeller, volume, None)
    assert np.unique(values).tolist() == [0.0, 0.5, 1.0]
    labels = samed_labels(labeller, volume, values)
    assert labels.grid.same_as(volume.grid)
    seen = labeller.model.seen[1][0]
    wanted = samed_input(values[:, :, 1].T, (64, 64))  # rows along y, as its preparation writes
    assert torch.equal(seen, torch.from_numpy(wanted).expand(3, -1, -1) * 255 / 255)
    classes = -np.stack([abs(wanted - v) for v in (0.0, 0.5, 1.0)])
    back = zoom(classes.argmax(axis=0), (30 / 64, 40 / 64), order=0)
    assert np.array_equal(labels.array[:, :, 1], back.T)
    assert (labels.array == truth).mean() > 0.95


def test_synapse_arrays_are_taken_as_they_are(labeller) -> None:
    values = np.random.default_rng(0).random((6, 7, 2)).astype(np.float32) * 1.2 - 0.1
    volume = Volume(values, Grid.pixels(values.shape))
    assert np.array_equal(samed_intensities(labeller, volume, None), values)


def test_class_models_are_measured_per_label_and_volume(labeller, tmp_path) -> None:
    volume, truth = body()
    write(volume, tmp_path / "images" / "a.nii.gz")
    write(LabelMap(truth, volume.grid), tmp_path / "masks" / "a.nii.gz")
    manifest = load_manifest(tmp_path)
    for protocol, columns in ((get_protocol(), "hd95_mm"), (SAMED, "hd95_voxels")):
        tried = label_cases(labeller, manifest, protocol)
        assert not tried.problems
        assert [(row.case, row.label) for row in tried.rows] == [("a", 1), ("a", 2)]
        assert min(row.values["dice"] for row in tried.rows) > 0.9
        assert all(columns in row.values for row in tried.rows)


def test_slices_of_one_volume_are_measured_together(labeller, tmp_path) -> None:
    from dataclasses import replace

    volume, truth = body()
    for k in range(4):
        place = place_of("scan", volume.grid, 2, k)
        grid = slice_grid(place)
        flat = LabelMap(truth, volume.grid).to_grid(grid)
        image = np.array([0, 128, 255], np.uint8)[flat.array]
        pixels = Grid.pixels((*grid.shape[:2], 1))
        write(Volume(image, pixels), tmp_path / "images" / f"s{k}.png")
        write(LabelMap(flat.array, pixels), tmp_path / "masks" / f"s{k}.png")
    manifest = load_manifest(tmp_path)
    cases = [
        replace(case, place=place_of("scan", volume.grid, 2, int(case.id[-1])), label_kind="map")
        for case in manifest
    ]
    manifest = replace(manifest, cases=tuple(cases))
    tried = label_cases(labeller, manifest, SAMED)
    assert not tried.problems
    assert [(row.case, row.label) for row in tried.rows] == [("scan", 1), ("scan", 2)]
    assert min(row.values["dice"] for row in tried.rows) > 0.9
    assert len(label_cases(labeller, manifest, get_protocol()).rows) == 8


def test_class_models_need_label_maps(labeller, tmp_path) -> None:
    volume, truth = body()
    write(volume, tmp_path / "images" / "a.nii.gz")
    for name in ("one", "two"):
        write(LabelMap(truth, volume.grid), tmp_path / "masks" / "a" / f"{name}.nii.gz")
    tried = label_cases(labeller, load_manifest(tmp_path), get_protocol())
    assert "measured against label maps" in tried.problems["a"]
