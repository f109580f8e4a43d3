"""The one place where h5py is asked for: MINC 2 files, and volumes of prepared data sets."""

from __future__ import annotations

from types import ModuleType

from samaritan import optional


def h5py_for(purpose: str) -> ModuleType:
    """Import h5py, or say how to get it.

    Raises:
        MissingPackage: if it is not installed.
    """
    return optional.require("h5py", extra="minc", purpose=purpose)
