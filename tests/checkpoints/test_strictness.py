"""What does not fit is one readable error, and the model is never loaded in part."""

from __future__ import annotations

import pytest
import torch

from samaritan.checkpoints import load_weights
from samaritan.checkpoints.comparing import compare, explain, shapes_of
from samaritan.checkpoints.systems import SAM
from samaritan.errors import CheckpointError
from samaritan.models import create_model, get_config


def refused(model, state, **options):
    """The error text; the model must be as it was, quirks included."""
    before = {key: value.clone() for key, value in model.state_dict().items()}
    config = model.config
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, state, **options)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.config == config
    return str(caught.value)


def test_missing_unexpected_and_misshaped_names_are_one_error_sorted_by_kind(make):
    state = make(seed=1).state_dict()
    state["prompt_encoder.no_mask_embedding.weight"] = state.pop(
        "prompt_encoder.no_mask_embed.weight"
    )
    state["mask_decoder.iou_token.weight"] = torch.zeros(1, 5)
    text = refused(make(), state)
    missing, unexpected, shape = (
        text.index("1 missing from the weights"),
        text.index("1 not in the model"),
        text.index("1 of another shape"),
    )
    assert missing < unexpected < shape
    assert "is it 'prompt_encoder.no_mask_embedding.weight'?" in text
    assert "mask_decoder.iou_token.weight: 1 x 5, expected 1 x 32" in text
    assert "nothing was loaded" in text


def test_long_lists_are_cut_and_counted(make):
    state = {k: v for k, v in make(seed=1).state_dict().items() if "mask_decoder" not in k}
    text = refused(make(), state)
    assert "120 missing" in text
    assert "and 114 more" in text
    assert len(text.splitlines()) < 15


def test_weights_of_another_model_are_named(make):
    text = refused(make("sam_tiny"), make("sam3d_tiny", seed=1).state_dict())
    assert "create_model('sam3d_tiny')" in text
    assert "3D" in text


def test_weights_of_a_larger_sam_are_named():
    shapes = {k: tuple(v.shape) for k, v in _meta("sam_vit_l").state_dict().items()}
    wanted = {k: tuple(v.shape) for k, v in _meta("sam_vit_b").state_dict().items()}
    text = explain(
        compare(shapes, wanted, ndim=2), shapes, wanted, get_config("sam_vit_b"), SAM, "x.pth"
    )
    assert "use create_model('sam_vit_l')" in text


def test_another_size_is_an_error_without_resizing_and_says_how(make):
    text = refused(make(image_size=96), make(seed=1).state_dict(), resize_positions=False)
    assert "resize_positions=True" in text
    assert "create_model('sam_tiny')" in text


def test_more_mask_tokens_say_how_to_build_the_model(make):
    text = refused(make(), make(seed=1, num_mask_tokens=6).state_dict())
    assert "create_model('sam_tiny', num_mask_tokens=6)" in text


def test_box_weights_into_a_model_without_boxes_are_an_error_with_a_hint(make):
    small, full = make("sam3d_tiny", num_point_embeddings=2), make("sam3d_tiny", seed=1)
    text = refused(small, full.state_dict())
    assert "2 not in the model" in text
    assert "use create_model('sam3d_tiny')" in text


def test_weights_without_boxes_fill_all_but_the_corner_embeddings(make):
    model, old = make("sam3d_tiny", seed=1), make("sam3d_tiny", seed=2, num_point_embeddings=2)
    corners = [model.prompt_encoder.point_embeddings[i].weight.clone() for i in (2, 3)]
    report = load_weights(model, old.state_dict())
    assert report.missing == (
        "prompt_encoder.point_embeddings.2.weight",
        "prompt_encoder.point_embeddings.3.weight",
    )
    assert any("boxes" in note for note in report.notes)
    for i, corner in zip((2, 3), corners, strict=True):
        assert torch.equal(model.prompt_encoder.point_embeddings[i].weight, corner)
    here, there = model.state_dict(), old.state_dict()
    assert all(torch.equal(here[key], there[key]) for key in there)


