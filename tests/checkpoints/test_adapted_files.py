"""Files of SAMed, SAMed_s and SAM-Med2D in their own layouts; and adapters alone in ours."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from samaritan.adapt import adapters_of, describe, eject, insert
from samaritan.adapt.inject import is_adapter
from samaritan.assembly import create_model
from samaritan.checkpoints import (
    inspect,
    load_model,
    load_weights,
    read_header,
    save_official,
    save_weights,
)
from samaritan.errors import CheckpointError, FileError
from samaritan.transforms import Preprocess


@pytest.fixture
def adapted():
    """A small adapted model, every number of it random: adapted("samed_tiny", seed=1, rank=2)."""

    def build(name, seed=0, **options):
        model = create_model(name, **options)
        generator = torch.Generator().manual_seed(seed)
        for tensor in model.state_dict().values():
            tensor.copy_(0.2 * torch.randn(tensor.shape, generator=generator))
        return model

    return build


def output(model):
    size = model.config.image_size
    image = torch.linspace(-1, 1, 3 * size[0] * size[1]).reshape(1, 3, *size)
    with torch.no_grad():
        return model(image).low_res_logits


def base_of(model):
    """The plain weights of an adapted model, with SAM's four mask tokens."""
    plain = create_model(model.config.name.replace("samed_s", "sam").replace("samed", "sam"))
    state = {k: v.clone() for k, v in plain.state_dict().items()}
    for key, value in model.state_dict().items():
        if key in state and state[key].shape == value.shape:
            state[key] = value.clone()
    return state


@pytest.mark.parametrize(
    ("name", "lora", "keys"), [("samed", "samed_lora", 215), ("samed_s", "samed_s_lora", 161)]
)
def test_official_names_and_shapes_are_written(name, lora, keys, parity_dir):
    from samaritan.checkpoints.adapted import TABLES

    with torch.device("meta"):
        state = create_model(f"{name}_vit_b").state_dict()
    table = TABLES[lora.replace("_", "-")](state)
    shapes = {official: list(state[ours].shape) for official, ours in table.items()}
    schema = json.loads((parity_dir / f"{lora}.schema.json").read_text())
    assert shapes == schema
    assert len(shapes) == keys
    numbers = sum(torch.Size(shape).numel() for shape in shapes.values())
    assert numbers == {215: 4_913_877, 161: 1_646_165}[keys]


def test_official_names_of_sam_med2d(parity_dir):
    from samaritan.checkpoints.adapted import sam_med2d

    with torch.device("meta"):
        state = create_model("sammed2d_vit_b").state_dict()
    schema = json.loads((parity_dir / "sammed2d_vit_b.schema.json").read_text())
    table = sam_med2d(state)
    assert {k: list(state[v].shape) for k, v in table.items()} == schema
    assert len([k for k in table if ".Adapter." in k]) == 72


@pytest.mark.parametrize("name", ["samed_tiny", "samed_s_tiny"])
def test_a_lora_file_and_its_base_give_the_same_model_back(name, adapted, tmp_path):
    model = adapted(name, seed=1, num_classes=5, rank=3)
    expected = output(model)
    path = save_official(model, tmp_path / "epoch_159.pth")
    base = base_of(model)
    torch.save(base, tmp_path / "base.pth")
    flat = torch.load(path, weights_only=True)
    assert {"w_a_000", "w_b_003"} <= set(flat)
    assert not any(key.startswith("image_encoder") for key in flat)
    assert ("fati_qa" in flat) == ("_s_" in name)
    other = create_model(name, num_classes=5, rank=3)
    first = load_weights(other, base)
    assert first.source == "plain"
    assert {k for k in other.state_dict() if is_adapter(k)} <= set(first.missing)
    report = load_weights(other, path, keep_quirks=True)
    assert report.source == ("samed-s-lora" if "_s_" in name else "samed-lora")
    assert report.missing == report.unexpected == ()
    assert any("stay as they are" in note for note in report.notes)
    assert torch.equal(output(other), expected)
    built, header = load_model(path, base=tmp_path / "base.pth", image_size=64)
    built.set_quirks(model.config.quirks)
    assert torch.equal(output(built), expected)
    assert header.adapters == describe(model)
    assert sum(p.requires_grad for p in built.parameters()) == sum(
        p.requires_grad for p in model.parameters()
    )


