"""`samaritan phantom`: make an image whose right answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def make_phantom(
    image: Annotated[
        Path, typer.Argument(help="Where to write the image, such as phantom.nii.gz.")
    ],
    labels: Annotated[
        Path | None, typer.Option("--labels", "-l", help="Where to write its labels.")
    ] = None,
    kind: Annotated[str, typer.Option(help="ct, mr, or shapes: objects of no anatomy.")] = "ct",
    shape: Annotated[str, typer.Option(help="Voxels along each axis.")] = "128,128,96",
    spacing: Annotated[
        str | None,
        typer.Option(
            help="Voxel sides in millimetres; by default 2.5,2.5,3, for shapes random ones."
        ),
    ] = None,
    orientation: Annotated[str, typer.Option(help="Where the array axes point.")] = "LPS",
    oblique: Annotated[float, typer.Option(help="Tilt in degrees.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Another seed is another image.")] = 0,
) -> None:
    """Make a computed image of a body or of shapes, with labels, to try things without data. No patient."""
    from samaritan.cli.console import bars
    from samaritan.errors import ConfigError
    from samaritan.io import write
    from samaritan.phantoms import phantom

    def three(text: str, what: str) -> tuple[float, float, float]:
        try:
            a, b, c = (float(part) for part in text.split(","))
        except ValueError as error:
            raise ConfigError(f"{what} {text!r} is not three numbers such as 128,128,96") from error
        return a, b, c

    i, j, k = three(shape, "shape")
    with bars() as report:
        report("making the phantom", 0, 0)
        made = phantom(
            kind,  # type: ignore[arg-type]
            shape=(int(i), int(j), int(k)),
            spacing_mm=None if spacing is None else three(spacing, "spacing"),
            orientation=orientation,
            oblique_degrees=oblique,
            seed=seed,
        )
        report("writing", 0, 0)
        write(made.image, image)
        if labels is not None:
            write(made.labels, labels)
    typer.echo(f"{image}: {made.image.grid!r}")
    if labels is not None:
        names = ", ".join(f"{value} {name}" for value, name in made.labels.names.items())
        typer.echo(f"{labels}: {names}")
