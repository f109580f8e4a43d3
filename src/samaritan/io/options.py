"""What a caller may ask of a reader, in one frozen record that every reader takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Frame = int | Literal["all"] | None
ComplexPart = Literal["magnitude", "real", "imag"] | None
Overlap = Literal["refuse", "merge", "channels"]
SpacingOrder = Literal["zyx", "xyz"]


@dataclass(frozen=True)
class ReadOptions:
    """The options of `samaritan.io.read`; each reader uses those that mean something to it."""

    frame: Frame = None
    """Which frame of a file that holds several, from 0; "all" makes them channels."""
    series: str | int | None = None
    """Which DICOM series of a folder: its UID, its number, or its description."""
    complex_part: ComplexPart = None
    """What to take of complex voxels; None refuses them."""
    overlap: Overlap = "refuse"
    """Segments that overlap: refuse, let the later one win, or one boolean channel for each."""
    allow_gaps: bool = False
    """Fill missing slices of a DICOM series with its lowest value."""
    indices: bool = False
    """Take the indices of a palette picture, which are labels, instead of its colours."""
    max_bytes: int | None = None
    """Most memory that the voxels may take; None: four fifths of what is available."""
    spacing_order: SpacingOrder = "zyx"
    """In which order an .npz file, whose arrays are (z, y, x), tells its spacing."""
