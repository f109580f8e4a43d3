"""Statistics that come with SAM's specification, by their own recipe; absolute tolerance 2e-4."""

import json
from zlib import crc32

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from samaritan.models import create_model
from samaritan.models.config import SAM_QUIRKS

pytestmark = pytest.mark.slow


def draw(key, shape):
    return np.random.RandomState(crc32(key.encode()) % 2**31).standard_normal(tuple(shape))


def tensor(array):
    return torch.from_numpy(np.asarray(array, np.float32))


@pytest.fixture(scope="module")
def told(parity_dir):
    text = (parity_dir / "sam_samed_sammed2d_goldens.json").read_text()
    return json.loads(text)["sam_vit_b_1024"]


@pytest.fixture(scope="module")
def model():
    model = create_model("sam_vit_b", quirks=SAM_QUIRKS)
    weights = {}
    for key, value in model.state_dict().items():
        noise = draw(key, value.shape).astype(np.float32)
        if key.endswith("positional_encoding_gaussian_matrix"):
            weights[key] = tensor(noise)
        elif value.ndim == 1 and key.endswith(".weight"):
            weights[key] = tensor(1 + 0.05 * noise)
        else:
            weights[key] = tensor(0.05 * noise)
    model.load_state_dict(weights, strict=True)
    return model


@pytest.fixture(scope="module")
def embedding(model):
    c, i, j = np.meshgrid(np.arange(3), np.arange(1024), np.arange(1024), indexing="ij")
    image = np.sin(0.02 * (i + 1) * (c + 1)) + np.cos(0.03 * (j + 1) + c)
    with torch.inference_mode():
        return model.image_encoder(tensor(image)[None])


@pytest.fixture(scope="module")
def prompts():
    points = torch.tensor([[[100.0, 200], [700, 333]]]), torch.tensor([[1, 0]])
    box = torch.tensor([[50.0, 60, 800, 900]])
    mask = tensor(5 * np.sin(np.arange(256 * 256) / 500)).reshape(1, 1, 256, 256)
    return {
        "points": {"points": points},
        "box": {"boxes": box},
        "points+box": {"points": points, "boxes": box},
        "points+mask": {"points": points, "masks": mask},
        "mask": {"masks": mask},
        "none": {},
    }


@torch.inference_mode()
def decode(model, embedding, prompts):
    """Prompt embeddings, and the masks of all four tokens."""
    sparse, dense = model.prompt_encoder(**prompts)
    outputs = [
        model.mask_decoder(
            image_embeddings=embedding,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        for multimask in (False, True)
    ]
    masks, iou = (torch.cat(pair, dim=1) for pair in zip(*outputs, strict=True))
    return sparse, dense, masks, iou


def test_image_embedding_and_position_code(check_statistics, model, embedding, told):
    assert list(embedding.shape) == told["enc_1024_shape"]
    check_statistics(embedding, told["enc_1024"], rtol=0, atol=2e-4)
    check_statistics(model.prompt_encoder.get_dense_pe(), told["dense_pe"], rtol=0, atol=2e-4)


@pytest.mark.parametrize("kind", ["points", "box", "points+box", "points+mask", "mask", "none"])
def test_prompts_and_masks(check_statistics, model, embedding, prompts, told, kind):
    sparse, dense, masks, iou = decode(model, embedding, prompts[kind])
    assert list(sparse.shape) == told[kind]["sparse_shape"]
    if told[kind]["sparse"]:
        check_statistics(sparse, told[kind]["sparse"], rtol=0, atol=2e-4)
    check_statistics(dense, told[kind]["dense"], rtol=0, atol=2e-4)
    check_statistics(masks, told[kind]["low_res"], rtol=0, atol=2e-4)
    np.testing.assert_allclose(iou[0], told[kind]["iou"], rtol=0, atol=2e-4)


def test_masks_on_the_original_image(check_statistics, model, embedding, prompts, told):
    *_, masks, _ = decode(model, embedding, prompts["points"])
    large = F.interpolate(masks[:, 1:], (1024, 1024), mode="bilinear")[..., :768, :]
    original = F.interpolate(large, (480, 640), mode="bilinear")
    check_statistics(original, told["post_768x1024_to_480x640"], rtol=0, atol=2e-4)
