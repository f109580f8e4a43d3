"""Large files that are not packed are not read: their voxels stay on the disk until they are looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from peak import PEAK_GIB

from samaritan import Grid, Volume, read, write
from samaritan.errors import CorruptFile, TooLarge
from samaritan.io import mapping

SHAPE = (5, 4, 6)


@pytest.fixture
def small(monkeypatch) -> None:
    """Let small arrays be mapped as well."""
    monkeypatch.setattr(mapping, "MAPPED_BYTES", 1)


def volume(dtype: str = "int16") -> Volume:
    array = np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)
    return Volume(array, Grid.from_spacing(SHAPE, (1, 2, 3)))


def is_mapped(array: np.ndarray) -> bool:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_mapped_volume_is_the_same_and_its_views_share_it(small, tmp_path, dtype) -> None:
    made = volume(dtype)
    found = read(write(made, tmp_path / "scan.nii"))
    assert is_mapped(found.array)
    assert type(found.array) is np.ndarray
    assert np.array_equal(found.array, made.array)
    assert found.dtype == made.dtype
    for view in (found.reorient("LPS"), found.slice(2, 3), found.window((1, 1, 1), (3, 2, 4))):
        assert np.shares_memory(view.array, found.array)


def test_what_is_packed_turned_or_small_is_read(small, tmp_path, monkeypatch) -> None:
    packed = read(write(volume(), tmp_path / "scan.nii.gz"))
    assert not is_mapped(packed.array)
    monkeypatch.setattr(mapping, "MAPPED_BYTES", 1 << 20)
    assert not is_mapped(read(write(volume(), tmp_path / "scan.nii")).array)
    assert not mapping.can_map(tmp_path / "scan.nii", np.dtype(">i2"), 120, 352)


def test_writing_to_the_array_leaves_the_file_alone(small, tmp_path) -> None:
    path = write(volume(), tmp_path / "scan.nii")
    before = path.read_bytes()
    read(path).array[:] = 7
    assert path.read_bytes() == before


def test_a_mapped_file_may_be_replaced_by_what_was_made_of_it(small, tmp_path) -> None:
    path = write(volume(), tmp_path / "scan.nii")
    found = read(path)
    again = write(found.with_array(found.array + 1), path)
    assert np.array_equal(found.array, volume().array)
    assert np.array_equal(read(again).array, volume().array + 1)


def test_a_file_that_is_too_short_or_too_large_is_refused(small, tmp_path) -> None:
    path = write(volume(), tmp_path / "scan.nii")
    with pytest.raises(TooLarge, match="header asks for"):
        read(path, max_bytes=10)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(CorruptFile, match="truncated"):
        read(path)


PROGRAM = (
    PEAK_GIB
    + """
import json, sys
import samaritan
samaritan.read(sys.argv[1])
before = peak_gib()
volume = samaritan.read(sys.argv[2])
plane = volume.slice(2, 100).array.copy()
print(json.dumps({"more": peak_gib() - before, "whole": volume.array.nbytes / 2**30}))
"""
)


def test_a_slice_of_a_large_file_takes_the_memory_of_a_slice(tmp_path: Path) -> None:
    for name, shape in (("small", (64, 64, 64)), ("large", (256, 256, 400))):
        grid = Grid.from_spacing(shape, (1, 1, 1))
        write(Volume(np.ones(shape, np.int16), grid), tmp_path / f"{name}.nii")
    files = [str(tmp_path / f"{name}.nii") for name in ("small", "large")]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *files], capture_output=True, text=True, check=True
    )
    gib = json.loads(done.stdout)
    assert gib["more"] < 0.3 * gib["whole"], gib