def test_matrices_are_numbered_q_then_v_block_by_block(adapted, tmp_path):
    model = adapted("samed_tiny")
    path = save_official(model, tmp_path / "lora.pth")
    flat = torch.load(path, weights_only=True)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for n, part in ((2, "q"), (3, "v")):
        load_weights(model, {**flat, f"w_a_{n:03d}": flat[f"w_a_{n:03d}"] + 1})
        changed = [k for k, v in model.state_dict().items() if not torch.equal(v, before[k])]
        assert changed == [f"image_encoder.blocks.1.attn.qkv.adapters.lora.a_{part}"]
        load_weights(model, flat)
    layer = model.image_encoder.blocks[1].attn.qkv
    x = torch.randn(1, 48)
    with torch.no_grad():
        plain = layer(x)
        load_weights(model, {**flat, "w_a_002": flat["w_a_002"] + 1})
        moved = (layer(x) - plain)[0].abs() > 0
    assert moved[:48].any()
    assert not moved[48:].any()


def test_a_scale_is_folded_into_the_file(adapted, tmp_path):
    model = adapted("samed_tiny", seed=1, scale=0.5)
    path = save_official(model, tmp_path / "lora.pth")
    other = create_model("samed_tiny")
    load_weights(other, {k: v for k, v in model.state_dict().items() if not is_adapter(k)})
    load_weights(other, path, keep_quirks=True)
    torch.testing.assert_close(output(other), output(model))


def test_a_lora_file_needs_its_base(adapted, tmp_path):
    path = save_official(adapted("samed_tiny"), tmp_path / "lora.pth")
    model = create_model("samed_tiny")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"the model has none yet|this model has none yet"):
        load_weights(model, path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r"lora\.pth holds a SAMed LoRA file, without.*base="):
        load_model(path)
    with pytest.raises(CheckpointError, match="adapters=False leaves nothing"):
        load_model(path, base=path, adapters=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_classes": 5},
            r"8 classes and background, rank 4\. Use create_model\('samed_tiny', num_cl",
        ),
        ({"rank": 6}, r"rank=4"),
        ({"adapters": False}, r"4 not in the model|8 not in the model"),
    ],
)
def test_wrong_classes_rank_or_no_adapters_are_told(options, message, adapted, tmp_path):
    path = save_official(adapted("samed_tiny"), tmp_path / "lora.pth")
    model = adapted("samed_tiny", seed=1, **options)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(model, path)
    assert "create_model('samed_tiny', num_classes=8, rank=4)" in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_classes_of_a_lora_file_can_be_refitted_when_told(adapted, tmp_path):
    path = save_official(adapted("samed_tiny"), tmp_path / "lora.pth")
    model = adapted("samed_tiny", seed=1, num_classes=3)
    report = load_weights(model, path, init_extra_classes="samed_compat")
    assert len(report.missing) == 3


@pytest.mark.parametrize("name", ["samed_tiny", "samed_s_tiny"])
def test_all_weights_of_a_running_samed_are_read(name, adapted, same):
    from samaritan.checkpoints.adapted import samed_whole

    model, other = adapted(name, seed=1), adapted(name, seed=2)
    state = model.state_dict()
    names = {f"sam.{official}": state[ours] for official, ours in samed_whole(state).items()}
    assert "sam.image_encoder.blocks.0.attn.qkv.qkv.weight" in names
    assert "sam.image_encoder.blocks.1.attn.qkv.linear_b_v.weight" in names
    if "_s_" in name:
        key = "sam.mask_decoder.transformer.layers.1.self_attn.v_proj"
        assert {f"{key}.proj.bias", f"{key}.w_a.weight"} <= set(names)
        names["fa_ti_q_proj_A.weight"] = torch.zeros(4, 32)
    report = load_weights(other, names)
    assert report.source == "samed"
    assert same(other.state_dict(), state)


def test_sam_med2d_files_come_back_with_and_without_adapters(adapted, same, tmp_path):
    model = adapted("sammed2d_tiny", seed=1)
    path = save_official(model, tmp_path / "med2d.pth", optimizer={"state": {}, "param_groups": []})
    content = torch.load(path, weights_only=True)
    assert list(content) == ["model", "optimizer"]
    assert "image_encoder.blocks.1.Adapter.spatial.2.weight" in content["model"]
    other, header = load_model(path)
    assert same(other.state_dict(), model.state_dict())
    assert other.config.name == "sammed2d_tiny"
    assert header.provenance["source"] == "sam-med2d"
    assert other.config.quirks.window_padding
    chain = Preprocess.from_dict(header.preprocess)
    assert (chain.size, chain.resize, chain.interpolation) == ((64, 64), "stretch", "nearest")
    assert chain.channel_order == "bgr"
    assert (chain.prompting.mask_values, chain.prompting.multimask) == ("probabilities", "always")
    plain, header = load_model(path, adapters=False)
    assert adapters_of(plain) == ()
    assert header.adapters == ()
    eject(model)
    assert same(plain.state_dict(), model.state_dict())


