"""Damaged files end in one of our errors or in honest tensors: nothing else, and quickly."""

from __future__ import annotations

import argparse
import random

import pytest
import torch
from safetensors.torch import save

from samaritan.checkpoints.header import METADATA_KEY, Header
from samaritan.checkpoints.layouts import find_weights
from samaritan.checkpoints.reading import read_file
from samaritan.errors import SamaritanError
from samaritan.models import get_config

STATE = {
    "image_encoder.pos_embed": torch.arange(32.0).reshape(1, 2, 2, 8),
    "mask_decoder.iou_token.weight": torch.ones(3, 4).half(),
    "prompt_encoder.count": torch.arange(5),
}


def originals(tmp_path):
    content = {"model_state_dict": STATE, "args": argparse.Namespace(a=1), "epoch": 3}
    torch.save(content, tmp_path / "new")
    torch.save(content, tmp_path / "old", _use_new_zipfile_serialization=False)
    return {
        "torch zip": (tmp_path / "new").read_bytes(),
        "torch legacy": (tmp_path / "old").read_bytes(),
        "safetensors": save(STATE, {METADATA_KEY: Header(get_config("sam_tiny")).to_json()}),
    }


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Change, cut, insert and repeat a few bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at, n = rng.randrange(len(out)), rng.randrange(1, 9)
        kind = rng.randrange(6)
        if kind == 0:
            out[at] = rng.randrange(256)
        elif kind == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del out[max(1, at) :]
        elif kind == 3:
            out[at:at] = rng.randbytes(n)
        elif kind == 4 and len(out) > n:
            del out[at : at + n]
        else:
            out[at:at] = out[at : at + 64]
        out = out or bytearray(b"x")
    return bytes(out)


@pytest.mark.parametrize("kind", ["torch zip", "torch legacy", "safetensors"])
def test_mutated_files_end_in_our_errors(kind, tmp_path):
    rng = random.Random(f"fuzz {kind}")
    data = originals(tmp_path)[kind]
    file = tmp_path / "mutated"
    texts = []
    for _ in range(800):
        file.write_bytes(mutated(data, rng))
        try:
            state = find_weights(read_file(file).content).state
        except SamaritanError as error:
            texts.append(str(error))
        else:
            assert sum(t.numel() * t.element_size() for t in state.values()) <= 4 * len(data)
    assert len(texts) > 400
    assert max(map(len, texts)) < 2000
