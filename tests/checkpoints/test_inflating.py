"""2D weights start a 3D model: a volume that repeats one slice is seen as that slice."""

from __future__ import annotations

import pytest
import torch

from samaritan.checkpoints import load_weights
from samaritan.checkpoints.inflating import inflate
from samaritan.errors import CheckpointError

FLAT = {"image_size": (48, 32), "patch_size": (16, 8), "pe_features": 16}
DEEP = {**FLAT, "patch_size": (4, 16, 8), "in_channels": 1}


@pytest.fixture
def flat(make):
    return make("sam_tiny", seed=1, embed_dim=32, **FLAT)


def deep(make, depth, **options):
    options = {"embed_dim": 32, **options}
    return make("sam3d_tiny", seed=2, **{**DEEP, "image_size": (depth, 48, 32), **options})


def repeated(grey, depth, channels=1):
    return grey[:, :1, None].expand(1, channels, depth, *grey.shape[2:])


@pytest.mark.parametrize(
    "depth", [4, 12, 20]
)  # one window of three tokens, some, and a part of one
@pytest.mark.parametrize("channels", [1, 2])
def test_a_repeated_slice_has_the_embedding_of_the_slice(make, flat, depth, channels):
    model = deep(make, depth, in_channels=channels)
    report = load_weights(model, flat.state_dict(), inflate=True)
    assert not any(key.startswith("image_encoder") for key in report.missing)
    grey = torch.randn(1, 1, 48, 32)
    with torch.no_grad():
        expected = flat.image_encoder(grey.expand(-1, 3, -1, -1))
        volume = model.image_encoder(repeated(grey, depth, channels))
    for slab in volume.unbind(2):
        torch.testing.assert_close(slab, expected, rtol=1e-3, atol=1e-4)


def test_a_repeated_slice_has_the_mask_of_the_slice_if_depth_has_no_code(make, flat):
    model = deep(make, 12)
    report = load_weights(model, flat.state_dict(), inflate=True)
    assert report.missing == ()
    with torch.no_grad():
        model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix[0] = 0
        grey, mask = torch.randn(1, 1, 48, 32), torch.randn(1, 1, 12, 16)
        point, labels = torch.tensor([[[20.0, 9.0]]]), torch.tensor([[1]])  # x, y
        box = torch.tensor([[2.0, 5, 20, 30]])
        expected, iou = flat(grey.expand(-1, 3, -1, -1), (point, labels), box, mask)
        ours, iou3 = model(
            repeated(grey, 12),
            (torch.tensor([[[7.0, 9, 20]]]), labels),  # slice, y, x
            torch.tensor([[0.0, 5, 2, 11, 30, 20]]),
            mask[:, :, None].expand(-1, -1, 12, -1, -1),
        )
    assert ours.shape == (1, 1, 12, 12, 16)
    for slab in ours.unbind(2):
        torch.testing.assert_close(slab, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(iou3, iou, rtol=1e-3, atol=1e-3)


def test_another_grid_and_other_widths_keep_what_can_be_kept(make, flat):
    model = deep(make, 16, image_size=(16, 64, 64), embed_dim=48, num_point_embeddings=2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    report = load_weights(model, flat.state_dict(), inflate=True)
    blocks = [k for k in before if k.startswith("image_encoder.") and ".neck." not in k]
    assert set(blocks) <= set(report.loaded)
    assert all(torch.equal(model.state_dict()[k], before[k]) for k in report.missing)
    assert "image_encoder.neck.0.weight" in report.missing
    assert "prompt_encoder.point_embeddings.3.weight" in report.unexpected
    assert any("tensors were made from them" in note for note in report.notes)
    table = flat.state_dict()["image_encoder.blocks.0.attn.rel_pos_h"]
    for axis in "dh":
        own = model.state_dict()[f"image_encoder.blocks.0.attn.rel_pos_{axis}"]
        assert torch.equal(own, table)


def test_quirks_of_the_model_stay(make, flat):
    model = deep(make, 12)
    report = load_weights(model, flat.state_dict(), inflate=True)
    assert report.quirks == ()


def test_published_sam_starts_sammed3d(make):
    from samaritan.models import create_model

    with torch.device("meta"):
        sam, model = create_model("sam_vit_b"), create_model("sammed3d_vit_b_ori")
    state = {k: torch.empty_like(v) for k, v in sam.state_dict().items()}
    new = inflate(state, model.state_dict())
    encoder = {k for k in model.state_dict() if k.startswith("image_encoder.") and "neck" not in k}
    assert encoder <= set(new.state)
    assert len(encoder) == 183


def test_what_cannot_be_inflated_is_told(make, flat):
    with pytest.raises(CheckpointError, match="2 blocks of width 48 and 8 blocks of width 384"):
        load_weights(make("sam3d_small", image_size=16), flat.state_dict(), inflate=True)
    with pytest.raises(CheckpointError, match="'sam_tiny' is 2D"):
        load_weights(make("sam_tiny"), flat.state_dict(), inflate=True)
    with pytest.raises(CheckpointError, match="Leave inflate out"):
        load_weights(make("sam3d_tiny"), make("sam3d_tiny").state_dict(), inflate=True)


def test_without_being_told_2d_weights_are_refused_with_the_way(make):
    with pytest.raises(CheckpointError, match="start this 3D model from them with inflate=True"):
        load_weights(make("sam3d_tiny"), make("sam_tiny").state_dict())
