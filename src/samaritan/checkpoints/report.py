"""What loading did, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` found and did. `str(report)` is a short text."""

    source: str
    """The system that the weights come from, such as "sam" or "sam-med3d"; "samaritan" for our files."""
    layout: str
    """How they were packed: "bare state dict", or what was taken off around them."""
    file: Path | None
    """The file; None for a mapping."""
    sha256: str | None
    """Of the file."""
    loaded: tuple[str, ...]
    """Parameters and buffers that were set."""
    missing: tuple[str, ...]
    """Parameters that the weights lack, where that is allowed; they keep their values."""
    unexpected: tuple[str, ...]
    """Tensors that have no place in the model, where that is allowed; they were left out."""
    resized: tuple[str, ...]
    """Position tables that were interpolated to the model's input size, with both shapes."""
    quirks: tuple[str, ...]
    """Historic mistakes that the model now reproduces."""
    notes: tuple[str, ...]
    """Everything else worth knowing."""
    n_parameters: int
    """Numbers that were set."""
    licence: str | None
    """Of the weights, if it is known."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {**asdict(self), "file": None if self.file is None else str(self.file)}

    def __str__(self) -> str:
        where = "" if self.file is None else f" from {self.file}"
        lines = [
            f"Loaded {len(self.loaded)} tensors ({self.n_parameters:,} numbers){where}",
            f"  source   {self.source}, {self.layout}",
        ]
        if self.quirks:
            lines.append(f"  quirks   {', '.join(self.quirks)}")
        if self.licence:
            lines.append(f"  licence  {self.licence}")
        if self.sha256:
            lines.append(f"  sha256   {self.sha256}")
        for title, names in (
            ("resized", self.resized),
            ("fresh", self.missing),
            ("left out", self.unexpected),
        ):
            if names:
                lines.append(f"  {title:8} {_listed(names)}")
        lines += [f"  note     {note}" for note in self.notes]
        return "\n".join(lines)


def _listed(names: tuple[str, ...], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
