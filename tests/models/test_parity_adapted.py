"""Outputs of the published code with golden weights: SAMed, SAMed_s and SAM-Med2D.

Tolerance 1e-4 + 1e-3 x value, as the golden numbers state.
"""

import json

import numpy as np
import pytest
import torch

import samaritan
from samaritan.adapt import describe

pytestmark = pytest.mark.slow

FOURTH = slice(None, None, 4)


def close(ours, theirs):
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-3, atol=1e-4)


def read(folder, name):
    return json.loads((folder / f"{name}.json").read_text())


def tensors(arrays):
    return {key: torch.from_numpy(value) for key, value in arrays.items()}


@pytest.mark.parametrize(
    ("name", "file"), [("samed_vit_b", "samed_lora"), ("samed_s_vit_b", "samed_s_lora")]
)
def test_samed(name, file, golden, parity_dir):
    base, lora = read(parity_dir, f"{name}.schema"), read(parity_dir, f"{file}.schema")
    told = read(parity_dir, name)
    kept = np.load(parity_dir / f"{name}.npz")
    model = samaritan.create_model(name, num_classes=8, rank=4, image_size=224)
    samaritan.load_weights(model, tensors(golden.state_dict(base)))
    weights = {key: golden.tensor(f"lora/{key}", shape) for key, shape in lora.items()}
    report = samaritan.load_weights(model, tensors(weights))
    assert report.quirks == ("window_padding",)
    assert len(report.loaded) == len(lora)
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters) == told["total_parameters"]
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    assert learning == told["trainable_parameters"]
    with torch.inference_mode():
        out = model(torch.from_numpy(golden.noise("samed.image", (1, 3, 224, 224))))
    close(out.low_res_logits, kept["low_res_logits"])
    close(out.masks[..., FOURTH, FOURTH], kept["masks"])
    close(out.iou_predictions, kept["iou_predictions"])


@pytest.fixture(scope="module")
def sam_med2d(golden, parity_dir):
    schema = read(parity_dir, "sammed2d_vit_b.schema")
    model = samaritan.create_model("sammed2d_vit_b")
    weights = tensors(golden.state_dict(schema))
    report = samaritan.load_weights(model, {"model": weights, "optimizer": {}})
    assert (report.source, len(report.loaded)) == ("sam-med2d", 386)
    assert report.missing == report.unexpected == ()
    assert [len(i.targets) for i in describe(model)] == [12]
    image = torch.from_numpy(golden.noise("sammed2d.image", (1, 3, 256, 256)))
    with torch.inference_mode():
        return model, model.image_encoder(image)


def test_sam_med2d_image_embedding(sam_med2d, parity_dir):
    kept = np.load(parity_dir / "sammed2d_vit_b.npz")
    close(sam_med2d[1][:, ::2], kept["embedding"])


@pytest.mark.parametrize("kind", ["points", "box", "points_mask"])
def test_sam_med2d_masks(kind, sam_med2d, golden, parity_dir):
    kept = np.load(parity_dir / "sammed2d_vit_b.npz")
    told = read(parity_dir, "sammed2d_vit_b")
    points = torch.tensor(told["points"]), torch.tensor(told["labels"])
    mask = 4 * torch.from_numpy(golden.noise("sammed2d.mask", (1, 1, 64, 64)))
    prompts = {
        "points": {"points": points},
        "box": {"boxes": torch.tensor(told["box"])},
        "points_mask": {"points": points, "masks": mask},
    }
    model, embedding = sam_med2d
    with torch.inference_mode():
        sparse, dense = model.prompt_encoder(**prompts[kind])
        masks, iou = model.mask_decoder(
            image_embeddings=embedding,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    close(masks, kept[f"{kind}.multi1.low_res"])
    close(iou, kept[f"{kind}.multi1.iou"])
