"""The chains from an image to a model's input: geometry, numbers, and a round trip through JSON."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.transforms import (
    Preprocess,
    Prompting,
    SlicePreprocess,
    WindowPreprocess,
    default_preprocess,
)
from samaritan.transforms.preprocess import slice_axis
from samaritan.volume import Volume


def ramp(grid: Grid) -> Volume:
    """An image that is linear in millimetres, so that resampling can be checked exactly."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    x, y, z = np.moveaxis(grid.index_to_mm(index), -1, 0)
    return Volume((500 + x + 2 * y - 3 * z).astype(np.float32), grid)


class TestSlices:
    def test_numbers_are_those_of_sam(self) -> None:
        rng = np.random.default_rng(0)
        array = rng.integers(0, 256, (64, 64, 1, 3)).astype(np.uint8)
        picture = Volume(array, Grid.pixels((64, 64)))
        chain = SlicePreprocess(size=(64, 64))
        tensor = chain.frame(picture, (2, 0), chain.statistics(picture)).tensor
        mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
        expected = (array[:, :, 0].astype(np.float64) - mean) / std
        assert np.allclose(tensor[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)

    def test_the_longer_side_fills_the_input_and_the_rest_is_zero(self) -> None:
        picture = Volume(np.full((30, 80, 1), 255, np.uint8), Grid.pixels((30, 80)))
        chain = SlicePreprocess(size=(64, 64))
        frame = chain.frame(picture, (2, 0), chain.statistics(picture))
        assert chain.content_size(picture.grid) == (24, 64)
        assert torch.count_nonzero(frame.tensor[:, :, 24:]) == 0
        assert torch.count_nonzero(frame.tensor[:, :, :24]) == 3 * 24 * 64

    def test_the_frame_covers_the_picture(self) -> None:
        grid = Grid.pixels((30, 80))
        chain = SlicePreprocess(size=(64, 64))
        frame = chain.frame_grid(grid, (2, 0))
        corner = frame.mm_to_index(grid.index_to_mm((29.5, 79.5, 0)))
        assert np.allclose(corner, (23.5, 63.5, 0))

    def test_pixels_that_are_not_square_keep_their_physical_aspect(self) -> None:
        grid = Grid.from_spacing((40, 50, 20), (1.0, 1.0, 4.0))
        assert SlicePreprocess(size=(100, 100)).content_size(
            grid.window((0, 0, 0), (40, 1, 20)).reorient("ILA")
        ) == (
            100,
            50,
        )

    @pytest.mark.parametrize("orientation", ["RAS", "LPS", "IPR", "ASL"])
    def test_a_slice_looks_the_same_however_it_is_stored(self, orientation: str) -> None:
        image = ramp(Grid.from_spacing((20, 24, 16), (1, 1, 1), orientation="RAS"))
        chain = SlicePreprocess(size=(32, 32))
        stored = image.reorient(orientation)
        axis = next(a for a in range(3) if orientation[a] in "SI")
        index = 5 if orientation[axis] == "S" else 10
        one = chain.frame(image, (2, 5), {"low": 400.0, "high": 600.0}).tensor
        two = chain.frame(stored, (axis, index), {"low": 400.0, "high": 600.0}).tensor
        assert torch.equal(one, two)

    def test_axial_slices_show_the_patient_right_on_the_left_side(self) -> None:
        grid = Grid.from_spacing((20, 20, 3), (1, 1, 5), orientation="RAS")
        array = np.zeros(grid.shape, np.int16)
        array[15:, :, :] = 1000  # the patient's right
        chain = SlicePreprocess(size=(20, 20))
        image = Volume(array, grid)
        shown = chain.frame(image, (2, 1), chain.statistics(image)).tensor[0, 0]
        assert shown[:, :5].min() > shown[:, 5:].max()

    def test_pictures_of_8_bits_are_left_alone_and_others_windowed(self) -> None:
        chain = SlicePreprocess()
        picture = Volume(np.full((4, 5, 1), 7, np.uint8), Grid.pixels((4, 5)))
        assert chain.statistics(picture) == {"low": 0.0, "high": 255.0}
        scan = Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), Grid.from_spacing((3, 4, 5)))
        low, high = chain.statistics(scan).values()
        assert 0 <= low < 1
        assert 58 < high <= 59

    def test_nan_and_infinity_do_not_reach_the_model(self) -> None:
        array = np.ones((10, 10, 1), np.float32)
        array[0, 0], array[1, 1] = np.nan, np.inf
        image = Volume(array, Grid.pixels((10, 10)))
        chain = SlicePreprocess(size=(16, 16))
        assert torch.isfinite(chain.frame(image, (2, 0), chain.statistics(image)).tensor).all()


