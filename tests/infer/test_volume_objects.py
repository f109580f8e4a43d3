"""Several objects of one volume: what they share, what is kept, and that they leave each other alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from infer.oracle import BrightnessOracle
from infer.test_session import bright, cubes

from samaritan.geometry import Grid
from samaritan.infer import session as sessions
from samaritan.infer.blending import blend_within, box_of, reach
from samaritan.infer.frames import FrameState
from samaritan.volume import LabelMap, Volume


def spots(shape: tuple[int, ...], centres: list[tuple[int, ...]]) -> Volume:
    """Bright cubes of three voxels' side on dark ground."""
    array = np.full(shape, 20, np.int16)
    for i, j, k in centres:
        array[i - 1 : i + 2, j - 1 : j + 2, k - 1 : k + 2] = 200
    return Volume(array, Grid.from_spacing(shape, (1, 1, 1)))


LESIONS = [(46, 46, 46), (48, 46, 47), (47, 48, 46)]


class TestSharing:
    def test_lesions_near_each_other_share_one_embedding(self) -> None:
        predictor = cubes(spacing=1.0)
        session = predictor.session(spots((96, 96, 96), [(46, 46, 46)]))
        for number, point in enumerate(LESIONS):
            session = session.click(point, object=f"lesion {number}")
        assert session.mask.names == {1: "lesion 0", 2: "lesion 1", 3: "lesion 2"}
        assert isinstance(predictor.model, BrightnessOracle)
        assert predictor.model.encoded == 1

    def test_a_window_lies_about_its_click_wherever_that_is(self) -> None:
        predictor = cubes(spacing=1.0)
        image = spots((96, 96, 96), LESIONS[:1])
        for at in range(20, 70):
            _ = predictor.session(image).click((at, 47, 48)).mask
            points, _ = predictor.model.prompts[-1]["points"]  # type: ignore[union-attr, index]
            assert abs(float(points[0, 0, 0]) - 15.5) <= 2.5

    def test_a_box_stays_inside_the_window_that_it_shares(self) -> None:
        predictor = cubes(spacing=1.0)
        image = spots((96, 96, 96), LESIONS[:1])
        for start, side in [(31, 31), (33, 32), (37, 29), (40, 20)]:
            _ = predictor.session(image).box((start,) * 3, (start + side,) * 3).mask
            box = predictor.model.prompts[-1]["boxes"]  # type: ignore[union-attr]
            assert (box[0, 3:] - box[0, :3]).tolist() == [side - 1] * 3

    def test_one_object_does_not_depend_on_another(self) -> None:
        image = spots((96, 96, 96), [(30, 30, 30), (70, 60, 50)])
        alone = cubes(spacing=1.0).session(image).click((70, 60, 50), object="b").mask.array
        both = cubes(spacing=1.0).session(image).click((30, 30, 30), object="a")
        both = both.click((70, 60, 50), object="b")
        assert np.array_equal(both.probability("b").array > 0.5, alone == 1)


