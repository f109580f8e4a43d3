"""`samaritan doctor`: what is installed, what will be used, and what to do about problems."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from samaritan.environment import Environment


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say what is installed, which device and precision will be used, and what is wrong.

    The exit code is 1 if something is broken, 0 otherwise.
    """
    from samaritan.environment import examine

    found = examine()
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=1))
    else:
        _show(found)
    if not found.usable:
        raise typer.Exit(1)


def _show(found: Environment) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)

    def size(count: int) -> str:
        return f"{count / 2**30:.1f} GiB"

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("samaritan", f"{found.samaritan}, Python {found.python}, {escape(found.system)}")
    for device in found.devices:
        table.add_row(device.device, f"{escape(device.name)}, {size(device.memory)}")
    table.add_row("device", f"{found.device or 'none'} will be used")
    table.add_row("precision", f"{found.precision or 'none'}: {found.precision_reason}")
    table.add_row("threads", f"{found.threads or '?'} on {found.processors} processors")
    table.add_row("memory", f"{size(found.memory_free)} free of {size(found.memory)}")
    table.add_row("weights", f"{escape(found.cache)}, {size(found.cache_free)} free")
    console.print(table)
    console.print()
    packages = Table(box=None, pad_edge=False)
    for title in ("package", "installed", "needed", ""):
        packages.add_column(title)
    for package in found.packages:
        hint = f'pip install "samaritan\\[{package.extra}]"' if package.version is None else ""
        note = hint if package.extra else ""
        packages.add_row(package.name, package.version or "no", package.wanted or "any", note)
    console.print(packages)
    console.print()
    for problem in found.problems:
        mark = "[bold red]broken[/]" if problem.breaks else "[bold yellow]note[/]"
        console.print(f"{mark}: {escape(problem.what)}.\n  {escape(problem.do)}.")
    if not found.problems:
        console.print("[green]no problems found[/]")
