"""A large volume is read, prompted and written within a stated bound of memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from peak import PEAK_GIB

from samaritan.geometry import Grid
from samaritan.io import write
from samaritan.volume import Volume

PROGRAM = (
    PEAK_GIB
    + """
import json, sys
import samaritan
from samaritan.infer import Predictor
from samaritan.models import create_model
from samaritan.transforms import WindowPreprocess

source, target = sys.argv[1:]
model = create_model("sam3d_tiny")
predictor = Predictor(model, WindowPreprocess(size=model.config.image_size), device="cpu")
before = peak_gib()
volume = samaritan.read(source)
session = predictor.session(volume, max_windows=8)
session = session.click((256, 256, 200), object="a").click((100, 300, 250), object="b")
session = session.click((260, 250, 200), positive=False, object="a")
samaritan.write(session.mask, target)
print(json.dumps({"before": before, "peak": peak_gib(), "dtype": str(volume.dtype)}))
"""
)


@pytest.mark.slow
def test_a_volume_of_512_by_512_by_400_stays_below_3_gib(tmp_path: Path) -> None:
    grid = Grid.from_spacing((512, 512, 400), (0.7, 0.7, 1.0), orientation="LPS")
    array = np.zeros(grid.shape, np.int16)
    array[150:350, 150:350, 100:300] = 100 + np.arange(200, dtype=np.int16)
    write(Volume(array, grid), tmp_path / "large.nii.gz")
    del array
    target = tmp_path / "mask.nii.gz"
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "large.nii.gz"), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    gib = json.loads(done.stdout)
    assert gib["dtype"] == "int16"
    assert gib["peak"] < 3.0  # measured: 0.7, of which 0.2 before anything is read
    assert target.exists()


ONE_CLICK = (
    PEAK_GIB
    + """
import json, sys
import numpy as np
from samaritan import create_model
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.volume import Volume

array = np.random.default_rng(0).integers(0, 900, (240, 240, 155)).astype(np.float32)
volume = Volume(array, Grid.from_spacing(array.shape, (1, 1, 1), orientation="LPS"))
predictor = Predictor(create_model("sammed3d_vit_b_ori"), device="cpu", precision="float32")
before = peak_gib()
session = predictor.session(volume, max_windows=2).click((120, 120, 77))
labels, probability = session.mask, session.probability()
print(json.dumps({"before": before, "peak": peak_gib(), "kept": predictor._cache.bytes}))
"""
)


@pytest.mark.slow
def test_a_click_in_a_head_with_sam_med3d_stays_below_1_5_gib() -> None:
    command = [sys.executable, "-c", ONE_CLICK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    gib = json.loads(done.stdout)
    assert gib["peak"] < 1.5  # measured: 0.9, of which 0.6 for the program and the weights
    assert gib["kept"] <= 2 * 384 * 8**3 * 4


MANY_CLASSES = (
    PEAK_GIB
    + """
import json
import os
import numpy as np
from infer.planned import ByGrey, chain
from samaritan.geometry import Grid
from samaritan.infer.labeller import Member, VolumeLabeller
from samaritan.volume import Volume

labels = {"background": 0, **{f"l{n}": n for n in range(1, 61)}}
made = chain(labels=labels, spacing=(1.0, 1.0, 1.0), patch=(16, 64, 64))
model = ByGrey(tuple(float(n) for n in range(61)))
array = np.random.default_rng(0).integers(1, 61, (160, 160, 160)).astype(np.int16)
volume = Volume(array, Grid.from_spacing(array.shape, (1, 1, 1)))
warm = Volume(array[:20, :20, :20], Grid.from_spacing((20, 20, 20), (1, 1, 1)))
one = VolumeLabeller((Member(model, made),))
one.labels(warm)
before = peak_gib()
found = one.labels(volume)
print(json.dumps({"grown": peak_gib() - before, "right": bool((found.array == array).all())}))
"""
)


@pytest.mark.slow
def test_61_classes_of_a_volume_are_never_all_in_memory() -> None:
    tests = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", MANY_CLASSES], capture_output=True, text=True, timeout=600,
        check=False, env={**os.environ, "PYTHONPATH": tests},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["right"]
    assert told["grown"] < 0.5  # measured: 0.14; all probabilities would be 0.93
