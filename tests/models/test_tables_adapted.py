"""Statistics of SAMed, SAMed_s and SAM-Med2D that come with their specification; tolerance 2e-4.

Weights are drawn by the recipe in the file. For SAMed they are of SAM's size 1024, so loading resizes them.
"""

import json
from zlib import crc32

import numpy as np
import pytest
import torch

import samaritan
from samaritan.adapt import adapters_of
from samaritan.checkpoints.adapted import TABLES

pytestmark = pytest.mark.slow


def drawn(key, shape):
    noise = np.random.RandomState(crc32(key.encode()) % 2**31).standard_normal(tuple(shape))
    noise = torch.from_numpy(np.asarray(noise, np.float32))
    if key.endswith("positional_encoding_gaussian_matrix"):
        return noise
    if len(shape) == 1 and key.endswith(".weight"):
        return 1 + 0.05 * noise
    return 0.05 * noise


def recipe(shapes):
    return {key: drawn(key, tuple(shape)) for key, shape in shapes.items()}


def picture(size):
    c, i, j = np.meshgrid(np.arange(3), np.arange(size), np.arange(size), indexing="ij")
    image = np.sin(0.02 * (i + 1) * (c + 1)) + np.cos(0.03 * (j + 1) + c)
    return torch.from_numpy(image.astype(np.float32))[None]


def shapes_of(name, **options):
    with torch.device("meta"):
        state = samaritan.create_model(name, **options).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.fixture(scope="module")
def told(parity_dir):
    return json.loads((parity_dir / "sam_samed_sammed2d_goldens.json").read_text())


@pytest.mark.parametrize("name", ["samed", "samed_s"])
def test_samed_at_512(name, told, parity_dir, check_statistics):
    expected = told["samed_vit_b_512_r4_8cls"][name]
    model = samaritan.create_model(f"{name}_vit_b", num_classes=8, rank=4)
    report = samaritan.load_weights(model, recipe(shapes_of("sam_vit_b")))
    assert len(report.resized) == 1 + 2 * 4
    assert any("samed_compat): 28 of 61" in note for note in report.notes)
    lora = json.loads((parity_dir / f"{name}_lora.schema.json").read_text())
    samaritan.load_weights(model, recipe(lora))
    with torch.inference_mode():
        images = 0.25 * picture(512) + 0.5
        embedding = model.image_encoder(images)
        sparse, dense = model.prompt_encoder()
        low_res, iou = model.mask_decoder(
            image_embeddings=embedding,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
        )
        masks = torch.nn.functional.interpolate(low_res, (512, 512), mode="bilinear")
    check_statistics(embedding, expected["enc"], rtol=0, atol=2e-4)
    check_statistics(low_res, expected["low_res"], rtol=0, atol=2e-4)
    check_statistics(masks, expected["masks"], rtol=0, atol=2e-4)
    np.testing.assert_allclose(iou[0], expected["iou"], rtol=0, atol=2e-4)
    counted = torch.bincount(masks.argmax(1).flatten(), minlength=9)
    assert np.abs(counted.numpy() - np.array(expected["argmax_hist"])).max() <= 20
    label = (torch.arange(128 * 128) // 700 % 9).reshape(1, 128, 128)
    cross_entropy = torch.nn.functional.cross_entropy(low_res, label)
    assert float(cross_entropy) == pytest.approx(expected["loss"]["ce"], abs=2e-5)


@pytest.fixture(scope="module")
def sam_med2d():
    shapes = shapes_of("sammed2d_vit_b")
    shapes = {official: shapes[ours] for official, ours in TABLES["sam-med2d"](shapes).items()}
    model = samaritan.create_model("sammed2d_vit_b")
    samaritan.load_weights(model, recipe(shapes))
    with torch.inference_mode():
        return model, model.image_encoder(picture(256))


def test_sam_med2d_embedding(sam_med2d, told, check_statistics):
    check_statistics(sam_med2d[1], told["sam_med2d_vit_b_256"]["enc_256"], rtol=0, atol=2e-4)


def test_the_first_adapter_of_sam_med2d(sam_med2d, told, check_statistics):
    x = picture(48)[:, :, :16, :16].repeat(1, 256, 1, 1).permute(0, 2, 3, 1)
    adapter = adapters_of(sam_med2d[0])[0].adapter
    with torch.inference_mode():
        out = adapter(x, torch.zeros_like(x))
    check_statistics(out, told["sam_med2d_vit_b_256"]["adapter0"], rtol=0, atol=2e-4)


@pytest.mark.parametrize("kind", ["points", "box", "points+mask", "mask"])
def test_sam_med2d_masks(kind, sam_med2d, told, check_statistics):
    points = torch.tensor([[[100.0, 200], [70, 33]]]), torch.tensor([[1, 0]])
    mask = torch.from_numpy(5 * np.sin(np.arange(64 * 64) / 50)).float().sigmoid()
    mask = mask.reshape(1, 1, 64, 64)
    prompts = {
        "points": {"points": points},
        "box": {"boxes": torch.tensor([[50.0, 60, 200, 180]])},
        "points+mask": {"points": points, "masks": mask},
        "mask": {"masks": mask},
    }
    model, embedding = sam_med2d
    with torch.inference_mode():
        sparse, dense = model.prompt_encoder(**prompts[kind])
        low_res, iou = model.mask_decoder(
            image_embeddings=embedding,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    expected = told["sam_med2d_vit_b_256"][kind]
    assert list(sparse.shape) == expected["sparse_shape"]
    check_statistics(low_res, expected["low_res"], rtol=0, atol=2e-4)
    np.testing.assert_allclose(iou[0], expected["iou"], rtol=0, atol=2e-4)
