"""Statistics of NeuroSAM3D's and M-SAM's published programs, by the recipe of their specification.

Each model is built once from official names; what passed through it is kept, the model is not.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samaritan.assembly import create_model
from samaritan.checkpoints import load_weights
from samaritan.models import Prompts, refine

from .conftest import rnd

pytestmark = pytest.mark.slow

CLOSE = {"rtol": 1e-3, "atol": 1e-3}


def dino_name(key):
    if not key.startswith("image_encoder.") or ".neck." in key:
        return key
    key = re.sub(r"\.blocks\.(\d+)", lambda m: f".blocks.{int(m[1]) // 6}.{m[1]}", key)
    key = re.sub(r"\.mlp\.lin([12])", r".mlp.fc\1", key)
    return key.replace("image_encoder.", "image_encoder.model.", 1)


def hiera_name(key):
    if not key.startswith("image_encoder."):
        return key
    if ".neck." in key:
        return re.sub(r"\.neck\.(\d)\.", r".neck.convs.\1.conv.", key)
    key = key.replace("mlp.lin1", "mlp.layers.0").replace("mlp.lin2", "mlp.layers.1")
    return key.replace("image_encoder.", "image_encoder.trunk.", 1)


@pytest.fixture(scope="module")
def build(weight_3d):
    """A model whose weights were drawn under the official names."""

    def make(name, official):
        with torch.device("meta"):
            model = create_model(name)
        names = {official(key): value.shape for key, value in model.state_dict().items()}
        report = load_weights(model, {key: weight_3d(key, shape) for key, shape in names.items()})
        assert report.missing == report.unexpected == report.resized == ()
        return model

    return make


@pytest.fixture(scope="module")
def told(told_3d):
    return told_3d["neurosam3d"]


@torch.inference_mode()
def test_vit(build, check_statistics, told):
    model = build("neurosam3d_vit_b_ori", str)
    embedding = model.image_encoder(rnd(0, 1, 1, 112, 112, 112))
    points = torch.tensor([[[10.0, 20, 30]]]), torch.tensor([[1]])
    box = torch.tensor([[8.0, 10, 6, 19, 21, 17]])
    sparse, dense = model.prompt_encoder(points, box, rnd(1, 1, 1, 112, 112, 112))
    masks, iou = model.mask_decoder(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    check_statistics(embedding, told["vit112_image_embedding"], **CLOSE)
    check_statistics(sparse, told["sparse_point_box"], **CLOSE)
    check_statistics(dense, told["dense_mask"], **CLOSE)
    check_statistics(masks, told["mask_fullres"], **CLOSE)
    check_statistics(iou, told["iou"], **CLOSE)
    model.set_quirks(replace(model.config.quirks, mask_corner=False))
    mean = model.prompt_encoder(masks=rnd(1, 1, 1, 112, 112, 112))[1]
    with pytest.raises(AssertionError):  # the mean of all features is not what was published
        check_statistics(mean, told["dense_mask"], **CLOSE)


@torch.inference_mode()
def test_dinov2(build, check_statistics, told):
    encoder = build("neurosam3d_dinov2", dino_name).image_encoder
    whole, patches = encoder.features(rnd(0, 1, 1, 112, 112, 112))
    check_statistics(whole, told["dino_cls"], **CLOSE)
    check_statistics(patches.flatten(1, 3), told["dino_patch"], **CLOSE)
    check_statistics(encoder.neck(patches.movedim(-1, 1)), told["dino_image_embedding"], **CLOSE)
    smaller = encoder.features(rnd(0, 1, 1, 96, 96, 96))[1].flatten(1, 3)
    check_statistics(smaller, told["dino_patch_96_interp"], **CLOSE)


@torch.inference_mode()
def test_hiera(build, check_statistics, told):
    model = build("neurosam3d_hiera", hiera_name)
    encoder = model.image_encoder
    stages = encoder.stages(rnd(0, 1, 1, 128, 128, 128))
    for i, stage in enumerate(stages):
        check_statistics(stage, told[f"hiera_stage{i}"], **CLOSE)
    coarse = F.interpolate(encoder.neck[0](stages[3]), scale_factor=2.0)
    embedding = encoder.neck[1](stages[2]) + coarse
    check_statistics(embedding, told["hiera_image_embedding"], **CLOSE)


# -- M-SAM -----------------------------------------------------------------------------------------


def msam_names(schema):
    """Names and shapes as M-SAM's program saves them, from those without LoRA."""
    names = {}
    for key, shape in schema.items():
        wrapped = key.replace(".attn.qkv.", ".attn.qkv.qkv.")
        names[key if key.startswith("bidatt.") else f"lora_sam.sam.{wrapped}"] = shape
    for i in range(12):
        for part in "qv":
            layer = f"lora_sam.sam.image_encoder.blocks.{i}.attn.qkv.linear"
            names[f"{layer}_a_{part}.weight"] = (4, 768)
            names[f"{layer}_b_{part}.weight"] = (768, 4)
    return names


