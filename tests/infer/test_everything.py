"""Everything-mode against a slow restatement of the published algorithm, and its own laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from samaritan.errors import ConfigError, PromptError
from samaritan.geometry import Grid
from samaritan.infer.enlarging import Enlarging
from samaritan.infer.everything import generate_masks
from samaritan.infer.everything_options import EverythingOptions, crop_boxes, point_grid
from samaritan.infer.mask_records import MaskRecord, label_map
from samaritan.infer.predictor import Predictor
from samaritan.models import Sam, create_model, get_config
from samaritan.phantoms import phantom
from samaritan.phantoms.picture import phantom_picture
from samaritan.volume import Volume

# -- the published algorithm, slowly -------------------------------------------------------------


def slow_everything(predictor: Predictor, volume: Volume, o: EverythingOptions) -> list[dict]:
    """Restate everything-mode for a picture: one click and one mask at a time, in float64."""
    rows, columns = volume.shape[:2]
    found = []
    for (x0, y0, x1, y1), layer in slow_crops(columns, rows, o):
        kept = []
        piece = volume.crop((y0, x0, 0), (y1, x1, 1))
        embedded = predictor.open(piece).embedded((2, 0))
        height, width = predictor.preprocess.content_size(piece.grid)
        n = int(o.points_per_side / o.crop_n_points_downscale_factor**layer)
        for k in range(n * n):
            x = (k % n + 0.5) / n * (x1 - x0)
            y = (k // n + 0.5) / n * (y1 - y0)
            click = torch.tensor([[[x * width / (x1 - x0), y * height / (y1 - y0)]]])
            low, quality = predictor.decode(
                embedded, points=(click.float(), torch.ones(1, 1)), multimask=True
            )
            for t in range(low.shape[1]):
                logits = slow_resize(low[0, t].double().numpy(), predictor.preprocess.size)
                logits = slow_resize(logits[:height, :width], (y1 - y0, x1 - x0))
                mask = np.zeros((rows, columns), bool)
                mask[y0:y1, x0:x1] = logits > 0
                outer = (logits > -o.stability_score_offset).sum()
                stability = (logits > o.stability_score_offset).sum() / max(outer, 1)
                if float(quality[0, t]) <= o.pred_iou_thresh or not mask.any():
                    continue
                box = slow_box(mask)
                pairs = zip(box, (x0, y0, x1, y1), (0, 0, columns, rows), strict=True)
                cut = any(abs(b - c) <= 20 and abs(b - p) > 20 for b, c, p in pairs)
                if stability >= o.stability_score_thresh and not cut:
                    kept.append(
                        {
                            "mask": mask,
                            "box": box,
                            "quality": float(quality[0, t]),
                            "stability": stability,
                            "point": (x + x0, y + y0),
                            "crop": (x0, y0, x1, y1),
                        }
                    )
        found += slow_nms(kept, [m["quality"] for m in kept], o.box_nms_thresh)
    if o.crop_n_layers:
        sizes = [(m["crop"][2] - m["crop"][0]) * (m["crop"][3] - m["crop"][1]) for m in found]
        found = slow_nms(found, [1 / s for s in sizes], o.crop_nms_thresh)
    if o.min_mask_region_area:
        scores = [float(not slow_tidy(m, o.min_mask_region_area)) for m in found]
        found = slow_nms(found, scores, max(o.box_nms_thresh, o.crop_nms_thresh))
    return found


def slow_crops(width: int, height: int, o: EverythingOptions) -> list[tuple]:
    crops = [((0, 0, width, height), 0)]
    for layer in range(1, o.crop_n_layers + 1):
        n = 2**layer
        overlap = int(o.crop_overlap_ratio * min(width, height) * (2 / n))
        w = math.ceil((overlap * (n - 1) + width) / n)
        h = math.ceil((overlap * (n - 1) + height) / n)
        for i in range(n):
            for j in range(n):
                x0, y0 = i * (w - overlap), j * (h - overlap)
                crops.append(((x0, y0, min(x0 + w, width), min(y0 + h, height)), layer))
    return crops


def slow_resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Bilinear, pixel centres at halves, edges continued."""
    for axis, n in enumerate(shape):
        size = image.shape[axis]
        where = np.clip((np.arange(n) + 0.5) * size / n - 0.5, 0, None)
        low = np.minimum(where.astype(int), size - 1)
        high = np.minimum(low + 1, size - 1)
        part = (where - low).reshape(-1, 1) if axis == 0 else (where - low).reshape(1, -1)
        image = image.take(low, axis) * (1 - part) + image.take(high, axis) * part
    return image


