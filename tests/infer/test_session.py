"""Sessions: laws of the log, and masks that land on the image's own grid whatever lies between."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from infer.oracle import BrightnessOracle

from samaritan.errors import GridMismatch, PromptError
from samaritan.geometry import Grid
from samaritan.infer import Predictor, Session
from samaritan.models import create_model
from samaritan.transforms import SlicePreprocess, WindowPreprocess
from samaritan.volume import LabelMap, Volume

CODES = [
    "".join(letters)
    for order in itertools.permutations(("RL", "AP", "SI"))
    for letters in itertools.product(*order)
]


def oblique(grid: Grid, degrees: float) -> Grid:
    """Tilt a grid about the patient's x axis."""
    a = np.deg2rad(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    affine = grid.affine.copy()
    affine[:3] = turn @ affine[:3]
    return Grid(grid.shape, affine)


def ellipsoid(grid: Grid, centre_mm: tuple[float, ...], radii_mm: tuple[float, ...]) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    return (((grid.index_to_mm(index) - centre_mm) / np.asarray(radii_mm)) ** 2).sum(axis=-1) <= 1


def bright(
    grid: Grid, centre_mm: tuple[float, ...], radii_mm: tuple[float, ...]
) -> tuple[Volume, np.ndarray]:
    mask = ellipsoid(grid, centre_mm, radii_mm)
    return Volume(np.where(mask, 200, 20).astype(np.int16), grid), mask


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def cubes(size: int = 32, spacing: float = 1.5, **options: object) -> Predictor:
    oracle = BrightnessOracle((size,) * 3)
    chain = WindowPreprocess(size=(size,) * 3, spacing_mm=(spacing,) * 3)
    return Predictor(oracle, chain, device="cpu", **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny() -> Predictor:
    torch.manual_seed(0)
    model = create_model("sam3d_tiny")
    return Predictor(model, WindowPreprocess(size=(32, 32, 32)), device="cpu")


@pytest.fixture
def volume() -> Volume:
    grid = Grid.from_spacing((30, 28, 20), (1.5, 1.5, 2.0), orientation="LPI")
    array = np.random.default_rng(0).integers(0, 300, grid.shape).astype(np.int16)
    return Volume(array, grid)


class TestGeometry:
    @pytest.mark.parametrize("code", CODES)
    def test_the_mask_lies_on_the_input_grid_for_every_orientation(self, code: str) -> None:
        made = oblique(Grid.from_spacing((36, 30, 20), (1.0, 1.2, 2.5), orientation="RAS"), 12)
        grid = made.reorient(code)
        centre = tuple(made.index_to_mm((17, 14, 9)).tolist())
        image, truth = bright(grid, centre, (9, 11, 10))
        session = cubes().session(image).click(centre, mm=True)
        assert session.mask.grid == grid
        assert session.mask.array.shape == grid.shape
        assert dice(session.mask.array == 1, truth) > 0.93  # the ceiling of resampling to 1.5 mm

    def test_storage_order_does_not_change_the_answer(self) -> None:
        made = Grid.from_spacing((36, 30, 20), (1.0, 1.2, 2.5))
        image, _ = bright(made, (17.0, 16.0, 22.0), (9, 11, 10))
        straight = cubes().session(image).click((17, 14, 9)).mask
        turned = image.reorient("IPL")
        point = turned.grid.mm_to_index(made.index_to_mm((17, 14, 9)))
        other = cubes().session(turned).click(point.tolist()).mask.reorient("RAS")
        assert np.array_equal(straight.array, other.array)

    def test_a_click_reaches_the_model_at_its_place(self) -> None:
        predictor = cubes(spacing=2.0)
        image, _ = bright(Grid.from_spacing((40, 40, 40), (1, 1, 1)), (20, 20, 20), (5, 5, 5))
        _ = predictor.session(image).click((20, 21, 22)).mask
        coords, labels = predictor.model.prompts[-1]["points"]  # type: ignore[union-attr, index]
        start = np.array(
            [(20 - 32) // 2] * 3
        )  # the lattice is 20 voxels wide, the window is centred on it
        expected = (np.array([20, 21, 22]) + 0.5) / 2 - 0.5 - start
        assert np.allclose(coords[0, 0].numpy(), expected, atol=1e-4)
        assert labels.tolist() == [[1]]

    def test_shear_is_followed(self) -> None:
        affine = np.eye(4)
        affine[0, 2] = 0.4
        grid = Grid((40, 36, 30), affine)
        image, truth = bright(grid, (25.0, 18.0, 15.0), (8, 8, 8))
        mask = cubes(spacing=1.0).session(image).click((25, 18, 15), mm=True).mask
        assert dice(mask.array == 1, truth) > 0.95

    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_slices_come_back_in_their_place(self, axis: int) -> None:
        grid = Grid.from_spacing((40, 36, 30), (1.0, 1.5, 2.0), orientation="PIR")
        centre = tuple(grid.index_to_mm((20, 18, 15)).tolist())
        image, truth = bright(grid, centre, (12, 12, 12))
        oracle = BrightnessOracle((64, 64), channels=3)
        chain = SlicePreprocess(size=(64, 64), mean=(127.5,) * 3, std=(60.0,) * 3)
        session = (
            Predictor(oracle, chain, device="cpu").session(image, axis=axis).click((20, 18, 15))
        )
        drawn = session.mask.array == 1
        at = [20, 18, 15][axis]
        others = tuple(a for a in range(3) if a != axis)
        assert np.flatnonzero(drawn.any(axis=others)).tolist() == [at]
        assert dice(np.take(drawn, at, axis), np.take(truth, at, axis)) > 0.95

    def test_a_picture_comes_back_pixel_by_pixel(self) -> None:
        grid = Grid.pixels((50, 80))
        rows, columns = np.mgrid[:50, :80]
        truth = (rows - 30) ** 2 / 200 + (columns - 25) ** 2 / 150 < 1
        picture = Volume(np.where(truth, 220, 30).astype(np.uint8)[:, :, None], grid)
        oracle = BrightnessOracle((160, 160), channels=3)
        chain = SlicePreprocess(size=(160, 160), mean=(127.5,) * 3, std=(60.0,) * 3)
        predictor = Predictor(oracle, chain, device="cpu")
        session = predictor.session(picture).click((30, 25))
        assert dice(session.mask.array[:, :, 0] == 1, truth) > 0.98
        coords, _ = oracle.prompts[-1]["points"]
        assert np.allclose(
            coords[0, 0].numpy(), [(25 + 0.5) * 2 - 0.5, (30 + 0.5) * 2 - 0.5]
        )  # x, then y


class TestGrowth:
    def test_an_object_larger_than_the_window_comes_out_whole(self) -> None:
        grid = Grid.from_spacing((96, 40, 40), (1, 1, 1))
        image, truth = bright(grid, (47.0, 20.0, 20.0), (44, 12, 12))
        mask = cubes(spacing=1.0).session(image).click((47, 20, 20)).mask
        assert dice(mask.array == 1, truth) > 0.99

    @pytest.mark.parametrize("degrees", [0, 20])
    @pytest.mark.parametrize("code", ["RAS", "LPI", "SRA", "AIR"])
    def test_an_object_over_many_windows_loses_only_what_resampling_costs(
        self, code: str, degrees: float
    ) -> None:
        made = oblique(Grid.from_spacing((70, 60, 24), (1.0, 1.3, 3.1)), degrees)
        grid = made.reorient(code)
        centre = tuple(made.index_to_mm((35, 30, 12)).tolist())
        image, truth = bright(grid, centre, (32, 34, 30))
        predictor = cubes(spacing=1.5)
        mask = predictor.session(image).click(centre, mm=True).mask
        assert predictor.model.encoded > 4
        assert mask.grid == grid
        lattice = predictor.preprocess.lattice(grid)  # type: ignore[attr-defined]
        there = Volume(truth.astype(np.float32), grid).to_grid(lattice)
        back = there.with_array((there.array > 0.5).astype(np.float32)).to_grid(grid)
        assert dice(mask.array == 1, truth) > dice(back.array > 0.5, truth) - 0.003

    def test_windows_stop_at_their_limit_and_say_so(self) -> None:
        grid = Grid.from_spacing((96, 40, 40), (1, 1, 1))
        image, _ = bright(grid, (47.0, 20.0, 20.0), (44, 12, 12))
        session = cubes(spacing=1.0).session(image, max_windows=2).click((47, 20, 20))
        assert any("max_windows" in note for note in session.mask.notes)

    def test_an_object_inside_its_window_needs_no_other(self) -> None:
        predictor = cubes(spacing=1.0)
        image, _ = bright(Grid.from_spacing((96, 40, 40), (1, 1, 1)), (47.0, 20.0, 20.0), (9, 9, 9))
        _ = predictor.session(image).click((47, 20, 20)).mask
        assert predictor.model.encoded == 1

    def test_blending_leaves_no_seam(self, tiny: Predictor) -> None:
        """Across the face of a window the blended logits change no more than inside a window."""
        grid = Grid.from_spacing((90, 30, 30), (1.5, 1.5, 1.5))
        array = np.random.default_rng(1).integers(50, 300, grid.shape).astype(np.int16)
        session = tiny.session(Volume(array, grid), max_windows=6).click((45, 15, 15))
        probability = session.probability().array
        steps = np.abs(np.diff(probability, axis=0)).max(axis=(1, 2))
        assert steps.max() < 0.35

    def test_a_box_larger_than_the_window_is_covered(self) -> None:
        predictor = cubes(spacing=1.0)
        image, truth = bright(
            Grid.from_spacing((96, 40, 40), (1, 1, 1)), (47.0, 20.0, 20.0), (44, 12, 12)
        )
        mask = predictor.session(image).box((3, 8, 8), (92, 33, 33)).mask
        assert dice(mask.array == 1, truth) > 0.99
        boxes = torch.cat([p["boxes"] for p in predictor.model.prompts if p["boxes"] is not None])
        assert (boxes >= 0).all()
        assert (boxes <= 31).all()


class TestLog:
    def test_each_call_leaves_the_session_as_it_was(self, tiny: Predictor, volume: Volume) -> None:
        session = tiny.session(volume)
        clicked = session.click((10, 10, 10))
        assert session.objects == ()
        assert clicked.objects == ("object",)

    def test_undo_and_redo_restore_masks_exactly(self, tiny: Predictor, volume: Volume) -> None:
        one = tiny.session(volume).click((10, 10, 10))
        two = one.click((20, 15, 5), positive=False)
        assert not np.array_equal(one.mask.array, two.mask.array)
        assert np.array_equal(two.undo().mask.array, one.mask.array)
        assert np.array_equal(two.undo().redo().mask.array, two.mask.array)
        assert two.reset().mask.labels() == []
        assert np.array_equal(two.reset().undo().mask.array, two.mask.array)

    def test_undo_of_nothing_is_refused(self, tiny: Predictor, volume: Volume) -> None:
        with pytest.raises(PromptError, match="nothing to undo"):
            tiny.session(volume).undo()
        with pytest.raises(PromptError, match="nothing to redo"):
            tiny.session(volume).click((1, 1, 1)).undo().click((2, 2, 2)).redo()

    def test_replay_from_json_gives_the_same_mask(
        self, tiny: Predictor, volume: Volume, tmp_path
    ) -> None:
        drawn = np.zeros(volume.shape, bool)
        drawn[3:9, 4:8, 2:5] = True
        session = (
            tiny.session(volume)
            .click((10, 10, 10), object="a")
            .box((2, 2, 2), (12, 14, 9), object="b")
            .start_from(Volume(drawn, volume.grid), object="c")
            .click((5, 5, 3), object="c")
            .click((1, 2, 3), object="a", positive=False)
            .undo()
        )
        path = tmp_path / "session.json"
        session.save(path)
        json.loads(path.read_text())
        again = tiny.session(volume).replay(path)
        assert again.log == session.log
        assert np.array_equal(again.mask.array, session.mask.array)
        assert again.mask.names == {1: "a", 2: "b", 3: "c"}

    def test_a_session_of_another_image_is_refused(self, tiny: Predictor, volume: Volume) -> None:
        saved = tiny.session(volume).click((10, 10, 10)).to_dict()
        other = volume.crop((0, 0, 0), (20, 20, 20))
        with pytest.raises(GridMismatch, match="session"):
            tiny.session(other).replay(saved)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"format": "other/1"}, "not a session"),
            ({"events": [{"event": "jump"}]}, "not known"),
            ({"events": [{"event": "click", "index": [1, 2]}]}, "cannot be read"),
            ({"events": [{"event": "click", "index": [1, 2, 999]}]}, "outside"),
            ({"events": [{"event": "click", "index": [1, 2, 3], "rm": 1}]}, "unknown fields"),
            (
                {"events": [{"event": "start_from", "runs": [10**12], "shape": [10000] * 3}]},
                "shape",
            ),
            ({"events": [{"event": "undo"}]}, "nothing to undo"),
        ],
    )
    def test_a_broken_session_is_refused(
        self, tiny: Predictor, volume: Volume, change: dict[str, object], text: str
    ) -> None:
        saved = {**tiny.session(volume).to_dict(), **change}
        with pytest.raises(PromptError, match=text):
            tiny.session(volume).replay(saved)