class TestKeeping:
    def test_a_further_click_asks_about_its_own_object_only(self) -> None:
        predictor = cubes(spacing=1.0)
        session = predictor.session(spots((64, 64, 64), [(20, 20, 20)]))
        for number in range(70):
            session = session.click((20, 20, 20 + number % 3), object=str(number))
        _ = session.mask
        asked = len(predictor.model.prompts)  # type: ignore[arg-type]
        assert asked == 70
        _ = session.click((21, 20, 20), object="5").mask
        assert len(predictor.model.prompts) == asked + 1  # type: ignore[arg-type]

    def test_what_is_kept_is_bounded_and_the_newest_stays(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sessions, "KEPT_BYTES", 1)
        monkeypatch.setattr(sessions, "SHOWN_BYTES", 1)
        predictor = cubes(spacing=1.0)
        session = predictor.session(spots((64, 64, 64), [(20, 20, 20)]))
        for k in (19, 20, 21):
            session = session.click((20, 20, k))
            assert session.mask.array.sum() == 27
        assert len(predictor.model.prompts) == 3  # type: ignore[arg-type]
        assert len(session._kept.states) == 2
        assert len(session._kept.patches) == 0

    def test_masks_to_start_from_count_as_what_is_kept(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sessions, "KEPT_BYTES", 3 * 32**3)
        labels = np.arange(32**3, dtype=np.uint8).reshape(32, 32, 32) % 8
        grid = Grid.from_spacing(labels.shape, (1, 1, 1))
        session = cubes(spacing=1.0).session(Volume(labels.astype(np.int16), grid))
        session = session.start_from(LabelMap(labels, grid))
        assert np.array_equal(session.mask.array, labels)
        assert len(session._kept.states) == 3

    def test_the_number_of_windows_belongs_to_what_is_kept(self) -> None:
        image, _ = bright(Grid.from_spacing((96, 40, 40)), (47.0, 20.0, 20.0), (44, 12, 12))
        one = cubes(spacing=1.0).session(image, max_windows=1).click((47, 20, 20))
        many = sessions.replace(one, max_windows=32)
        assert many.mask.array.sum() > one.mask.array.sum()

    def test_a_note_on_many_objects_is_told_once(self) -> None:
        image, _ = bright(Grid.from_spacing((96, 40, 40)), (47.0, 20.0, 20.0), (44, 12, 12))
        session = cubes(spacing=1.0).session(image, max_windows=1)
        for number in range(7):
            session = session.click((47, 20, 20), object=f"n{number}")
        (note,) = session.notes
        assert note.startswith(
            "n0, n1, n2, n3, n4 and 2 more: the object goes on beyond one window"
        )


class TestBlending:
    @pytest.mark.parametrize("low_res", [(4, 4, 4), (16, 16, 16), (5, 3, 8)])
    def test_nothing_lies_beyond_the_reach(self, low_res: tuple[int, ...]) -> None:
        generator = torch.Generator().manual_seed(0)
        frames = {}
        for key in [(0, 0, 0), (8, -3, 2), (30, 5, 5)]:
            logits = torch.full(low_res, -3.0)
            spot = [int(torch.randint(n, (), generator=generator)) for n in low_res]
            logits[tuple(spot)] = 50.0
            frames[key] = FrameState(logits=logits)
        size = (16, 16, 16)
        low, high = box_of(frames, size)
        logits, _ = blend_within(frames, size, low, high)
        found = reach(frames, size)
        assert found is not None
        inside = torch.zeros_like(logits, dtype=torch.bool)
        inside[tuple(slice(a - o, b - o) for a, b, o in zip(*found, low, strict=True))] = True
        assert (logits[~inside] <= 0).all()
        part, _ = blend_within(frames, size, *found)
        assert torch.allclose(part.flatten(), logits[inside], atol=1e-5)

    def test_where_nothing_is_there_is_no_reach(self) -> None:
        assert reach({(0, 0, 0): FrameState(logits=torch.full((4, 4, 4), -1.0))}, (16,) * 3) is None

    def test_logits_of_one_window_are_not_touched(self) -> None:
        predictor = cubes(spacing=1.0)
        session = predictor.session(spots((32, 32, 32), [(16, 16, 16)])).click((16, 16, 16))
        state = session._state("object")
        before = [f.logits.clone() for f in state.frames.values()]  # type: ignore[union-attr]
        _ = session.mask, session.probability()
        after = [f.logits for f in state.frames.values()]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_probability_is_told_all_over_the_window() -> None:
    grid = Grid.from_spacing((64, 64, 64), (1, 1, 1))
    array = np.random.default_rng(0).normal(100, 20, grid.shape).astype(np.float32)
    session = cubes(spacing=1.0).session(Volume(array, grid), max_windows=1).click((32, 32, 32))
    probability = session.probability().array
    assert (probability[18:46, 18:46, 18:46] > 0).all()
    assert np.array_equal(probability > 0.5, session.mask.array == 1)
