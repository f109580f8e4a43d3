"""Models together with their adapters, by name.

This room stands above `models` and `adapt`, which know nothing of each other.

Names that need torch are resolved on first use, so that models can be listed without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from samaritan.assembly.blueprint import Blueprint, get_blueprint, model_names

_HOMES = {
    "blueprint_of": "samaritan.assembly.build",
    "create_model": "samaritan.assembly.build",
}

__all__ = ["Blueprint", "blueprint_of", "create_model", "get_blueprint", "model_names"]

if TYPE_CHECKING:
    from samaritan.assembly.build import blueprint_of, create_model


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'samaritan.assembly' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
