import math

import pytest
import torch
from torch import nn

from samaritan.errors import ConfigError, PromptError
from samaritan.models.config import Quirks


@pytest.fixture
def decode(build, randn):
    """Call the decoder of one model with b images and n sets of prompts."""
    decoder = build("sam_tiny").mask_decoder

    def call(image, sparse, dense, **options):
        return decoder(
            image_embeddings=image,
            image_pe=call.pe,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            **options,
        )

    call.decoder, call.pe = decoder, randn(1, 32, 4, 4)
    return call


def close(a, b):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


def test_single_mask_is_the_default(decode, randn, no_grad):
    embeddings = randn(1, 32, 4, 4), randn(1, 2, 32), randn(1, 32, 4, 4)
    masks, iou = decode(*embeddings)
    assert masks.shape == (1, 1, 16, 16)
    assert iou.shape == (1, 1)
    masks, iou = decode(*embeddings, multimask_output=True)
    assert masks.shape == (1, 3, 16, 16)
    assert iou.shape == (1, 3)


def test_many_prompts_on_one_image_equal_one_at_a_time(decode, randn, no_grad):
    image, sparse, dense = randn(1, 32, 4, 4), randn(5, 2, 32), randn(5, 32, 4, 4)
    singles = [decode(image, s[None], d[None]) for s, d in zip(sparse, dense, strict=True)]
    close(decode(image, sparse, dense), map(torch.cat, zip(*singles, strict=True)))


def test_a_batch_of_clicks_or_boxes_has_a_mask_and_a_score_each(build, randn, no_grad):
    model = build("sam_tiny")
    image = model.image_encoder(randn(1, 3, 64, 64))
    clicks = {"points": (20 * torch.rand(3, 1, 2), torch.ones(3, 1))}
    for count, prompts in ((3, clicks), (2, {"boxes": torch.tensor([[1.0, 2, 30, 40]] * 2)})):
        sparse, dense = model.prompt_encoder(**prompts)
        masks, iou = model.mask_decoder(
            image_embeddings=image,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        assert masks.shape == (count, 1, 16, 16)
        assert iou.shape == (count, 1)


def test_prompts_of_many_images_are_image_major(decode, randn, no_grad):
    images, sparse, dense = randn(2, 32, 4, 4), randn(6, 2, 32), randn(6, 32, 4, 4)
    halves = [
        decode(images[i : i + 1], sparse[p], dense[p])
        for i, p in enumerate((slice(3), slice(3, 6)))
    ]
    close(decode(images, sparse, dense), map(torch.cat, zip(*halves, strict=True)))


def test_one_set_of_prompts_serves_all_images(decode, randn, no_grad):
    images, sparse, dense = randn(3, 32, 4, 4), randn(1, 0, 32), randn(1, 32, 4, 4)
    singles = [decode(image[None], sparse, dense) for image in images]
    close(decode(images, sparse, dense), map(torch.cat, zip(*singles, strict=True)))


def test_fuse_adds_and_can_be_replaced(decode, randn, no_grad):
    image, sparse, dense = randn(1, 32, 4, 4), randn(2, 2, 32), randn(2, 32, 4, 4)
    added = decode(image, sparse, dense)
    assert not list(decode.decoder.fuse.parameters())

    class Ignore(nn.Module):
        def forward(self, image, dense):
            assert image.shape == dense.shape == (2, 32, 4, 4)
            return image

    decode.decoder.fuse = Ignore()
    ignored = decode(image, sparse, dense)
    assert (added[0] - ignored[0]).abs().max() > 1e-3
    close(ignored, decode(image, sparse, torch.zeros_like(dense)))


def test_image_tokens_are_not_copied_before_they_differ(decode, randn, no_grad):
    seen = []
    decode.decoder.fuse.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    decode(randn(1, 32, 4, 4), randn(7, 2, 32), randn(7, 32, 4, 4))
    assert seen[0].stride(0) == 0


def test_prompts_must_be_shared_out_evenly(decode, randn):
    with pytest.raises(PromptError, match="3 sets of prompts cannot be shared out among 2 images"):
        decode(randn(2, 32, 4, 4), randn(3, 2, 32), randn(3, 32, 4, 4))
    with pytest.raises(PromptError, match="3 sparse and 2 dense"):
        decode(randn(1, 32, 4, 4), randn(3, 2, 32), randn(2, 32, 4, 4))


def test_embeddings_must_share_grid_and_channels(decode, randn):
    with pytest.raises(ConfigError, match=r"dense_prompt_embeddings \(1, 32, 4, 5\)"):
        decode(randn(1, 32, 4, 4), randn(1, 2, 32), randn(1, 32, 4, 5))
    with pytest.raises(ConfigError, match=r"sparse_prompt_embeddings \(1, 2, 48\)"):
        decode(randn(1, 32, 4, 4), randn(1, 2, 48), randn(1, 32, 4, 4))


def near(a, b):
    """Sums in another order, on logits of up to 20."""
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-4, atol=2e-4)


