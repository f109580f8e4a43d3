"""Voxels that stay on the disk until they are looked at."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.io.files import is_gzip

MAPPED_BYTES = 16 << 20
"""Smaller arrays are read: each one that is mapped keeps its file open."""


def can_map(path: Path, dtype: np.dtype[Any], count: int, offset: int) -> bool:
    """Whether so many values lie in a file as they do in memory, and are worth mapping."""
    size = count * dtype.itemsize
    return (
        os.name == "posix"  # elsewhere a file that is mapped cannot be replaced, as `write` does
        and dtype.isnative
        and MAPPED_BYTES <= size <= path.stat().st_size - offset
        and not is_gzip(path)
    )


def map_voxels(path: Path, dtype: np.dtype[Any], count: int, offset: int) -> npt.NDArray[Any]:
    """Map values from byte `offset` on: memory takes what is looked at, and may take back what is not.

    The array can be written to, which changes memory and never the file.
    """
    return np.memmap(path, dtype, mode="c", offset=offset, shape=(count,)).view(np.ndarray)
