"""The folder that fetched weights are kept in, and the note that lies beside each file."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from samaritan.checkpoints.registry import Published, get_published, published_weights

VARIABLE = "SAMARITAN_CACHE"
"""Environment variable that names another folder."""


def cache_folder() -> Path:
    """Where weights are kept: $SAMARITAN_CACHE, or the platform's folder for caches, and weights/ in it."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / "weights"
    return _platform_folder() / "samaritan" / "weights"


def cached(name: str, *, cache_dir: str | Path | None = None) -> Path | None:
    """The file of published weights if it is in the cache and whole as far as its size tells."""
    published = get_published(name)
    path = place_of(published, cache_dir)
    try:
        size = path.stat().st_size
    except OSError:
        return None
    expected = published.size if published.size_exact else read_note(path).get("size", size)
    return path if size == expected else None


def place_of(published: Published, cache_dir: str | Path | None = None) -> Path:
    """Where the file of published weights belongs; what is shipped lies in this package."""
    if published.shipped:
        return Path(str(resources.files("samaritan"))) / "weights" / published.file
    folder = cache_folder() if cache_dir is None else Path(cache_dir).expanduser()
    return folder / published.file


def note_of(path: Path) -> Path:
    """The note beside a file: its hash, size and origin."""
    return path.with_name(path.name + ".json")


def read_note(path: Path) -> Mapping[str, Any]:
    """What the note beside a file says; empty if there is none."""
    try:
        values = json.loads(note_of(path).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def write_note(path: Path, values: Mapping[str, Any]) -> None:
    """Write the note beside a file."""
    temporary = note_of(path).with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(values, indent=1, sort_keys=True) + "\n", "utf-8")
    os.replace(temporary, note_of(path))


def licence_of(file: Path | None, sha256: str | None) -> str | None:
    """The licence of a published file."""
    published = published_of(file, sha256)
    return None if published is None else published.licence


def published_of(file: Path | None, sha256: str | None) -> Published | None:
    """The published weights that a file is, known by its hash, or by its name in our cache."""
    for published in published_weights():
        same = sha256 is not None and sha256 == published.sha256
        cached = file is not None and file == cache_folder() / published.file
        if same or cached:
            return published
    return None


def _platform_folder() -> Path:
    home = Path.home()
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"])
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local"))
    return home / ".cache"
