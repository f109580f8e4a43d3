"""Files for published programs say if these will compute something else with them."""

from __future__ import annotations

import logging

import pytest
import torch

from samaritan.assembly import create_model
from samaritan.checkpoints import convert, load_weights
from samaritan.checkpoints.official import quirks_that_differ, save_official
from samaritan.checkpoints.saving import save_weights
from samaritan.models.config import (
    NEUROSAM3D_HIERA_QUIRKS,
    NEUROSAM3D_QUIRKS,
    SAM_QUIRKS,
    SAMMED3D_QUIRKS,
)

PLAIN_3D = {"rel_pos_axes", "dense_pe_axes", "window_padding"}


@pytest.mark.parametrize(
    ("name", "layout", "quirks", "differing"),
    [
        ("sam_tiny", "sam", SAM_QUIRKS, {"window_padding"}),
        ("sammed2d_tiny", "sam_med2d", SAM_QUIRKS, {"window_padding"}),
        ("samed_tiny", "samed", SAM_QUIRKS, {"window_padding"}),
        ("sam3d_tiny", "sam", SAMMED3D_QUIRKS, PLAIN_3D),
        ("sam3d_tiny", "sam_med3d", SAMMED3D_QUIRKS, PLAIN_3D),
        ("msam_tiny", "m_sam", SAMMED3D_QUIRKS, PLAIN_3D),
        ("neurosam3d_tiny", "neurosam3d", NEUROSAM3D_QUIRKS, {*PLAIN_3D, "mask_corner"}),
        ("neurosam3d_hiera_tiny", "neurosam3d", NEUROSAM3D_HIERA_QUIRKS,
         {"dense_pe_axes", "mask_corner", "window_order", "window_padding"}),
    ],
)  # fmt: skip
def test_a_program_that_computes_otherwise_is_told(
    name, layout, quirks, differing, tmp_path, caplog
) -> None:
    model = create_model(name)
    found = set(quirks_that_differ(model.config, layout))
    fits = all(side % model.config.window_size == 0 for side in model.config.grid)
    assert found == differing - ({"window_padding"} if fits and "hiera" not in name else set())
    if layout == "neurosam3d":  # of these sizes there is no published program
        model.set_quirks(quirks)
        assert quirks_that_differ(model.config, layout) == ()
        return
    with caplog.at_level(logging.WARNING):
        save_official(model, tmp_path / "own.pth", layout=layout)
    assert all(quirk in caplog.text for quirk in found)
    caplog.clear()
    model.set_quirks(quirks)
    with caplog.at_level(logging.WARNING):
        save_official(model, tmp_path / "theirs.pth", layout=layout)
    assert caplog.text == ""


def test_a_3d_model_is_written_as_sam_med3d_reads_it(tmp_path) -> None:
    model = create_model("sam3d_tiny")
    content = torch.load(save_official(model, tmp_path / "a.pth"), weights_only=True)
    assert content.keys() == {"model_state_dict"}
    bare = torch.load(save_official(model, tmp_path / "b.pth", layout="sam"), weights_only=True)
    assert bare.keys() == content["model_state_dict"].keys() == model.state_dict().keys()
    other = create_model("sam3d_tiny")
    load_weights(other, tmp_path / "a.pth")
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in other.state_dict().items())


def test_windows_that_are_whole_are_padded_by_nobody() -> None:
    whole = create_model("sam_tiny", window_size=2, image_size=64)
    assert quirks_that_differ(whole.config, "sam") == ()
    part = create_model("sam_tiny", window_size=3, image_size=64)
    assert quirks_that_differ(part.config, "sam") == ("window_padding",)


def test_conversion_of_what_was_trained_here_warns(tmp_path, caplog) -> None:
    torch.manual_seed(0)
    save_weights(create_model("msam_tiny"), tmp_path / "best.safetensors")
    with caplog.at_level(logging.WARNING):
        convert(tmp_path / "best.safetensors", tmp_path / "theirs.pth")
    assert "will give other answers with these weights" in caplog.text
