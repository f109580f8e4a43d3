"""What many tests need: where the golden numbers and the real images are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]

# Shapes in annotations are checked while the tests run; this must precede the first import.
# (Not those of configurations: their values come from files, and they tell what is wrong with them.)
MODELS = sorted(path.stem for path in (ROOT / "src/samaritan/models").glob("[!_]*.py"))
install_import_hook(
    [f"samaritan.models.{name}" for name in MODELS if not name.endswith("config")],
    "beartype.beartype",
)


def _shared(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent; set {variable} to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """The folder with golden numbers of the published code."""
    return _shared("SAMARITAN_PARITY", "parity")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder with real medical images."""
    return _shared("SAMARITAN_DATA", "data")