def test_a_model_without_adapters_counts_those_of_the_file(adapted, tmp_path):
    path = save_official(adapted("sammed2d_tiny"), tmp_path / "med2d.pth")
    model = adapted("sammed2d_tiny", seed=1, adapters=False)
    with pytest.raises(CheckpointError, match="12 not in the model") as caught:
        load_weights(model, path)
    assert "create_model('sammed2d_tiny')" in str(caught.value)
    assert "drop_adapters=True" in str(caught.value)
    report = load_weights(model, path, drop_adapters=True)
    assert len(report.unexpected) == 12
    assert all(".Adapter." in key for key in report.unexpected)


@pytest.mark.slow
def test_the_published_size_has_72_of_them(parity_dir):
    schema = json.loads((parity_dir / "sammed2d_vit_b.schema.json").read_text())
    weights = {k: torch.zeros(shape, dtype=torch.float16) for k, shape in schema.items()}
    model = create_model("sammed2d_vit_b", adapters=False)
    with pytest.raises(CheckpointError, match="72 not in the model"):
        load_weights(model, {"model": weights, "optimizer": {}})
    report = load_weights(model, {"model": weights, "optimizer": {}}, drop_adapters=True)
    assert len(report.unexpected) == 72
    assert len(report.loaded) == 314


def test_sam_starts_sam_med2d_with_fresh_adapters(adapted, make):
    model = adapted("sammed2d_tiny", seed=1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    base = make("sam_tiny", 2, image_size=128)
    report = load_weights(model, base.state_dict())
    assert set(report.missing) == {k for k in before if is_adapter(k)}
    assert all(torch.equal(model.state_dict()[k], before[k]) for k in report.missing)
    assert len(report.resized) == 3
    assert any("know nothing of the adapters" in note for note in report.notes)


def test_plain_weights_open_as_an_adapted_model(make, tmp_path):
    torch.save(make("sam_tiny", 1).state_dict(), tmp_path / "sam.pth")
    options = {"method": "lora", "rank": 2, "num_classes": 6, "image_size": 96}
    model, header = load_model(tmp_path / "sam.pth", **options)
    assert header.adapters == describe(model)
    assert {placed.adapter.rank for placed in adapters_of(model)} == {2}
    assert (model.config.classes, model.config.image_size) == (True, (96, 96))
    assert not model.image_encoder.pos_embed.requires_grad
    assert all(not tensor.is_meta for tensor in model.state_dict().values())


def test_layouts_are_refused_to_other_models(adapted, tmp_path):
    model = adapted("samed_tiny")
    insert(model, "image_encoder.blocks.*.mlp", "bottleneck")
    with pytest.raises(CheckpointError, match="layout of any system"):
        save_official(model, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="layout samed_s"):
        save_official(adapted("samed_tiny"), tmp_path / "x.pth", layout="samed_s")
    with pytest.raises(CheckpointError, match="no place for an optimizer"):
        save_official(adapted("samed_tiny"), tmp_path / "x.pth", optimizer={})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileError):
        save_official(adapted("samed_tiny"), "/proc/none/x.pth")
    plain = save_official(create_model("sam_tiny"), tmp_path / "sam.pth")
    assert "mask_decoder.iou_token.weight" in torch.load(plain, weights_only=True)


# -- our own files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("samed_tiny", {"num_classes": 3, "rank": 2}),
        ("samed_s_tiny", {"scale": 0.5}),
        ("sammed2d_tiny", {"depthwise": True, "ratio": 0.5}),
        ("sam3d_tiny", {"method": "lora", "num_classes": 2}),
        ("sam3d_tiny", {"method": "sam_med2d"}),
    ],
)
def test_adapted_models_survive_our_own_files(name, options, adapted, same, tmp_path):
    model = adapted(name, seed=1, **options)
    insert(model, "image_encoder.blocks.1.mlp.lin1", "lora", name="extra", rank=1)
    path = save_weights(model, tmp_path / "m.safetensors")
    again, header = load_model(path)
    assert type(again) is type(model)
    assert again.config == model.config == header.config
    assert describe(again) == describe(model) == header.adapters
    assert same(again.state_dict(), model.state_dict())
    assert read_header(path) == header
    assert inspect(path).ok


