"""Laws of the whole model: axes, depth one, batches, gradients, sizes, precision."""

import re
from dataclasses import replace

import pytest
import torch

from samaritan.errors import ConfigError
from samaritan.models import Quirks, SamOutput, create_model


def prompts_for(model, n=2):
    """All kinds of prompts that the model takes."""
    config = model.config
    size = torch.tensor(config.image_size if config.ndim == 3 else config.image_size[::-1])
    generator = torch.Generator().manual_seed(3)
    coords = torch.rand(n, 3, config.ndim, generator=generator) * size
    corners = torch.rand(n, 2, config.ndim, generator=generator).sort(1).values * size
    return {
        "points": (coords, torch.tensor([[1, 0, -1]]).expand(n, -1)),
        "boxes": corners.flatten(1) if config.num_point_embeddings == 4 else None,
        "masks": torch.randn(n, 1, *config.low_res_size, generator=generator),
    }


def image_for(model, b=1):
    generator = torch.Generator().manual_seed(4)
    return torch.randn(b, model.config.in_channels, *model.config.image_size, generator=generator)


def swapped_weights(model, order):
    """Weights of the same function on images whose axis i is the old axis `order[i]`."""
    ndim = model.config.ndim
    axes = "hw" if ndim == 2 else "dhw"
    weights = model.state_dict()
    swapped = {}
    for key, value in weights.items():
        if key.endswith("gaussian_matrix"):
            value = value.flip(0) if ndim == 2 else value[list(order)]
        elif key.endswith("pos_embed"):
            value = value.permute(0, *(1 + i for i in order), ndim + 1)
        elif match := re.fullmatch(r"(.*rel_pos_)([dhw])", key):
            value = weights[match[1] + axes[order[axes.index(match[2])]]]
        elif value.ndim == ndim + 2:
            value = value.permute(0, 1, *(2 + i for i in order))
        swapped[key] = value
    return swapped


def swapped_prompts(prompts, order):
    (coords, labels), boxes = prompts["points"], prompts["boxes"]
    ndim = coords.shape[-1]
    columns = [1, 0] if ndim == 2 else list(order)
    return {
        "points": (coords[..., columns], labels),
        "boxes": boxes.unflatten(1, (2, ndim))[..., columns].flatten(1),
        "masks": prompts["masks"].permute(0, 1, *(2 + i for i in order)),
    }


def swap_error(model, order):
    """How far swapping the axes of what goes in is from swapping what comes out, relative."""
    config = model.config
    other = create_model(
        replace(
            config,
            image_size=tuple(config.image_size[i] for i in order),
            patch_size=tuple(config.patch_size[i] for i in order),
        )
    )
    other.load_state_dict(swapped_weights(model, order))
    image, prompts = image_for(model), prompts_for(model)
    spatial = [0, 1, *(2 + i for i in order)]
    masks, iou = model(image, **prompts)
    masks2, iou2 = other(image.permute(spatial), **swapped_prompts(prompts, order))
    pairs = ((masks.permute(spatial), masks2), (iou, iou2))
    return max((a - b).abs().max() / a.abs().max() for a, b in pairs)


def test_swapping_axes_swaps_the_masks_in_2d(build, no_grad):
    model = build("sam_tiny", image_size=(48, 96), patch_size=(16, 12))
    assert swap_error(model, (1, 0)) < 1e-4


@pytest.mark.parametrize("order", [(1, 0, 2), (2, 1, 0), (1, 2, 0)])
def test_swapping_axes_swaps_the_masks_in_3d(build, order, no_grad):
    model = build("sam3d_tiny", image_size=(16, 24, 40), patch_size=(4, 8, 8))
    assert swap_error(model, order) < 1e-4


@pytest.mark.parametrize("quirk", ["rel_pos_axes", "dense_pe_axes"])
def test_each_quirk_of_axes_breaks_the_symmetry(build, quirk, no_grad):
    model = build("sam3d_tiny", quirks=Quirks(**{quirk: True}), image_size=24)
    assert swap_error(model, (2, 1, 0)) > 1e-2
    model.set_quirks(Quirks())
    assert swap_error(model, (2, 1, 0)) < 1e-4


@pytest.mark.parametrize("name", ["sam_tiny", "sam3d_tiny"])
def test_window_padding_changes_the_embedding(build, name, no_grad):
    model = build(name)
    image = image_for(model)
    plain = model.image_encoder(image)
    model.set_quirks(Quirks(window_padding=True))
    assert model.config.quirks.window_padding
    assert (model.image_encoder(image) - plain).abs().max() > 1e-2


def test_quirks_of_3d_are_refused_in_2d():
    with pytest.raises(ConfigError, match="3D only"):
        create_model("sam_tiny").set_quirks(Quirks(dense_pe_axes=True))


