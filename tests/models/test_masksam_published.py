"""MaskSAM's published presets without memory: shapes inside, weights of parts; boxes; no loop over masks."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from samaritan.assembly import create_model
from samaritan.models.prompt_generator import Proposals, boxes_of

ACDC = ("masksam_acdc", (1, 1, 4, 256, 256))
SYNAPSE = ("masksam_synapse", (1, 1, 26, 256, 256))
AMOS = ("masksam_amos", (1, 1, 9, 512, 512))


def count(*parts):
    return sum(p.numel() for part in parts for p in part.parameters())


@pytest.fixture(scope="module")
def published():
    """The presets as published, on a device without memory."""
    with torch.device("meta"):
        return {n: create_model(n, compat="reference") for n, _ in (ACDC, SYNAPSE, AMOS)}


# -- sizes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "encoder", "tables", "decoder", "others"),
    [
        ("masksam_acdc", 3_619_584, (3_072, 4_194_304), 304_209, 9_665_481),
        ("masksam_synapse", 26_572_800, (33_280, 1_703_936), 343_224, 10_324_073),
        ("masksam_amos", 26_572_800, (11_520, 2_359_296), 311_108, 10_324_073),
    ],
)
def test_what_learns_is_as_large_as_published(published, name, encoder, tables, decoder, others):
    model = published[name]
    blocks = model.image_encoder.blocks
    assert count(*(block.mlp.adapters for block in blocks)) == encoder
    assert count(*(block.attn.adapters for block in blocks)) == encoder
    assert (model.slice_embedding.numel(), model.slice_code.numel()) == tables
    adapters = [p for key, p in model.mask_decoder.named_parameters() if ".adapters." in key]
    classes = count(model.class_token, model.class_head)
    assert sum(p.numel() for p in adapters) + classes == decoder
    heads = () if model.mask_head is None else (model.mask_head,)
    assert count(model.stem, model.generator, *heads) == others
    learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert learns == 2 * encoder + sum(tables) + decoder + others


@pytest.mark.parametrize("name", ["masksam_synapse", "masksam_amos"])
def test_parts_of_the_large_models_have_as_many_parameters_as_published(published, name):
    model = published[name]
    generator = model.generator
    assert count(model.stem) == 897
    assert count(generator.first, generator.stages) == 5_606_016
    assert (count(generator.doublings), count(generator.masks)) == (246_144, 1_560)
    assert count(generator.skips) == 3_923_200
    assert (count(generator.boxes), count(generator.tokens)) == (15_408, 414_792)
    assert count(model.mask_head) == 116_056


# -- shapes --------------------------------------------------------------------------------------------


def shapes_in(model, size):
    """Shapes that go into and out of modules during a call, by their names; the last call of each counts."""
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _, given, out, name=name: seen.__setitem__(name, (given, out))
        )
    features = []
    plain = model.image_encoder.levels
    model.image_encoder.levels = lambda tokens: features.extend(plain(tokens)) or features
    with torch.no_grad():
        out = model(torch.zeros(size, device="meta"))

    def shape(name, *, given=False):
        found = seen[name][0 if given else 1]
        return tuple((found[0] if isinstance(found, tuple) else found).shape)

    return shape, [tuple(x.shape) for x in features], out


@pytest.mark.parametrize(
    ("name", "size", "width", "grid", "windows", "windowed", "last"),
    [
        (*ACDC, 768, 64, 100, (25, 192, 4, 14, 14), 11),
        (*SYNAPSE, 1280, 16, 104, (4, 320, 26, 14, 14), 31),
        (*AMOS, 1280, 32, 81, (9, 320, 9, 14, 14), 31),
    ],
)
def test_shapes_inside_are_the_published_ones(
    monkeypatch, name, size, width, grid, windows, windowed, last
):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # knows no such device
    with torch.device("meta"):
        model = create_model(name, compat="reference")
    shape, features, out = shapes_in(model, size)
    slices, side, queries = size[2], size[3], model.own.queries
    classes, hidden = model.own.num_classes, width // 4
    n = slices * queries
    assert shape("stem") == (1, 3, slices, 16 * grid, 16 * grid)
    assert features == [(slices, width, grid, grid)] * 4 + [(slices, 256, grid, grid)]
    encoder = "image_encoder.blocks"
    padded = shape(f"{encoder}.0.attn", given=True)
    assert padded == (slices, *[-(-grid // 14) * 14] * 2, width)
    assert slices * (padded[1] // 14) * (padded[2] // 14) == windows
    assert shape(f"{encoder}.0.attn.adapters.depth_conv.conv") == windowed
    whole = (1, hidden, slices, grid, grid)
    assert shape(f"{encoder}.0.mlp.adapters.depth_conv.conv") == whole
    assert shape(f"{encoder}.{last}.attn.adapters.depth_conv.conv") == whole
    stages = {
        "masksam_acdc": [(256, 64), (128, 128), *[(128, 256)] * 3],
        "masksam_synapse": [(256, 16), (128, 32), (128, 64), (64, 128), (64, 256)],
        "masksam_amos": [(256, 32), (128, 64), (128, 128), (64, 256), (64, 512)],
    }[name]
    found = [shape("generator.first"), *(shape(f"generator.stages.{i}") for i in range(4))]
    assert found == [(1, channels, slices, s, s) for channels, s in stages]
    seen = sum(channels for channels, _ in stages)
    assert seen == (768 if name == "masksam_acdc" else 640)
    assert shape("generator.boxes", given=True) == (1, seen, slices, 2, 2)
    assert shape("generator.tokens", given=True) == (1, seen, slices, 16, 16)
    assert shape("prompt_encoder.mask_downscaling") == (n, 256, grid, grid)
    layer = "mask_decoder.transformer.layers.1"
    mlp = f"{layer}.self_attn.adapters.depth_mlp"
    assert shape(f"{mlp}.depth_in", given=True) == (1, queries, 8, 64, slices)
    assert shape(f"{mlp}.depth_in") == (1, queries, 8, 64, 4 * slices)
    conv = f"{layer}.cross_attn_image_to_token.adapters.depth_conv.conv"
    assert shape(conv) == (queries, 64, slices, grid, grid)
    assert shape("class_head") == (n, classes + 1)
    if model.mask_head is not None:
        assert shape("mask_head", given=True) == (1, queries, slices, 4 * grid, 4 * grid)
    assert tuple(out.pred_masks.shape) == (slices, queries, side, side)
    assert tuple(out.pred_aux_masks.shape) == (slices, queries, side, side)
    assert tuple(out.pred_aux_bboxes.shape) == (slices, queries, 4)
    assert (tuple(out.pred_logits.shape)) == (slices, queries, classes + 1)
    assert tuple(out.semantic.shape) == (1, classes, *size[2:])


# -- boxes, and what waits for a device ------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("compat", ["fixed", "reference"])
def test_boxes_are_the_mean_of_what_is_proposed_and_what_the_mask_fills(compat, generator):
    model = create_model("masksam_tiny", compat=compat)
    found = model.generator.forward
    proposed = []

    def watched(*args, **kwargs):
        made = found(*args, **kwargs)
        logits = made.logits.clone()
        logits[:, 0] = -1  # a query whose mask is empty
        proposed.append(made._replace(logits=logits))
        return proposed[-1]

    model.generator.forward = watched
    out = model(torch.randn(1, 1, 3, 32, 32, generator=generator))
    (made,) = proposed
    around, filled = boxes_of(made.logits > 0, closed=compat == "reference")
    assert not filled[:, 0].any()
    assert filled[:, 1:].any()
    mean = (made.boxes + around) / 2
    expected = mean if compat == "reference" else torch.where(filled[..., None], mean, made.boxes)
    torch.testing.assert_close(out.pred_aux_bboxes, expected)


def test_boxes_of_256_pixels_are_floored_and_made_four_times_as_large():
    with torch.device("meta"):
        model = create_model("masksam_acdc", compat="reference")
    boxes = torch.tensor([[[10.2, 20.9, 30.5, 40.0]]]) / 256
    found = Proposals(torch.zeros(1, 1, 256, 256), boxes, torch.zeros(1, 1, 256))
    assert model._corners(boxes, found, (1024, 1024)).tolist() == [[40, 80, 120, 160]]


class Calls(TorchDispatchMode):
    """Counts what is asked of the device."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[func.name()] += 1
        return func(*args, **(kwargs or {}))


WORK = (
    "aten::convolution", "aten::native_layer_norm", "aten::gelu", "aten::sigmoid", "aten::any.dim",
    "aten::argmax", "aten::upsample_bilinear2d", "aten::cos",
)  # fmt: skip
"""What makes a loop show; views and products are written otherwise for other shapes."""


@torch.no_grad()
@pytest.mark.parametrize("compat", ["fixed", "reference"])
def test_no_slice_or_query_is_gone_through_alone_and_none_waited_for(compat):
    seen = []
    for batch, queries in ((2, 4), (3, 7)):
        model = create_model("masksam_tiny", compat=compat, queries=queries)
        with Calls() as calls:
            model(torch.zeros(batch, 1, 3, 32, 32))
        seen.append(calls.seen)
    assert seen[0]["aten::convolution"] > 20
    assert {k: seen[0][k] for k in WORK} == {k: seen[1][k] for k in WORK}
    assert not {"aten::_local_scalar_dense", "aten::nonzero", "aten::item"} & set(seen[0])
