import math

import pytest
import torch

from samaritan.errors import PromptError
from samaritan.models import Quirks, create_model


def clicks(n, count, ndim, label=1):
    return torch.rand(n, count, ndim) * 20, torch.full((n, count), label)


@pytest.fixture
def encoder2d(build):
    return build("sam_tiny", image_size=(48, 64)).prompt_encoder


@pytest.fixture
def encoder3d(build):
    return build("sam3d_tiny", image_size=(16, 24, 32)).prompt_encoder


def test_number_of_tokens_for_each_kind_of_prompt(encoder2d, encoder3d):
    for encoder, d in ((encoder2d, 2), (encoder3d, 3)):
        boxes = torch.tensor([[0.0] * d + [9.0] * d])
        one, two = clicks(1, 1, d), clicks(1, 2, d)
        assert encoder(points=one)[0].shape[1] == 2
        assert encoder(points=two)[0].shape[1] == 3
        assert encoder(boxes=boxes)[0].shape[1] == 2
        assert encoder(points=two, boxes=boxes)[0].shape[1] == 4
        assert encoder()[0].shape == (1, 0, encoder.embed_dim)


def test_points_come_first_then_the_two_corners(encoder2d, no_grad):
    points, boxes = clicks(1, 2, 2), torch.tensor([[1.0, 2, 9, 8]])
    both, _ = encoder2d(points=points, boxes=boxes)
    assert torch.equal(both[:, :2], encoder2d(points=points)[0][:, :2])
    assert torch.equal(both[:, 2:], encoder2d(boxes=boxes)[0])


def test_padding_point_is_exactly_not_a_point(encoder3d, no_grad):
    not_a_point = encoder3d.not_a_point_embed.weight[0]
    sparse, _ = encoder3d(points=clicks(2, 1, 3))
    assert torch.equal(sparse[:, 1], not_a_point.expand(2, -1))
    ignored, _ = encoder3d(points=clicks(2, 3, 3, label=-1))
    assert torch.equal(ignored, not_a_point.expand(2, 4, -1))


def test_labels_choose_the_embedding(encoder2d, no_grad):
    coords = torch.tensor([[[3.0, 5.0]]])
    positive, _ = encoder2d(points=(coords, torch.tensor([[1]])))
    negative, _ = encoder2d(points=(coords, torch.tensor([[0.0]])))
    expected = encoder2d.point_embeddings[1].weight - encoder2d.point_embeddings[0].weight
    torch.testing.assert_close(positive[:, 0] - negative[:, 0], expected, rtol=0, atol=1e-6)


def test_points_are_xy_in_2d(encoder2d, no_grad):
    pe = encoder2d.get_dense_pe()
    assert pe.shape == (1, 32, 3, 4)
    centre = torch.tensor([[[2 * 16 + 7.5, 1 * 16 + 7.5]]])  # column 2, row 1
    sparse, _ = encoder2d(points=(centre, torch.ones(1, 1)))
    code = sparse[0, 0] - encoder2d.point_embeddings[1].weight[0]
    torch.testing.assert_close(code, pe[0, :, 1, 2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("quirk", [False, True])
def test_points_are_in_array_order_in_3d(build, quirk, no_grad):
    model = build("sam3d_tiny", image_size=48, quirks=Quirks(dense_pe_axes=quirk))
    encoder, pe = model.prompt_encoder, model.prompt_encoder.get_dense_pe()
    centre = torch.tensor([[[1 * 8 + 3.5, 5 * 8 + 3.5, 3 * 8 + 3.5]]])
    sparse, _ = encoder(points=(centre, torch.ones(1, 1)))
    code = sparse[0, 0] - encoder.point_embeddings[1].weight[0]
    same, swapped = pe[0, :, 1, 5, 3], pe[0, :, 5, 1, 3]
    expected, other = (swapped, same) if quirk else (same, swapped)
    torch.testing.assert_close(code, expected, rtol=0, atol=1e-5)
    assert (code - other).abs().max() > 0.1


def test_code_is_sine_cosine_sine_of_random_projections(encoder3d, no_grad):
    coords = torch.rand(4, 3)
    angle = 2 * math.pi * (2 * coords - 1) @ encoder3d.pe_layer.positional_encoding_gaussian_matrix
    expected = torch.cat([angle.sin(), angle.cos(), angle.sin()], dim=-1)
    torch.testing.assert_close(encoder3d.pe_layer(coords), expected, rtol=0, atol=1e-5)


def test_code_stays_exact_under_autocast(encoder3d, no_grad):
    points, boxes = clicks(2, 3, 3), torch.tensor([[1.0, 2, 3, 9, 8, 7]]).repeat(2, 1)
    exact, pe = encoder3d(points=points, boxes=boxes)[0], encoder3d.get_dense_pe()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder3d(points=points, boxes=boxes)[0], exact)
        assert torch.equal(encoder3d.get_dense_pe(), pe)


def test_dense_prompt_without_a_mask_is_one_learned_vector(encoder3d, no_grad):
    _, dense = encoder3d(points=clicks(2, 1, 3))
    assert dense.shape == (2, 48, 2, 3, 4)
    assert torch.equal(dense[1, :, 1, 2, 3], encoder3d.no_mask_embed.weight[0])


def test_mask_prompt_is_brought_to_the_grid(encoder3d, randn, no_grad):
    masks = randn(2, 1, 8, 12, 16)
    sparse, dense = encoder3d(masks=masks)
    assert sparse.shape == (2, 0, 48)
    assert dense.shape == (2, 48, 2, 3, 4)
    changed = masks.clone()
    changed[:, :, 4:, 8:, 12:] = 0
    differs = (encoder3d(masks=changed)[1] != dense).any(1)
    assert differs[:, 1, 2, 3].all()
    assert differs.sum() == 2


def test_one_mask_serves_all_sets_of_prompts(encoder2d, randn, no_grad):
    mask = randn(1, 1, 12, 16)
    _, dense = encoder2d(points=clicks(3, 1, 2), masks=mask)
    assert dense.shape == (3, 32, 3, 4)
    assert torch.equal(dense[2:], encoder2d(masks=mask)[1])


def test_sets_of_prompts_do_not_mix(encoder2d, randn, no_grad):
    (coords, labels), boxes = clicks(3, 2, 2), 20 * torch.rand(3, 4)
    together, _ = encoder2d(points=(coords, labels), boxes=boxes)
    alone, _ = encoder2d(points=(coords[1:2], labels[1:2]), boxes=boxes[1:2])
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-5)


