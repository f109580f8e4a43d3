"""MaskSAM: sizes as published, slices that see their neighbours, and every quirk beside what is right."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from samaritan.assembly import create_model
from samaritan.checkpoints import load_weights
from samaritan.errors import CheckpointError, ConfigError, PromptError
from samaritan.models import MaskClasses, MaskSam, Quirks
from samaritan.models.config import MASKSAM_QUIRKS
from samaritan.models.image_encoder import Block
from samaritan.models.prompt_generator import boxes_of, corners


@pytest.fixture
def tiny(generator):
    """The smallest preset with every parameter random: norms, adapters and tables of slices included."""

    def make(**options):
        model = create_model("masksam_tiny", **options)
        with torch.no_grad():
            for parameter in model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                scale = 0.2 if parameter.ndim < 2 else max(parameter[0].numel(), 1) ** -0.5
                parameter.add_(scale * noise)
        return model

    return make


def numbers(model):
    learns = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return sum(p.numel() for p in model.parameters()), learns


@pytest.mark.parametrize(
    ("name", "options", "total", "learns"),
    [
        ("masksam_acdc", {"compat": "reference"}, 115_141_706, 21_406_234),
        ("masksam_acdc", {}, 115_141_706 + 2 * 1_344_512, 21_406_234 + 2 * 1_344_512),
        ("masksam_synapse", {}, 706_640_721, 65_550_113),
        ("masksam_synapse", {"num_classes": 14}, 706_642_006, 65_551_398),
        ("masksam_synapse", {"flat_stages": 0}, 707_083_089, 65_992_481),
        ("masksam_amos", {}, 707_242_205, 66_151_597),
        ("masksam_amos", {"flat_stages": 0}, 707_684_573, 66_593_965),
    ],
)
def test_presets_have_as_many_parameters_as_published(name, options, total, learns):
    with torch.device("meta"):
        assert numbers(create_model(name, **options)) == (total, learns)


def test_parts_of_the_acdc_model_have_as_many_parameters_as_published():
    with torch.device("meta"):
        model = create_model("masksam_acdc", compat="reference")
    count = {name: numbers(part)[0] for name, part in model.generator.named_children()}
    assert numbers(model.stem)[0] == 33_945
    assert count["first"] + numbers(model.generator.stages[:2])[0] == 5_310_720
    assert [numbers(stage)[0] for stage in model.generator.stages[2:]] == [885_120, 885_120]
    assert (count["doublings"], count["masks"]) == (196_864, 1_032)
    assert (count["skips"], count["boxes"], count["tokens"]) == (2_180_608, 6_160, 165_912)
    assert numbers(model.generator.skips[1])[0] == 1_344_512


@pytest.mark.parametrize(("name", "frozen"), [("acdc", 93_735_472), ("amos", 641_090_608)])
def test_what_is_frozen_is_exactly_sam(name, frozen):
    with torch.device("meta"):
        model = create_model(f"masksam_{name}")
        sam = create_model("sam_vit_b" if name == "acdc" else "sam_vit_h")
    plain = dict(sam.named_parameters())
    still = {key for key, p in model.named_parameters() if not p.requires_grad}
    assert still == set(plain)
    assert sum(p.numel() for p in plain.values()) == frozen


def test_shapes_follow_the_slices():
    model = create_model("masksam_tiny", channels=2)
    out = model(torch.randn(2, 2, 3, 32, 32))
    assert isinstance(model, MaskSam)
    assert out.pred_masks.shape == out["pred_aux_masks"].shape == (6, 4, 32, 32)
    assert out.pred_aux_bboxes.shape == (6, 4, 4)
    assert out.pred_logits.shape == (6, 4, 3 + 1)
    assert out.semantic.shape == (2, 3, 3, 32, 32)
    assert out.label_map.shape == (2, 3, 32, 32)
    assert model(torch.randn(1, 2, 3, 40, 24)).semantic.shape == (1, 3, 3, 40, 24)


def test_scores_are_masks_weighted_by_their_class_and_probabilities_sum_up_to_one(tiny):
    model = tiny()
    out = model(torch.randn(1, 1, 3, 32, 32))
    classes, masks = out.pred_logits.softmax(-1)[..., :3], out.pred_masks.sigmoid()
    by_hand = sum(classes[:, q, :, None, None] * masks[:, q, None] for q in range(4))
    torch.testing.assert_close(out.semantic[0].transpose(0, 1), by_hand)
    torch.testing.assert_close(out.probabilities.sum(1), torch.ones(1, 3, 32, 32))
    volume = torch.randn(1, 1, 3, 32, 32)
    assert torch.equal(model.train()(volume).semantic, model.eval()(volume).semantic)
    assert (out.probabilities.argmax(1) == out.label_map).all()


@torch.inference_mode()
def test_residual_masks_correct_the_proposed_ones(tiny):
    model, volume = tiny(residual=True), torch.randn(1, 1, 3, 32, 32)
    out = model(volume)
    plain = create_model("masksam_tiny")
    plain.load_state_dict(model.state_dict())
    before = plain(volume)
    assert torch.equal(out.aux_logits, before.aux_logits)
    torch.testing.assert_close(out.pred_masks, before.pred_masks + before.aux_logits)


def test_the_last_stage_sees_the_stems_pictures(tiny):
    fine = {"patch_size": (4, 4), "window_size": 4}
    model, plain = tiny(stem_skip=True, **fine), create_model("masksam_tiny", **fine)
    stem = model.config.in_channels
    assert numbers(model)[0] - numbers(plain)[0] == 27 * stem * model.own.generator[-1]
    features = [torch.randn(3, n, 8, 8) for n in (48, 48, 64)]
    pictures = torch.randn(1, stem, 3, 32, 32, requires_grad=True)
    found = model.generator(features, pictures, slices=3, size=(32, 32))
    found.logits.square().sum().backward()
    assert (pictures.grad != 0).all()


def test_the_last_stage_must_be_as_fine_as_the_pictures():
    with pytest.raises(ConfigError, match=r"doublings up to the slice \(32, 32\), not \(16, 16\)"):
        create_model("masksam_tiny", stem_skip=True)


@torch.inference_mode()
@pytest.mark.parametrize("compat", ["fixed", "reference"])
def test_volumes_of_a_batch_do_not_see_each_other(tiny, compat):
    model = tiny(compat=compat)
    volumes = torch.randn(2, 1, 3, 32, 32)
    both = model(volumes).semantic
    for i in range(2):
        torch.testing.assert_close(
            both[i : i + 1], model(volumes[i : i + 1]).semantic, rtol=1e-4, atol=1e-5
        )


@torch.inference_mode()
def test_half_precision_is_near_and_boxes_stay_exact(tiny):
    model, volume = tiny(), torch.randn(1, 1, 3, 32, 32)
    whole = model(volume)
    with torch.autocast("cpu", torch.bfloat16):
        half = model(volume)
    assert half.pred_aux_bboxes.dtype == half.semantic.dtype == torch.float32
    assert (half.semantic - whole.semantic).abs().mean() < 0.05 * whole.semantic.mean()
    low = model.bfloat16()(volume.bfloat16())
    assert (low.semantic - whole.semantic).abs().mean() < 0.1 * whole.semantic.mean()


@torch.inference_mode()
def test_other_numbers_of_slices_are_interpolated(tiny):
    model = tiny()
    with torch.no_grad():
        model.slice_embedding.copy_(
            torch.arange(3.0)[None, :, None].expand_as(model.slice_embedding)
        )
    out = model(torch.randn(1, 1, 6, 32, 32))
    assert out.semantic.shape == (1, 3, 6, 32, 32)
    model(torch.randn(1, 1, 1, 32, 32))
    volume = torch.randn(1, 1, 3, 32, 32)
    before = model(volume).semantic
    model(torch.randn(1, 1, 5, 32, 32))
    assert torch.equal(model(volume).semantic, before)  # nothing stays behind


@torch.inference_mode()
def test_weights_are_resized_for_other_patches_as_the_model_does_on_the_fly(tiny):
    model, other = tiny(), create_model("masksam_tiny", slice_size=(64, 48))
    load_weights(other, model.state_dict())
    assert other.slice_code.shape == (3, other.config.embed_dim, 8, 6)
    volume = torch.randn(1, 1, 3, 64, 48)
    torch.testing.assert_close(other(volume).semantic, model(volume).semantic)
    with pytest.raises(CheckpointError, match="depth_mlp"):
        load_weights(create_model("masksam_tiny", frames=5), model.state_dict())


def test_what_does_not_fit_is_refused_with_its_value():
    model = create_model("masksam_tiny")
    with pytest.raises(PromptError, match="takes no prompts"):
        model(torch.zeros(1, 1, 3, 32, 32), boxes=torch.zeros(1, 4))
    with pytest.raises(ConfigError, match=r"expects \(batch, 1 channels, slices"):
        model(torch.zeros(1, 3, 32, 32))
    with pytest.raises(ConfigError, match=r"multiples of \(8, 8\)"):
        model(torch.zeros(1, 1, 3, 30, 32))
    with pytest.raises(ConfigError, match="larger than the canvas"):
        create_model("masksam_tiny", compat="reference")(torch.zeros(1, 1, 3, 64, 64))
    with pytest.raises(ConfigError, match="compat is one of"):
        create_model("masksam_tiny", compat="published")
    with pytest.raises(ConfigError, match="Did you mean 'frames'"):
        MaskClasses.from_dict({"frame": 3})
    with pytest.raises(ConfigError, match="num_classes must be 2 or more"):
        create_model("masksam_tiny", num_classes=1)
    with pytest.raises(ConfigError, match="are for MaskSAM"):
        create_model("sam_tiny", quirks=Quirks(window_depth=True))
    with pytest.raises(ConfigError, match="a stage for each"):
        create_model("masksam_tiny", generator=(8,), doublings=1)


# -- It starts from SAM --------------------------------------------------------------------------------


def sam_of(model):
    config = replace(model.config, mask_classes=None, quirks=Quirks(window_padding=True))
    sam = create_model(replace(config, name="plain"))
    with torch.no_grad():
        for parameter in sam.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return sam


@torch.no_grad()
def test_with_fresh_adapters_encoder_and_decoder_are_those_of_sam_bit_for_bit():
    model = create_model("masksam_tiny")
    sam = sam_of(model)
    report = load_weights(model, sam.state_dict(), keep_quirks=True)
    assert set(report.loaded) == set(sam.state_dict())
    model.set_quirks(Quirks(window_padding=True))
    pictures = torch.randn(3, 3, 32, 32)
    assert torch.equal(model.image_encoder(pictures), sam.image_encoder(pictures))
    sparse, dense = sam.prompt_encoder(boxes=torch.tensor([[3.0, 4, 20, 24]] * 3))
    told = {
        "image_embeddings": sam.image_encoder(pictures),
        "image_pe": sam.prompt_encoder.get_dense_pe(),
        "sparse_prompt_embeddings": sparse,
        "dense_prompt_embeddings": dense,
    }
    with torch.enable_grad():  # without, plain decoders take one set after the other
        assert torch.equal(model.mask_decoder(**told)[0], sam.mask_decoder(**told)[0])


@torch.no_grad()
def test_norm_after_padding_changes_padded_windows_only():
    quirks = Quirks(window_padding=True)
    block = Block(12, 3, (8, 8), mlp_hidden=16, window=5, quirks=quirks)
    for parameter in block.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    x = torch.randn(2, 8, 8, 12)
    right = block(x)
    block.quirks = replace(quirks, norm_padding=True)
    published = block(x)
    torch.testing.assert_close(published[:, :5, :5], right[:, :5, :5])
    assert (published[:, 5:] - right[:, 5:]).abs().min() > 0
    block.norm1.bias.zero_()
    block.attn.qkv.bias.zero_()
    published = block(x)
    block.quirks = quirks
    torch.testing.assert_close(published, block(x))


# -- Slices that see their neighbours -------------------------------------------------------------------


@torch.no_grad()
def seen_after(model, grid, slices, quirks):
    """Which part of each slice changes with slice 1 beside the attention of a windowed block."""
    model.set_quirks(quirks)
    adapter = model.image_encoder.blocks[0].attn.adapters["depth_conv"]
    adapter.layout = (slices, 1, grid)
    x = torch.randn(slices, *grid, model.config.width)
    changed = x.clone()
    changed[1] += torch.randn_like(x[1])
    differs = (adapter(x, x) != adapter(changed, changed)).any(-1)
    return [round(float(part), 3) for part in differs.float().mean((1, 2))]


def windowed(slices, window, grid):
    side = 8 * grid
    options = {"width": 24, "window_size": window, "frames": slices, "slice_size": side}
    return create_model("masksam_tiny", start="published", **options)


def test_windowed_blocks_mix_neighbouring_slices():
    parts = seen_after(windowed(4, 14, 32), (32, 32), 4, Quirks(window_padding=True))
    assert parts == [1.0, 1.0, 1.0, 0.0]


def test_published_windowed_blocks_mix_windows_instead():
    quirks = MASKSAM_QUIRKS
    acdc = seen_after(windowed(4, 14, 64), (64, 64), 4, quirks)
    assert acdc == [0.016, 1.0, 0.02, 0.0]
    synapse = seen_after(windowed(26, 14, 16), (16, 16), 26, quirks)
    assert synapse == [0.016, 1.0, 0.035, *[0.0] * 23]
    amos = seen_after(windowed(9, 14, 32), (32, 32), 9, quirks)
    assert amos == [0.0, 1.0, *[0.0] * 7]


@torch.no_grad()
def test_published_windows_of_one_slice_touch_each_other():
    model = windowed(4, 14, 64)
    model.set_quirks(MASKSAM_QUIRKS)
    adapter = model.image_encoder.blocks[0].attn.adapters["depth_conv"]
    x = torch.randn(4, 64, 64, 24)
    changed = x.clone()
    changed[0, :14, :14] += 1
    differs = (adapter(x, x) != adapter(changed, changed)).any(-1)
    assert differs[0, :14, 14:28].all()
    assert not differs[0, :14, 28:].any()


# -- Positions, boxes, prompts --------------------------------------------------------------------------


@torch.no_grad()
def test_a_smaller_picture_is_the_corner_of_the_canvas_as_published_else_all_of_it():
    options = {"image_size": 64, "slice_size": 32}
    model = create_model("masksam_tiny", **options)
    model.image_encoder.pos_embed.copy_(torch.randn_like(model.image_encoder.pos_embed))
    table = model.image_encoder.pos_embed
    bare = model.image_encoder.patch_embed(torch.zeros(1, 3, 32, 32))
    stretched = F.interpolate(table.movedim(-1, 1), (4, 4), mode="bilinear").movedim(1, -1)
    torch.testing.assert_close(
        model.image_encoder.tokens(torch.zeros(1, 3, 32, 32)), bare + stretched
    )
    model.set_quirks(Quirks(position_crop=True))
    published = model.image_encoder.tokens(torch.zeros(1, 3, 32, 32))
    assert torch.equal(published, bare + table[:, :4, :4])


@torch.no_grad()
def test_the_corner_of_the_grid_code_is_that_of_a_smaller_grid_on_the_same_canvas():
    encoder = create_model("sam_tiny", image_size=1024).prompt_encoder
    whole = encoder.get_dense_pe((1024, 1024))
    axes = [(torch.arange(16) + 0.5) / 64] * 2
    cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)[..., [1, 0]]
    assert torch.equal(whole[0, :, :16, :16], encoder.pe_layer(cells).movedim(-1, 0))


def test_boxes_are_always_valid():
    torch.testing.assert_close(
        corners(torch.tensor([0.2, 0.4, 0.5, 0.5])), torch.tensor([0.2, 0.4, 0.6, 0.7])
    )
    boxes = corners(torch.rand(50, 4))
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    assert ((boxes >= 0) & (boxes <= 1)).all()


def test_boxes_of_masks():
    masks = torch.zeros(3, 256, 256, dtype=torch.bool)
    masks[0, 60:150, 60:150] = True
    masks[1] = True
    published, filled = boxes_of(masks, closed=True)
    assert filled.tolist() == [True, True, False]
    expected = [[0.234375] * 2 + [0.58203125] * 2, [0, 0, 0.99609375, 0.99609375], [0] * 4]
    assert published.tolist() == expected
    right, _ = boxes_of(masks)
    assert right[1].tolist() == [0, 0, 1, 1]
    assert right[0, 2:].tolist() == [150 / 256] * 2


def test_boxes_of_many_masks_are_those_of_a_loop(generator):
    masks = torch.rand(2, 5, 9, 7, generator=generator) > 0.9
    boxes, _ = boxes_of(masks)
    for b in range(2):
        for q in range(5):
            at = masks[b, q].nonzero()
            if len(at):
                low, high = at.min(0).values, at.max(0).values + 1
                told = [low[1] / 7, low[0] / 9, high[1] / 7, high[0] / 9]
                torch.testing.assert_close(boxes[b, q], torch.stack(told))


def test_box_prompts_are_floored_and_enlarged_as_published():
    model = create_model("masksam_acdc", compat="reference", **SMALL_ACDC)
    seen = {}
    inner = model.prompt_encoder.forward

    def watch(*args, **kwargs):
        seen.update({k: v for k, v in kwargs.items() if v is not None})
        return inner(*args, **kwargs)

    model.prompt_encoder.forward = watch
    with torch.no_grad():
        out = model(torch.randn(1, 1, 2, 32, 32))
    expected = (out.pred_aux_bboxes * 32).floor() * 4
    assert torch.equal(seen["boxes"], expected.flatten(0, 1))
    assert set(seen["masks"].unique().tolist()) <= {0.0, 1.0}


SMALL_ACDC = {
    "frames": 2,
    "slice_size": 32,
    "image_size": 128,
    "width": 24,
    "depth": 4,
    "heads": 2,
    "global_blocks": (0, 1, 2, 3),
    "generator": (8, 8, 8, 8),
    "embed_dim": 64,
    "pe_features": 32,
    "decoder_mlp": 32,
}


@torch.no_grad()
def test_published_masks_of_acdc_are_blurred():
    model = create_model("masksam_acdc", **SMALL_ACDC)
    impulse = torch.zeros(2, 1, 32, 32)
    impulse[..., 16, 16] = 1
    assert torch.equal(model._full_size(impulse, 2, (32, 32)), impulse)
    model.set_quirks(Quirks(mask_blur=True))
    blurred = model._full_size(impulse, 2, (32, 32))[0, 0, 15:18, 15:18] * 256
    line = torch.tensor([1.0, 14, 1])
    torch.testing.assert_close(blurred, line[:, None] * line / 1)


def gradients(model, **options):
    out = model.train()(torch.randn(1, 1, 3, 32, 32))
    (out.pred_masks.square().mean() + out.pred_logits.square().mean()).backward()
    heads = {"boxes": model.generator.boxes[0], "masks": model.generator.masks}
    return {
        k: float(layer.weight.grad.abs().sum())
        for k, layer in heads.items()
        if layer.weight.grad is not None
    }


def test_published_prompts_pass_no_gradient_and_ours_do(tiny):
    assert sum(gradients(tiny(compat="reference")).values()) == 0
    ours = gradients(tiny())
    assert min(ours["boxes"], ours["masks"]) > 0


@pytest.mark.parametrize("compat", ["fixed", "reference"])
def test_everything_that_learns_gets_a_gradient(tiny, compat):
    model = tiny(compat=compat)
    out = model(torch.randn(1, 1, 3, 32, 32))
    total = sum(x.square().mean() for x in (*out[:4], out.aux_logits))
    total.backward()
    unused = ("iou_", "output_hypernetworks_mlps.1", "output_hypernetworks_mlps.2")
    unused += ("output_hypernetworks_mlps.3", "point_embeddings.0", "point_embeddings.1")
    unused += ("not_a_point", "no_mask")
    still = [
        key
        for key, p in model.named_parameters()
        if (p.grad is None or not p.grad.any()) and not any(word in key for word in unused)
    ]
    # convolutions before a norm of each channel need no bias, and attention none of its keys
    assert [key for key in still if not key.endswith("bias")] == []
