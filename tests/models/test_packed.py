"""The encoder in bfloat16 gives what the encoder in float32 gives, within its rounding."""

import pytest
import torch

from samaritan.adapt import insert
from samaritan.assembly import create_model
from samaritan.models import Quirks
from samaritan.models.config import get_config
from samaritan.models.layers import TwoLayerMLP
from samaritan.models.packed import (
    PackedConv,
    PackedEncoder,
    PackedLinear,
    packs,
    suits_bfloat16,
    with_compiled_encoder,
    with_packed_encoder,
)
from samaritan.products import Conv2d, ConvTranspose2d

needs_onednn = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()),
    reason="oneDNN has no products in bfloat16 on this processor",
)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.fixture
def tame(build):
    """A model whose weights are of a trained model's size, so that rounding is what it is there."""

    def make(name, **options):
        model = build(name, **options)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(parameter[0].numel() ** -0.5 / 0.3)
        return model

    return make


@pytest.fixture(params=["lora", "bottleneck"])
def adapted(request, tame, randn, no_grad):
    """A model with adapters that change much, an image, and its embedding without them."""
    model = tame("sam_tiny", quirks=Quirks(window_padding=True))
    image = randn(1, 3, *model.config.image_size)
    before = model.image_encoder(image)
    if request.param == "lora":
        insert(model, "image_encoder.blocks.*.attn.qkv", "lora", parts="qv")
    else:
        insert(model, "image_encoder.blocks.*.mlp", "bottleneck")
    for name, parameter in model.named_parameters():
        if ".adapters." in name:
            parameter.copy_(0.3 * randn(*parameter.shape))
    return model, image, before


@needs_onednn
@pytest.mark.parametrize(
    ("name", "size", "quirks"),
    [
        ("sam_tiny", (64, 112), Quirks(window_padding=True)),
        ("sam3d_tiny", (32, 32, 32), Quirks(window_padding=True, rel_pos_axes=True)),
    ],
)
def test_packed_encoder_is_within_two_hundredths(tame, randn, no_grad, name, size, quirks):
    model = tame(name, image_size=size, quirks=quirks)
    image = randn(2, model.config.in_channels, *size)
    expected = model.image_encoder(image)
    fast = with_packed_encoder(model)
    found = fast.image_encoder(image)
    assert found.dtype == torch.float32
    assert 0 < relative(found, expected) < 2e-2
    assert torch.equal(model.image_encoder(image), expected)  # the model itself is as it was
    assert fast.mask_decoder is model.mask_decoder


@needs_onednn
def test_layer_and_its_activation_are_those_of_the_mlp(randn, no_grad):
    mlp, x = TwoLayerMLP(64, 256), randn(3, 5, 64)
    fused = PackedLinear(mlp.lin1.weight, mlp.lin1.bias, gelu=True)(x).float()
    assert relative(fused, torch.nn.functional.gelu(mlp.lin1(x))) < 1e-2
    assert relative(PackedLinear(mlp.lin2.weight, mlp.lin2.bias)(fused).float(), mlp(x)) < 1e-2


@needs_onednn
@pytest.mark.parametrize("side", [6, 48])
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_convolutions_beside_are_packed_too(randn, no_grad, kind, side):
    layer, x = (
        kind(32, 48, kernel_size=4, stride=2, padding=1, bias=False),
        randn(2, 32, side, side),
    )
    assert layer.is_product(x) == (side == 6)
    with torch.autocast("cpu", torch.bfloat16):
        found = PackedConv(layer)(x)
    assert found.dtype == torch.float32
    assert 0 < relative(found, layer(x)) < 1e-2


@needs_onednn
def test_every_layer_is_packed_and_adapters_stay_beside(adapted):
    model, image, before = adapted
    expected = model.image_encoder(image)
    encoder = PackedEncoder(model.image_encoder)
    assert not any(isinstance(m, torch.nn.Linear) for m in encoder.modules())
    assert relative(encoder(image), expected) < 2e-2 < relative(before, expected)


@needs_onednn
def test_a_gpus_layers_are_converted_once_and_adapters_stay_beside(adapted):
    model, image, before = adapted
    expected = model.image_encoder(image)
    encoder = PackedEncoder(model.image_encoder, laid_out=False)
    layers = [m for m in encoder.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert {m.weight.dtype for m in layers} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert relative(encoder(image), expected) < 2e-2 < relative(before, expected)
    assert torch.equal(model.image_encoder(image), expected)


def test_a_compiled_encoder_is_the_same_and_shares_its_weights(tame, randn, no_grad):
    model = tame("sam_tiny")
    image = randn(1, 3, *model.config.image_size)
    with torch.compiler.set_stance("force_eager"):  # compiling itself is torch's
        fast = with_compiled_encoder(model)
        assert torch.equal(fast.image_encoder(image), model.image_encoder(image))
    assert {id(p) for p in fast.parameters()} == {id(p) for p in model.parameters()}
    assert fast.mask_decoder is model.mask_decoder


def test_what_is_packed_where():
    cuda, half, whole = torch.device("cuda"), torch.float16, torch.float32
    assert packs(get_config("sam_tiny"), cuda, half)
    assert not packs(get_config("sam_tiny"), cuda, whole)
    assert not packs(get_config("neurosam3d_dinov2"), cuda, half)
    assert not packs(create_model("masksam_tiny").config, cuda, half)
    assert not packs(get_config("sam_vit_b"), torch.device("cpu"), half)
    assert not packs(get_config("sam_tiny"), torch.device("cpu"), torch.bfloat16)


def test_only_encoders_as_large_as_sams_compute_in_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    names = ("sam_vit_b", "sammed3d_vit_b_ori", "sam_tiny", "samaritan_2d", "neurosam3d_dinov2")
    assert [suits_bfloat16(get_config(n)) for n in names] == [True, True, False, False, False]
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert not suits_bfloat16(get_config("sam_vit_b"))


def test_long_inputs_go_through_an_mlp_in_parts(randn, no_grad):
    mlp, x = TwoLayerMLP(8, 16), randn(1, 30, 50, 8)
    with torch.enable_grad():
        whole = mlp(x)
    torch.testing.assert_close(mlp(x), whole, rtol=1e-5, atol=1e-6)
