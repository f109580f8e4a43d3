"""Commands start soon because they import what they need, and no more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from samaritan import phantom, phantom_picture, write

NEVER = (
    "matplotlib", "monai", "SimpleITK", "pandas", "accelerate", "transformers", "tensorboard", "h5py",
    "highdicom", "nrrd", "yaml", "sympy", "torchvision", "torch._dynamo", "torch._inductor", "torch.onnx",
    "scipy.stats", "scipy.optimize", "samaritan.data", "samaritan.recipes", "samaritan.evaluation",
    "samaritan.train",
)  # fmt: skip
"""What pointing at something in an image needs at no time."""

FOR_VOLUMES = ("nibabel", "pydicom", "scipy")
"""What a picture does not need either. (pydicom comes with nibabel.)"""

PROGRAM = """
import sys
from samaritan.__main__ import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded", *sys.modules, file=sys.stderr)
"""


def loaded(*arguments: object) -> set[str]:
    """Modules that a command left loaded, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.rpartition("loaded ")[2].split())


def test_a_picture_is_segmented_without_what_it_does_not_need(tmp_path: Path) -> None:
    write(phantom_picture("skin", shape=(96, 128)).image, tmp_path / "skin.png")
    mask = tmp_path / "mask.png"
    found = loaded("segment", tmp_path / "skin.png", "-o", mask, "--box", "20,30,70,90")
    assert {"torch", "PIL", "samaritan.infer.predictor"} <= found
    assert not found & {*NEVER, *FOR_VOLUMES}
    assert mask.exists()


def test_a_volume_is_segmented_without_what_it_does_not_need(tmp_path: Path) -> None:
    scan = phantom("ct", shape=(40, 40, 24), spacing_mm=(8, 8, 8)).image
    write(scan, tmp_path / "scan.nii.gz")
    mask = tmp_path / "mask.nii.gz"
    found = loaded("segment", tmp_path / "scan.nii.gz", "-o", mask, "--box", "10,10,6,30,30,18")
    assert {"torch", "nibabel", "samaritan.infer.predictor"} <= found
    assert not found & set(NEVER)
    assert mask.exists()


@pytest.mark.parametrize("command", ["info", "phantom"])
def test_what_needs_no_model_needs_no_torch(tmp_path: Path, command: str) -> None:
    if command == "info":
        write(phantom_picture("skin", shape=(96, 128)).image, tmp_path / "skin.png")
        found = loaded("info", tmp_path / "skin.png")
    else:
        found = loaded("phantom", tmp_path / "ct.nii.gz", "--shape", "24,24,12")
    assert "torch" not in found
    assert not found & set(NEVER)
