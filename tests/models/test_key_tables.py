"""Names, shapes and counts of the official weights; nothing is allocated."""

import json

import pytest
import torch

from samaritan.models import create_model

COUNTS = {  # keys, parameters, those of the encoder
    "sam_vit_b": (314, 93_735_472, 89_670_912),
    "sam_vit_l": (482, 312_342_832, 308_278_272),
    "sam_vit_h": (594, 641_090_608, 637_026_048),
    "sammed3d_vit_b_ori": (324, 100_509_232, 92_924_928),
    "sammed3d_vit_b": (324, 36_186_928, 28_602_624),
    "sammed3d_vit_l": (504, 322_786_864, 315_202_560),
    "sammed3d_vit_h": (624, 652_434_992, 644_850_688),
}


def on_meta(name, **options):
    with torch.device("meta"):
        return create_model(name, **options)


def count(module):
    return sum(p.numel() for p in module.parameters())


def official_table(config):
    """Key -> shape of the official weights, written out from their description."""
    d, e, t, n = config.width, config.embed_dim, config.num_mask_tokens, config.ndim
    hidden, grid, axes = 4 * d, config.grid, {2: "hw", 3: "dhw"}[n]
    table = {}

    def linear(key, out, into, *kernel, bias=True):
        table[f"{key}.weight"] = (out, into, *kernel)
        if bias:
            table[f"{key}.bias"] = (out,)

    def norm(key, width):
        table[f"{key}.weight"] = table[f"{key}.bias"] = (width,)

    table["image_encoder.pos_embed"] = (1, *grid, d)
    linear("image_encoder.patch_embed.proj", d, config.in_channels, *config.patch_size)
    for i in range(config.depth):
        block = f"image_encoder.blocks.{i}"
        norm(f"{block}.norm1", d)
        norm(f"{block}.norm2", d)
        for axis, side in zip(axes, grid, strict=True):
            rows = 2 * side - 1 if i in config.global_blocks else 27
            table[f"{block}.attn.rel_pos_{axis}"] = (rows, d // config.heads)
        linear(f"{block}.attn.qkv", 3 * d, d)
        linear(f"{block}.attn.proj", d, d)
        linear(f"{block}.mlp.lin1", hidden, d)
        linear(f"{block}.mlp.lin2", d, hidden)
    linear("image_encoder.neck.0", e, d, *[1] * n, bias=False)
    norm("image_encoder.neck.1", e)
    linear("image_encoder.neck.2", e, e, *[3] * n, bias=False)
    norm("image_encoder.neck.3", e)

    table["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = (n, 128)
    for i in range(config.num_point_embeddings):
        table[f"prompt_encoder.point_embeddings.{i}.weight"] = (1, e)
    table["prompt_encoder.not_a_point_embed.weight"] = (1, e)
    table["prompt_encoder.no_mask_embed.weight"] = (1, e)
    down = "prompt_encoder.mask_downscaling"
    linear(f"{down}.0", 4, 1, *[2] * n)
    norm(f"{down}.1", 4)
    linear(f"{down}.3", 16, 4, *[2] * n)
    norm(f"{down}.4", 16)
    linear(f"{down}.6", e, 16, *[1] * n)

    two_way = "mask_decoder.transformer"
    attentions = {f"{two_way}.final_attn_token_to_image": e // 2}
    for i in range(2):
        layer = f"{two_way}.layers.{i}"
        attentions[f"{layer}.self_attn"] = e
        attentions[f"{layer}.cross_attn_token_to_image"] = e // 2
        attentions[f"{layer}.cross_attn_image_to_token"] = e // 2
        linear(f"{layer}.mlp.lin1", 2048, e)
        linear(f"{layer}.mlp.lin2", e, 2048)
        for j in (1, 2, 3, 4):
            norm(f"{layer}.norm{j}", e)
    for key, inner in attentions.items():
        for part in ("q_proj", "k_proj", "v_proj"):
            linear(f"{key}.{part}", inner, e)
        linear(f"{key}.out_proj", e, inner)
    norm(f"{two_way}.norm_final_attn", e)
    table["mask_decoder.iou_token.weight"] = (1, e)
    table["mask_decoder.mask_tokens.weight"] = (t, e)
    table["mask_decoder.output_upscaling.0.weight"] = (e, e // 4, *[2] * n)
    table["mask_decoder.output_upscaling.0.bias"] = (e // 4,)
    norm("mask_decoder.output_upscaling.1", e // 4)
    table["mask_decoder.output_upscaling.3.weight"] = (e // 4, e // 8, *[2] * n)
    table["mask_decoder.output_upscaling.3.bias"] = (e // 8,)
    heads = [(f"output_hypernetworks_mlps.{i}", e, e // 8) for i in range(t)]
    for name, wide, out in [*heads, ("iou_prediction_head", 256, t)]:
        linear(f"mask_decoder.{name}.layers.0", wide, e)
        linear(f"mask_decoder.{name}.layers.1", wide, wide)
        linear(f"mask_decoder.{name}.layers.2", out, wide)
    return table


@pytest.mark.parametrize("name", COUNTS)
def test_official_keys_load_strictly(name):
    model = on_meta(name)
    table = official_table(model.config)
    weights = {key: torch.empty(shape, device="meta") for key, shape in table.items()}
    model.load_state_dict(weights, strict=True, assign=True)
    assert len(table) == COUNTS[name][0]


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_published(name):
    model = on_meta(name)
    _, total, encoder = COUNTS[name]
    prompt, decoder = (6_220, 4_058_340) if model.config.ndim == 2 else (8_668, 7_575_636)
    assert count(model) == total
    assert count(model.image_encoder) == encoder
    assert count(model.prompt_encoder) == prompt
    assert count(model.mask_decoder) == decoder


@pytest.mark.parametrize("name", ["sam_vit_b", "sammed3d_vit_b_ori"])
def test_keys_are_those_of_the_golden_checkpoint(name, parity_dir):
    schema = json.loads((parity_dir / f"{name}.schema.json").read_text())
    assert {k: list(v.shape) for k, v in on_meta(name).state_dict().items()} == schema


def test_smaller_sam_has_the_published_count():
    assert count(on_meta("sam_vit_b", image_size=256)) == 90_737_200


def test_sammed3d_with_boxes_has_two_more_embeddings():
    model = on_meta("sammed3d_vit_b_ori", num_point_embeddings=4)
    assert len(model.state_dict()) == 326
    assert count(model) == 100_509_232 + 2 * 384


def test_class_tokens_widen_the_decoder():
    keys = [k for k in on_meta("sam_vit_b", num_mask_tokens=9).state_dict() if "mask_decoder" in k]
    assert len(keys) == 150
