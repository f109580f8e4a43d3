"""What a model looks at is cut from a volume, however large that is: nobody copies or resamples the whole."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from samaritan.geometry import Grid
from samaritan.transforms import (
    CubePreprocess,
    FocusPreprocess,
    SlicePreprocess,
    WindowPreprocess,
)
from samaritan.volume import Volume

SHAPE = (1000, 1500, 4000)
"""12 GB of 16 bits: more than a test has. Every voxel is the same one in memory."""

MOST_BYTES = 200 << 20


def enormous(*, oblique: bool = False) -> Volume:
    array = np.broadcast_to(np.int16(7), SHAPE)
    affine = np.diag([0.3, 0.3, 0.3, 1.0])
    if oblique:
        turn = np.deg2rad(20)
        affine[:2, :2] = 0.3 * np.array(
            [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        )
    return Volume(array, Grid(SHAPE, affine))


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize(
    ("chain", "key"),
    [
        (SlicePreprocess(size=(64, 64)), (2, 3000)),
        (FocusPreprocess(size=(64, 64), channels=1), (2, 3000, 800, 900, 3200)),
        (CubePreprocess(size=(32, 32, 32)), (800, 900, 1000, 3200)),
        (WindowPreprocess(size=(32, 32, 32)), (40, 50, 60)),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_a_frame_takes_the_memory_of_what_it_shows(chain, key, oblique) -> None:
    volume = enormous(oblique=oblique)
    tracemalloc.start()
    try:
        statistics = chain.statistics(volume)
        frame = chain.frame(volume, key, statistics)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frame.tensor.isfinite().all()
    assert tuple(frame.tensor.shape[2:]) == chain.size
    assert peak < MOST_BYTES, f"{peak / 2**20:.0f} MB"


def test_turning_and_cutting_share_the_memory_of_a_volume() -> None:
    array = np.zeros((6, 5, 4), np.int16)
    volume = Volume(array, Grid.from_spacing(array.shape, (1, 1, 2), orientation="LPS"))
    views = [
        volume.reorient("RAS"),
        volume.flip((0, 2)),
        volume.permute((2, 0, 1)),
        volume.slice(1, 2),
        volume.window((1, 1, 1), (3, 3, 2)),
        volume.to_grid(volume.reorient("SAL").grid),
        volume.to_grid(volume.grid.window((1, 0, 1), (4, 5, 2))),
    ]
    assert all(np.shares_memory(view.array, array) for view in views)
