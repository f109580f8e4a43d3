"""Linear layers give what torch's give, forward and backward, whichever library computes them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from samaritan import products
from samaritan.adapt import insert
from samaritan.products import Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d, Linear, linear

ROWS, INS, OUTS = 96, 256, 192
assert ROWS * INS * OUTS >= products._FEWEST


@pytest.mark.parametrize("weight_learns", [False, True])
@pytest.mark.parametrize("passes", [False, True])
@pytest.mark.parametrize("shape", [(ROWS,), (2, 6, 8), (3, 32)])
def test_layer_and_its_gradients_are_those_of_torch(
    shape: tuple[int, ...], passes: bool, weight_learns: bool
) -> None:
    torch.manual_seed(0)
    x = torch.randn(*shape, INS, requires_grad=passes)
    weight = torch.randn(OUTS, INS, requires_grad=weight_learns)
    bias = torch.randn(OUTS, requires_grad=weight_learns)
    way_back = torch.randn(*shape, OUTS)
    found = []
    for layer in (F.linear, linear):
        out = layer(x, weight, bias)
        learning = [t for t in (x, weight, bias) if t.requires_grad]
        gradients = torch.autograd.grad(out, learning, way_back) if learning else ()
        found.append((out.detach(), *gradients))
    for theirs, ours in zip(*found, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_strided_inputs_and_gradients_are_taken() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, INS, 48, requires_grad=True)
    weight = torch.randn(OUTS, INS, requires_grad=True)
    way_back = torch.randn(2, OUTS, 48)
    found = []
    for layer in (F.linear, linear):
        out = layer(x.transpose(1, 2), weight, None).transpose(1, 2)
        found.append(torch.autograd.grad(out, [x, weight], way_back))
    for theirs, ours in zip(*found, strict=True):
        assert (ours - theirs).norm() < 1e-5 * theirs.norm()


@pytest.mark.parametrize("learns", [False, True])
def test_frozen_layer_keeps_its_weight_alone_for_the_way_back(learns: bool) -> None:
    layer = Linear(INS, OUTS).requires_grad_(learns)
    kept: list[torch.Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        layer(torch.randn(ROWS, INS, requires_grad=True))
    assert any(t.data_ptr() == layer.weight.data_ptr() for t in kept)
    own = {p.data_ptr() for p in layer.parameters()}
    assert any(t.data_ptr() not in own for t in kept) == learns


def test_layer_computes_in_the_precision_around_it() -> None:
    layer, x = Linear(INS, OUTS), torch.randn(ROWS, INS)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.float64


def test_layer_can_be_exported_as_a_graph() -> None:
    layer, x = Linear(INS, OUTS).eval(), torch.randn(ROWS, INS)
    graph = torch.export.export(layer, (x,))
    assert "mkldnn" not in str(graph)
    assert torch.allclose(graph.module()(x), layer(x), atol=1e-4)


def test_layer_gives_a_tensor_of_its_own_that_may_be_added_into() -> None:
    layer = Linear(INS, OUTS)
    out = layer(torch.randn(2, ROWS // 2, INS, requires_grad=True))
    assert not out._is_view()
    out.add_(1).sum().backward()
    assert torch.equal(layer.bias.grad, torch.full((OUTS,), float(ROWS)))


def test_adapters_beside_a_layer_learn_alike_by_either_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"qkv": Linear(INS, 3 * INS)}).requires_grad_(False)
    insert(model, "qkv", "lora", parts="qv")
    learning = [p for name, p in model.named_parameters() if ".adapters." in name]
    for p in learning:
        torch.nn.init.normal_(p.requires_grad_(True), std=0.1)
    x, way_back = torch.randn(ROWS, INS, requires_grad=True), torch.randn(ROWS, 3 * INS)
    found = []
    for fewest in (products._FEWEST, 2**40):
        monkeypatch.setattr(products, "_FEWEST", fewest)
        out = model["qkv"](x)
        found.append((out.detach(), *torch.autograd.grad(out, [x, *learning], way_back)))
    assert len(learning) == 4
    for one, other in zip(*found, strict=True):
        assert other.norm() > 0
        assert (one - other).norm() < 1e-5 * other.norm()


def test_no_weight_that_is_cut_out_of_others_goes_to_onednn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no fast way for those: a step of SAMed took half as long again."""
    given: list[torch.Tensor] = []
    product = products._product
    monkeypatch.setattr(products, "_product", lambda x, w, b: given.append(w) or product(x, w, b))
    monkeypatch.setattr(products, "_FEWEST", 1)
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"qkv": Linear(INS, 3 * INS)})
    insert(model, "qkv", "lora", parts="qv")
    wide = torch.randn(ROWS, 2 * INS, requires_grad=True)
    model["qkv"](wide[:, :INS]).square().sum().backward()
    cut = torch.randn(OUTS, 2 * INS)[:, INS:]
    assert torch.allclose(linear(wide[:, :INS], cut), F.linear(wide[:, :INS], cut), atol=1e-4)
    assert all(w.is_contiguous() or w.t().is_contiguous() for w in given)
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        assert len(given) > 3