class TestWindows:
    def test_voxels_lie_where_their_grid_says(self) -> None:
        image = ramp(Grid.from_spacing((30, 25, 20), (2.0, 1.0, 3.0), orientation="PIL"))
        chain = WindowPreprocess(size=(8, 9, 10), spacing_mm=(1.5, 1.5, 1.5))
        values, grid = chain.window_values(image, (5, 6, 3))
        assert grid.orientation == "RAS"
        assert np.allclose(values.numpy(), ramp(grid).array, atol=1e-3)

    def test_each_window_has_mean_0_and_deviation_1_over_positive_voxels(self) -> None:
        rng = np.random.default_rng(0)
        grid = Grid.from_spacing((12, 12, 12), (1.5, 1.5, 1.5))
        image = Volume((5 * rng.standard_normal(grid.shape) + 3).astype(np.float32), grid)
        chain = WindowPreprocess(size=(12, 12, 12))
        tensor = chain.frame(image, (0, 0, 0), {}).tensor
        positive = tensor[0, 0][torch.from_numpy(image.array > 0)]
        assert abs(float(positive.mean())) < 1e-5
        assert abs(float(positive.std()) - 1) < 1e-5

    def test_the_published_normalisation_is_reproduced(self) -> None:
        """Value from SAM-Med3D's ZNormalization on x = 5 * rnd(6) + 3, each volume on its own."""
        x = 5 * np.random.RandomState(6).standard_normal((2, 8, 8, 8)) + 3
        grid = Grid.from_spacing((8, 8, 8), (1.5, 1.5, 1.5))
        chain = WindowPreprocess(size=(8, 8, 8))
        tensor = chain.frame(Volume(x[0].astype(np.float32), grid), (0, 0, 0), {}).tensor
        assert float(tensor.flatten()[0]) == pytest.approx(-1.047901, abs=1e-5)

    def test_an_image_without_positive_voxels_is_normalised_over_all(self) -> None:
        grid = Grid.from_spacing((8, 8, 8), (1.5, 1.5, 1.5))
        image = Volume(-np.arange(512, dtype=np.float32).reshape(8, 8, 8), grid)
        tensor = WindowPreprocess(size=(8, 8, 8)).frame(image, (0, 0, 0), {}).tensor
        assert torch.isfinite(tensor).all()
        assert abs(float(tensor.mean())) < 1e-5

    def test_a_constant_image_stays_finite(self) -> None:
        image = Volume(np.full((8, 8, 8), 3, np.int16), Grid.from_spacing((8, 8, 8), (1.5,) * 3))
        assert torch.isfinite(
            WindowPreprocess(size=(8, 8, 8)).frame(image, (0, 0, 0), {}).tensor
        ).all()

    def test_clamping_cuts_intensities(self) -> None:
        image = Volume(np.full((8, 8, 8), 3000, np.int16), Grid.from_spacing((8, 8, 8), (1.5,) * 3))
        values, _ = WindowPreprocess(size=(8, 8, 8), clamp=(-1000.0, 1000.0)).window_values(
            image, (0, 0, 0)
        )
        assert float(values.max()) == 1000


