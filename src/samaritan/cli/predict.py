"""`samaritan predict`: a folder of images in, a folder of masks out; stopped runs go on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samaritan.cli.options import (
    IMAGE,
    MODEL,
    RESULTS,
    AsJson,
    Axis,
    Channel,
    Device,
    MaxWindows,
    Precision,
    Window,
    channel_of,
)

if TYPE_CHECKING:
    from samaritan.infer.batch import Draw, Outcome, PredictOptions


MOST_TOLD = 20
"""Failed cases that are listed on the terminal; all of them are in predict.json."""


def predict(
    images: Annotated[
        Path,
        typer.Argument(metavar="IN", help="A folder of images, one image, or a manifest."),
    ],
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder for masks; not inside IN.")
    ],
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="A weight file, a run folder, or a name from `models list`; several are averaged.",
            rich_help_panel=MODEL,
        ),
    ],
    folds: Annotated[
        str | None,
        typer.Option(
            help="Folds of the run to average, such as 0,1,2; all that are there.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="The plain model's weights, for adapter files.", rich_help_panel=MODEL),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="CSV or JSON: points, boxes, masks of cases.", rich_help_panel=IMAGE),
    ] = None,
    mm: Annotated[
        bool,
        typer.Option("--mm", help="Prompts are millimetres (RAS+).", rich_help_panel=IMAGE),
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="Only this part of a manifest.", rich_help_panel=IMAGE)
    ] = None,
    channel: Channel = None,
    window: Window = None,
    axis: Axis = None,
    device: Device = None,
    precision: Precision = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Slices at a time, 8; or windows of volumes, 1.", min=1, rich_help_panel=MODEL
        ),
    ] = None,
    mirror: Annotated[
        bool | None,
        typer.Option(
            "--mirror/--no-mirror",
            help="Show windows reversed too, if training did; up to 8 times as long.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    step: Annotated[
        float | None,
        typer.Option(help="How far windows move: 0.5 of their size.", rich_help_panel=MODEL),
    ] = None,
    max_windows: MaxWindows = 32,
    format: Annotated[
        str | None,
        typer.Option(help="nii.gz, seg.nrrd, mha, png, ...", rich_help_panel=RESULTS),
    ] = None,
    probabilities: Annotated[
        str | None,
        typer.Option(
            help="Also of every class: npz (one file, nnU-Net's) or nii.gz.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    clean: Annotated[
        bool | None,
        typer.Option(
            "--clean/--no-clean",
            help="Keep largest parts as `evaluate --clean` decided; else where it did.",
            rich_help_panel=RESULTS,
        ),
    ] = None,
    picture: Annotated[
        bool,
        typer.Option(
            "--picture", help="Also a PNG with contours of each case.", rich_help_panel=RESULTS
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make everything anew.", rich_help_panel=RESULTS)
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Predict masks for many images; each lies on its image's own grid.

    A model without prompts (MaskSAM, SAMed, a U-Net) labels everything; others need --prompts. The same
    command goes on where it was stopped. A case that cannot be done is told at the end, and the others go on.
    """
    from samaritan.cli.automatic import cleaning_of, find_runs, load_any, warn_of_other_data
    from samaritan.cli.console import warn
    from samaritan.cli.prompt_options import cut_intensities
    from samaritan.errors import FileError
    from samaritan.infer import Predictor
    from samaritan.infer.batch import predict_cases
    from samaritan.infer.inputs import check_apart, find_cases
    from samaritan.infer.prompt_files import read_prompts

    options = _options(axis, window, channel, format, max_windows, probabilities)
    check_apart(images, output)
    manifest = find_cases(images, split=split)
    asked = None if prompts is None else read_prompts(prompts, mm=mm)
    with _shown() as (progress, within):
        runs = find_runs(model, folds, progress)
        predictor, facts = load_any(
            runs, base, device, precision, progress, mirror=mirror, step=step, batch_size=batch_size
        )
        cleaning = cleaning_of(runs, clean)
        predictor.progress = within
        if isinstance(predictor, Predictor):
            cut_intensities(predictor, options.window)
        else:
            warn_of_other_data(images, predictor)
        try:
            outcome = predict_cases(
                predictor,
                manifest,
                output,
                options=options,
                prompts=asked,
                model=facts,
                batch_size=batch_size or 8,
                overwrite=overwrite,
                clean=cleaning,
                draw=_drawer(output) if picture else None,
                progress=progress,
            )
        except KeyboardInterrupt as stop:
            raise FileError(
                f"stopped. What is complete stays in {output}; the same command goes on"
            ) from stop
    for note, cases in _notes(outcome).items():
        more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
        warn(f"{cases[0]}{more}: {note}")
    _print(outcome, output, as_json)
    if outcome.failed:
        raise FileError(_failures(outcome.failed, output))


