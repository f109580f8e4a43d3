import pytest

from samaritan.errors import ConfigError
from samaritan.models import Quirks, create_model, get_config


def test_one_number_stands_for_all_axes():
    assert create_model("sam_tiny", image_size=128).config.image_size == (128, 128)
    assert create_model("sam3d_tiny", image_size=64).config.image_size == (64, 64, 64)


def test_model_comes_in_eval_mode_and_trainable():
    model = create_model("sam_tiny")
    assert not model.training
    assert all(p.requires_grad for p in model.parameters())


def test_sizes_of_the_model_are_those_of_its_config():
    model = create_model("sam3d_tiny", image_size=(32, 40, 48))
    assert model.embedding_size == (4, 5, 6)
    assert model.low_res_size == (16, 20, 24)
    assert model.device.type == "cpu"


def test_overrides_reach_the_weights():
    model = create_model("sam3d_tiny", in_channels=2, num_point_embeddings=2)
    assert model.image_encoder.patch_embed.proj.weight.shape == (48, 2, 8, 8, 8)
    assert len(model.prompt_encoder.point_embeddings) == 2


def test_config_may_be_given_instead_of_a_name():
    config = get_config("sam_tiny")
    assert create_model(config).config == config


def test_quirks_are_kept_in_the_config():
    quirks = Quirks(window_padding=True)
    assert create_model("sam_tiny", quirks=quirks).config.quirks == quirks


def test_unknown_name_and_unknown_option_are_errors():
    with pytest.raises(ConfigError, match="Did you mean 'sam_tiny'"):
        create_model("sam_tinny")
    with pytest.raises(ConfigError, match="Did you mean 'in_channels'"):
        create_model("sam_tiny", in_chans=1)
