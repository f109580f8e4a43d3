"""A disk that is full halfway, without filling one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def no_more_than(count: int) -> Iterator[None]:
    """Let the system refuse files of more bytes, as a full disk does: halfway. -1 refuses none."""
    resource = pytest.importorskip("resource", reason="limits of file sizes are Unix's")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def refuse_more_than(count: int) -> None:
    """Do so from now on; inside a `no_more_than` that ends it."""
    resource = pytest.importorskip("resource")
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
