"""What classes begin with when SAM's weights of four mask tokens come in."""

from __future__ import annotations

import pytest
import torch

from samaritan.checkpoints import load_weights
from samaritan.errors import CheckpointError, ConfigError

HYPER, HEAD = "mask_decoder.output_hypernetworks_mlps", "mask_decoder.iou_prediction_head.layers"
TOKENS = "mask_decoder.mask_tokens.weight"


def copy_of(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_samed_keeps_28_and_renews_33_of_61_tensors(make):
    base = make("sam_tiny", 1)
    model = make("sam_tiny", 2, classes=True, num_mask_tokens=9)
    before, theirs = copy_of(model), base.state_dict()
    report = load_weights(model, theirs)
    after = model.state_dict()
    parts = [k for k in after if k.startswith((HYPER, HEAD, TOKENS))]
    assert len(parts) == 61
    assert [k for k in parts if torch.equal(after[k], before[k])] == list(report.missing)
    assert len(report.missing) == 33
    kept = [k for k in parts if k not in report.missing]
    assert len(kept) == 28
    assert all(torch.equal(after[k], theirs[k]) for k in kept)
    assert set(report.missing) == {
        TOKENS, f"{HEAD}.2.weight", f"{HEAD}.2.bias",
        *(f"{HYPER}.{t}.layers.{i}.{p}" for t in range(4, 9) for i in range(3) for p in ("weight", "bias")),
    }  # fmt: skip
    assert any("samed_compat): 28 of 61" in note for note in report.notes)
    others = [k for k in after if k not in parts]
    assert all(torch.equal(after[k], theirs[k]) for k in others)


def test_three_classes_take_everything(make):
    base, model = make("sam_tiny", 1), make("sam_tiny", 2, classes=True, num_mask_tokens=4)
    report = load_weights(model, base.state_dict())
    assert report.missing == ()
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in base.state_dict().items())


def test_fewer_classes_than_tokens_leave_networks_out(make):
    base, model = make("sam_tiny", 1), make("sam_tiny", 2, classes=True, num_mask_tokens=2)
    report = load_weights(model, base.state_dict())
    assert set(report.missing) == {TOKENS, f"{HEAD}.2.weight", f"{HEAD}.2.bias"}


def test_fresh_leaves_all_parts_to_the_model(make):
    base, model = make("sam_tiny", 1), make("sam_tiny", 2, classes=True, num_mask_tokens=9)
    before = copy_of(model)
    report = load_weights(model, base.state_dict(), init_extra_classes="fresh")
    assert len(report.missing) == 61
    assert all(torch.equal(model.state_dict()[k], before[k]) for k in report.missing)


def test_copy_repeats_the_tokens(make):
    base, model = make("sam_tiny", 1), make("sam_tiny", 2, classes=True, num_mask_tokens=9)
    report = load_weights(model, base.state_dict(), init_extra_classes="copy")
    assert report.missing == ()
    own, theirs = model.state_dict(), base.state_dict()
    for t in range(9):
        for key in (TOKENS, f"{HEAD}.2.weight", f"{HEAD}.2.bias"):
            assert torch.equal(own[key][t], theirs[key][t % 4])
        for end in ("layers.0.weight", "layers.2.bias"):
            assert torch.equal(own[f"{HYPER}.{t}.{end}"], theirs[f"{HYPER}.{t % 4}.{end}"])


def test_a_trained_model_of_other_classes_needs_a_word(make):
    trained = make("sam_tiny", 1, classes=True, num_mask_tokens=9)
    model = make("sam_tiny", 2, classes=True, num_mask_tokens=6)
    before = copy_of(model)
    with pytest.raises(CheckpointError, match="9 mask tokens, the model 6"):
        load_weights(model, trained.state_dict())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    report = load_weights(model, trained.state_dict(), init_extra_classes="samed_compat")
    assert len(report.missing) == 3


def test_a_model_with_prompts_stays_strict(make):
    model = make("sam_tiny", 2, num_mask_tokens=6)
    with pytest.raises(CheckpointError, match="4 mask tokens, the model 6"):
        load_weights(model, make("sam_tiny", 1).state_dict())
    with pytest.raises(ConfigError, match=r"one of .*'copy'.*not 'zeros'"):
        load_weights(model, make("sam_tiny", 1).state_dict(), init_extra_classes="zeros")
