"""`samaritan train`: fine-tune a model as a recipe says."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from samaritan.data import Manifest
    from samaritan.data.nnunet.planned import PlannedSet
    from samaritan.recipes import Recipe
    from samaritan.train import Seen

_RECIPE = "What to do"
_RUN = "How to run"


def train(
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            "-r",
            help="samed, sam_med2d, sam_med3d, m_sam, neurosam3d, masksam_acdc, masksam_small, toy_2d, ...",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="A manifest, or a data set of `prepare`; an nnU-Net folder, raw or planned.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Weights to begin with: a file or a name; those of a 2D SAM start 3D models too.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    fold: Annotated[
        str | None,
        typer.Option(
            help="Of an nnU-Net data set: which fold to hold out, or all; its run is OUTPUT/fold_N.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="YAML with what differs.", rich_help_panel=_RECIPE),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            help="One field: optim.lr=1e-4. Again and again.",
            rich_help_panel=_RECIPE,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the run; runs/RECIPE.", rich_help_panel=_RUN
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run there.", rich_help_panel=_RUN)
    ] = False,
    print_config: Annotated[
        bool,
        typer.Option(
            "--print-config", help="Print the whole recipe and stop.", rich_help_panel=_RUN
        ),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1.", rich_help_panel=_RUN)
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that load images.", min=0, rich_help_panel=_RUN)
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Fine-tune a model on your data; an interrupted run goes on exactly with --resume.

    The folder of the run holds the recipe, the log, curves, sample pictures, and best.safetensors: a model.
    """
    from samaritan.errors import ConfigError

    settings = [*(setting or []), *([] if fold is None else [f"data.fold={fold}"])]
    chosen = _recipe(recipe, config, settings, init, _run_of(output, fold) if resume else None)
    if print_config:
        from samaritan.recipes import dump

        typer.echo(dump(chosen), nl=False)
        return
    if data is None:
        raise ConfigError(
            "no data: give --data with a manifest or a data set; see `samaritan prepare`"
        )
    if chosen.model.init is not None and not resume:
        from samaritan.checkpoints import locate

        locate(
            chosen.model.init
        )  # images are decoded first, which takes too long for a typing error
    folder = _folder(output, chosen)
    leads = _leads()
    result = _run(
        chosen, _source(data, chosen), folder, resume=resume, device=device, workers=workers
    )
    if not leads:
        return
    if as_json:
        told = {k: None if math.isnan(v) else v for k, v in result.items()}
        typer.echo(json.dumps({"run": str(folder), **told}))
        return
    typer.echo(f"iterations: {result['iterations']:.0f}")
    if not math.isnan(result["best"]):
        typer.echo(f"held-out Dice: best {result['best']:.4f}, last {result['last']:.4f}")
    _tell_volumes(result)
    typer.echo(f"written: {folder}")


def _leads() -> bool:
    """Whether this process speaks: of several that torchrun or accelerate started, the first."""
    if os.environ.get("RANK", "0") == "0":
        return True
    logging.getLogger("samaritan").setLevel(logging.ERROR)
    return False


def _recipe(
    name: str | None, config: Path | None, settings: list[str], init: str | None, run: Path | None
) -> Recipe:
    """Resolve the recipe; a run that goes on has its own."""
    from samaritan.errors import ConfigError
    from samaritan.recipes import recipe_names, resolve

    changes = {} if init is None else {"model.init": init}
    if run is not None:
        from samaritan.train import RunFolder

        RunFolder(run).check_there()
        if name is None and config is None:
            return resolve(file=run / "recipe.yaml", settings=settings, changes=changes)
    if name is None and config is None:
        raise ConfigError(
            f"no recipe: give --recipe ({', '.join(recipe_names())}) or --config with a YAML file"
        )
    return resolve(name, file=config, settings=settings, changes=changes)


def _source(path: Path, chosen: Recipe) -> Manifest | PlannedSet:
    """A manifest, or for tasks on patches an nnU-Net data set, planned if need be."""
    from samaritan.recipes.schema import PATCH_TASKS

    if chosen.task not in PATCH_TASKS:
        from samaritan.data import load_manifest

        return load_manifest(path)
    from samaritan.cli.console import bars
    from samaritan.cli.prepare_plan import default_folder
    from samaritan.train.patches import open_planned

    with bars() as report:
        return open_planned(path, chosen, default_folder(), progress=report)


def _folder(output: Path | None, chosen: Recipe) -> Path:
    """The folder of a run; folds lie beside each other."""
    from samaritan.recipes.schema import PATCH_TASKS

    folder = output or Path("runs") / chosen.name
    name = f"fold_{chosen.data.fold}"
    return folder / name if chosen.task in PATCH_TASKS and folder.name != name else folder


