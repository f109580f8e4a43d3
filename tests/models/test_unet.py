from __future__ import annotations

import pytest
import torch

from samaritan.errors import ConfigError, PromptError
from samaritan.models import create_model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return create_model("unet_tiny")


def test_the_compact_model_has_three_and_a_half_million_weights():
    assert sum(p.numel() for p in create_model("samaritan_2d").parameters()) == 3_487_962


def test_it_is_called_as_sam_is(model):
    images = torch.randn(2, 3, 64, 64)
    embeddings = model.image_encoder(images)
    points = torch.tensor([[[20.0, 30.0]]] * 4), torch.tensor([[1]] * 4)
    sparse, dense = model.prompt_encoder(points=points, boxes=torch.tensor([[4.0, 5, 40, 50]] * 4))
    assert sparse.shape == (4, 0, 16)
    assert dense.shape == (4, 16, 16, 16)
    for multimask in (True, False):
        masks, quality = model.mask_decoder(
            image_embeddings=embeddings,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        assert masks.shape == (4, 1, 64, 64)
        assert quality.shape == (4, 1)
        assert bool(((quality >= 0) & (quality <= 1)).all())


def test_other_sizes_are_taken_as_they_are(model):
    assert model.resized(96)(torch.randn(1, 3, 96, 96)).low_res_logits.shape == (1, 1, 96, 96)
    with pytest.raises(ConfigError, match="multiples of 4"):
        model.image_encoder(torch.randn(1, 3, 62, 64))


def test_prompts_in_a_batch_do_not_touch_each_other(model):
    images = torch.randn(1, 3, 64, 64)
    coords = torch.tensor([[[20.0, 30.0]], [[50.0, 10.0]]])
    labels = torch.tensor([[1], [0]])
    boxes = torch.tensor([[4.0, 5, 40, 50], [9.0, 9, 20, 60]])
    both = model(images, (coords, labels), boxes).low_res_logits
    for i in range(2):
        one = slice(i, i + 1)
        alone = model(images, (coords[one], labels[one]), boxes[one]).low_res_logits
        assert torch.allclose(both[one], alone, atol=1e-5)


def test_a_click_is_drawn_where_it_is(model):
    encoder = model.prompt_encoder
    for x, y in ((10.0, 41.0), (33.0, 5.0)):
        spots = encoder._spots(torch.tensor([[[x, y]]]), torch.tensor([[1]]), (16, 16))[0]
        row, column = divmod(int(spots[0].argmax()), 16)
        assert (row, column) == (int(y // 4), int(x // 4))
        assert float(spots[2:].abs().max()) == 0  # no negative click


def test_a_box_covers_its_own_area(model):
    boxes = torch.tensor([[6.0, 9.0, 29.0, 52.0]])
    covered, bell, there = model.prompt_encoder._boxes(boxes, (16, 16))[0]
    assert float(covered.sum()) * 16 == pytest.approx(24 * 44)
    assert float(there.min()) == 1
    row, column = divmod(int(bell.argmax()), 16)
    assert (row, column) == (7, 4)


def test_a_box_turned_round_is_no_box(model):
    images = torch.randn(1, 3, 64, 64)
    points = torch.tensor([[[20.0, 30.0]]]), torch.tensor([[1]])
    none = model(images, points, torch.tensor([[2.0, 2, -1, -1]])).low_res_logits
    assert torch.equal(none, model(images, points).low_res_logits)


def test_points_that_are_none_change_nothing(model):
    images = torch.randn(1, 3, 64, 64)
    one = model(images, (torch.tensor([[[20.0, 30.0]]]), torch.tensor([[1]])))
    filled = model(images, (torch.tensor([[[20.0, 30.0], [7.0, 8.0]]]), torch.tensor([[1, -1]])))
    assert torch.equal(one.low_res_logits, filled.low_res_logits)


def test_no_mask_is_a_mask_that_knows_nothing(model):
    images, boxes = torch.randn(1, 3, 64, 64), torch.tensor([[4.0, 5, 40, 50]])
    none = model(images, boxes=boxes).low_res_logits
    zeros = model(images, boxes=boxes, masks=torch.zeros(1, 1, 64, 64)).low_res_logits
    other = model(images, boxes=boxes, masks=torch.full((1, 1, 64, 64), 3.0)).low_res_logits
    assert torch.allclose(none, zeros, atol=1e-6)
    assert not torch.allclose(none, other, atol=1e-3)


def test_every_parameter_has_a_gradient(model):
    model.train()
    sparse, dense = model.prompt_encoder(boxes=torch.tensor([[4.0, 5, 40, 50]]))
    masks, quality = model.mask_decoder.every_mask(
        image_embeddings=model.image_encoder(torch.randn(1, 3, 64, 64)),
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    (masks.square().mean() + quality.sum()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_quality_sends_no_gradient_into_the_masks(model):
    model.train()
    model(torch.randn(1, 3, 64, 64), boxes=torch.tensor([[4.0, 5, 40, 50]])).iou.sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {f"mask_decoder.{n}" for n in _names(model.mask_decoder, "quality")}


def _names(module, start):
    return [name for name, _ in module.named_parameters() if name.startswith(start)]


def test_every_mask_of_sam_is_what_it_gives_one_by_one():
    torch.manual_seed(1)
    model = create_model("sam_tiny")
    sparse, dense = model.prompt_encoder(boxes=torch.tensor([[4.0, 5, 40, 50]]))
    given = {
        "image_embeddings": model.image_encoder(torch.randn(1, 3, 64, 64)),
        "image_pe": model.prompt_encoder.get_dense_pe(),
        "sparse_prompt_embeddings": sparse,
        "dense_prompt_embeddings": dense,
    }
    masks, quality = model.mask_decoder.every_mask(**given)
    one = model.mask_decoder(**given, multimask_output=False)
    three = model.mask_decoder(**given, multimask_output=True)
    assert torch.allclose(masks, torch.cat([one[0], three[0]], dim=1), atol=1e-6)
    assert torch.allclose(quality, torch.cat([one[1], three[1]], dim=1), atol=1e-6)


def test_wrong_prompts_are_told_as_for_sam(model):
    with pytest.raises(PromptError, match="mask prompts have shape"):
        model.prompt_encoder(masks=torch.zeros(1, 1, 16, 16))
    with pytest.raises(PromptError, match="not known; use 1"):
        model.prompt_encoder(points=(torch.zeros(1, 1, 2), torch.tensor([[7]])))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"levels": (16,)}, "at least two multiples of 8"),
        ({"levels": (24, 32)}, "must be embed_dim"),
        ({"patch_size": 8}, "patch_size .* must be 4"),
        ({"backbone": "resnet"}, "backbone must be one of"),
        ({"backbone": "vit"}, "levels .* are for backbone"),
    ],
)
def test_what_cannot_be_built_is_told(changes, told):
    with pytest.raises(ConfigError, match=told):
        create_model("unet_tiny", **changes)


def test_masks_above_a_limit_are_those_of_all():
    torch.manual_seed(0)
    model = create_model("unet_tiny", num_mask_tokens=4).eval()
    sparse, dense = model.prompt_encoder(points=(60 * torch.rand(3, 1, 2), torch.ones(3, 1)))
    told = {
        "image_embeddings": torch.randn(1, *dense.shape[1:]),
        "image_pe": model.prompt_encoder.get_dense_pe(),
        "sparse_prompt_embeddings": sparse,
        "dense_prompt_embeddings": dense,
    }
    with torch.no_grad():
        every, quality = model.mask_decoder(**told, multimask_output=True)
        limit = float(quality.median())
        masks, again = model.mask_decoder.masks_above(limit, **told)
    assert 0 < len(masks) < quality.numel()
    assert torch.equal(masks, every[quality > limit])
    assert torch.equal(again, quality)
