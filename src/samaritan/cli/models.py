"""`samaritan models`: published weights, and files of weights."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from samaritan.adapt.methods import Insertion
    from samaritan.checkpoints import Inspection, Published
    from samaritan.checkpoints.downloading import Progress

app = typer.Typer(
    help="List, fetch, examine and convert weights.", no_args_is_help=True, add_completion=False
)

_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
_Model = Annotated[str | None, typer.Option("--model", help="The model that the weights fit.")]


@app.command("list")
def list_weights(as_json: _Json = False) -> None:
    """List the published weights that are known, and which are in the cache."""
    from samaritan.checkpoints import cached, published_weights

    rows = [(p, cached(p.name)) for p in published_weights()]
    if as_json:
        _print_json([{**p.to_dict(), "cached": _text(path)} for p, path in rows])
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("name", "system", "size", "licence", "here", "loads"):
        table.add_column(title, justify="right" if title == "size" else "left", no_wrap=True)
    for p, path in rows:
        cells = (p.name, p.system, _size(p), p.licence, _here(p, path))
        table.add_row(*cells, "yes" if p.supported else "no")
    console = Console(soft_wrap=True, highlight=False)
    console.width = max(console.width, 100)
    console.print(table)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="Name of published weights or of a model.")],
    as_json: _Json = False,
) -> None:
    """Show where weights come from, their licence, and the model that they belong to."""
    from samaritan.assembly import model_names
    from samaritan.checkpoints import cache_folder, cached, find_published

    published = find_published(name)
    model = published.model.partition(",")[0] if published else name
    values: dict[str, Any] = {}
    if published is not None:
        path = cached(published.name)
        values = {**published.to_dict(), "cached": _text(path)}
        if published.shipped:
            values["card"] = _text(_card(published.name, path))
        else:
            values["place"] = str(cache_folder() / published.file)
    elif name not in model_names():
        from samaritan.checkpoints.registry import get_published

        get_published(name)
    architecture = _architecture(model) if model in model_names() else None
    if as_json:
        _print_json({"weights": values or None, "model": model, "architecture": architecture})
        return
    _print_table(values)
    if architecture is not None:
        typer.echo(f"\nmodel {model}")
        _print_table(architecture)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="Name of published weights.")],
    to: Annotated[Path | None, typer.Option("--to", help="Folder; else the cache.")] = None,
) -> None:
    """Fetch published weights, continuing where an earlier try stopped, and print the path."""
    from samaritan.checkpoints import fetch as fetch_weights

    with _bar(name) as progress:
        path = fetch_weights(name, cache_dir=to, progress=progress)
    typer.echo(path)


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="File of weights, or a name that is in the cache.")],
    model: _Model = None,
    as_json: _Json = False,
) -> None:
    """Examine a file of weights; exit with 1 if it cannot be used."""
    from samaritan.checkpoints import inspect

    found = inspect(file, model=model)
    if as_json:
        _print_json(found.to_dict())
    else:
        _print_inspection(found)
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def convert(
    file: Annotated[
        str, typer.Argument(help="File of weights, folder of a run, or name of published weights.")
    ],
    out: Annotated[
        Path, typer.Argument(help="The file to write: .safetensors, or .pth as its publishers do.")
    ],
    model: _Model = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="Weights of the plain model, for files of adapters alone."),
    ] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Fold LoRA into the weights that it stands beside.")
    ] = False,
    only: Annotated[
        str,
        typer.Option(help="all, adapters (their weights alone), trainable (all that was learned)."),
    ] = "all",
) -> None:
    """Write weights of any known system as one file with all that is needed to use them.

    A name that ends in .pth gets the layout of the system's publishers: SAMed's LoRA file, or SAM-Med2D's.
    """
    from samaritan.checkpoints import convert as convert_weights

    if only not in ("all", "adapters", "trainable"):
        raise typer.BadParameter(f"--only is all, adapters or trainable, not {only!r}")
    report = convert_weights(file, out, model=model, base=base, fold=fold, only=only)  # type: ignore[arg-type]
    typer.echo(str(report))
    typer.echo(f"Wrote {out}")


def _architecture(model: str) -> dict[str, Any]:
    """The configuration and number of parameters of a model, without making its weights."""
    import torch

    from samaritan.adapt import describe
    from samaritan.assembly import create_model

    with torch.device("meta"):
        net = create_model(model)
    parameters = sum(p.numel() for p in net.parameters())
    config = net.config.to_dict()
    config.pop("quirks")  # a matter of the weights, not of the architecture
    placed = describe(net)
    if placed:
        learns = sum(p.numel() for p in net.parameters() if p.requires_grad)
        config = {"trainable": learns, "adapters": _adapters(placed), **config}
    return {"parameters": parameters, **config}


def _adapters(placed: Iterable[Insertion]) -> str:
    """Say which adapters stand beside how many modules."""
    return "; ".join(f"{p.name} beside {len(p.targets)} modules {dict(p.options)}" for p in placed)


def _print_inspection(found: Inspection) -> None:
    header = found.header
    size = " x ".join(str(n) for n in found.image_size or ())
    _print_table(
        {
            "file": found.file,
            "format": found.kind,
            "layout": found.layout,
            "system": found.title,
            "model": found.model and found.model + (f", images of {size}" if size else ""),
            "tensors": f"{found.n_tensors} ({found.n_parameters:,} numbers)",
            "numbers": ", ".join(f"{n} {kind}" for kind, n in found.dtypes.items()),
            "quirks": ", ".join(found.quirks),
            "licence": found.licence,
            "sha256": found.sha256,
            "not weights": ", ".join(found.ignored[:8]),
        }
    )
    if header is not None:
        part = {"all": None, "adapters": "adapters alone", "trainable": "what was trained alone"}
        own = {"holds": part[header.holds], "adapters": _adapters(header.adapters)}
        _print_table({**own, "preprocess": header.preprocess, **header.provenance})
        for key, value in header.extra.items():
            if isinstance(value, str) and "\n" in value:
                typer.echo(f"\n{key}\n{textwrap.indent(value.rstrip(), '  ')}")
            else:
                _print_table({key: value})
    for problem in found.problems:
        typer.echo(f"\nproblem: {problem}")
    if found.ok:
        also = ", together with the weights of the plain model (base)" if found.needs_base else ""
        typer.echo(f"\nIt can be used{also}.")


def _print_table(values: dict[str, Any]) -> None:
    """Print names and values in two columns; what is not known is left out."""
    shown = {k: v for k, v in values.items() if v not in (None, "", (), [], {})}
    width = max((len(key) for key in shown), default=0)
    for key, value in shown.items():
        text = (
            f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        )
        typer.echo(f"{key:{width}}  {text}")


def _print_json(values: Any) -> None:
    typer.echo(json.dumps(values, indent=1, default=str))


def _size(published: Published) -> str:
    about = "" if published.size_exact else "~"
    return f"{about}{published.size / 1e6:,.0f} MB"


def _here(published: Published, path: Path | None) -> str:
    """Whether the weights are on this machine, and why."""
    if path is None:
        return ""
    return "in the package" if published.shipped else "in the cache"


def _card(name: str, weights: Path | None) -> Path | None:
    """The card of a model that comes with the package: beside its weights, or in the docs of a clone."""
    if weights is None:
        return None
    places = (weights.with_suffix(".md"), weights.parents[3] / "docs" / f"{name}.md")
    return next((place for place in places if place.is_file()), None)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


@contextmanager
def _bar(name: str) -> Iterator[Progress]:
    """A progress bar on standard error."""
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    from samaritan.cli.console import errors

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as bars:
        task = bars.add_task(name, total=None)

        def progress(done: int, total: int | None) -> None:
            bars.update(task, completed=done, total=total)

        yield progress