CONVS = [
    (Conv2d, {"kernel_size": 3, "stride": 2, "padding": 1}),
    (Conv2d, {"kernel_size": (2, 3), "stride": (1, 2), "padding": (0, 2)}),
    (ConvTranspose2d, {"kernel_size": 4, "stride": 2, "padding": 1}),
    (ConvTranspose2d, {"kernel_size": (3, 2), "stride": (2, 3)}),
]


@pytest.mark.parametrize("size", [(6, 4), (5, 7), (2, 3)])
@pytest.mark.parametrize(("kind", "options"), CONVS)
def test_convolution_and_its_gradients_are_those_of_torch(
    kind: type, options: dict[str, object], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    layer = kind(96, 128, bias=False, **options)
    x = torch.randn(2, *size, 96, requires_grad=True).movedim(-1, 1)  # channels last, as tokens are
    assert layer.is_product(x)
    expected = super(kind, layer).forward(x)
    way_back = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, [x, layer.weight], way_back, retain_graph=True)
    found = layer(x)
    ours = torch.autograd.grad(found, [x, layer.weight], way_back)
    assert ours[1].is_contiguous()  # or it would have to be turned for the optimiser
    for one, other in zip((found, *ours), (expected, *theirs), strict=True):
        assert one.shape == other.shape
        assert (one - other).norm() < 1e-5 * other.norm()


@pytest.mark.parametrize(
    "odd",
    [
        {"bias": True},
        {"groups": 2},
        {"dilation": 2},
        {"padding_mode": "reflect"},
        {"padding": "valid"},
    ],
)
def test_other_convolutions_are_left_to_torch(odd: dict[str, object]) -> None:
    layer = Conv2d(4, 4, **({"kernel_size": 3, "bias": False} | odd))
    x = torch.randn(1, 4, 8, 8)
    assert not layer.is_product(x)
    assert torch.equal(layer(x), torch.nn.Conv2d.forward(layer, x))


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_convolutions_over_many_positions_are_left_to_torch(kind: type) -> None:
    layer = kind(2, 2, kernel_size=1, bias=False)
    assert layer.is_product(torch.randn(2, 2, 16, 16))
    assert not layer.is_product(torch.randn(2, 2, 16, 17))


def test_a_transposed_convolution_takes_the_size_that_is_asked_for() -> None:
    layer, x = ConvTranspose2d(2, 3, kernel_size=2, stride=2, bias=False), torch.randn(1, 2, 3, 3)
    assert layer(x, output_size=[7, 7]).shape == (1, 3, 7, 7)
    assert torch.allclose(layer(x, output_size=[6, 6]), layer(x), atol=1e-6)


