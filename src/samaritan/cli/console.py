"""What the commands share: where they print, and bars for what takes long."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

Report = Callable[[str, int, int], None]

errors = Console(stderr=True)
"""Messages, warnings and bars go to standard error, so that standard output holds results alone."""


@contextlib.contextmanager
def bars() -> Iterator[Report]:
    """Show a bar for each named piece of work: call what is given with (what, done, total).

    A total of 0 shows a spinner: work of unknown length.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=errors, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                for other in tasks.values():
                    progress.update(other, visible=False)
                tasks[what] = progress.add_task(what, total=total or None)
            progress.update(tasks[what], completed=done, total=total or None, visible=True)

        yield report


def find_weights(model: str, report: Report) -> Path:
    """Find the file that `--model` means, and tell which one is taken of a run's folder."""
    from samaritan.checkpoints import resolve_model

    path = resolve_model(
        model, progress=lambda done, total: report("fetching bytes", done, total or 0)
    )
    if Path(model).expanduser().is_dir():
        errors.print(f"weights: {path}", highlight=False, soft_wrap=True)
    return path


def warn(text: str) -> None:
    """Print a warning."""
    errors.print(f"[yellow]warning:[/yellow] {text}", highlight=False)
