"""Training needs its extra packages, and few threads."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("accelerate")


@pytest.fixture(autouse=True, scope="session")
def _two_threads() -> None:
    torch.set_num_threads(min(2, torch.get_num_threads()))