def _options(
    axis: int | None,
    window: str | None,
    channel: str | None,
    format: str | None,
    max_windows: int,
    probabilities: str | None,
) -> PredictOptions:
    from samaritan.cli.prompt_options import parse_pair
    from samaritan.errors import ConfigError
    from samaritan.infer.batch import PredictOptions

    if probabilities not in (None, "npz", "nii.gz"):
        raise ConfigError(f"--probabilities {probabilities!r} is not known: use npz or nii.gz")
    return PredictOptions(
        axis=axis,
        window=None if window is None else parse_pair(window, "window"),
        channel=channel_of(channel),
        format=format,
        max_windows=max_windows,
        probabilities=probabilities,  # type: ignore[arg-type]
    )


def _drawer(output: Path) -> Draw:
    from samaritan.pictures import draw, save_picture

    def drawn(volume: Any, labels: Any, name: str) -> None:
        save_picture(
            draw(volume, mask=labels, title=name), output / "pictures" / f"{name}.png", dpi=100
        )

    return drawn


@contextlib.contextmanager
def _shown() -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str, int, int], None]]]:
    """Show how many cases are done, what is being done, and the time left."""
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from samaritan.cli.console import errors

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[told]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, speed_estimate_period=3600) as progress:
        cases = progress.add_task("cases", total=None, told="")
        at = [0, 0]

        def report(what: str, done: int, total: int) -> None:
            at[:] = done, total
            progress.update(
                cases,
                description=what,
                completed=done,
                total=total or None,
                told=f"{done}/{total}" if total else "",
            )

        def within(what: str, done: int, total: int) -> None:
            part = min(done / total, 1.0) if total else 0.0
            progress.update(cases, completed=at[0] + part)

        yield report, within


def _notes(outcome: Outcome) -> dict[str, list[str]]:
    """Which cases each note is about."""
    found: dict[str, list[str]] = {}
    for case, notes in outcome.notes.items():
        for note in notes:
            found.setdefault(note, []).append(case)
    return found


def _print(outcome: Outcome, output: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"folder": str(output), **outcome.to_dict()}))
        return
    told = [f"{len(outcome.done)} done"]
    if outcome.there:
        told.append(f"{len(outcome.there)} were there already")
    if outcome.without_prompts:
        names = ", ".join(outcome.without_prompts[:5])
        more = ", ..." if len(outcome.without_prompts) > 5 else ""
        told.append(f"{len(outcome.without_prompts)} without prompts ({names}{more})")
    if outcome.failed:
        told.append(f"{len(outcome.failed)} failed")
    typer.echo(f"cases: {', '.join(told)}")
    typer.echo(f"written: {output}")


def _failures(failed: dict[str, str], output: Path) -> str:
    lines = [f"  {case}: {why}" for case, why in failed.items()]
    more = f"\n  and {len(lines) - MOST_TOLD} more" if len(lines) > MOST_TOLD else ""
    n = len(lines)
    return (
        f"{n} {'cases' if n > 1 else 'case'} could not be predicted (all in {output / 'predict.json'}):\n"
        + "\n".join(lines[:MOST_TOLD])
        + more
    )
