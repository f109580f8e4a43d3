"""Foreign weights -> our names: recognise, convert by table, check strictly, report; and our own files.

Names that need torch are resolved on first use, so that published weights can be listed without it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Header": "samaritan.checkpoints.header",
    "Inspection": "samaritan.checkpoints.inspecting",
    "LoadReport": "samaritan.checkpoints.report",
    "Published": "samaritan.checkpoints.registry",
    "cache_folder": "samaritan.checkpoints.cache",
    "cached": "samaritan.checkpoints.cache",
    "convert": "samaritan.checkpoints.loading",
    "fetch": "samaritan.checkpoints.fetching",
    "find_published": "samaritan.checkpoints.registry",
    "inspect": "samaritan.checkpoints.inspecting",
    "load_model": "samaritan.checkpoints.loading",
    "load_weights": "samaritan.checkpoints.loading",
    "locate": "samaritan.checkpoints.fetching",
    "published_weights": "samaritan.checkpoints.registry",
    "read_header": "samaritan.checkpoints.header",
    "resolve_model": "samaritan.checkpoints.fetching",
    "save_official": "samaritan.checkpoints.official",
    "save_weights": "samaritan.checkpoints.saving",
}

__all__ = [
    "Header",
    "Inspection",
    "LoadReport",
    "Published",
    "cache_folder",
    "cached",
    "convert",
    "fetch",
    "find_published",
    "inspect",
    "load_model",
    "load_weights",
    "locate",
    "published_weights",
    "read_header",
    "resolve_model",
    "save_official",
    "save_weights",
]

if TYPE_CHECKING:
    from samaritan.checkpoints.cache import cache_folder, cached
    from samaritan.checkpoints.fetching import fetch, locate, resolve_model
    from samaritan.checkpoints.header import Header, read_header
    from samaritan.checkpoints.inspecting import Inspection, inspect
    from samaritan.checkpoints.loading import convert, load_model, load_weights
    from samaritan.checkpoints.official import save_official
    from samaritan.checkpoints.registry import Published, find_published, published_weights
    from samaritan.checkpoints.report import LoadReport
    from samaritan.checkpoints.saving import save_weights


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'samaritan.checkpoints' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
