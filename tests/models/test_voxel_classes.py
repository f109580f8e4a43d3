"""Plain U-Nets: the same as MONAI's, saved and loaded as other models, one call with those."""

from __future__ import annotations

import pytest
import torch

from samaritan.assembly import create_model
from samaritan.checkpoints import load_model, save_weights
from samaritan.errors import ConfigError, PromptError
from samaritan.models import patch_logits

monai_nets = pytest.importorskip("monai.networks.nets")

FLAT = {
    "strides": ((1, 1), (2, 2), (2, 1)),
    "kernels": ((1, 3), (3, 3), (3, 3)),
    "image_size": (8, 12),
}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def net(name="dynunet_tiny", **options):
    return create_model(name, num_classes=3, **options).eval()


def test_it_computes_what_monai_does():
    model, own = net(), net().own
    theirs = monai_nets.DynUNet(
        3, 1, 4, own.kernels, own.strides, own.strides[1:], own.filters,
        deep_supervision=True, deep_supr_num=1, trans_bias=True,
    ).eval()  # fmt: skip
    for name in ("input_block", "downsamples", "bottleneck", "upsamples", "output_block"):
        getattr(theirs, name).load_state_dict(getattr(model, name).state_dict())
    theirs.deep_supervision_heads.load_state_dict(model.coarse_heads.state_dict())
    x = torch.randn(2, 1, 8, 16, 12)
    with torch.no_grad():
        assert torch.equal(theirs(x), model(x))
        fine, coarse = model.supervised_logits(x)
        assert torch.equal(fine, model(x))
        theirs.train()
        assert torch.allclose(theirs(x)[:, 1, :, ::2, ::2, ::2], coarse, atol=1e-6)


def test_flat_ones_label_pictures():
    model = net(in_channels=2, **FLAT)
    assert model.own.divisor == (4, 2)
    assert patch_logits(model, torch.randn(1, 2, 8, 6)).shape == (1, 4, 8, 6)


def test_a_file_gives_the_same_model_back(tmp_path):
    model = net(in_channels=2, **FLAT)
    save_weights(model, tmp_path / "net.safetensors")
    again, header = load_model(tmp_path / "net.safetensors")
    assert header.config == model.config == again.config
    x = torch.randn(1, 2, 8, 8)
    assert torch.equal(model(x), again(x))
    assert len(model.state_dict()) == len(list(model.parameters()))


def test_every_parameter_learns():
    model = net().train()
    sum(x.square().sum() for x in model.supervised_logits(torch.randn(1, 1, 16, 16, 16))).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_one_call_serves_all_that_label_without_prompts():
    scores = patch_logits(create_model("masksam_tiny").eval(), torch.randn(1, 1, 3, 32, 32))
    assert torch.allclose(scores.softmax(dim=1), scores.exp(), atol=1e-4)
    samed = create_model("samed_tiny", num_classes=2).eval()
    assert patch_logits(samed, torch.randn(2, 1, 64, 64)).shape == (2, 3, 64, 64)
    with pytest.raises(PromptError, match="answers prompts"):
        patch_logits(create_model("sam_tiny"), torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": (16, 16, 18)}, r"multiple of \(4, 4, 4\)"),
        ({"filters": (8, 16)}, "same 2 to 12 stages"),
        ({"kernels": ((5, 3, 3),) * 3}, "kernels must be 1 or 3"),
        ({"strides": ((2, 2, 2),) * 3}, "must begin with ones"),
        ({"supervised": 2}, "supervised must be at most 1"),
        ({"method": "lora"}, "plain U-Net"),
        ({"filtres": (8, 16, 24)}, "no field 'filtres'"),
    ],
)
def test_wrong_options_are_told(options, message):
    with pytest.raises(ConfigError, match=message):
        net(**options)


def test_wrong_patches_and_prompts_are_told():
    with pytest.raises(ConfigError, match=r"multiples of \(4, 4, 4\)"):
        net()(torch.zeros(1, 1, 8, 8, 6))
    with pytest.raises(PromptError, match="takes no prompts"):
        net()(torch.zeros(1, 1, 8, 8, 8), boxes=torch.zeros(1, 6))