def inflated_weights(flat, deep):
    """Weights of a 2D model as those of a 3D model whose first axis has depth one."""
    weights = {}
    for key, value in deep.state_dict().items():
        if key.endswith("rel_pos_d"):
            value = value.clone()
            value[len(value) // 2] = 0  # offset zero; other offsets do not occur
        elif key.endswith("gaussian_matrix"):
            old = flat.state_dict()[key]
            value = torch.stack([value[0], old[1], old[0]])  # (x, y) becomes (depth, y, x)
        elif key.endswith("pos_embed"):
            value = flat.state_dict()[key][:, None]
        elif key.endswith("neck.2.weight"):
            value = value.clone()
            value[:, :, 1] = flat.state_dict()[key]  # its neighbours see the padding only
        else:
            value = flat.state_dict()[key].reshape(value.shape)
        weights[key] = value
    return weights


@pytest.mark.parametrize("embed_dim", [32, 48])
def test_3d_model_of_depth_one_equals_the_2d_model(build, embed_dim, no_grad):
    shape = {"embed_dim": embed_dim, "pe_features": 16, "in_channels": 2}
    flat = build("sam_tiny", image_size=(48, 80), **shape)
    deep = build("sam3d_tiny", image_size=(1, 48, 80), patch_size=(1, 16, 16), **shape)
    deep.load_state_dict(inflated_weights(flat, deep))
    image, prompts = image_for(flat), prompts_for(flat)
    (coords, labels), boxes = prompts["points"], prompts["boxes"]
    depth = torch.zeros(2, 3, 1)
    deep_prompts = {
        "points": (torch.cat([depth, coords.flip(-1)], dim=-1), labels),
        "boxes": torch.stack(
            [depth[:, 0, 0], *boxes.T[[1, 0]], depth[:, 0, 0], *boxes.T[[3, 2]]], 1
        ),
        "masks": prompts["masks"][:, :, None],
    }
    embedding = flat.image_encoder(image)
    torch.testing.assert_close(
        deep.image_encoder(image[:, :, None])[:, :, 0], embedding, rtol=1e-4, atol=1e-5
    )
    for ours, theirs in zip(
        flat.prompt_encoder(**prompts), deep.prompt_encoder(**deep_prompts), strict=True
    ):
        torch.testing.assert_close(theirs.reshape(ours.shape), ours, rtol=1e-4, atol=1e-5)
    masks, iou = flat(image, **prompts, multimask_output=True)
    masks3, iou3 = deep(image[:, :, None], **deep_prompts, multimask_output=True)
    assert masks3.shape == (2, 3, 1, 12, 20)
    torch.testing.assert_close(masks3[:, :, 0], masks, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(iou3, iou, rtol=1e-4, atol=1e-5)


def test_depth_that_is_not_divided_keeps_its_voxels(build, no_grad):
    model = build("sam3d_tiny", image_size=(3, 32, 48), patch_size=(1, 16, 16))
    output = model(image_for(model), **prompts_for(model))
    assert isinstance(output, SamOutput)
    assert output.low_res_logits.shape == (2, 1, 3, 8, 12)


@pytest.mark.parametrize("name", ["sam_tiny", "sam3d_tiny"])
def test_images_and_prompts_in_one_batch_equal_singles(build, name, no_grad):
    model = build(name)
    images, prompts = image_for(model, b=2), prompts_for(model, n=6)
    masks, iou = model(images, **prompts, multimask_output=True)
    (coords, labels), boxes, mask = prompts["points"], prompts["boxes"], prompts["masks"]
    for i in range(6):
        some = slice(i, i + 1)
        single = model(
            images[i // 3][None],
            points=(coords[some], labels[some]),
            boxes=boxes[some],
            masks=mask[some],
            multimask_output=True,
        )
        torch.testing.assert_close(masks[some], single.low_res_logits, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(iou[some], single.iou, rtol=1e-3, atol=1e-4)


SMALL = {
    "sam_tiny": {},
    "sam3d_tiny": {},
    "sam_small": {"image_size": 160},
    "sam3d_small": {"image_size": (32, 80, 40)},
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("padding", [False, True])
def test_every_parameter_learns(name, padding):
    """With every kind of prompt, each tensor gets a gradient and one step moves it.

    The exception is known: biases of keys shift all logits of a query alike, which softmax ignores.
    """
    torch.manual_seed(0)
    model = create_model(name, quirks=Quirks(window_padding=padding), **SMALL[name]).train()
    before = {k: v.clone() for k, v in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    image, prompts = image_for(model), prompts_for(model)
    without_mask = {"points": prompts["points"]}  # no boxes: brings the padding point
    losses = []
    for given, multimask in ((prompts, True), (without_mask, False)):
        masks, iou = model(image, **given, multimask_output=multimask)
        losses.append((masks * torch.randn_like(masks)).mean() + iou.mean())
    sum(losses).backward()
    largest = {k: v.grad.abs().max().item() for k, v in model.named_parameters()}
    silent = {k for k, g in largest.items() if g < 1e-9}
    assert {k for k in silent if not k.endswith("k_proj.bias")} == set()
    optimizer.step()
    still = {k for k, v in model.named_parameters() if torch.equal(v, before[k])}
    assert still <= silent


@pytest.mark.parametrize(("name", "size"), [("sam_tiny", (48, 112)), ("sam3d_tiny", (16, 40, 24))])
def test_resized_model_equals_interpolating_on_the_fly(build, name, size, no_grad):
    model = build(name)
    resized = model.resized(size)
    assert resized.config.image_size == size
    assert model.config.image_size != size
    on_the_fly = create_model(model.config, interpolate_positions=True)
    on_the_fly.load_state_dict(model.state_dict())
    image = image_for(resized)
    prompts = prompts_for(resized)
    for a, b in zip(resized(image, **prompts), on_the_fly(image, **prompts), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="resized"):
        model(image, **prompts)


def test_resizing_back_to_the_own_size_changes_nothing(build, no_grad):
    model = build("sam3d_tiny")
    same = model.resized(32)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", ["sam_tiny", "sam3d_tiny"])
def test_bfloat16_autocast_is_near_the_exact_masks(build, name, no_grad):
    model = build(name)
    image, prompts = image_for(model), prompts_for(model)
    exact = model(image, **prompts).low_res_logits
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(image, **prompts).low_res_logits
    assert rounded.isfinite().all()
    assert (rounded.float() - exact).std() < 0.1 * exact.std()


def test_prompts_are_optional(build, no_grad):
    model = build("sam_tiny")
    assert model(image_for(model, b=3)).low_res_logits.shape == (3, 1, 16, 16)
