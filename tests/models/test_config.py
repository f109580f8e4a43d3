import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace

import pytest

from samaritan.errors import ConfigError
from samaritan.models.config import Quirks, SamConfig, get_config, model_names


@pytest.mark.parametrize("name", model_names())
def test_config_survives_json(name):
    config = replace(get_config(name), name="mine")
    if config.backbone != "unet":
        config = replace(config, quirks=Quirks(window_padding=True))
    assert SamConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config_is_frozen_and_printable():
    config = get_config("sam_vit_b")
    assert "width=768" in repr(config)
    with pytest.raises(FrozenInstanceError):
        config.width = 3


@pytest.mark.parametrize("name", model_names())
def test_no_named_config_has_a_quirk(name):
    assert get_config(name).quirks == Quirks()
    assert not any(vars(Quirks()).values())


def test_sizes_follow_from_image_and_patch():
    config = replace(get_config("sammed3d_vit_b_ori"), image_size=(128, 64, 96))
    assert config.grid == (8, 4, 6)
    assert config.low_res_size == (32, 16, 24)


def test_axis_with_patch_one_is_not_scaled():
    config = replace(get_config("sam3d_tiny"), image_size=(3, 32, 64), patch_size=(1, 16, 16))
    assert config.grid == (3, 2, 4)
    assert config.low_res_size == (3, 8, 16)


def test_all_bad_fields_are_reported_at_once():
    with pytest.raises(ConfigError, match=r"width 50.*embed_dim 100.*num_point_embeddings"):
        replace(get_config("sam_vit_b"), width=50, embed_dim=100, num_point_embeddings=3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": (1000, 1024)}, "multiple of patch_size"),
        ({"image_size": (0, 1024)}, "multiple of patch_size"),
        ({"image_size": (1024,)}, "2 axes each"),
        ({"patch_size": (2, 16)}, "1 or a multiple of 4"),
        ({"patch_size": (0, 16)}, "1 or a multiple of 4"),
        ({"global_blocks": (12,)}, "below depth 12"),
        ({"mask_channels": 6}, "mask_channels 6"),
        ({"depth": 0}, "depth must be a positive whole number, not 0"),
        ({"depth": "12"}, "depth must be a positive whole number, not '12'"),
        ({"heads": True}, "heads must be a positive whole number"),
        ({"mlp_ratio": float("nan")}, "mlp_ratio must be a positive number"),
        ({"name": 3}, "name must be text"),
        ({"image_size": "1024"}, "image_size must be a tuple"),
        ({"interpolate_positions": 1}, "interpolate_positions must be true or false"),
        ({"quirks": None}, "quirks must be Quirks"),
        ({"quirks": Quirks(rel_pos_axes=True)}, "3D only"),
        ({"ndim": 4}, "ndim must be 2 or 3"),
    ],
)
def test_bad_field_is_named_with_its_value(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(get_config("sam_vit_b"), **change)


def test_bad_quirk_value_from_a_header_is_refused():
    values = get_config("sam_vit_b").to_dict()
    values["quirks"]["window_padding"] = "yes"
    with pytest.raises(ConfigError, match="window_padding must be true or false"):
        SamConfig.from_dict(values)


def test_unknown_fields_name_the_near_one():
    with pytest.raises(ConfigError, match=r"no field 'image_sise'\. Did you mean 'image_size'"):
        SamConfig.from_dict({**get_config("sam_vit_b").to_dict(), "image_sise": 3})


def test_missing_fields_are_named():
    with pytest.raises(ConfigError, match=r"incomplete.*ndim"):
        SamConfig.from_dict({"name": "mine"})


def test_unknown_model_lists_near_names():
    with pytest.raises(ConfigError, match=r"unknown model 'sam_vitb'\. Did you mean 'sam_vit_b'"):
        get_config("sam_vitb")


def test_listing_models_loads_no_torch():
    code = "import sys, samaritan.models as m; m.model_names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
