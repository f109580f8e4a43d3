"""Read weights from wherever they are, and recognise the system that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from samaritan.checkpoints import masksam
from samaritan.checkpoints.comparing import shapes_of
from samaritan.checkpoints.fetching import locate
from samaritan.checkpoints.header import Header
from samaritan.checkpoints.layouts import Layout, find_weights
from samaritan.checkpoints.reading import read_file
from samaritan.checkpoints.systems import System, recognise
from samaritan.checkpoints.volumes import our_names
from samaritan.errors import CheckpointError, CorruptFile

OURS = System("samaritan", "a file of samaritan", ())


@dataclass(frozen=True)
class Source:
    """Weights as they were found, before they are compared with a model."""

    layout: Layout
    """The tensors under official names, or ours for the systems of `volumes` and for MaskSAM."""
    system: System
    """Where they come from."""
    header: Header | None
    """Of our own files."""
    file: Path | None
    """The file; None for a mapping."""
    kind: str
    """Format of the file, or "mapping"."""

    @property
    def where(self) -> str:
        """What to call it in messages."""
        return "the mapping" if self.file is None else str(self.file)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        return shapes_of(self.layout.state)


def find_source(
    path_or_mapping: str | Path | Mapping[str, Any], *, download: bool = True
) -> Source:
    """Read a file, the weights published under a name, or a mapping, and say what it is.

    Raises:
        CheckpointError: if it holds no weights.
        FileError: if it cannot be read, is damaged, or unsafe.
        DownloadError: if published weights could not be fetched.
    """
    header, file, kind = None, None, "mapping"
    content: Any = path_or_mapping
    if not isinstance(path_or_mapping, Mapping):
        read = read_file(locate(path_or_mapping, download=download))
        content, header, file, kind = read.content, read.header, read.path, read.kind
    try:
        layout = find_weights(content)
    except (CheckpointError, CorruptFile) as error:
        raise type(error)(f"{file or 'the mapping'}: {error}") from error
    if header is not None:
        return Source(layout, OURS, header, file, kind)
    system = recognise(shapes_of(layout.state), hugging_face="Hugging Face SAM" in layout.words)
    try:
        if system.name == masksam.SYSTEM:
            state = masksam.our_state(layout.state)
        else:
            state = our_names(system.name, layout.state)
        layout = replace(layout, state=state)
    except CheckpointError as error:
        raise CheckpointError(f"{file or 'the mapping'}: {error}") from error
    return Source(layout, system, None, file, kind)
