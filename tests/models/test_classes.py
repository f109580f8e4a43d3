"""A model that labels classes: all tokens, no prompts, each image by itself."""

import pytest
import torch
import torch.nn.functional as F

from samaritan.errors import PromptError
from samaritan.models import ClassSam

OPTIONS = [("sam_tiny", {"image_size": (64, 96)}), ("sam3d_tiny", {"image_size": (32, 40, 48)})]


@pytest.fixture(params=OPTIONS, ids=["2d", "3d"])
def model(request, build):
    name, options = request.param
    return build(name, classes=True, num_mask_tokens=6, **options)


@pytest.fixture
def images(model, randn):
    return randn(2, model.config.in_channels, *model.config.image_size)


def test_every_class_is_given_at_both_sizes(model, images, no_grad):
    assert isinstance(model, ClassSam)
    out = model(images)
    assert out.low_res_logits.shape == (2, 6, *model.low_res_size)
    assert out.masks.shape == (2, 6, *model.config.image_size)
    assert out.iou_predictions.shape == (2, 6)
    mode = {2: "bilinear", 3: "trilinear"}[model.config.ndim]
    full = F.interpolate(out.low_res_logits, model.config.image_size, mode=mode)
    assert torch.equal(out.masks, full)


def test_the_multimask_flag_changes_nothing(model, images, no_grad):
    one, several = (model(images, multimask_output=flag) for flag in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))


def test_a_batch_equals_its_images_one_by_one(model, images, no_grad):
    both = model(images)
    for i in range(2):
        for name, value in both._asdict().items():
            torch.testing.assert_close(
                model(images[i : i + 1])[name][0], value[i], rtol=1e-4, atol=1e-4
            )


def test_fields_are_found_by_word_name_and_place(model, images, no_grad):
    out = model(images)
    assert out["masks"] is out.masks is out[1]
    low_res, masks, iou = out
    assert (low_res is out[0], masks is out[1], iou is out[-1]) == (True, True, True)
    assert len(out) == 3
    with pytest.raises(TypeError):
        _ = out["mask"]


def test_prompts_are_refused(model, images):
    points = torch.zeros(1, 1, model.config.ndim), torch.ones(1, 1)
    with pytest.raises(PromptError, match="labels the whole image and takes no prompts"):
        model(images, points=points)


def test_all_tokens_stand_in_the_order_of_their_networks(model, images, no_grad):
    before = model(images).low_res_logits
    last = model.mask_decoder.output_hypernetworks_mlps[3].layers[-1]
    last.weight.zero_()
    last.bias.zero_()
    after = model(images).low_res_logits
    assert after[:, 3].abs().max() == 0
    others = [0, 1, 2, 4, 5]
    assert torch.equal(after[:, others], before[:, others])