CASES = [
    ("sam_tiny", Quirks()),
    ("sam3d_tiny", Quirks()),
    ("sam3d_tiny", Quirks(window_padding=True, rel_pos_axes=True, dense_pe_axes=True)),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1].rel_pos_axes}")
def model(request, build):
    name, quirks = request.param
    model = build(name)
    model.set_quirks(quirks)
    return model


def prompts(model, randn, count, *, masks):
    size = torch.tensor(model.config.image_size)
    coords = torch.rand(count, 2, len(size)) * size
    told = randn(masks, 1, *model.low_res_size) if masks else None
    return model.prompt_encoder(points=(coords, torch.ones(count, 2)), masks=told)


def asked(model, image, sparse, dense, **options):
    return {
        "image_embeddings": image,
        "image_pe": model.prompt_encoder.get_dense_pe(),
        "sparse_prompt_embeddings": sparse,
        "dense_prompt_embeddings": dense,
        **options,
    }


@pytest.mark.parametrize("masks", [0, 1, 4])
@pytest.mark.parametrize("learning", [False, True])
def test_an_image_that_sets_share_is_as_one_for_each(model, randn, monkeypatch, masks, learning):
    """Shared in memory, a few sets at a time, and repeated: all the same."""
    size = math.prod(model.config.grid) * model.config.embed_dim
    monkeypatch.setattr("samaritan.models.mask_decoder._ELEMENTS_AT_ONCE", {"cpu": 3 * size})
    image = randn(1, model.config.embed_dim, *model.config.grid)
    sparse, dense = prompts(model, randn, 4, masks=masks)
    with torch.set_grad_enabled(learning):
        shared = model.mask_decoder(**asked(model, image, sparse, dense, multimask_output=True))
    repeated = image.repeat(4, *[1] * (image.ndim - 1)), dense.contiguous()
    assert repeated[1].stride(0) > 0
    with torch.enable_grad():
        expected = model.mask_decoder(
            **asked(model, repeated[0], sparse, repeated[1], multimask_output=True)
        )
    near(shared, expected)


@pytest.mark.parametrize("masks", [0, 4])
def test_masks_above_a_limit_are_those_of_all(model, randn, no_grad, masks):
    image = randn(1, model.config.embed_dim, *model.config.grid)
    told = asked(model, image, *prompts(model, randn, 4, masks=masks))
    every, quality = model.mask_decoder(**told, multimask_output=True)
    for limit in (-math.inf, float(quality.median()), float(quality.max())):
        found, again = model.mask_decoder.masks_above(limit, **told)
        assert len(found) == (quality > limit).sum()
        near((found, again), (every[quality > limit], quality))


def test_sets_without_a_mask_above_the_limit_are_not_upscaled(model, randn, monkeypatch, no_grad):
    monkeypatch.setattr("samaritan.models.mask_decoder._ELEMENTS_AT_ONCE", {"cpu": 1})
    image = randn(1, model.config.embed_dim, *model.config.grid)
    told = asked(model, image, *prompts(model, randn, 4, masks=0))
    quality = model.mask_decoder(**told, multimask_output=True)[1]
    best = quality.max(dim=1).values.sort().values
    seen = []
    model.mask_decoder.output_upscaling[2].register_forward_hook(lambda *_: seen.append(1))
    model.mask_decoder.masks_above(float(best[1] + best[2]) / 2, **told)
    assert len(seen) == 2


@pytest.mark.parametrize("name", ["sam_tiny", "sam3d_tiny", "neurosam3d_tiny"])
def test_upscaling_token_by_token_is_that_of_the_convolutions(build, randn, no_grad, name):
    model = build(name)
    decoder, grid = model.mask_decoder, model.config.grid
    image = randn(2, model.config.embed_dim, *grid)
    queries = randn(2, 5, model.config.embed_dim)
    upscaled = decoder.output_upscaling(image)
    heads = decoder.output_hypernetworks_mlps
    expected = torch.stack(
        [torch.einsum("nc,nc...->n...", heads[i](queries[:, 1 + i]), upscaled) for i in range(3)], 1
    )
    found = decoder.masks_of(queries, image, range(3))
    assert found.shape[2:] == model.low_res_size
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
