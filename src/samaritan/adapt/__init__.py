"""Small modules put beside those of a plain model, at named seams: insert, list, freeze, eject, merge.

The plain model keeps its parameter names, so its weights load as before. Names that need torch are
resolved on first use, so that methods can be listed without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from samaritan.adapt.methods import Insertion, Method, get_method, method_names

_HOMES = {
    "Adapter": "samaritan.adapt.adapter",
    "Bottleneck": "samaritan.adapt.bottleneck",
    "DepthConv": "samaritan.adapt.depth",
    "DepthMlp": "samaritan.adapt.depth",
    "Lora": "samaritan.adapt.lora",
    "MaskEnhanced": "samaritan.adapt.fuse",
    "Placed": "samaritan.adapt.inject",
    "adapter_state": "samaritan.adapt.inject",
    "adapters_of": "samaritan.adapt.inject",
    "apply_method": "samaritan.adapt.inject",
    "describe": "samaritan.adapt.inject",
    "eject": "samaritan.adapt.inject",
    "freeze": "samaritan.adapt.inject",
    "insert": "samaritan.adapt.inject",
    "load_adapter_state": "samaritan.adapt.inject",
    "merge": "samaritan.adapt.inject",
}

__all__ = [
    "Adapter",
    "Bottleneck",
    "DepthConv",
    "DepthMlp",
    "Insertion",
    "Lora",
    "MaskEnhanced",
    "Method",
    "Placed",
    "adapter_state",
    "adapters_of",
    "apply_method",
    "describe",
    "eject",
    "freeze",
    "get_method",
    "insert",
    "load_adapter_state",
    "merge",
    "method_names",
]

if TYPE_CHECKING:
    from samaritan.adapt.adapter import Adapter
    from samaritan.adapt.bottleneck import Bottleneck
    from samaritan.adapt.depth import DepthConv, DepthMlp
    from samaritan.adapt.fuse import MaskEnhanced
    from samaritan.adapt.inject import (
        Placed,
        adapter_state,
        adapters_of,
        apply_method,
        describe,
        eject,
        freeze,
        insert,
        load_adapter_state,
        merge,
    )
    from samaritan.adapt.lora import Lora


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'samaritan.adapt' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