def slow_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    y, x = np.nonzero(mask)
    return int(x.min()), int(y.min()), int(x.max()), int(y.max())


def slow_nms(masks: list[dict], scores: list[float], threshold: float) -> list[dict]:
    kept: list[dict] = []
    for n in sorted(range(len(masks)), key=lambda n: -scores[n]):
        if all(slow_iou(masks[n]["box"], other["box"]) <= threshold for other in kept):
            kept.append(masks[n])
    return kept


def slow_iou(a: tuple, b: tuple) -> float:
    both = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return both / union if union else 0.0


def slow_tidy(found: dict, min_area: int) -> bool:
    before, mask = found["mask"], found["mask"].copy()
    for region in slow_regions(~mask):
        if region.sum() < min_area:
            mask |= region
    islands = slow_regions(mask)
    if islands and any(i.sum() < min_area for i in islands):
        large = [i for i in islands if i.sum() >= min_area]
        mask = np.any(large or [max(islands, key=np.sum)], axis=0)
    found["mask"], found["box"] = mask, slow_box(mask)
    return bool((mask != before).any())


def slow_regions(mask: np.ndarray) -> list[np.ndarray]:
    regions, n = ndimage.label(mask, np.ones((3, 3)))
    return [regions == k for k in range(1, n + 1)]


def assert_same(records: list[MaskRecord], expected: list[dict]) -> None:
    """Same masks in the same order; where rounding decides, two pixels of a mask may differ."""
    assert len(records) == len(expected)
    for one, other in zip(records, expected, strict=True):
        assert one.point_coords == (pytest.approx(other["point"]),)
        assert one.predicted_iou == pytest.approx(other["quality"], abs=1e-5)
        assert one.stability_score == pytest.approx(other["stability"], abs=1e-3)
        assert (one.mask() != other["mask"]).sum() <= 2
        x0, y0, x1, y1 = other["box"]
        assert one.bbox == (x0, y0, x1 - x0, y1 - y0)
        x0, y0, x1, y1 = other["crop"]
        assert one.crop_box == (x0, y0, x1 - x0, y1 - y0)
        assert one.area == one.mask().sum()


# -- models --------------------------------------------------------------------------------------


class Blobs(Predictor):
    """Answers each click with three discs around it, whose size and quality the click's place decides."""

    ragged = 5.0

    def decode(self, embedded, *, points=None, multimask=False, **_):
        x, y = points[0][:, 0, 0], points[0][:, 0, 1]
        rows, columns = self.low_res_size
        size = torch.tensor(self.preprocess.size)
        cy = (torch.arange(rows) + 0.5) * size[0] / rows
        cx = (torch.arange(columns) + 0.5) * size[1] / columns
        far = torch.hypot(cx[None, None] - x[:, None, None], cy[None, :, None] - y[:, None, None])
        radius = torch.tensor([3.0, 7.0, 12.0]) + (x[:, None] * 0.37 + y[:, None] * 0.61) % 4
        wave = torch.sin(cx * 0.9)[None, None, None] * torch.sin(cy * 1.1)[None, None, :, None]
        quality = 0.5 + 0.5 * (x[:, None] * 1.3 + y[:, None] * 0.7 + radius * 3.1).sin()
        return radius[:, :, None, None] - far[:, None] + self.ragged * wave, quality

    def decode_above(self, embedded, points, limit):
        low, quality = self.decode(embedded, points=points, multimask=True)
        return low[quality > limit], quality


