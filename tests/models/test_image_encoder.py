import pytest
import torch

from samaritan.errors import ConfigError
from samaritan.models import create_model


@pytest.fixture(scope="module")
def encoder():
    return create_model("sam_tiny").image_encoder


@pytest.mark.parametrize("size", [(64, 64), (48, 80), (16, 112)])
def test_embedding_has_one_vector_per_patch(size, randn, no_grad):
    model = create_model("sam_tiny", image_size=size)
    assert model.image_encoder(randn(1, 3, *size)).shape == (1, 32, size[0] // 16, size[1] // 16)


def test_non_cubic_volumes_are_embedded(randn, no_grad):
    model = create_model("sam3d_tiny", image_size=(16, 32, 40))
    assert model.image_encoder(randn(2, 1, 16, 32, 40)).shape == (2, 48, 2, 4, 5)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 64, 64), r"shape \(3, 64, 64\); this 2D model expects"),
        ((1, 1, 64, 64), "1 channels; this model expects 3"),
        ((1, 3, 64, 60), r"\(64, 60\) is not a multiple of the patch size \(16, 16\)"),
        ((1, 3, 64, 96), r"\(64, 96\) differs from the model's \(64, 64\).*interpolate_positions"),
    ],
)
def test_wrong_images_are_refused(encoder, shape, message):
    with pytest.raises(ConfigError, match=message):
        encoder(torch.zeros(shape))


def test_batch_equals_singles(build, randn, no_grad):
    encoder, images = build("sam_tiny", image_size=(64, 80)).image_encoder, randn(3, 3, 64, 80)
    singles = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(encoder(images), singles, rtol=1e-4, atol=1e-5)


def test_only_blocks_named_global_see_the_whole_grid(build, randn, no_grad):
    encoder = build("sam_tiny", image_size=96).image_encoder
    tokens, changed = randn(1, 6, 6, 48), randn(1, 6, 6, 48)
    changed = torch.where(torch.arange(6)[:, None, None] > 2, changed, tokens)
    windowed, whole = encoder.blocks
    same = (windowed(tokens) == windowed(changed)).all(-1)[0]
    assert same[:3].all()
    assert not same[3:].any()
    assert not (whole(tokens) == whole(changed)).all(-1).any()


@pytest.mark.parametrize("name", ["sam_tiny", "sam3d_tiny"])
def test_bfloat16_autocast_is_near(name, build, randn, no_grad):
    model = build(name)
    image = randn(1, model.config.in_channels, *model.config.image_size)
    exact = model.image_encoder(image)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.image_encoder(image)
    assert (rounded.float() - exact).std() < 0.05 * exact.std()