def test_one_missing_corner_is_an_error(make):
    state = make("sam3d_tiny", seed=1).state_dict()
    del state["prompt_encoder.point_embeddings.3.weight"]
    assert "1 missing" in refused(make("sam3d_tiny"), state)


def test_missing_corners_are_an_error_in_2d(make):
    state = make(seed=1).state_dict()
    del state["prompt_encoder.point_embeddings.2.weight"]
    del state["prompt_encoder.point_embeddings.3.weight"]
    assert "2 missing" in refused(make(), state)


def test_whole_numbers_for_weights_are_an_error(make):
    state = make(seed=1).state_dict()
    state["mask_decoder.iou_token.weight"] = state["mask_decoder.iou_token.weight"].long()
    assert "int64 numbers, expected float32" in refused(make(), state)


def test_position_tables_of_wrong_rank_or_length_are_an_error_and_no_crash(make):
    for key, value in {
        "image_encoder.pos_embed": torch.zeros(1, 4, 48),
        "image_encoder.blocks.1.attn.rel_pos_h": torch.zeros(0, 16),
        "image_encoder.blocks.0.attn.rel_pos_w": torch.zeros(7, 16),
    }.items():
        state = {**make(seed=1).state_dict(), key: value}
        assert key in refused(make(), state)


def test_foreign_networks_are_refused_by_name(make):
    text = refused(make(), {"layer1.0.conv1.weight": torch.zeros(3, 3)})
    assert "none of its names is a parameter of SAM" in text


def test_only_models_of_this_package_are_loaded(make):
    with pytest.raises(CheckpointError, match="not into a Linear"):
        load_weights(torch.nn.Linear(2, 2), make().state_dict())


def test_half_precision_is_cast_with_a_note(make):
    there, here = make(seed=1), make()
    report = load_weights(here, {k: v.half() for k, v in there.state_dict().items()})
    assert "float16 weights were cast to the model's float32" in report.notes
    key = "mask_decoder.iou_token.weight"
    assert torch.equal(here.state_dict()[key], there.state_dict()[key].half().float())


def test_nan_and_infinity_are_reported(make):
    state = make(seed=1).state_dict()
    state["mask_decoder.iou_token.weight"][0, 0] = float("nan")
    report = load_weights(make(), state)
    assert any("1 tensors hold NaN" in note for note in report.notes)


def test_position_tables_are_resized_and_listed(make):
    there, here = make(seed=1), make(image_size=(96, 64))
    report = load_weights(here, there.state_dict())
    assert report.resized == (
        "image_encoder.pos_embed: (1, 4, 4, 48) -> (1, 6, 4, 48)",
        "image_encoder.blocks.1.attn.rel_pos_h: (7, 16) -> (11, 16)",
    )
    assert "1 and" not in str(report).split("resized")[1].splitlines()[0]
    assert here(torch.zeros(1, 3, 96, 64)).low_res_logits.shape == (1, 1, 24, 16)


def test_models_on_the_meta_device_get_the_weights(make, same):
    there = make(seed=1)
    with torch.device("meta"):
        here = create_model("sam_tiny")
    load_weights(here, there.state_dict())
    assert same(here.state_dict(), there.state_dict())
    assert not any(p.is_meta for p in here.parameters())


def test_quirks_of_plain_weights_stay_as_they_are(make):
    model = make(quirks=create_model("sam_tiny").config.quirks)
    report = load_weights(model, make(seed=1).state_dict())
    assert report.quirks == ()
    assert any("no published size" in note for note in report.notes)


def test_the_report_is_a_short_text_and_plain_values(make):
    report = load_weights(make(), make(seed=1).state_dict())
    assert str(report).startswith("Loaded 174 tensors (")
    assert report.to_dict()["source"] == "plain"
    assert report.n_parameters == sum(v.numel() for v in make().state_dict().values())


def test_shapes_of_knows_scalars():
    assert shapes_of({"a": torch.zeros(()), "b": torch.zeros(2, 3)}) == {"a": (), "b": (2, 3)}


def _meta(name):
    with torch.device("meta"):
        return create_model(name)
