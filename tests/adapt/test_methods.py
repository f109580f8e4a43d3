"""Plans: what they bring, what learns, and that it does."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import mse_loss

from samaritan.adapt import adapters_of, apply_method, get_method, method_names
from samaritan.adapt.inject import is_adapter
from samaritan.errors import ConfigError

PROMPTED = ("none", "adapters_only")


def everything_used(model, images):
    """A number that every parameter of a prompted model takes part in."""
    n = model.config.ndim
    points = torch.full((1, 3, n), 9.0), torch.tensor([[1, 0, -1]])
    low = torch.randn(1, 1, *model.low_res_size)
    box = torch.tensor([[2.0] * n + [20.0] * n])
    total = torch.zeros(())
    for prompts in ({"points": points}, {"boxes": box}, {"masks": low}):
        for multimask in (False, True):
            out = model(images, multimask_output=multimask, **prompts)
            total = total + mse_loss(out.low_res_logits, torch.ones_like(out.low_res_logits))
            total = total + mse_loss(out.iou, torch.ones_like(out.iou))
    return total


@pytest.mark.parametrize("name", ["sam_tiny", "sam3d_tiny"])
@pytest.mark.parametrize("method", sorted(set(method_names()) - set(PROMPTED)))
def test_every_trainable_parameter_moves_and_frozen_ones_do_not(method, name, plain, image):
    model = plain(name)
    apply_method(model, method)
    with torch.no_grad():  # away from the start, where zeros of B hold back A
        for placed in adapters_of(model):
            for parameter in placed.adapter.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=10.0)
    everything_used(model, image(model)).backward()
    optimizer.step()
    for key, parameter in model.named_parameters():
        moved = not torch.equal(parameter, before[key])
        # M-SAM's weights hold one norm that nothing goes through
        assert moved == (parameter.requires_grad and ".unused_norm." not in key), key


@pytest.mark.parametrize(
    ("method", "inside"),
    [
        ("lora", ("prompt_encoder.", "mask_decoder.")),
        ("sam_med2d", ("prompt_encoder.", "mask_decoder.")),
        ("decoder_only", ("mask_decoder.",)),
        ("encoder_frozen", ("prompt_encoder.", "mask_decoder.")),
        ("all", ("",)),
        ("none", ()),
    ],
)
def test_plans_train_what_they_say(method, inside, plain):
    model = plain()
    apply_method(model, method)
    for key, parameter in model.named_parameters():
        assert parameter.requires_grad == (is_adapter(key) or key.startswith(inside)), key


def test_the_decoder_of_samed_s_learns_through_lora_alone(plain):
    model = plain()
    apply_method(model, "lora_decoder", rank=2)
    frozen = [k for k, p in model.mask_decoder.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(k.startswith("transformer.") and not is_adapter(k) for k in frozen)
    assert len(adapters_of(model)) == 2 + 2 * (2 * 3) + 2
    assert all(placed.adapter.rank == 2 for placed in adapters_of(model))


def test_adapters_only_needs_adapters(plain):
    with pytest.raises(ConfigError, match=r"no parameter is called '\*\*\.adapters"):
        apply_method(plain(), "adapters_only")


def test_options_reach_the_adapters_that_have_them():
    method = get_method("lora_decoder", rank=8, scale=2.0)
    assert [dict(i.options) for i in method.insertions] == [
        {"parts": "qv", "rank": 8, "scale": 2.0},
        {"parts": "", "rank": 8, "scale": 2.0},
    ]
    with pytest.raises(ConfigError, match="'lora' has no option 'parts'; it has rank, scale"):
        get_method("lora", parts="k")
    with pytest.raises(ConfigError, match="'all' has no option 'rank'; it has none"):
        get_method("all", rank=3)
    with pytest.raises(ConfigError, match="Did you mean 'sam_med2d'"):
        get_method("sammed2d")
