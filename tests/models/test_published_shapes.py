"""T3 of the 3D specification: shapes of SAM-Med3D; its encoder stays on the meta device, without weights."""

from __future__ import annotations

import pytest
import torch

from samaritan.models import create_model


@pytest.fixture(scope="module")
def model():
    with torch.device("meta"):
        made = create_model("sammed3d_vit_b_ori")
    made.prompt_encoder.to_empty(device="cpu")
    made.mask_decoder.to_empty(device="cpu")
    return made


@pytest.mark.parametrize("multimask", [False, True])
def test_shapes_are_the_published_ones(model, multimask, no_grad) -> None:
    n = 2
    seen = model.image_encoder(torch.empty(n, 1, 128, 128, 128, device="meta"))
    last = torch.zeros(n, 1, 32, 32, 32)
    sparse, dense = model.prompt_encoder(
        points=(torch.zeros(n, 1, 3), torch.ones(n, 1, dtype=torch.long)), masks=last
    )
    nothing, _ = model.prompt_encoder(masks=last)
    masks, iou = model.mask_decoder(
        image_embeddings=torch.zeros(seen.shape),
        image_pe=model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=multimask,
    )
    assert seen.shape == dense.shape == (n, 384, 8, 8, 8)
    assert sparse.shape == (n, 2, 384)
    assert nothing.shape == (n, 0, 384)
    count = 3 if multimask else 1
    assert masks.shape == (n, count, 32, 32, 32)
    assert iou.shape == (n, count)