def test_a_convolution_can_be_exported_as_a_graph() -> None:
    layer, x = Conv2d(8, 8, kernel_size=3, stride=2, bias=False).eval(), torch.randn(1, 8, 6, 6)
    graph = torch.export.export(layer, (x,))
    assert "im2col" not in str(graph)
    assert torch.allclose(graph.module()(x), layer(x), atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": (2, 3, 3), "stride": (1, 2, 2), "padding": (0, 1, 1), "bias": False},
        {"kernel_size": 3, "groups": 8, "dilation": 2},
    ],
)
def test_convolution_of_a_small_volume_is_that_of_torch(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    layer = Conv3d(48, 48, **options)
    x = torch.randn(1, 48, 16, 12, 12, requires_grad=True)
    assert layer._is_overlooked(x) == torch.backends.mkldnn.is_available()
    learning = [x, *layer.parameters()]
    expected = super(Conv3d, layer)._conv_forward(x, layer.weight, layer.bias)
    way_back = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, learning, way_back)
    found = layer(x)
    ours = torch.autograd.grad(found, learning, way_back)
    for one, other in zip((found, *ours), (expected, *theirs), strict=True):
        assert (one - other).norm() < 1e-5 * other.norm()


def test_other_volumes_are_left_to_torch() -> None:
    layer, x = Conv3d(48, 48, kernel_size=3), torch.randn(1, 48, 16, 12, 12)
    assert not layer._is_overlooked(x.expand(2, -1, -1, -1, -1))
    assert not layer._is_overlooked(x[0])
    assert not layer._is_overlooked(x[..., :1, :1])  # too small to be worth it
    assert layer(x[0]).shape == (48, 14, 10, 10)
    assert layer.double()(x.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(x).dtype == torch.bfloat16


FEW_CHANNELS = [
    (Conv3d, (12, 3), {"kernel_size": 1}),
    (Conv3d, (3, 24), {"kernel_size": 1, "bias": False}),
    (ConvTranspose3d, (24, 12), {"kernel_size": 2, "stride": 2}),
    (ConvTranspose3d, (5, 3), {"kernel_size": (1, 2, 3), "stride": (1, 2, 3), "bias": False}),
]


@pytest.mark.parametrize(("kind", "channels", "options"), FEW_CHANNELS)
def test_few_channels_of_volumes_are_mixed_and_enlarged_as_torch_does(
    kind: type, channels: tuple[int, int], options: dict[str, object]
) -> None:
    torch.manual_seed(0)
    layer = kind(*channels, **options)
    theirs = kind.__mro__[1](*channels, **options)
    theirs.load_state_dict(layer.state_dict())
    x = torch.randn(2, 4, 5, 6, channels[0], requires_grad=True).movedim(-1, 1)
    found = []
    for one in (layer, theirs):
        out = one(x)
        gradients = torch.autograd.grad(out, [x, *one.parameters()], torch.cos(out.detach()))
        found.append((out.detach(), *gradients))
    for ours, other in zip(*found, strict=True):
        assert ours.shape == other.shape
        assert (ours - other).norm() < 1e-5 * other.norm()


def test_volumes_of_many_channels_or_with_overlap_are_left_to_torch() -> None:
    x = torch.randn(1, 16, 4, 4, 4)
    assert not Conv3d(16, 16, kernel_size=1)._is_mixing(x)
    assert not Conv3d(16, 4, kernel_size=1, padding=1)._is_mixing(x)
    assert not Conv3d(16, 4, kernel_size=3)._is_mixing(x)
    assert not ConvTranspose3d(16, 16, kernel_size=2, stride=2)._is_enlarging(x)
    assert not ConvTranspose3d(16, 4, kernel_size=3, stride=2)._is_enlarging(x)
    assert not ConvTranspose3d(16, 4, kernel_size=2, stride=2, output_padding=1)._is_enlarging(x)
