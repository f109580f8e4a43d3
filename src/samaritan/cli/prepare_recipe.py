"""`samaritan prepare recipe`: NeuroSAM3D's configuration becomes a recipe, and its sets a manifest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from samaritan.data import Manifest
    from samaritan.recipes import Converted


def recipe(
    config: Annotated[
        Path, typer.Argument(help="NeuroSAM3D's YAML, such as all.yaml.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The recipe, .yaml; otherwise printed.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="The folder of its index files, such as AMOS_Tr.json."),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(help="With --data: write the training and validation sets as a manifest."),
    ] = None,
) -> None:
    """Make a recipe of NeuroSAM3D's configuration, and tell what has no place in it.

    Its training and validation sets are data: with --data and --manifest they become what
    `samaritan train --data` takes.
    """
    from samaritan.errors import ConfigError
    from samaritan.io.files import replacing
    from samaritan.recipes import dump, from_lightning

    if (data is None) != (manifest is None):
        raise ConfigError("--data and --manifest go together: a folder to read, a file to write")
    found = from_lightning(config)
    sets = None if data is None else _sets(found, data)
    text = dump(found.recipe)
    if output is None:
        typer.echo(text, nl=False)
    else:
        with replacing(output) as (new,):
            new.write_text(_head(config, found) + text, "utf-8")
    _tell(found, sets is not None)
    if output is not None:
        typer.echo(f"wrote {output}", err=True)
    if sets is not None and manifest is not None:
        sets.write(manifest)
        typer.echo(f"wrote {manifest}: {sets.splits()}", err=True)


def _sets(found: Converted, folder: Path) -> Manifest:
    from samaritan.data import SourceOptions
    from samaritan.data.sources.neurosam3d_index import of_sets

    parts = {"train": found.training_sets, "val": found.validation_sets}
    return of_sets(folder, parts, SourceOptions())


def _head(config: Path, found: Converted) -> str:
    """What stands in front of the recipe, so that it still says what is missing."""
    lines = [f"made from {config.name}; left out:"]
    lines += [f"  {theirs}: {why}" for theirs, why in found.left_out]
    return "".join(f"# {' '.join(line.split())}\n" for line in lines)


def _tell(found: Converted, listed: bool) -> None:
    for theirs, ours in found.mapped:
        typer.echo(f"  {theirs}  ->  {ours or 'with the key that it belongs to'}", err=True)
    typer.echo("left out:", err=True)
    for theirs, why in found.left_out:
        typer.echo(f"  {theirs}  ({why})", err=True)
    if not listed and (found.training_sets or found.validation_sets):
        typer.echo(
            f"  {len(found.training_sets)} training sets and {len(found.validation_sets)} validation sets "
            "(they are data: --data FOLDER --manifest sets.json writes what train --data takes)",
            err=True,
        )