@pytest.fixture(scope="module")
def model() -> Sam:
    torch.manual_seed(0)
    return create_model("sam_tiny")


@pytest.fixture
def blobs(model) -> Blobs:
    return Blobs(model, device="cpu")


@pytest.fixture
def picture() -> Volume:
    return phantom_picture("skin", shape=(90, 120), seed=1).image


# -- as published --------------------------------------------------------------------------------


def test_defaults_are_the_published_ones():
    assert EverythingOptions() == EverythingOptions(
        points_per_side=32,
        points_per_batch=64,
        pred_iou_thresh=0.88,
        stability_score_thresh=0.95,
        stability_score_offset=1.0,
        box_nms_thresh=0.7,
        crop_n_layers=0,
        crop_nms_thresh=0.7,
        crop_overlap_ratio=512 / 1500,
        crop_n_points_downscale_factor=1,
        point_grids=None,
        min_mask_region_area=0,
    )


def test_points_are_centres_of_equal_cells_with_x_fastest():
    assert point_grid(2).tolist() == [[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]]
    options = EverythingOptions(
        points_per_side=9, crop_n_layers=2, crop_n_points_downscale_factor=2
    )
    assert [len(options.points(layer)) for layer in range(3)] == [81, 16, 4]


def test_one_layer_of_crops_has_one_and_four_boxes():
    crops = list(crop_boxes((100, 200), 1, 512 / 1500))
    assert crops == [
        ((0, 0, 200, 100), 0),
        ((0, 0, 117, 67), 1),
        ((0, 33, 117, 100), 1),
        ((83, 0, 200, 67), 1),
        ((83, 33, 200, 100), 1),
    ]


def test_a_picture_of_few_pixels_has_no_empty_crops():
    for (x0, y0, x1, y1), _ in crop_boxes((3, 5), 4, 512 / 1500):
        assert 0 <= x0 < x1 <= 5
        assert 0 <= y0 < y1 <= 3


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"points_per_batch": 7},
        {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.7, "points_per_side": 9},
        {"box_nms_thresh": 0.2},
        {"crop_n_layers": 1},
        {"crop_n_layers": 2, "crop_n_points_downscale_factor": 2, "crop_nms_thresh": 0.4},
        {"min_mask_region_area": 30},
        {"min_mask_region_area": 200, "crop_n_layers": 1, "box_nms_thresh": 0.5},
    ],
)
def test_masks_agree_with_the_published_algorithm(blobs, picture, settings):
    easy = {"points_per_side": 6, "pred_iou_thresh": 0.2, "stability_score_thresh": 0.5}
    options = EverythingOptions(**{**easy, **settings})
    records = generate_masks(blobs, picture, options=options)
    expected = slow_everything(blobs, picture, options)
    assert len(expected) > 5
    assert_same(records, expected)


@pytest.mark.parametrize("settings", [{}, {"crop_n_layers": 1}, {"min_mask_region_area": 40}])
def test_masks_of_a_real_decoder_agree_with_the_published_algorithm(model, picture, settings):
    predictor = Predictor(model, device="cpu")
    options = EverythingOptions(
        points_per_side=4,
        pred_iou_thresh=0.05,
        stability_score_thresh=0.3,
        stability_score_offset=0.01,
        box_nms_thresh=1.0,
        crop_nms_thresh=1.0,
        **settings,
    )
    records = generate_masks(predictor, picture, options=options)
    assert len(records) > 8
    assert_same(records, slow_everything(predictor, picture, options))


