"""Our own files: what is written is read back, bit by bit, header included, or nothing is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peak import peak_gib
from safetensors import safe_open
from safetensors.torch import save_file

from samaritan.checkpoints import (
    Header,
    convert,
    load_model,
    load_weights,
    read_header,
    save_weights,
)
from samaritan.errors import CheckpointError, FileError
from samaritan.models import Quirks, get_config

QUIRKS = Quirks(rel_pos_axes=True, dense_pe_axes=True, window_padding=True)


def output(model):
    size = model.config.image_size
    image = torch.linspace(-1, 1, model.config.in_channels * torch.Size(size).numel())
    with torch.inference_mode():
        return model(image.reshape(1, model.config.in_channels, *size)).low_res_logits


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("sam_tiny", {}),
        ("sam_tiny", {"image_size": (64, 96), "quirks": Quirks(window_padding=True)}),
        ("sam3d_tiny", {"quirks": QUIRKS}),
        ("sam3d_tiny", {"num_point_embeddings": 2, "num_mask_tokens": 2}),
    ],
)
def test_a_saved_model_comes_back_bit_by_bit(name, overrides, make, same, tmp_path):
    model = make(name, seed=1, **overrides)
    path = save_weights(
        model,
        tmp_path / "m.safetensors",
        preprocess={"kind": "slice", "size": [64, 64], "mean": [0.5]},
        provenance={"source": "test"},
        licence="CC0-1.0",
        extra={"recipe": {"lr": 1e-4}},
    )
    again, header = load_model(path)
    assert again.config == model.config == header.config
    assert same(again.state_dict(), model.state_dict())
    assert torch.equal(output(again), output(model))
    assert header.preprocess == {"kind": "slice", "size": [64, 64], "mean": [0.5]}
    assert header.provenance["source"] == "test"
    assert "samaritan" in header.provenance
    assert header.licence == "CC0-1.0"
    assert header.extra == {"recipe": {"lr": 1e-4}}
    assert read_header(path) == header


def test_loading_our_file_brings_its_quirks_and_licence(make, tmp_path):
    path = save_weights(
        make("sam3d_tiny", quirks=QUIRKS), tmp_path / "m.safetensors", licence="MIT"
    )
    model = make("sam3d_tiny", seed=1)
    report = load_weights(model, path)
    assert report.source == "samaritan"
    assert report.licence == "MIT"
    assert model.config.quirks == QUIRKS
    plain = make("sam3d_tiny", seed=1)
    assert load_weights(plain, path, keep_quirks=True).quirks == ()
    assert plain.config.quirks == Quirks()


def test_our_files_are_plain_safetensors(make, tmp_path):
    model = make()
    path = save_weights(model, tmp_path / "m.safetensors")
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["samaritan"])["config"]["name"] == "sam_tiny"


def test_the_header_is_read_without_the_tensors(make, tmp_path, monkeypatch):
    path = save_weights(make(), tmp_path / "m.safetensors")
    monkeypatch.setattr("samaritan.checkpoints.reading.load_file", None)
    assert read_header(path).config.name == "sam_tiny"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.text()
            | st.floats(allow_nan=False, allow_infinity=False),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_any_plain_values_survive_the_header(values):
    header = Header(get_config("sam_tiny"), preprocess=values, extra=values, licence="x")
    assert Header.from_json(header.to_json()) == header


@pytest.mark.parametrize("bad", [{"a": object()}, {"a": float("nan")}, {"a": {1, 2}}])
def test_values_that_json_cannot_hold_are_refused_before_writing(bad, make, tmp_path):
    with pytest.raises(CheckpointError, match="only JSON values"):
        save_weights(make(), tmp_path / "m.safetensors", preprocess=bad)
    assert list(tmp_path.iterdir()) == []


def test_weights_may_be_read_by_whom_other_files_may(make, tmp_path):
    (tmp_path / "other").touch()
    path = save_weights(make("sam_tiny"), tmp_path / "model.safetensors")
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_failed_write_leaves_the_old_file_and_nothing_else(make, tmp_path, monkeypatch):
    path = save_weights(make(), tmp_path / "m.safetensors")
    before = path.read_bytes()

    def fail(state, file, metadata):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("samaritan.checkpoints.saving.save_file", fail)
    with pytest.raises(FileError, match="No space left"):
        save_weights(make(seed=1), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


def test_a_missing_folder_is_a_clear_error(make, tmp_path):
    with pytest.raises(FileError, match="cannot be written"):
        save_weights(make(), tmp_path / "absent" / "m.safetensors")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ("{}", "damaged"),
        ('{"format_version": 99}', "Install a newer samaritan"),
        ('{"format_version": 1, "config": {"name": "x"}}', "damaged"),
        ('{"format_version": 1, "config": {"ndim": "2"}, "preprocess": 3}', "damaged"),
    ],
)
def test_damaged_headers_are_refused(text, message, make, tmp_path):
    file = tmp_path / "m.safetensors"
    save_file(make().state_dict(), file, {"samaritan": text})
    for door in (read_header, load_model, lambda f: load_weights(make(), f)):
        with pytest.raises(CheckpointError, match=message):
            door(file)


@pytest.mark.parametrize(
    "promise", [{"width": 48 * 10**5}, {"depth": 10**9}, {"image_size": [2**20, 2**20]}]
)
def test_a_header_that_promises_more_than_the_file_holds_takes_no_memory(promise, make, tmp_path):
    model = make()
    header = {"format_version": 1, "config": {**model.config.to_dict(), **promise}}
    file = tmp_path / "m.safetensors"
    save_file(model.state_dict(), file, {"samaritan": json.dumps(header)})
    before = peak_gib()
    with pytest.raises(CheckpointError):
        load_model(file)
    assert peak_gib() - before < 0.3


def test_files_of_others_have_no_header(make, tmp_path):
    save_file(make().state_dict(), tmp_path / "m.safetensors")
    torch.save(make().state_dict(), tmp_path / "m.pth")
    for name in ("m.safetensors", "m.pth"):
        with pytest.raises(CheckpointError, match=r"models convert .* OUT.safetensors"):
            read_header(tmp_path / name)


def test_convert_keeps_weights_and_origin(make, same, tmp_path):
    there = make("sam3d_tiny", seed=1, quirks=QUIRKS)
    torch.save({"model_state_dict": there.state_dict(), "epoch": 1}, tmp_path / "w.pth")
    report = convert(tmp_path / "w.pth", tmp_path / "w.safetensors")
    here, header = load_model(tmp_path / "w.safetensors")
    assert same(here.state_dict(), there.state_dict())
    assert header.provenance["sha256"] == report.sha256
    assert header.provenance["file"] == "w.pth"
    assert header.provenance["source"] == "plain"


def test_converting_our_own_file_keeps_its_header(make, tmp_path):
    path = save_weights(make(), tmp_path / "a.safetensors", preprocess={"a": 1}, licence="MIT")
    convert(path, tmp_path / "b.safetensors")
    assert read_header(tmp_path / "b.safetensors") == read_header(path)


def test_tied_and_cut_tensors_are_saved_whole(make, same, tmp_path):
    model = make()
    big = torch.randn(10, 32)
    model.mask_decoder.iou_token.weight.data = big[3:4]
    model.prompt_encoder.no_mask_embed.weight.data = big[3:4]
    path = save_weights(model, tmp_path / "m.safetensors")
    again, _ = load_model(path)
    assert same(again.state_dict(), model.state_dict())
