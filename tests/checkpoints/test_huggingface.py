"""The table of Hugging Face's names is complete and one to one."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from samaritan.checkpoints.huggingface import TIED, convert, from_hugging_face, to_hugging_face
from samaritan.models import create_model


@pytest.fixture(scope="module")
def official():
    with torch.device("meta"):
        return list(create_model("sam_vit_b").state_dict())


def test_every_official_name_has_a_name_there_and_back(official):
    theirs = [to_hugging_face(key) for key in official]
    assert None not in theirs
    assert len(set(theirs)) == len(official) == 314
    assert [from_hugging_face(key) for key in theirs] == official


def test_no_name_is_left_as_it_was_in_the_encoder(official):
    assert not any(to_hugging_face(k).startswith("image_encoder") for k in official)


def test_names_that_do_not_exist_are_not_translated():
    assert from_hugging_face("vision_encoder.layers.0.layer_norm3.weight") is None
    assert to_hugging_face("image_encoder.blocks.0.Adapter.norm.weight") is None
    assert convert({"vision_encoder.other": 1}) == {"vision_encoder.other": 1}


def test_the_own_name_of_the_position_code_counts_before_its_second_one():
    own = "prompt_encoder.shared_embedding.positional_embedding"
    assert convert({TIED: 1, own: 2}) == {
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix": 2
    }


@pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)
def test_names_and_shapes_are_those_of_transformers(official):
    from transformers import SamConfig, SamModel

    with torch.device("meta"):
        theirs = SamModel(SamConfig()).state_dict()
        ours = create_model("sam_vit_b").state_dict()
    renamed = convert(theirs)
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in ours.items()}