def test_other_image_size_scales_points_and_grid(build, no_grad):
    small, large = build("sam_tiny"), create_model("sam_tiny", image_size=(64, 128))
    weights = {k: v for k, v in small.state_dict().items() if k.startswith("prompt_encoder")}
    large.load_state_dict(weights, strict=False)
    points = clicks(1, 2, 2)
    asked = small.prompt_encoder(points=points, image_size=(64, 128))
    own = large.prompt_encoder(points=points)
    assert all(torch.equal(a, b) for a, b in zip(asked, own, strict=True))
    pe = small.prompt_encoder.get_dense_pe((64, 128))
    assert torch.equal(pe, large.prompt_encoder.get_dense_pe())


def test_whole_number_prompts_are_welcome(encoder2d, no_grad):
    coords, labels = torch.tensor([[[3, 5]]]), torch.tensor([[1]])
    whole, _ = encoder2d(points=(coords, labels), boxes=torch.tensor([[1, 2, 3, 4]]))
    real, _ = encoder2d(points=(coords.float(), labels), boxes=torch.tensor([[1.0, 2, 3, 4]]))
    assert torch.equal(whole, real)


def test_boxes_need_corner_embeddings(build):
    encoder = build("sam3d_tiny", num_point_embeddings=2).prompt_encoder
    assert encoder(points=clicks(1, 1, 3))[0].shape == (1, 2, 48)
    with pytest.raises(PromptError, match=r"no embeddings for box corners.*num_point_embeddings=4"):
        encoder(boxes=torch.zeros(1, 6))


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (
            {"points": (torch.zeros(1, 2, 3), torch.ones(1, 2))},
            r"\(1, 2, 3\); expected \(n, points, 2\)",
        ),
        ({"points": (torch.zeros(2, 2), torch.ones(2))}, r"\(2, 2\); expected \(n, points, 2\)"),
        ({"points": (torch.zeros(1, 2, 2), torch.ones(1, 3))}, "one per point"),
        (
            {"points": (torch.zeros(1, 2, 2), torch.tensor([[1, 2]]))},
            r"labels \[2\.0\] are not known",
        ),
        ({"boxes": torch.zeros(1, 6)}, r"\(1, 6\); expected \(n, 4\)"),
        ({"boxes": torch.zeros(4)}, r"\(4,\); expected \(n, 4\)"),
        ({"boxes": torch.zeros(1, 2, 4)}, r"one box"),
        ({"masks": torch.zeros(1, 1, 16, 16)}, r"expected \(n, 1, 12, 16\).*resize the mask"),
        ({"masks": torch.zeros(1, 2, 12, 16)}, r"expected \(n, 1, 12, 16\)"),
        (
            {"points": (torch.zeros(2, 1, 2), torch.ones(2, 1)), "boxes": torch.zeros(3, 4)},
            "not 2 points, 3 boxes",
        ),
    ],
)
def test_wrong_prompts_are_refused_with_what_was_expected(encoder2d, prompts, message):
    with pytest.raises(PromptError, match=message):
        encoder2d(**prompts)
