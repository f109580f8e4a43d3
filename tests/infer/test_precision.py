"""What "auto" means, and that masks do not depend on it."""

import numpy as np
import pytest
import torch

from samaritan import Predictor, read
from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.infer.engine import resolve_precision
from samaritan.models import create_model, get_config
from samaritan.models.packed import PackedEncoder
from samaritan.volume import Volume


def big(seed=0, **options):
    """As wide as the rule asks for, and small otherwise."""
    torch.manual_seed(seed)
    return create_model(
        "sam_vit_b", image_size=64, width=384, depth=2, heads=6, global_blocks=(1,), **options
    )


@pytest.fixture
def able(monkeypatch):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("oneDNN has no products in bfloat16 on this processor")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})


def test_auto_is_bfloat16_for_large_transformers_on_able_processors(able, monkeypatch):
    cpu = torch.device("cpu")
    assert resolve_precision("auto", cpu, get_config("sam_vit_b")) == torch.bfloat16
    assert resolve_precision("auto", cpu, get_config("sam_tiny")) == torch.float32
    assert resolve_precision("auto", cpu) == torch.float32
    assert resolve_precision("float32", cpu, get_config("sam_vit_b")) == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert resolve_precision("auto", cpu, get_config("sam_vit_b")) == torch.float32


def test_packed_encoder_follows_the_model(able):
    predictor = Predictor(big(), device="cpu")
    first = predictor.working
    assert isinstance(first.image_encoder, PackedEncoder)
    assert predictor.working is first
    with torch.no_grad():
        predictor.model.image_encoder.blocks[0].mlp.lin1.weight.mul_(2)
    assert predictor.working is not first
    exact = Predictor(big(), device="cpu", precision="float32")
    assert exact.working is exact.model


def test_compiled_encoders_are_for_gpus_and_follow_the_model(monkeypatch):
    with pytest.raises(ConfigError, match=r"compiled=True is for CUDA devices, not 'cpu'"):
        Predictor(big(), device="cpu", compiled=True)
    predictor = Predictor(big(), device="cpu", precision="float32")
    monkeypatch.setattr(predictor, "_compiled", True)  # as on a GPU; what torch compiles is torch's
    first = predictor.working
    assert first is not predictor.model
    assert predictor.working is first
    image = torch.randn(1, 3, 64, 64)
    with torch.compiler.set_stance("force_eager"), predictor.running():
        assert torch.equal(first.image_encoder(image), predictor.model.image_encoder(image))


def test_decoder_stays_in_float32(able, monkeypatch):
    predictor = Predictor(big(), device="cpu")
    seen = []
    predictor.model.mask_decoder.register_forward_hook(
        lambda module, args, output: seen.extend(t.dtype for t in output)
    )
    pixels = np.arange(48 * 40, dtype=np.float32).reshape(48, 40, 1) % 97
    image = Volume(pixels, Grid.pixels((48, 40)))
    assert predictor.session(image).click((20, 20, 0)).mask is not None
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize(
    ("name", "image", "label"),
    [
        ("samaritan_2d", "images2d/cxr_lung/images/*", "images2d/cxr_lung/masks/*.png"),
        (
            "samaritan_3d",
            "nnunet_raw/Dataset004_Hippocampus/imagesTr/*",
            "nnunet_raw/Dataset004_Hippocampus/labelsTr/*",
        ),
    ],
)
def test_masks_of_shipped_models_do_not_depend_on_precision(data_dir, name, image, label):
    image, label = (read(min(data_dir.glob(pattern))) for pattern in (image, label))
    where = np.argwhere(label.array == 1)
    masks = []
    for precision in ("auto", "float32", "bfloat16"):
        predictor = Predictor.from_checkpoint(name, device="cpu", precision=precision)
        session = predictor.session(image).box(where.min(axis=0), where.max(axis=0) + 1)
        masks.append(session.mask.array > 0)
    assert masks[1].any()
    assert (masks[0] & masks[1]).sum() >= 0.99 * (masks[0] | masks[1]).sum()
    assert (masks[2] & masks[1]).sum() >= 0.99 * (masks[2] | masks[1]).sum()
