"""Options that several commands have, described once."""

from __future__ import annotations

from typing import Annotated

import typer

IMAGE = "Images"
MODEL = "The model"
RESULTS = "Results"

Channel = Annotated[
    str | None, typer.Option(help="Which channel, by number or name.", rich_help_panel=IMAGE)
]
Window = Annotated[
    str | None,
    typer.Option(help="Intensities shown to the model: low,high.", rich_help_panel=IMAGE),
]
Axis = Annotated[
    int | None,
    typer.Option(help="Array axis that a 2D model's slices lie across.", rich_help_panel=IMAGE),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=MODEL)]
Precision = Annotated[
    str, typer.Option(help="auto, float32, bfloat16, float16.", rich_help_panel=MODEL)
]
MaxWindows = Annotated[
    int, typer.Option(help="How far a 3D object may grow.", rich_help_panel=MODEL, min=1)
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=RESULTS)
]


def channel_of(text: str | None) -> int | str | None:
    """Read what was typed for `Channel`: digits are its number."""
    return int(text) if text is not None and text.isdigit() else text
