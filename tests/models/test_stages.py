"""Refinement stage by stage: M-SAM's program feeds the mask back, its paper the image embedding as well."""

from __future__ import annotations

import pytest
import torch

from samaritan.assembly import create_model
from samaritan.errors import ConfigError
from samaritan.models import Prompts, refine


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("msam_tiny")


@pytest.fixture
def embedding():
    return torch.randn(1, 48, 4, 4, 4, generator=torch.Generator().manual_seed(1))


def click(*coords, label=1):
    return Prompts(points=(torch.tensor([[coords]], dtype=torch.float), torch.tensor([[label]])))


STAGES = [click(3, 4, 5), click(20, 9, 11, label=0), Prompts()]


def test_as_published_each_stage_sees_the_first_embedding_and_the_last_mask(model, embedding):
    stages = list(refine(model, embedding, STAGES))
    assert all(stage.image_embeddings is embedding for stage in stages)
    mask = torch.zeros(1, 1, 16, 16, 16)
    for prompts, stage in zip(STAGES, stages, strict=True):
        sparse, dense = model.prompt_encoder(prompts.points, None, mask)
        mask, iou = model.mask_decoder(
            image_embeddings=embedding,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        assert torch.equal(stage.low_res_logits, mask)
        assert torch.equal(stage.iou, iou)
    assert len({float(stage.low_res_logits.detach().sum()) for stage in stages}) == 3


def test_with_feedback_each_stage_sees_what_the_one_before_joined(model, embedding):
    stages = list(refine(model, embedding, STAGES, feedback_embedding=True))
    _, no_mask = model.prompt_encoder(STAGES[0].points)
    assert stages[0].image_embeddings is embedding
    expected = model.mask_decoder.fuse(embedding, no_mask)
    assert torch.equal(stages[1].image_embeddings, expected)
    dense = model.prompt_encoder(masks=stages[0].low_res_logits)[1]
    assert torch.equal(stages[2].image_embeddings, model.mask_decoder.fuse(expected, dense))


@pytest.mark.parametrize("feedback", [False, True])
def test_gradients_flow_through_all_stages(model, embedding, feedback):
    embedding.requires_grad_(True)
    stages = list(refine(model, embedding, STAGES, feedback_embedding=feedback))
    stages[-1].low_res_logits.mean().backward()
    assert stages[1].low_res_logits.requires_grad
    assert model.prompt_encoder.point_embeddings[0].weight.grad.any()  # of stage 1 alone
    assert embedding.grad.any()


def test_prompts_may_be_chosen_by_looking_at_the_stage_before(model, embedding):
    seen = []

    def looking():
        for i in range(3):
            assert len(seen) == i
            yield click(i, i, i)

    for stage in refine(model, embedding, looking(), masks=torch.ones(1, 1, 16, 16, 16)):
        seen.append(stage)
    assert len(seen) == 3


def test_grids_of_another_size_and_fine_masks_work(embedding):
    model = create_model("neurosam3d_tiny")
    wide = torch.randn(1, 48, 4, 6, 5)
    (stage,) = refine(model, wide, [click(3, 4, 5)])
    assert stage.low_res_logits.shape == (1, 1, 32, 48, 40)
    with pytest.raises(ConfigError, match="no stages"):
        next(refine(create_model("unet_tiny"), torch.randn(1, 16, 16, 16), [Prompts()]))
