"""Training needs its extra packages, and few threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

pytest.importorskip("accelerate")


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Models as small as these are slower with more, most of all beside other work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