class TestPrompts:
    @pytest.mark.parametrize("point", [(30, 0, 0), (-1, 5, 5), (5, 5, 20.6)])
    def test_a_click_outside_is_refused_and_the_session_goes_on(
        self, tiny: Predictor, volume: Volume, point: tuple[float, ...]
    ) -> None:
        session = tiny.session(volume).click((10, 10, 10))
        with pytest.raises(PromptError, match="lies outside the image"):
            session.click(point)
        assert session.click((11, 10, 10)).mask.labels() in ([], [1])

    def test_a_box_without_size_is_refused(self, tiny: Predictor, volume: Volume) -> None:
        with pytest.raises(PromptError, match="no size"):
            tiny.session(volume).box((3, 3, 3), (9, 3, 9))

    def test_a_model_without_boxes_says_what_to_do(self, volume: Volume) -> None:
        predictor = Predictor(BrightnessOracle((32,) * 3, boxes=False), device="cpu")
        with pytest.raises(PromptError, match=r"takes no boxes.*click"):
            predictor.session(volume).box((3, 3, 3), (9, 9, 9))

    def test_rgb_volumes_are_refused_by_3d_models(self, tiny: Predictor, volume: Volume) -> None:
        colour = Volume(
            np.zeros((*volume.shape, 3), np.uint8), volume.grid, channels=("R", "G", "B")
        )
        with pytest.raises(PromptError, match="pick one"):
            tiny.session(colour)

    def test_a_mask_stands_until_something_is_said_about_it(
        self, tiny: Predictor, volume: Volume
    ) -> None:
        array = np.zeros(volume.shape, np.uint8)
        array[2:12, 3:9, 4:9] = 1
        array[15:25, 12:20, 10:15] = 2
        labels = LabelMap(array, volume.grid, names={1: "liver", 2: "spleen"})
        session = tiny.session(volume).start_from(labels)
        assert session.objects == ("liver", "spleen")
        assert np.array_equal(session.mask.array, array)
        redrawn = session.refine(object="liver")
        assert not np.array_equal(redrawn.mask.array == 1, array == 1)

    def test_an_empty_mask_to_start_from_is_refused(self, tiny: Predictor, volume: Volume) -> None:
        with pytest.raises(PromptError, match="start from is empty"):
            tiny.session(volume).start_from(Volume(np.zeros(volume.shape, bool), volume.grid))

    def test_several_objects_become_one_label_map(self, tiny: Predictor, volume: Volume) -> None:
        session = tiny.session(volume).click((5, 5, 5), object="a").click((25, 20, 15), object="b")
        assert session.mask.names == {1: "a", 2: "b"}
        a, b = session.probability("a").array, session.probability("b").array
        expected = np.where((a > 0.5) & (a >= b), 1, np.where(b > 0.5, 2, 0))
        sure = np.abs(a - b) > 2e-3  # the label map compares in half precision
        assert np.array_equal(session.mask.array[sure], expected[sure])

    def test_the_newest_click_goes_with_the_previous_mask(self, volume: Volume) -> None:
        predictor = cubes()
        _ = predictor.session(volume).click((10, 10, 10)).click((12, 10, 10), positive=False).mask
        first, second = predictor.model.prompts
        assert torch.count_nonzero(first["masks"]) == 0
        assert second["points"][0].shape == (1, 1, 3)
        assert second["points"][1].tolist() == [[0]]
        assert torch.count_nonzero(second["masks"]) > 0

    def test_2d_clicks_accumulate_and_the_best_of_three_is_kept(self) -> None:
        oracle = BrightnessOracle((64, 64), channels=3)
        picture = Volume(np.zeros((40, 60, 1), np.uint8), Grid.pixels((40, 60)))
        session = Predictor(oracle, device="cpu").session(picture).click((5, 5)).click((9, 9))
        _ = session.mask
        assert oracle.prompts[0]["masks"] is None
        assert oracle.prompts[1]["points"][0].shape == (1, 2, 2)
        assert session.undo().quality() == 2.0  # the oracle rates its third mask best

    def test_a_box_on_slices_goes_to_each_slice(self) -> None:
        oracle = BrightnessOracle((32, 32), channels=3)
        image = Volume(np.zeros((20, 20, 6), np.int16), Grid.from_spacing((20, 20, 6), (1, 1, 4)))
        _ = Predictor(oracle, device="cpu").session(image).box((2, 3, 1), (9, 9, 4)).mask
        assert len(oracle.prompts) == 3


def test_embeddings_are_kept_within_their_bound(volume: Volume) -> None:
    predictor = cubes(cache_bytes=3 * 32**3 * 4)
    session = predictor.session(volume)
    for name, point in enumerate([(2, 2, 2), (28, 25, 18), (2, 25, 2), (28, 2, 18), (15, 15, 9)]):
        _ = session.click(point, object=str(name)).mask
    assert predictor._cache.bytes <= 3 * 32**3 * 4
    assert isinstance(session, Session)


def test_an_embedding_is_made_once(volume: Volume) -> None:
    predictor = cubes(64)
    session = predictor.session(volume)
    for _ in range(4):
        session = session.click((10, 10, 10))
        _ = session.mask
    assert predictor.model.encoded == 1
