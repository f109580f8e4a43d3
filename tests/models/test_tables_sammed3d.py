"""Statistics that come with SAM-Med3D's specification, by their own recipe; rtol and atol 1e-3."""

import pytest
import torch
import torch.nn.functional as F

from samaritan.models import Quirks, create_model
from samaritan.models.config import SAMMED3D_QUIRKS

from .conftest import rnd

pytestmark = pytest.mark.slow

CLOSE = {"rtol": 1e-3, "atol": 1e-3}


@pytest.fixture(scope="module")
def all_told(told_3d):
    return told_3d


@pytest.fixture(scope="module")
def told(all_told):
    return all_told["sam_med3d_vit_b_ori"]


@pytest.fixture(scope="module")
def model(weight_3d):
    model = create_model("sammed3d_vit_b_ori", quirks=SAMMED3D_QUIRKS)
    weights = {k: weight_3d(k, v.shape) for k, v in model.state_dict().items()}
    model.load_state_dict(weights, strict=True)
    return model


@pytest.fixture(scope="module")
def image():
    return rnd(0, 1, 1, 128, 128, 128)


@pytest.fixture(scope="module")
def seen(model, image):
    """What passes through the encoder."""
    encoder, seen = model.image_encoder, {}
    places = {
        "patch_embed": encoder.patch_embed,
        "block0_windowed": encoder.blocks[0],
        "block2_global": encoder.blocks[2],
    }
    handles = [
        module.register_forward_hook(lambda _m, _x, out, name=name: seen.update({name: out}))
        for name, module in places.items()
    ]
    with torch.inference_mode():
        seen["image_embedding"] = encoder(image)
    for handle in handles:
        handle.remove()
    return seen


@pytest.fixture(scope="module")
def prompts():
    points = torch.tensor([[[10.0, 20, 30], [100, 5, 64]]]), torch.tensor([[1, 0]])
    mask = rnd(1, 1, 1, 32, 32, 32)
    return {"points": points, "masks": mask}


@torch.inference_mode()
def decode(model, embedding, prompts, multimask=False):
    sparse, dense = model.prompt_encoder(**prompts)
    return model.mask_decoder(
        image_embeddings=embedding,
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )


@pytest.mark.parametrize(
    "place", ["patch_embed", "block0_windowed", "block2_global", "image_embedding"]
)
def test_encoder(check_statistics, seen, told, place):
    check_statistics(seen[place], told[place], **CLOSE)


def test_prompt_encoder(check_statistics, model, prompts, told):
    sparse, dense = model.prompt_encoder(**prompts)
    check_statistics(model.prompt_encoder.get_dense_pe(), told["dense_pe"], **CLOSE)
    check_statistics(sparse, told["sparse"], **CLOSE)
    check_statistics(dense, told["dense_mask"], **CLOSE)


def test_single_mask(check_statistics, model, seen, prompts, told):
    masks, iou = decode(model, seen["image_embedding"], prompts)
    check_statistics(masks, told["low_res"], **CLOSE)
    check_statistics(iou, told["iou"], **CLOSE)
    large = F.interpolate(masks, (128, 128, 128), mode="trilinear")
    check_statistics(large, told["upsampled"], **CLOSE)


def test_several_masks(check_statistics, model, seen, prompts, told):
    masks, iou = decode(model, seen["image_embedding"], prompts, multimask=True)
    check_statistics(masks, told["low_res_multi"], **CLOSE)
    check_statistics(iou, told["iou_multi"], **CLOSE)


def test_no_points(check_statistics, model, seen, prompts, told):
    masks, _ = decode(model, seen["image_embedding"], {"masks": prompts["masks"]})
    check_statistics(masks, told["low_res_no_points"], **CLOSE)


@pytest.mark.parametrize(
    ("wrong", "quirks"),
    [
        ("textbook_relpos", Quirks(dense_pe_axes=True, window_padding=True)),
        ("no_window_padding", Quirks(rel_pos_axes=True, dense_pe_axes=True)),
    ],
)
def test_without_a_quirk_the_embedding_is_the_other_one(
    check_statistics, model, image, seen, all_told, wrong, quirks
):
    """Two readings that must not match the weights; turning a quirk off gives exactly them."""
    told = all_told["misc"][f"WRONG_{wrong}_image_embedding"]
    with pytest.raises(AssertionError):
        check_statistics(seen["image_embedding"], told, **CLOSE)
    model.set_quirks(quirks)
    with torch.inference_mode():
        check_statistics(model.image_encoder(image), told, **CLOSE)
    model.set_quirks(SAMMED3D_QUIRKS)
