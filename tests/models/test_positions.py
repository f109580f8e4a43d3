from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from samaritan.errors import ConfigError
from samaritan.models import create_model, get_config, resize_positions
from samaritan.models.positions import interpolate_grid, interpolate_table, relative_rows


def test_absolute_table_is_resized_bilinearly_without_aligned_corners(randn):
    table = randn(1, 64, 64, 8)
    expected = F.interpolate(table.permute(0, 3, 1, 2), (32, 32), mode="bilinear").permute(
        0, 2, 3, 1
    )
    assert torch.equal(interpolate_grid(table, (32, 32)), expected)
    assert interpolate_grid(table, (64, 64)) is table


def test_relative_table_is_resized_linearly_along_its_length(randn):
    table = randn(127, 8)
    expected = F.interpolate(table.T[None], 63, mode="linear")[0].T
    assert torch.equal(interpolate_table(table, 63), expected)
    assert interpolate_table(table, 127) is table


def test_rows_are_looked_up_by_query_minus_key():
    table = torch.arange(5.0)[:, None]
    assert relative_rows(table, 3, 3)[..., 0].tolist() == [[2, 1, 0], [3, 2, 1], [4, 3, 2]]
    assert relative_rows(table, 1, 3)[..., 0].tolist() == [[2, 1, 0]]


@pytest.mark.parametrize("name", ["sam_vit_b", "sam_vit_l", "sam_vit_h", "sammed3d_vit_b_ori"])
def test_resizing_changes_exactly_the_tables_of_the_grid(name):
    config = get_config(name)
    size = (512, 768) if config.ndim == 2 else (64, 96, 128)
    smaller = replace(config, image_size=size)
    with torch.device("meta"):
        weights = create_model(config).state_dict()
        target = create_model(smaller).state_dict()
    resized = resize_positions(weights, config, smaller)
    assert {k: v.shape for k, v in resized.items()} == {k: v.shape for k, v in target.items()}
    axes = "hw" if config.ndim == 2 else "dhw"
    changed = {k for k in weights if resized[k] is not weights[k]}
    assert changed == {"image_encoder.pos_embed"} | {
        f"image_encoder.blocks.{i}.attn.rel_pos_{axis}"
        for i in config.global_blocks
        for axis, n, m in zip(axes, config.grid, smaller.grid, strict=True)
        if n != m
    }


def test_resizing_at_load_time_equals_interpolating_on_the_fly(build, randn, no_grad):
    model = build("sam_tiny", image_size=(96, 64))
    size = (64, 128)
    moved = replace(model.config, image_size=size)
    loaded = create_model(moved)
    loaded.load_state_dict(resize_positions(model.state_dict(), model.config, moved))
    on_the_fly = create_model(model.config, interpolate_positions=True)
    on_the_fly.load_state_dict(model.state_dict())
    image = randn(1, 3, *size)
    expected = loaded.image_encoder(image)
    assert expected.shape == (1, 32, 4, 8)
    torch.testing.assert_close(on_the_fly.image_encoder(image), expected, rtol=0, atol=1e-6)


def test_only_sizes_may_differ():
    with pytest.raises(ConfigError, match="depth is 12 there and 24 here"):
        resize_positions({}, get_config("sam_vit_b"), replace(get_config("sam_vit_l"), width=768))