@pytest.mark.parametrize("target", [(48, 64), (9, 12), (90, 120), (48, 12)])
def test_logits_are_brought_to_pixels_in_two_steps(target):
    low = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 16, 16))).float()
    enlarging = Enlarging((16, 16), (64, 64), (48, 64), target)
    for mask in low:
        corner, pixels = enlarging.part(mask, np.array([0, 0, 15, 15]))
        expected = slow_resize(slow_resize(mask.double().numpy(), (64, 64))[:48], target)
        assert corner == (0, 0)
        assert pixels.numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("target", [(48, 64), (9, 12), (90, 120)])
@pytest.mark.parametrize("box", [(0, 0, 0, 0), (4, 3, 9, 5), (15, 2, 15, 11), (2, 13, 6, 15)])
def test_nothing_outside_of_an_enlarged_part_is_above_its_surroundings(target, box):
    x0, y0, x1, y1 = box
    low = torch.full((16, 16), -1.0)
    low[y0 : y1 + 1, x0 : x1 + 1] = torch.rand(y1 - y0 + 1, x1 - x0 + 1) + 1
    enlarging = Enlarging((16, 16), (64, 64), (48, 64), target)
    (top, left), pixels = enlarging.part(low, np.array(box))
    _, whole = enlarging.part(low, np.array([0, 0, 15, 15]))
    assert whole.shape == target
    rows, columns = slice(top, top + pixels.shape[0]), slice(left, left + pixels.shape[1])
    torch.testing.assert_close(pixels, whole[rows, columns], rtol=0, atol=1e-5)
    rest = whole.clone()
    rest[rows, columns] = -1
    assert (rest + 1).abs().max() < 1e-5


# -- laws ----------------------------------------------------------------------------------------


def test_clicks_may_be_given(blobs, picture):
    records = generate_masks(
        blobs,
        picture,
        points_per_side=None,
        point_grids=[[(0.5, 0.25)]],
        pred_iou_thresh=0,
        stability_score_thresh=0,
        box_nms_thresh=1.0,
    )
    assert {r.point_coords for r in records} == {((60.0, 22.5),)}
    assert all(r.mask()[22, 60] for r in records)
    assert [r.predicted_iou for r in records] == sorted(
        (r.predicted_iou for r in records), reverse=True
    )


def test_nothing_found_is_an_empty_list(blobs, picture):
    assert generate_masks(blobs, picture, points_per_side=2, pred_iou_thresh=1.0) == []
    tidied = {"min_mask_region_area": 5, "crop_n_layers": 1}
    assert generate_masks(blobs, picture, points_per_side=2, pred_iou_thresh=1.0, **tidied) == []


def test_empty_masks_are_dropped_even_without_thresholds(model, picture):
    class Nothing(Blobs):
        def decode(self, embedded, **prompts):
            low, quality = super().decode(embedded, **prompts)
            low[:, 0], low[:, 1] = -3.0, math.nan
            quality[:, 2] = math.nan
            return low, quality

    empty = Nothing(model, device="cpu")
    settings = {"pred_iou_thresh": 0, "stability_score_thresh": 0, "points_per_side": 2}
    assert generate_masks(empty, picture, **settings) == []


def test_progress_is_told_up_to_the_end(blobs, picture):
    told: list[tuple[str, int, int]] = []
    generate_masks(
        blobs,
        picture,
        points_per_side=4,
        points_per_batch=10,
        crop_n_layers=1,
        crop_n_points_downscale_factor=2,
        progress=lambda *step: told.append(step),
    )
    done = [10, 16, 20, 24, 28, 32]
    assert told == [("everything", n, 32) for n in done]


