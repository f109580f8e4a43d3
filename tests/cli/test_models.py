"""The models commands: results on standard output, one message for what is wrong, exit codes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import samaritan
from samaritan.checkpoints import cached, load_model, read_header, save_official
from samaritan.checkpoints.downloading import Downloaded
from samaritan.cli.models import app
from samaritan.errors import ConfigError, CorruptFile, DownloadError, UnsafeFile
from samaritan.models import create_model


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SAMARITAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "weights"


@pytest.fixture
def weights(tmp_path):
    file = tmp_path / "w.pth"
    torch.save({"model": create_model("sam_tiny").state_dict(), "epoch": 1}, file)
    return file


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_list_shows_every_published_file_whole_and_as_json():
    text = run("list")
    assert text.exit_code == 0
    rows = json.loads(run("list", "--json").stdout)
    for row in rows:
        assert row["name"] in text.stdout
        assert row["licence"] in text.stdout
        assert row["shipped"] or row["cached"] is None
    assert "…" not in text.stdout


def test_show_tells_origin_place_and_architecture(cache):
    text = run("show", "sam_vit_b").stdout
    assert "Apache-2.0" in text
    assert str(cache / "sam_vit_b_01ec64.pth") in text
    assert "93,735,472" in text
    shown = json.loads(run("show", "sammed3d_vit_b_ori", "--json").stdout)
    assert shown["weights"]["name"] == "sammed3d_turbo"
    assert shown["architecture"]["parameters"] == 100_509_232


@pytest.mark.parametrize("name", ["samaritan_2d", "samaritan_3d"])
def test_what_ships_is_in_the_package_with_its_card(cache, name):
    if cached(name) is None:
        pytest.skip(f"the weights of {name} are not in this checkout")
    row = next(line for line in run("list").stdout.splitlines() if name in line)
    assert "in the package" in row
    shown = json.loads(run("show", name, "--json").stdout)["weights"]
    assert Path(shown["card"]).name == f"{name}.md"
    assert shown["size"] == pytest.approx(Path(shown["cached"]).stat().st_size, rel=0.05)
    assert "## Limits" in Path(shown["card"]).read_text(encoding="utf-8")
    assert "place" not in shown


def test_show_knows_models_without_published_weights_and_weights_of_later_models():
    assert json.loads(run("show", "sam_tiny", "--json").stdout)["weights"] is None
    assert "needs sam_vit_b as well" in run("show", "samed_vit_b_synapse").stdout


def test_unknown_names_suggest_near_ones():
    for command in ("show", "fetch"):
        result = run(command, "sam_vitb")
        assert isinstance(result.exception, ConfigError)
        assert "Did you mean 'sam_vit_b'" in str(result.exception)


def test_fetch_prints_the_path_alone(monkeypatch, tmp_path):
    def give(url, target, *, progress, **options):
        target.write_bytes(b"x")
        progress(1, 1)
        return Downloaded(1, "0" * 64, None)

    monkeypatch.setattr("samaritan.checkpoints.fetching.download", give)
    result = run("fetch", "sammed3d_turbo", "--to", tmp_path / "here")
    assert result.exit_code == 0
    assert result.stdout.strip() == str(tmp_path / "here" / "sam_med3d_turbo.pth")


def test_fetch_without_a_network_says_what_to_put_where(monkeypatch, cache):
    def fail(url, target, **options):
        raise DownloadError(f"{url} could not be fetched: no connection")

    monkeypatch.setattr("samaritan.checkpoints.fetching.download", fail)
    result = run("fetch", "sam_vit_b")
    assert isinstance(result.exception, DownloadError)
    assert str(cache / "sam_vit_b_01ec64.pth") in str(result.exception)


def test_check_describes_good_weights(weights):
    result = run("check", weights)
    assert result.exit_code == 0
    for text in ("torch zip", "model", "sam_tiny, images of 64 x 64", "174 float32", "epoch"):
        assert text in result.stdout
    assert "It can be used." in result.stdout
    found = json.loads(run("check", weights, "--json").stdout)
    assert (found["ok"], found["n_tensors"]) == (True, 174)


def test_check_exits_with_1_for_weights_that_cannot_be_used(weights, tmp_path):
    state = create_model("sam_tiny").state_dict()
    state["mask_decoder.iou_token.weight"][:] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    result = run("check", tmp_path / "nan.pth")
    assert result.exit_code == 1
    assert "problem: 1 tensors hold NaN or infinity: mask_decoder.iou_token" in result.stdout

    result = run("check", weights, "--model", "sam3d_tiny")
    assert result.exit_code == 1
    assert "use create_model('sam_tiny')" in result.stdout

    torch.save({"w_a_000": torch.zeros(4, 8)}, tmp_path / "lora.pth")
    result = run("check", tmp_path / "lora.pth", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["source"] == "samed-lora"

    torch.save(create_model("sam_tiny", width=60).state_dict(), tmp_path / "odd.pth")
    result = run("check", tmp_path / "odd.pth")
    assert result.exit_code == 1
    assert "no model that is known" in result.stdout


def test_check_refuses_damaged_and_unsafe_files(tmp_path):
    (tmp_path / "page.pth").write_bytes(b"<html>")
    assert isinstance(run("check", tmp_path / "page.pth").exception, CorruptFile)
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pth")
    assert isinstance(run("check", tmp_path / "model.pth").exception, UnsafeFile)


def test_convert_writes_a_file_that_needs_nothing_else(weights, tmp_path):
    out = tmp_path / "out.safetensors"
    result = run("convert", weights, out)
    assert result.exit_code == 0
    assert f"Wrote {out}" in result.stdout
    model, header = load_model(out)
    assert model.config.name == "sam_tiny"
    assert header.provenance["file"] == "w.pth"
    result = run("check", out)
    assert result.exit_code == 0
    assert "a file of samaritan" in result.stdout


def test_the_commands_are_listed_without_loading_torch():
    code = "import sys, samaritan.cli.models; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_lora_file_and_its_base_become_one_file(tmp_path):
    model = samaritan.create_model("samed_tiny", num_classes=2)
    torch.nn.init.ones_(model.image_encoder.pos_embed)
    lora = save_official(model, tmp_path / "lora.pth")
    state = {k: v for k, v in model.state_dict().items() if ".adapters." not in k}
    torch.save(state, tmp_path / "base.pth")
    text = run("check", lora).stdout
    assert "SAMed LoRA file" in text
    assert "It can be used, together with the weights of the plain model (base)." in text
    assert json.loads(run("check", lora, "--json").stdout)["needs_base"]
    out = tmp_path / "out.safetensors"
    assert "base=" in str(run("convert", lora, out).exception)
    assert not out.exists()
    assert run("convert", lora, out, "--base", tmp_path / "base.pth").exit_code == 0
    again, header = load_model(out)
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())
    assert header.preprocess["window"] == [-125.0, 275.0]


def test_show_counts_what_learns():
    text = run("show", "samed_vit_b").stdout
    assert "4,913,621" in text
    assert "lora beside 12 modules" in text


def test_a_run_leaves_the_file_that_its_publishers_write(tmp_path):
    model = samaritan.create_model("samed_tiny", num_classes=2)
    (tmp_path / "run").mkdir()
    samaritan.save_weights(model, tmp_path / "run/best.safetensors")
    assert run("convert", tmp_path / "run", tmp_path / "epoch_9.pth").exit_code == 0
    written = torch.load(tmp_path / "epoch_9.pth", weights_only=True)
    save_official(model, tmp_path / "wanted.pth")
    wanted = torch.load(tmp_path / "wanted.pth", weights_only=True)
    assert "w_a_000" in written
    assert all(torch.equal(value, written[key]) for key, value in wanted.items())


def test_adapters_of_a_file_are_listed(tmp_path):
    model = samaritan.create_model("samed_tiny", num_classes=2)
    extra = {"labels": {"1": "liver"}, "recipe": "name: samed\nrun:\n  epochs: 3\n"}
    samaritan.save_weights(model, tmp_path / "m.safetensors", only="adapters", extra=extra)
    text = run("check", tmp_path / "m.safetensors").stdout
    assert re.search(r"^holds +adapters alone$", text, re.MULTILINE)
    assert re.search(r"^adapters +lora beside 2 modules .*'rank': 4", text, re.MULTILINE)
    assert "labels  {'1': 'liver'}" in text
    assert "\nrecipe\n  name: samed\n  run:\n    epochs: 3\n" in text


def test_adapters_are_written_alone_or_folded_away(tmp_path):
    model = samaritan.create_model("samed_tiny", num_classes=2)
    for name, value in model.named_parameters():
        if ".adapters." in name:
            torch.nn.init.normal_(value)
    samaritan.save_weights(model, tmp_path / "m.safetensors")
    alone, folded = tmp_path / "alone.safetensors", tmp_path / "folded.safetensors"
    assert run("convert", tmp_path / "m.safetensors", alone, "--only", "adapters").exit_code == 0
    assert read_header(alone).holds == "adapters"
    assert alone.stat().st_size < (tmp_path / "m.safetensors").stat().st_size / 4
    assert run("convert", tmp_path / "m.safetensors", folded, "--fold").exit_code == 0
    plain, header = load_model(folded)
    assert not header.adapters
    image = torch.randn(1, 3, *model.config.image_size)
    assert torch.allclose(plain(image).masks, model.eval()(image).masks, atol=1e-3)


def test_what_cannot_be_written_is_told(weights, tmp_path):
    assert run("convert", weights, tmp_path / "out.pth", "--only", "some").exit_code == 2
    for args, told in (
        (["out.pth", "--only", "adapters"], "leave out only='adapters'"),
        (["out.safetensors", "--only", "adapters"], "the model has no adapters"),
        (["out.safetensors", "--fold"], "no adapters to fold"),
    ):
        result = run("convert", weights, tmp_path / args[0], *args[1:])
        assert told in str(result.exception)
        assert not (tmp_path / args[0]).exists()
