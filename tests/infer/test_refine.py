"""Masks refined stage by stage in sessions, as M-SAM's program and its paper have it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from infer.test_session import cubes

from samaritan import create_model
from samaritan.errors import ConfigError, PromptError
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.models import Prompts, refine
from samaritan.transforms import Preprocess, Prompting, WindowPreprocess
from samaritan.volume import Volume

CLICKS = [((14, 15, 16), True), ((20, 9, 11), False)]


@pytest.fixture(scope="module")
def image() -> Volume:
    grid = Grid.from_spacing((32, 32, 32), (1.5, 1.5, 1.5))
    array = np.random.default_rng(0).integers(1, 300, grid.shape).astype(np.int16)
    return Volume(array, grid)


def predictor(name: str, **prompting: object) -> Predictor:
    torch.manual_seed(0)
    made = Predictor(create_model(name), device="cpu")
    assert isinstance(made.preprocess, WindowPreprocess)
    told = replace(made.preprocess.prompting, **prompting)  # type: ignore[arg-type]
    made.preprocess = replace(made.preprocess, prompting=told)
    return made


def low_res(predictor: Predictor, image: Volume, stages: int) -> list[torch.Tensor]:
    """The low-resolution masks of a session after each click and each stage of refinement."""
    session, found = predictor.session(image, max_windows=1), []
    for point, positive in CLICKS:
        session = session.click(point, positive=positive)
        found.append(session)
    for _ in range(stages):
        session = session.refine()
        found.append(session)
    return [next(iter(one._state("object").frames.values())).logits for one in found]  # type: ignore[misc]


def stages_of(predictor: Predictor, image: Volume, last: Prompts, **options) -> list[torch.Tensor]:
    """The same by `models.refine`, which is held against the published program."""
    features = predictor.open(image).embedded((0, 0, 0)).features
    prompts = [
        Prompts(points=(torch.tensor([[p]], dtype=torch.float), torch.tensor([[int(positive)]])))
        for p, positive in CLICKS
    ]
    zeros = torch.zeros(1, 1, *predictor.low_res_size)
    with torch.inference_mode():
        found = refine(predictor.model, features, [*prompts, last, last], masks=zeros, **options)
        return [stage.low_res_logits[0, 0] for stage in found]


@pytest.mark.parametrize("feedback", [False, True])
def test_a_session_with_m_sam_is_the_loop_of_its_program(image: Volume, feedback: bool) -> None:
    made = predictor("msam_tiny", feedback=feedback)
    point, positive = CLICKS[-1]
    again = Prompts(
        points=(torch.tensor([[point]], dtype=torch.float), torch.tensor([[int(positive)]]))
    )
    expected = stages_of(made, image, again, feedback_embedding=feedback)
    for got, wanted in zip(low_res(made, image, 2), expected, strict=True):
        assert torch.allclose(got, wanted, atol=1e-5)
    assert not torch.allclose(expected[2], expected[3], atol=1e-5)


def test_sam_med3d_redraws_from_the_mask_alone(image: Volume) -> None:
    made = predictor("sam3d_tiny")
    expected = stages_of(made, image, Prompts())
    for got, wanted in zip(low_res(made, image, 2), expected, strict=True):
        assert torch.allclose(got, wanted, atol=1e-5)


def test_stages_are_events_that_can_be_taken_back(image: Volume) -> None:
    session = predictor("msam_tiny").session(image).click((10, 10, 10))
    refined = session.refine(stages=3)
    assert len(refined.log) == 4
    assert np.array_equal(refined.undo().undo().mask.array, session.refine().mask.array)
    assert np.array_equal(session.replay(refined.to_dict()).mask.array, refined.mask.array)
    with pytest.raises(PromptError, match="one stage or more, got 0"):
        session.refine(stages=0)


def test_how_to_refine_is_stored_with_the_weights() -> None:
    chain = WindowPreprocess(prompting=Prompting(refine="prompts", feedback=True))
    assert Preprocess.from_dict(chain.to_dict()) == chain
    with pytest.raises(ConfigError, match=r"prompting\.refine"):
        Prompting(refine="twice")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["neurosam3d_tiny", "neurosam3d_hiera_tiny"])
def test_neurosam3d_sees_voxels_as_they_are_and_every_click(name: str) -> None:
    chain = Predictor(create_model(name), device="cpu").preprocess
    assert isinstance(chain, WindowPreprocess)
    assert chain.spacing_mm is None
    assert chain.percentiles == (0.05, 99.95)
    assert chain.prompting.clicks == "all"
    assert chain.size == (32, 32, 32)


def test_an_object_must_be_there_to_be_refined(image: Volume) -> None:
    with pytest.raises(PromptError, match="no object 'object'"):
        cubes().session(image).refine()