def _run_of(output: Path | None, fold: str | None) -> Path | None:
    """The folder of a run to go on with: that of a fold, if one is named or the first is there alone."""
    if output is None or (output / "recipe.yaml").is_file():
        return output
    folds = sorted(output.glob("fold_*"))
    wanted = folds[0].name if fold is None and len(folds) == 1 else f"fold_{fold}"
    return output / wanted if (output / wanted).is_dir() else output


def _tell_volumes(result: Mapping[str, float]) -> None:
    if "volumes" not in result:
        return
    each = ", ".join(
        f"{key.removeprefix('volumes_')} {value:.4f}"
        for key, value in result.items()
        if key.startswith("volumes_")
    )
    typer.echo(f"whole held-out volumes: Dice {result['volumes']:.4f} ({each})")


def _run(
    chosen: Recipe, source: Manifest | PlannedSet, folder: Path, **options: Any
) -> dict[str, float]:
    from samaritan.errors import TrainingError
    from samaritan.infer.sliding import SlidingWindows
    from samaritan.train.runs import train as run

    try:
        with _shown() as (loaded, report):
            return run(
                chosen,
                source,
                folder,
                windows=SlidingWindows,
                environment=_environment(),
                loaded=loaded,
                report=report,
                **options,
            )
    except KeyboardInterrupt as stop:
        raise TrainingError(
            f"stopped. Go on with: samaritan train --resume --output {folder} --data DATA"
        ) from stop


def _environment() -> dict[str, Any]:
    from samaritan.environment import examine

    return examine().to_dict()


@contextlib.contextmanager
def _shown() -> Iterator[tuple[Callable[[int, int], None], Callable[[Seen], None]]]:
    """Show how far reading and training are: loss, Dice, images per second, time left.

    A terminal gets a bar, and a log file, which cannot be written over, a line now and then.
    """
    from samaritan.cli.console import errors

    if not errors.is_terminal:
        lines = _Lines()
        yield lines.loaded, lines.report
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, speed_estimate_period=3600) as progress:
        reading = progress.add_task("reading images", total=None, told="")
        training = progress.add_task("training", total=None, told="", visible=False)

        def loaded(done: int, total: int) -> None:
            if progress.tasks[training].visible:  # what is gone through now is what was held out
                words = "labelling held-out volumes"
                progress.update(reading, description=words, visible=True)
                progress.update(training, visible=False)
            progress.update(reading, completed=done, total=total)

        def report(seen: Seen) -> None:
            progress.update(reading, visible=False)
            progress.update(
                training,
                completed=seen.iteration,
                total=seen.iterations,
                told=_told(seen),
                visible=True,
            )

        yield loaded, report


class _Lines:
    """A line for the first report and the last, for each new validation, and every half minute between."""

    EVERY_S = 30.0

    def __init__(self) -> None:
        self.start: tuple[float, int] | None = None
        self.last = -math.inf
        self.held_out = "None"

    def loaded(self, done: int, total: int) -> None:
        """Tell of held-out volumes, once the model is trained."""
        from samaritan.cli.console import errors

        now = time.monotonic()
        if self.start is None or (done < total and now - self.last < self.EVERY_S):
            return
        self.last = now
        errors.print(f"held-out volumes labelled: {done}/{total}", highlight=False, soft_wrap=True)

    def report(self, seen: Seen) -> None:
        """Tell, or wait."""
        from samaritan.cli.console import errors

        now = time.monotonic()
        if self.start is None:
            self.start = (now, seen.iteration)
        news = seen.iteration == seen.iterations or str(seen.held_out) != self.held_out
        if not news and now - self.last < self.EVERY_S:
            return
        self.last, self.held_out = now, str(seen.held_out)
        text = f"{seen.iteration}/{seen.iterations}, {_told(seen)}, {self._left(seen, now)}"
        errors.print(text, highlight=False, soft_wrap=True)

    def _left(self, seen: Seen, now: float) -> str:
        assert self.start is not None
        began, first = self.start
        if seen.iteration == first:
            return "time left unknown"
        left = (now - began) / (seen.iteration - first) * (seen.iterations - seen.iteration)
        return f"{timedelta(seconds=round(left))} left"


def _told(seen: Seen) -> str:
    words = [f"epoch {seen.epoch + 1}"]
    if seen.loss is not None:
        words.append(f"loss {seen.loss:.4f}")
    if seen.dice is not None:
        words.append(f"Dice {seen.dice:.3f}")
    if seen.held_out is not None and not math.isnan(seen.held_out):
        words.append(f"held out {seen.held_out:.3f}")
    return ", ".join([*words, f"{seen.per_second:.1f} images/s"])
