"""NeuroSAM3D: sizes as published, laws of its three image encoders, and every quirk on and off."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from samaritan.errors import ConfigError
from samaritan.models import Quirks, create_model, get_config
from samaritan.models.hiera import _join_in_wrong_order
from samaritan.models.positions import interpolate_grid, stretch_grid
from samaritan.models.windows import cut, join

TINY = ("neurosam3d_tiny", "neurosam3d_dinov2_tiny", "neurosam3d_hiera_tiny")

COUNTS = {  # tensors, parameters
    ("neurosam3d_vit_b", 112): (340, 34_777_672),
    ("neurosam3d_vit_b_ori", 112): (340, 100_416_712),
    ("neurosam3d_vit_b_ori", 128): (340, 100_548_040),
    ("neurosam3d_vit_l", 112): (520, 318_968_776),
    ("neurosam3d_vit_h", 112): (640, 647_652_680),
    ("neurosam3d_dinov2", 112): (497, 314_927_304),
    ("neurosam3d_hiera", 128): (409, 317_781_960),
}


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def count(module):
    return sum(p.numel() for p in module.parameters())


def every_prompt(model, n=1):
    size = model.config.image_size
    generator = torch.Generator().manual_seed(3)
    corners = torch.rand(n, 2, 3, generator=generator).sort(1).values * torch.tensor(size)
    coords = torch.rand(n, 3, 3, generator=generator) * torch.tensor(size)
    return {
        "points": (coords, torch.tensor([[1, 0, -1]]).expand(n, -1)),
        "boxes": corners.flatten(1),
        "masks": torch.randn(n, 1, *model.config.low_res_size, generator=generator),
    }


def image_for(model, b=1, size=None):
    generator = torch.Generator().manual_seed(4)
    return torch.randn(b, 1, *(size or model.config.image_size), generator=generator)


@pytest.mark.parametrize(("name", "size"), COUNTS)
def test_parameters_are_as_many_as_published(name, size):
    model = on_meta(name, image_size=size)
    tensors, parameters = COUNTS[name, size]
    assert len(model.state_dict()) == tensors
    assert count(model) == parameters
    assert (count(model.prompt_encoder), count(model.mask_decoder)) == (10_228, 7_612_884)


def test_encoders_are_as_large_as_published():
    dino, hiera = on_meta("neurosam3d_dinov2").image_encoder, on_meta("neurosam3d_hiera")
    assert count(dino) - count(dino.neck) == 306_910_208
    assert count(dino.neck) == 393_984
    assert dino.pos_embed.shape == (1, 344, 1024)
    assert count(hiera.image_encoder) == 310_158_848


@pytest.mark.parametrize("name", TINY)
def test_masks_are_as_fine_as_the_image(name, no_grad):
    model = create_model(name)
    masks, iou = model(image_for(model), **every_prompt(model, n=2), multimask_output=True)
    assert masks.shape == (2, 3, *model.config.image_size)
    assert iou.shape == (2, 3)
    assert model.low_res_size == model.config.image_size


def test_a_box_brings_two_tokens_and_takes_the_padding_away():
    model = create_model("neurosam3d_tiny")
    prompts = every_prompt(model)
    coords, labels = (t[:, :1] for t in prompts["points"])
    with_box, dense = model.prompt_encoder((coords, labels), prompts["boxes"], prompts["masks"])
    without, _ = model.prompt_encoder((coords, labels))
    assert with_box.shape == (1, 3, 48)
    assert without.shape == (1, 2, 48)
    assert dense.shape == (1, 48, 4, 4, 4)


def test_mask_branch_brings_112_to_7():
    branch = on_meta("neurosam3d_vit_b").prompt_encoder
    assert get_config("neurosam3d_vit_b").low_res_size == (112, 112, 112)
    kinds = [type(layer).__name__ for layer in branch.mask_downscaling]
    assert kinds == [*["Conv3d", "ChannelNorm", "GELU"] * 3, "Conv3d"]
    assert [branch.mask_downscaling[i].out_channels for i in (0, 3, 6, 9)] == [4, 8, 16, 384]


def test_attention_of_the_decoder_is_dropped_in_training_only(no_grad):
    model = create_model("neurosam3d_tiny", decoder_dropout=0.5)
    image, prompts = image_for(model), every_prompt(model)
    assert torch.equal(*(model(image, **prompts).low_res_logits for _ in range(2)))
    model.train()
    first, second = (model(image, **prompts).low_res_logits for _ in range(2))
    assert not torch.equal(first, second)
    assert get_config("neurosam3d_hiera").decoder_dropout == 0.1


# -- laws of the encoders --------------------------------------------------------------------------


def swapped(model, order):
    """The same function on images whose axis i is the old axis `order[i]`."""
    config = model.config
    weights = {}
    for key, value in model.state_dict().items():
        if key.endswith("gaussian_matrix"):
            value = value[list(order)]
        elif ".rel_pos_" in key:
            value = model.state_dict()[key[:-1] + "dhw"[order["dhw".index(key[-1])]]]
        elif key.endswith("pos_embed") and value.ndim == 3:
            table = value[:, 1:].reshape(1, *config.grid, -1).permute(0, *(1 + i for i in order), 4)
            value = torch.cat([value[:, :1], table.flatten(1, 3)], dim=1)
        elif key.endswith("pos_embed") and config.backbone == "vit":
            value = value.permute(0, *(1 + i for i in order), 4)
        elif value.ndim == 5:
            value = value.permute(0, 1, *(2 + i for i in order))
        weights[key] = value
    size = tuple(config.image_size[i] for i in order)
    other = create_model(replace(config, image_size=size))
    other.load_state_dict(weights)
    return other


def swap_error(model, order=(2, 0, 1)):
    spatial = [0, 1, *(2 + i for i in order)]
    prompts = every_prompt(model)
    coords, labels = prompts["points"]
    turned = {
        "points": (coords[..., list(order)], labels),
        "boxes": prompts["boxes"].unflatten(1, (2, 3))[..., list(order)].flatten(1),
        "masks": prompts["masks"].permute(spatial),
    }
    image = image_for(model)
    masks = model(image, **prompts).low_res_logits.permute(spatial)
    again = swapped(model, order)(image.permute(spatial), **turned).low_res_logits
    return (masks - again).abs().max() / masks.abs().max()


@pytest.mark.parametrize("name", TINY)
def test_swapping_axes_swaps_the_masks(build, name, no_grad):
    assert swap_error(build(name, image_size=(16, 32, 48))) < 1e-4


@pytest.mark.parametrize(
    ("name", "quirk", "matters"),
    [
        ("neurosam3d_tiny", "mask_corner", True),
        ("neurosam3d_tiny", "window_padding", True),
        ("neurosam3d_tiny", "window_order", False),
        ("neurosam3d_hiera_tiny", "window_order", True),
        ("neurosam3d_hiera_tiny", "window_padding", True),
        ("neurosam3d_dinov2_tiny", "window_padding", False),
        ("neurosam3d_dinov2_tiny", "position_scale", True),
        ("neurosam3d_dinov2_tiny", "mask_corner", True),
    ],
)
def test_each_quirk_changes_what_it_is_about(build, name, quirk, matters, no_grad):
    model = build(name)
    size = (48, 48, 48) if quirk == "position_scale" else model.config.image_size
    prompts = every_prompt(create_model(name, image_size=size))
    image = image_for(model, size=size)
    plain = model(image, **prompts).low_res_logits
    model.set_quirks(Quirks(**{quirk: True}))
    changed = (model(image, **prompts).low_res_logits - plain).abs().max() > 1e-3
    assert bool(changed) == matters
    model.set_quirks(Quirks())
    assert torch.equal(model(image, **prompts).low_res_logits, plain)


def test_windows_in_the_wrong_order_break_the_symmetry_of_axes(build, no_grad):
    model = build("neurosam3d_hiera_tiny", image_size=(16, 32, 48))
    model.set_quirks(Quirks(window_order=True))
    assert swap_error(model) > 1e-2


def test_windows_come_back_to_their_place_and_with_the_quirk_to_another():
    places = torch.arange(512.0).reshape(1, 8, 8, 8, 1)
    windows, _, _ = cut(places.expand(-1, -1, -1, -1, 3), (4, 4, 4), heads=1)
    assert torch.equal(join(windows, (1, 8, 8, 8)), places)
    wrong = _join_in_wrong_order(windows, (1, 8, 8, 8))
    assert (wrong == places).float().mean() == 0.03125
    assert torch.equal(wrong.flatten().sort().values, places.flatten())


def test_a_mask_corner_is_what_it_says(build, no_grad):
    """With the quirk seven of eight cells before the last step are not seen; without, all are."""
    model = build("neurosam3d_tiny")
    mask = torch.zeros(1, 1, 32, 32, 32)
    other = mask.clone()
    other[..., 4:8] = 5  # the second half of each patch along one axis
    for corner in (True, False):
        model.set_quirks(Quirks(mask_corner=corner))
        a, b = (model.prompt_encoder(masks=m)[1][..., 0] for m in (mask, other))
        assert torch.equal(a, b) == corner


def test_stretched_positions_are_a_tenth_of_a_cell_off():
    line = torch.arange(7.0).reshape(1, 7, 1).expand(1, 7, 7)[..., None]
    exact, stretched = (stretch(line, (5, 5)) for stretch in (interpolate_grid, stretch_grid))
    assert exact.shape == stretched.shape == (1, 5, 5, 1)
    assert torch.allclose(exact[0, :, 2, 0], 1.4 * (torch.arange(5) + 0.5) - 0.5)
    assert torch.allclose(stretched[0, :, 2, 0], 7 / 5.1 * (torch.arange(5) + 0.5) - 0.5)
    assert stretch_grid(line, (7, 7)) is line


@pytest.mark.parametrize("name", TINY)
def test_resized_model_takes_any_grid(build, name, no_grad):
    model = build(name)
    resized = model.resized((16, 32, 48))
    image, prompts = image_for(resized), every_prompt(resized)
    expected = resized(image, **prompts).low_res_logits
    assert expected.shape == (1, 1, 16, 32, 48)
    if name == "neurosam3d_tiny":
        with pytest.raises(ConfigError, match="differs from the model's"):
            model.image_encoder(image)
    else:  # interpolated on the fly
        torch.testing.assert_close(model.image_encoder(image), resized.image_encoder(image))
    assert model.config.image_size == (32, 32, 32)


def test_3d_dinov2_of_depth_one_equals_the_2d_one(build, no_grad):
    config = replace(get_config("neurosam3d_dinov2_tiny"), patch_size=(1, 8, 8))
    deep = build(replace(config, image_size=(1, 24, 40)))
    flat = create_model(replace(config, ndim=2, image_size=(24, 40), patch_size=(8, 8)))
    weights = deep.image_encoder.state_dict()
    shapes = {k: v.shape for k, v in flat.image_encoder.state_dict().items()}
    flat.image_encoder.load_state_dict({k: v.reshape(shapes[k]) for k, v in weights.items()})
    image = image_for(deep)
    expected = flat.image_encoder(image[:, :, 0])
    torch.testing.assert_close(deep.image_encoder(image)[:, :, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TINY)
def test_bfloat16_autocast_is_near_the_exact_masks(build, name, no_grad):
    model = build(name)
    image, prompts = image_for(model), every_prompt(model)
    exact = model(image, **prompts).low_res_logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(image, **prompts).low_res_logits
    assert (rounded.float() - exact).std() < 0.1 * exact.std()


@pytest.mark.parametrize("backbone", ["dinov2", "hiera"])
def test_further_encoders_work_in_2d(backbone, no_grad):
    config = replace(
        get_config(f"neurosam3d_{backbone}_tiny"), ndim=2, image_size=(32, 48), patch_size=(8, 8)
    )
    model = create_model(config)
    images = torch.randn(2, 1, 32, 48)
    assert model.image_encoder(images).shape == (2, 48, 4, 6)
    one = model.image_encoder(images[1:])
    torch.testing.assert_close(model.image_encoder(images)[1:], one, rtol=1e-4, atol=1e-5)


UNUSED = {
    "neurosam3d_tiny": (),
    "neurosam3d_dinov2_tiny": ("image_encoder.mask_token",),  # of self-supervised training
    "neurosam3d_hiera_tiny": ("image_encoder.neck.2.",),  # projections of earlier stages
}


@pytest.mark.parametrize("name", TINY)
def test_every_parameter_learns_but_those_that_are_known_not_to(build, name):
    model = build(name).train()
    image, prompts = image_for(model), every_prompt(model)
    losses = []
    for given, several in ((prompts, True), ({"points": prompts["points"]}, False)):
        masks, iou = model(image, **given, multimask_output=several)
        losses.append((masks * torch.randn_like(masks)).mean() + iou.mean())
    sum(losses).backward()
    silent = {
        key for key, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-10
    }
    silent = {k for k in silent if not k.endswith("k_proj.bias")}
    assert silent == {k for k, _ in model.named_parameters() if k.startswith(UNUSED[name] or "-")}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("neurosam3d_hiera", {"image_size": (112, 112, 112)}, r"multiple of 32: the last stage"),
        ("neurosam3d_hiera", {"stages": (2, 3)}, "sum up to depth 20"),
        ("neurosam3d_hiera", {"stage_windows": (8, 4, 14)}, "for each of 4 stages"),
        ("neurosam3d_hiera", {"stage_windows": (7, 4, 14, 7)}, "must be even"),
        ("neurosam3d_vit_b", {"stages": (2, 3)}, "for backbone 'hiera'"),
        ("neurosam3d_vit_b", {"mask_steps": 5}, "mask_steps must be 2, 3 or 4, not 5"),
        ("neurosam3d_vit_b", {"patch_size": (8, 8, 8)}, "multiple of 16"),
        ("neurosam3d_vit_b", {"decoder_dropout": 1.0}, "below 1"),
        ("neurosam3d_vit_b", {"decoder_dropout": -0.1}, "positive number"),
    ],
)
def test_what_does_not_fit_is_told(name, change, message):
    with pytest.raises(ConfigError, match=message):
        replace(get_config(name), **change)


def test_images_that_an_encoder_cannot_take_are_told():
    hiera, dino = (create_model(f"neurosam3d_{n}_tiny") for n in ("hiera", "dinov2"))
    with pytest.raises(ConfigError, match=r"not a multiple of \(16, 16, 16\)"):
        hiera.image_encoder(torch.zeros(1, 1, 24, 32, 32))
    with pytest.raises(ConfigError, match="not a multiple of the patch size"):
        dino.image_encoder(torch.zeros(1, 1, 20, 32, 32))
    with pytest.raises(ConfigError, match="2 channels"):
        dino.image_encoder(torch.zeros(1, 2, 32, 32, 32))