@pytest.mark.parametrize(
    "chain",
    [
        SlicePreprocess(window=(-160.0, 240.0), resize="stretch"),
        WindowPreprocess(clamp=(-1000.0, 1000.0), prompting=Prompting(clicks="all")),
        default_preprocess(2, (64, 64), 1),
        default_preprocess(3, (32, 32, 32), 1),
    ],
)
def test_a_chain_survives_json(chain: Preprocess) -> None:
    assert Preprocess.from_dict(json.loads(json.dumps(chain.to_dict()))) == chain


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"kind": "spheres"}, "not known"),
        ({"kind": "slices", "rows": 3}, "does not take"),
        ({"kind": "slices", "prompting": {"clicks": "some"}}, "prompting.clicks"),
    ],
)
def test_a_chain_that_is_not_known_is_refused(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Preprocess.from_dict(values)


@pytest.mark.parametrize(
    ("shape", "spacing", "orientation", "axis"),
    [
        ((10, 10, 10), (1, 1, 5), "RAS", 2),
        ((10, 10, 10), (5, 1, 1), "RAS", 0),
        ((10, 10, 10), (1, 1, 1), "RSA", 1),
        ((10, 1, 10), (1, 1, 9), "RAS", 1),
    ],
)
def test_slices_lie_across_the_thickest_axis(
    shape: tuple[int, int, int], spacing: tuple[float, float, float], orientation: str, axis: int
) -> None:
    assert slice_axis(Grid.from_spacing(shape, spacing, orientation=orientation)) == axis


class TestSamMed2D:
    """The chain of SAM-Med2D: stretched by nearest pixels, blue first."""

    CHAIN = SlicePreprocess(
        size=(64, 64), resize="stretch", interpolation="nearest", channel_order="bgr"
    )

    def test_no_new_values_appear_and_the_centre_stays(self) -> None:
        array = np.zeros((32, 16, 1), np.uint8)
        array[8:24, 4:12] = 255
        picture = Volume(array, Grid.pixels((32, 16)))
        frame = self.CHAIN.frame(picture, (2, 0), self.CHAIN.statistics(picture))
        red = frame.tensor[0, 0]
        assert len(red.unique()) == 2
        assert torch.equal(red, red.flip(0))
        assert torch.equal(red, red.flip(1))
        assert int((red > 0).sum()) == 64 * 64 // 4
        corners = frame.grid.mm_to_index(
            picture.grid.index_to_mm(((-0.5, -0.5, 0), (31.5, 15.5, 0)))
        )
        assert np.allclose(corners[:, :2], ((-0.5, -0.5), (63.5, 63.5)))

    def test_blue_comes_first_with_the_mean_of_the_first_channel(self) -> None:
        array = np.zeros((64, 64, 1, 3), np.uint8)
        array[..., 2] = 200
        picture = Volume(array, Grid.pixels((64, 64)))
        frame = self.CHAIN.frame(picture, (2, 0), self.CHAIN.statistics(picture))
        assert frame.tensor[0, 0, 0, 0] == pytest.approx((200 - 123.675) / 58.395, abs=1e-5)
        assert frame.tensor[0, 2, 0, 0] == pytest.approx(-103.53 / 57.375, abs=1e-5)

    def test_grey_images_do_not_know_an_order(self) -> None:
        picture = Volume(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), Grid.pixels((16, 16)))
        frames = [
            SlicePreprocess(size=(16, 16), channel_order=order).frame(
                picture, (2, 0), {"low": 0.0, "high": 255.0}
            )
            for order in ("rgb", "bgr")
        ]
        assert torch.equal(frames[0].tensor, frames[1].tensor)

    def test_it_survives_json_and_wrong_words_are_told(self) -> None:
        again = Preprocess.from_dict(json.loads(json.dumps(self.CHAIN.to_dict())))
        assert again == self.CHAIN
        with pytest.raises(ConfigError, match=r"interpolation is one of .*'cubic'"):
            SlicePreprocess(interpolation="cubic")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="channel_order is one of"):
            SlicePreprocess(channel_order="grb")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="multimask is one of"):
            Prompting(multimask="sometimes")  # type: ignore[arg-type]

    def test_small_pictures_can_be_padded_around_as_in_its_training(self) -> None:
        chain = SlicePreprocess(size=(256, 256), resize="pad")
        grid = Grid.pixels((155, 225))
        array = np.random.default_rng(0).integers(1, 256, (155, 225, 1)).astype(np.uint8)
        frame = chain.frame(Volume(array, grid), (2, 0), {"low": 0.0, "high": 255.0})
        assert np.allclose(frame.grid.mm_to_index(grid.index_to_mm((0, 0, 0))), (50, 15, 0))
        inside = frame.tensor[0, 0, 50:205, 15:240] * 58.395 + 123.675
        assert np.array_equal(inside.round().numpy(), array[:, :, 0])
        assert frame.tensor[:, :, :50].abs().max() == frame.tensor[:, :, :, 240:].abs().max() == 0
        back = Volume(
            inside.round().numpy()[:, :, None], frame.grid.window((50, 15, 0), (155, 225, 1))
        )
        assert back.grid.same_as(grid)

    def test_pictures_with_a_longer_side_are_stretched_even_so(self) -> None:
        chain = SlicePreprocess(size=(256, 256), resize="pad")
        assert chain.content_size(Grid.pixels((181, 258))) == (256, 256)
        assert chain.content_size(Grid.pixels((181, 255))) == (181, 255)
        grid = Grid.pixels((181, 258))
        frame = chain.frame_grid(grid, (2, 0))
        assert np.allclose(frame.mm_to_index(grid.index_to_mm((-0.5, -0.5, 0))), (-0.5, -0.5, 0))
