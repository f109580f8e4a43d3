"""Samaritan: segment anything in medical images, in 2D and 3D.

Public names are resolved on first use, so that importing the package stays fast and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from samaritan._version import __version__

_HOMES = {
    "Grid": "samaritan.geometry",
    "Volume": "samaritan.volume",
    "LabelMap": "samaritan.volume",
    "Points": "samaritan.prompts",
    "Boxes": "samaritan.prompts",
    "MaskPrompt": "samaritan.prompts",
    "SamaritanError": "samaritan.errors",
    "read": "samaritan.io",
    "read_labels": "samaritan.io",
    "write": "samaritan.io",
    "phantom": "samaritan.phantoms",
    "phantom_picture": "samaritan.phantoms",
    "create_model": "samaritan.assembly",
    "model_names": "samaritan.assembly",
    "load_weights": "samaritan.checkpoints",
    "save_weights": "samaritan.checkpoints",
    "load_model": "samaritan.checkpoints",
    "Preprocess": "samaritan.transforms",
    "Predictor": "samaritan.infer",
    "Session": "samaritan.infer",
    "generate_masks": "samaritan.infer",
}

__all__ = [
    "Boxes",
    "Grid",
    "LabelMap",
    "MaskPrompt",
    "Points",
    "Predictor",
    "Preprocess",
    "SamaritanError",
    "Session",
    "Volume",
    "__version__",
    "create_model",
    "generate_masks",
    "load_model",
    "load_weights",
    "model_names",
    "phantom",
    "phantom_picture",
    "read",
    "read_labels",
    "save_weights",
    "write",
]

if TYPE_CHECKING:
    from samaritan.assembly import create_model, model_names
    from samaritan.checkpoints import load_model, load_weights, save_weights
    from samaritan.errors import SamaritanError
    from samaritan.geometry import Grid
    from samaritan.infer import Predictor, Session, generate_masks
    from samaritan.io import read, read_labels, write
    from samaritan.phantoms import phantom, phantom_picture
    from samaritan.prompts import Boxes, MaskPrompt, Points
    from samaritan.transforms import Preprocess
    from samaritan.volume import LabelMap, Volume


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'samaritan' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return __all__