@torch.inference_mode()
def test_msam(check_statistics, told_3d, weight_3d, parity_dir):
    told = told_3d["m_sam"]
    schema = json.loads((parity_dir / "msam_vit_b_ori.schema.json").read_text())
    model = create_model("msam_vit_b_ori")
    names = msam_names(schema)
    report = load_weights(model, {key: weight_3d(key, shape) for key, shape in names.items()})
    assert len(names) == len(report.loaded) == 461
    image, mask = rnd(2, 1, 384, 8, 8, 8), rnd(3, 1, 384, 8, 8, 8)
    joined = model.mask_decoder.fuse(image, mask)
    check_statistics(joined, told["mea_out"], **CLOSE)
    block = model.mask_decoder.fuse.adapters["mask_enhanced"].blocks[0]
    for ours, name in zip(block(image, mask), ("image", "mask"), strict=True):
        check_statistics(ours, told[f"mea_block_{name}"], **CLOSE)
    embedding = model.image_encoder(rnd(0, 1, 1, 128, 128, 128))
    check_statistics(embedding, told["lora_image_embedding"], **CLOSE)
    click = Prompts(points=(torch.tensor([[[10.0, 20, 30]]]), torch.tensor([[1]])))
    (stage,) = refine(model, embedding, [click], masks=rnd(1, 1, 1, 32, 32, 32))
    check_statistics(stage.low_res_logits, told["low_res"], **CLOSE)
    check_statistics(stage.iou, told["iou"], **CLOSE)


@torch.inference_mode()
def test_msam_refines_over_three_stages(golden, parity_dir):
    """Plain names and the adapter's, without LoRA; tolerance as the golden numbers state it."""
    kept = np.load(parity_dir / "msam_vit_b_ori.npz")
    told = json.loads((parity_dir / "msam_vit_b_ori.json").read_text())
    schema = json.loads((parity_dir / "msam_vit_b_ori.schema.json").read_text())
    model = create_model("msam_vit_b_ori")
    weights = {k: torch.from_numpy(v) for k, v in golden.state_dict(schema).items()}
    report = load_weights(model, weights)
    assert len(report.loaded) == len(schema) == 413
    embedding = torch.from_numpy(golden.noise("msam.embedding", (1, 384, 8, 8, 8)))
    mask = 4 * torch.from_numpy(golden.noise("msam.mask", (1, 1, 32, 32, 32)))
    click = Prompts(points=(torch.tensor(told["points"]), torch.tensor(told["labels"])))
    for i, stage in enumerate(refine(model, embedding, [click] * 3, masks=mask)):
        ours = stage.low_res_logits[..., ::2, ::2, ::2].numpy()
        np.testing.assert_allclose(ours, kept[f"stage{i}.low_res"], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(stage.iou.numpy(), kept[f"stage{i}.iou"], rtol=1e-3, atol=1e-4)
