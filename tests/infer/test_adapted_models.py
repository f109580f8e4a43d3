"""Predictors of adapted models: SAM-Med2D's chain comes with its weights, SAMed takes no prompts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from samaritan.assembly import create_model
from samaritan.checkpoints import save_official, save_weights
from samaritan.errors import CheckpointError, PromptError
from samaritan.geometry import Grid
from samaritan.infer import Predictor, generate_masks
from samaritan.volume import Volume


@pytest.fixture
def picture():
    rng = np.random.default_rng(0)
    return Volume(rng.integers(0, 256, (40, 56, 1, 3)).astype(np.uint8), Grid.pixels((40, 56)))


@pytest.fixture
def med2d(tmp_path):
    torch.manual_seed(0)
    return save_official(create_model("sammed2d_tiny"), tmp_path / "sam-med2d_b.pth")


def test_sam_med2d_answers_clicks_boxes_and_undo(med2d, picture):
    predictor = Predictor.from_checkpoint(med2d, device="cpu")
    chain = predictor.preprocess
    assert (chain.size, chain.resize, chain.interpolation) == ((64, 64), "stretch", "nearest")
    assert (chain.channel_order, chain.prompting.mask_values) == ("bgr", "probabilities")
    session = predictor.session(picture).click((20, 30)).click((5, 5), positive=False)
    assert session.mask.grid == picture.grid
    assert session.box((4, 4), (30, 40)).undo().mask.array.shape == (40, 56, 1)


def test_features_keep_no_gradient(med2d, picture):
    image = Predictor.from_checkpoint(med2d, device="cpu").open(picture)
    features = image.embedded((2, 0)).features
    assert not features.requires_grad
    assert features.grad_fn is None


def test_mask_prompts_of_sam_med2d_are_probabilities_and_one_of_three_is_taken(
    med2d, picture, monkeypatch
):
    predictor = Predictor.from_checkpoint(med2d, device="cpu")
    seen = []
    decode = predictor.decode

    def watched(embedded, **given):
        seen.append(given)
        return decode(embedded, **given)

    monkeypatch.setattr(predictor, "decode", watched)
    _ = predictor.session(picture).click((20, 30)).click((5, 5), positive=False).mask
    assert [given["multimask"] for given in seen] == [True, True]
    assert seen[0]["masks"] is None
    assert 0 <= seen[1]["masks"].min() <= seen[1]["masks"].max() <= 1


def test_the_chain_survives_our_own_file(med2d, picture, tmp_path):
    from samaritan.checkpoints import convert

    convert(med2d, tmp_path / "ours.safetensors")
    one, two = (
        Predictor.from_checkpoint(p, device="cpu") for p in (med2d, tmp_path / "ours.safetensors")
    )
    assert one.preprocess == two.preprocess
    masks = [p.session(picture).click((20, 30)).mask.array for p in (one, two)]
    assert np.array_equal(*masks)


def test_samed_takes_no_prompts(picture, tmp_path):
    path = save_weights(create_model("samed_tiny", num_classes=3), tmp_path / "m.safetensors")
    predictor = Predictor.from_checkpoint(path, device="cpu")
    session = predictor.session(picture)
    for prompt in (
        lambda: session.click((3, 4)),
        lambda: session.box((3, 4), (9, 9)),
        lambda: generate_masks(predictor, picture),
    ):
        with pytest.raises(PromptError, match="labels the whole image with 3 classes at once"):
            prompt()


def test_a_lora_file_is_opened_with_its_base(tmp_path):
    torch.manual_seed(0)
    model = create_model("samed_tiny", num_classes=3)
    torch.nn.init.ones_(model.image_encoder.pos_embed)
    lora = save_official(model, tmp_path / "lora.pth")
    torch.save(
        {k: v for k, v in model.state_dict().items() if ".adapters." not in k}, tmp_path / "b.pth"
    )
    predictor = Predictor.from_checkpoint(lora, base=tmp_path / "b.pth", device="cpu")
    assert predictor.preprocess.window == (-125.0, 275.0)
    assert predictor.preprocess.interpolation == "bicubic"
    with pytest.raises(CheckpointError, match="base="):
        Predictor.from_checkpoint(lora)