@pytest.mark.parametrize("only", ["adapters", "trainable"])
def test_adapters_alone_go_with_the_plain_model(only, adapted, same, tmp_path):
    model = adapted("samed_tiny", seed=1, num_classes=3)
    plain = {k: v.clone() for k, v in model.state_dict().items() if not is_adapter(k)}
    part = save_weights(model, tmp_path / "part.safetensors", only=only)
    torch.save(plain, tmp_path / "base.pth")
    assert read_header(part).holds == only
    again, header = load_model(part, base=tmp_path / "base.pth")
    assert same(again.state_dict(), model.state_dict())
    assert header.holds == "all"
    other = create_model("samed_tiny", num_classes=3)
    with pytest.raises(CheckpointError, match=f"only the {only} weights of 'samed_tiny'"):
        load_weights(other, part)
    load_weights(other, plain)
    report = load_weights(other, part)
    assert len(report.loaded) == (8 if only == "adapters" else 8 + len([
        k for k, p in model.named_parameters() if p.requires_grad and not is_adapter(k)
    ]))  # fmt: skip
    assert same(other.state_dict(), model.state_dict())
    assert inspect(part).ok
    assert inspect(part).needs_base


def test_what_is_missing_around_adapters_is_told(adapted, make, tmp_path):
    part = save_weights(adapted("samed_tiny"), tmp_path / "part.safetensors", only="adapters")
    with pytest.raises(CheckpointError, match="without the weights of the plain model"):
        load_model(part)
    with pytest.raises(CheckpointError, match="8 not in the model"):
        load_weights(make("sam_tiny"), part)
    with pytest.raises(CheckpointError, match="nothing to write"):
        save_weights(make("sam_tiny"), tmp_path / "x.safetensors", only="adapters")
    with pytest.raises(CheckpointError, match="only is one of"):
        save_weights(make("sam_tiny"), tmp_path / "x.safetensors", only="lora")
    whole = save_weights(adapted("samed_tiny"), tmp_path / "whole.safetensors")
    with pytest.raises(CheckpointError, match="is whole: leave out base"):
        load_model(whole, base=part)


@pytest.mark.parametrize(
    "bad",
    [
        {"adapters": [{"kind": "lora"}]},
        {"adapters": [{"kind": "x", "targets": [], "options": {}, "name": "x"}]},
        {"adapters": [{"kind": "lora", "targets": "ab", "options": {}, "name": "lora"}]},
        {
            "adapters": [
                {"kind": "lora", "targets": ["a"], "options": {"rank": 1, "b": 2}, "name": ""}
            ]
        },
        {"adapters": 3},
        {"holds": "half"},
    ],
)
def test_damaged_descriptions_of_adapters_are_told(bad, adapted):
    from samaritan.checkpoints import Header

    header = Header(adapted("samed_tiny").config)
    values = {**json.loads(header.to_json()), **bad}
    with pytest.raises(CheckpointError, match="the header is damaged"):
        Header.from_json(json.dumps(values))


def test_a_header_cannot_promise_any_number_of_classes(adapted, tmp_path):
    from samaritan.checkpoints import Header

    header = Header(adapted("samed_tiny").config)
    values = json.loads(header.to_json())
    values["config"]["num_mask_tokens"] = 10**9
    path = tmp_path / "m.safetensors"
    save_file({"image_encoder.pos_embed": torch.zeros(1)}, path, {"samaritan": json.dumps(values)})
    with pytest.raises(CheckpointError, match="promises 1000000000 blocks or tokens"):
        load_model(path)
    assert any("promises" in problem for problem in inspect(path).problems)


def test_a_lora_file_is_examined_without_its_base(adapted, tmp_path):
    path = save_official(adapted("samed_s_tiny", num_classes=2), tmp_path / "lora.pth")
    found = inspect(path)
    assert found.ok
    assert found.needs_base
    assert (found.model, found.image_size) == ("samed_s_tiny", None)
    assert found.quirks == ("window_padding",)