def test_embeddings_of_crops_are_not_kept(blobs, picture):
    generate_masks(blobs, picture, points_per_side=2, crop_n_layers=1)
    assert blobs._cache.bytes == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_masks_of_a_slice_do_not_depend_on_the_order_of_the_array(blobs, axis):
    volume = phantom("mr", shape=(24, 20, 16), spacing_mm=(9.0, 10.0, 12.0)).image
    turned = volume.reorient("SRA")
    across = turned.grid.orientation.index({"L": "R", "P": "A", "S": "S"}["LPS"[axis]])
    flipped = "LPS"[axis] != turned.grid.orientation[across]
    index = 6
    other = volume.shape[axis] - 1 - index if flipped else index
    settings = {"points_per_side": 4, "pred_iou_thresh": 0.2, "stability_score_thresh": 0.3}
    one = generate_masks(blobs, volume, axis=axis, index=index, **settings)
    two = generate_masks(blobs, turned, axis=across, index=other, **settings)
    assert len(one) > 3
    assert [r.segmentation for r in one] == [r.segmentation for r in two]
    labels = label_map(one, volume)
    assert labels.grid == volume.grid
    assert labels.array.any()
    assert not np.delete(labels.array, index, axis).any()
    back = label_map(two, turned).to_grid(volume.grid)
    assert np.array_equal(back.array, labels.array)


def test_masks_fit_slices_with_long_pixels(blobs):
    """A slice of 12 x 40 pixels that is square in millimetres fills the whole input."""
    blobs.ragged = 0.0
    grid = Grid.from_spacing((40, 12, 3), (1.0, 40 / 12, 9.0), orientation="LPS")
    volume = Volume(np.random.default_rng(0).integers(0, 99, grid.shape), grid)
    records = generate_masks(
        blobs, volume, index=1, points_per_side=3, pred_iou_thresh=0, stability_score_thresh=0
    )
    assert len(records) > 3
    for found in records:
        (x, y) = found.point_coords[0]
        assert found.mask().shape == (12, 40)
        assert found.mask()[int(y), int(x)]


# -- refusals ------------------------------------------------------------------------------------


def test_a_volume_needs_an_index(blobs):
    volume = Volume(np.zeros((8, 9, 5)), Grid.from_spacing((8, 9, 5), (1, 1, 4)))
    with pytest.raises(PromptError, match="5 slices across axis 2: say which one"):
        generate_masks(blobs, volume)
    with pytest.raises(PromptError, match="slice 5 does not exist: axis 2 has slices 0 to 4"):
        generate_masks(blobs, volume, index=5)
    with pytest.raises(PromptError, match="slice -1 does not exist"):
        generate_masks(blobs, volume, index=-1)


def test_models_that_cannot_are_refused(picture):
    solid = Predictor(create_model("sam3d_tiny"), device="cpu")
    with pytest.raises(ConfigError, match="take a 2D model"):
        generate_masks(solid, picture)
    single = Predictor(Sam(replace(get_config("sam_tiny"), num_mask_tokens=1)), device="cpu")
    with pytest.raises(ConfigError, match="gives one"):
        generate_masks(single, picture)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"points_per_sid": 3}, "Did you mean points_per_side"),
        ({"points_per_side": 0}, "points_per_side must be a whole number"),
        ({"points_per_side": None}, "either points_per_side or point_grids"),
        ({"point_grids": [[(0.5, 0.5)]]}, "either points_per_side or point_grids"),
        ({"points_per_side": None, "point_grids": [[(5, 5)]]}, "each from 0 to 1"),
        ({"points_per_side": None, "point_grids": [], "crop_n_layers": 1}, "each of 2 layers"),
        ({"points_per_batch": 0}, "points_per_batch must be a whole number of at least 1"),
        ({"pred_iou_thresh": math.nan}, "pred_iou_thresh must be a finite number"),
        ({"crop_n_layers": 30}, "at most 8"),
        ({"crop_overlap_ratio": 1.5}, "from 0 to below 1"),
        ({"stability_score_offset": -1.0}, "must not be negative"),
        (
            {"points_per_side": 3, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2},
            "no clicks",
        ),
    ],
)
def test_bad_settings_are_refused(blobs, picture, settings, text):
    with pytest.raises(ConfigError, match=text):
        generate_masks(blobs, picture, **settings)


def test_all_bad_settings_are_told_at_once():
    with pytest.raises(ConfigError, match=r"points_per_batch.*min_mask_region_area"):
        EverythingOptions(points_per_batch=-1, min_mask_region_area=-2)
