"""`samaritan bench`: run the benchmarks of a checkout; what they measured becomes a table and a plot."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from samaritan.cli.bench_results import Results


@dataclass(frozen=True)
class Program:
    """One benchmark: a script that answers one question."""

    path: Path
    question: str
    knows: frozenset[str]
    """Options that not all benchmarks have."""


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which benchmarks; all where none is named.")
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for table, plot and all numbers.")
    ] = Path("bench"),
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Tiny models, one round: does everything run? No figures."),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="A GPU, such as cuda: those that can run there, on it.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each; else as each chooses.", min=1)
    ] = None,
    scripts: Annotated[
        Path | None, typer.Option(help="The folder benchmarks/ of a checkout, if it is elsewhere.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="List the benchmarks, run none.")] = False,
) -> None:
    """Time Samaritan beside the alternatives on this machine.

    Each benchmark is a script in benchmarks/ of a checkout, and runs in a process of its own, one after the
    other. The folder gets bench.md, bench.png, and of each benchmark all numbers (NAME.json) and what it
    printed (NAME.txt). The exit code is 1 if one failed; the others are told all the same.
    """
    from samaritan.cli.bench_plot import plot
    from samaritan.cli.bench_results import markdown

    options = _options(quick=quick, threads=threads, device=device)
    programs = chosen(find_programs(scripts), names or [], needed=set(options) & _NOT_ALWAYS)
    if show:
        for name, program in programs.items():
            typer.echo(f"{name:12} {program.question}")
        return
    output.mkdir(parents=True, exist_ok=True)
    results, failed = run(programs, output, options)
    page = markdown(results, failed)
    (output / "bench.md").write_text(page, "utf-8")
    plot(results, output / "bench.png")
    typer.echo(page)
    if failed:
        raise typer.Exit(1)


_NOT_ALWAYS = frozenset(("--quick", "--device"))


def _options(*, quick: bool, threads: int | None, device: str | None) -> dict[str, list[str]]:
    """What every benchmark is called with: options, and their values."""
    options: dict[str, list[str]] = {"--quick": []} if quick else {}
    if threads is not None:
        options["--threads"] = [str(threads)]
    if device is not None:
        options["--device"] = [device]
    return options


def find_programs(folder: Path | None) -> dict[str, Program]:
    """Find the scripts that write what they measured.

    Raises:
        FileError: if there is no such folder, as where the package was installed without its repository.
    """
    from samaritan.errors import FileError

    place = Path(__file__).resolve().parents[3] / "benchmarks" if folder is None else folder
    if not (place / "measuring.py").is_file():
        raise FileError(
            f"there are no benchmarks at {place}: they are a part of the repository, not of the installed "
            "package. Clone the repository and run `samaritan bench` of its .venv, or say where its folder "
            "benchmarks is with --scripts FOLDER"
        )
    found = {}
    for path in sorted(place.glob("*.py")):
        text = path.read_text("utf-8")
        if '"--json"' in text:
            question = (ast.get_docstring(ast.parse(text)) or "").split("\n")[0]
            knows = frozenset(option for option in _NOT_ALWAYS if f'"{option}"' in text)
            found[path.stem] = Program(path, question, knows)
    return found


def chosen(
    programs: dict[str, Program], names: list[str], *, needed: Set[str] = frozenset()
) -> dict[str, Program]:
    """Take those that were named, or all that have the options needed.

    Raises:
        ConfigError: if a name is not known, or a benchmark that was named lacks an option.
    """
    from samaritan.errors import ConfigError

    unknown = [name for name in names if name not in programs]
    if unknown:
        raise ConfigError(
            f"there is no benchmark {', '.join(map(repr, unknown))}; known: {', '.join(programs)}"
        )
    for option in sorted(needed):
        without = [name for name in names if option not in programs[name].knows]
        if without:
            raise ConfigError(f"{', '.join(without)} cannot run with {option}: leave it out")
    wanted = names or list(programs)
    return {name: programs[name] for name in wanted if needed <= programs[name].knows}


def run(
    programs: dict[str, Program], output: Path, options: dict[str, list[str]]
) -> tuple[list[Results], dict[str, str]]:
    """Run benchmarks one after the other; also why some of them failed."""
    from samaritan.cli.bench_results import read_results
    from samaritan.cli.console import bars
    from samaritan.errors import FileError

    results, failed = [], {}
    more = [word for option, values in options.items() for word in (option, *values)]
    with bars() as report:
        for count, (name, program) in enumerate(programs.items()):
            report(name, count, len(programs))
            json, text = output / f"{name}.json", output / f"{name}.txt"
            json.unlink(missing_ok=True)
            with text.open("w", encoding="utf-8") as log:
                done = subprocess.run(
                    [sys.executable, str(program.path), "--json", str(json), *more],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    check=False,
                )
            if done.returncode:
                failed[name] = _last_line(text) or f"exit status {done.returncode}"
                continue
            try:
                results.append(read_results(json))
            except FileError as error:
                failed[name] = str(error)
    return results, failed


def _last_line(path: Path) -> str:
    lines = path.read_text("utf-8", errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
