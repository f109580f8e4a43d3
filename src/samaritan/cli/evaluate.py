"""`samaritan evaluate`: measure masks, or a model, against references, and write a report to look at."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from samaritan.evaluation.matching import Matched
    from samaritan.metrics import Row

_WHAT = "What to compare"
_HOW = "How to measure"
_OUTPUT = "Results"
_TRIED = "A model"
_PROMPTS = "What a model is asked"

_ASKING = ("sam_med3d_2024", "neurosam3d", "m_sam")


def evaluate(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the report.", rich_help_panel=_OUTPUT)
    ],
    predictions: Annotated[
        Path | None, typer.Argument(help="A folder of masks, or one mask; or use --model.")
    ] = None,
    references: Annotated[
        Path | None, typer.Argument(help="A folder of references with the same names, or one.")
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Labels to measure: 1,2=spleen,liver.", rich_help_panel=_WHAT),
    ] = None,
    binary: Annotated[
        bool,
        typer.Option("--binary", help="Take all that is not 0 as one.", rich_help_panel=_WHAT),
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="The images, for pictures: same names.", rich_help_panel=_WHAT),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(help="CSV with case, group and perhaps patient.", rich_help_panel=_WHAT),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="samaritan, samed, sam_med2d, sam_med3d, cvpr25; of a model for volumes also "
            "sam_med3d_2024, neurosam3d, m_sam.",
            rich_help_panel=_HOW,
        ),
    ] = "samaritan",
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Of surface Dice, in mm (px for pictures); 2.", rich_help_panel=_HOW, min=0
        ),
    ] = None,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample", help="Resample predictions on another grid.", rich_help_panel=_HOW
        ),
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes.", min=1, rich_help_panel=_HOW)] = 1,
    pictures: Annotated[
        int,
        typer.Option(help="How many of the worst, median, best.", min=0, rich_help_panel=_OUTPUT),
    ] = 3,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as JSON.", rich_help_panel=_OUTPUT)
    ] = False,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Measure a model: a weight file, a run folder, or a name.",
            rich_help_panel=_TRIED,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            "-d",
            help="On a manifest, or a data set of `prepare`.",
            rich_help_panel=_TRIED,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="The plain model's weights, for files of adapters.", rich_help_panel=_TRIED
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps.", rich_help_panel=_TRIED)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Only this part of the manifest.", rich_help_panel=_TRIED)
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            help="Of a run on nnU-Net data: folds to measure on what they held out; all.",
            rich_help_panel=_TRIED,
        ),
    ] = None,
    clean: Annotated[
        bool,
        typer.Option(
            "--clean",
            help="Decide by held-out cases which structures keep their largest part alone.",
            rich_help_panel=_TRIED,
        ),
    ] = False,
    limit: Annotated[
        int | None,
        typer.Option(help="At most this many cases of each set.", rich_help_panel=_TRIED, min=1),
    ] = None,
    group_by: Annotated[
        str,
        typer.Option(help="Tables by: set, modality, split, none.", rich_help_panel=_TRIED),
    ] = "set",
    prompts: Annotated[
        str | None,
        typer.Option(
            help="Of box, points, clicks, box+clicks; the first three, for volumes box,clicks.",
            rich_help_panel=_PROMPTS,
        ),
    ] = None,
    points: Annotated[
        str, typer.Option(help="Numbers of points given.", rich_help_panel=_PROMPTS)
    ] = "1,3,5,9",
    clicks: Annotated[
        int | None,
        typer.Option(
            help="Clicks, each of which corrects the last answer; 10, or as published.",
            rich_help_panel=_PROMPTS,
            min=1,
        ),
    ] = None,
    objects: Annotated[
        str,
        typer.Option(help="labels, components, or the largest of each.", rich_help_panel=_PROMPTS),
    ] = "labels",
    max_objects: Annotated[
        int | None,
        typer.Option(help="At most this many of a case.", rich_help_panel=_PROMPTS, min=1),
    ] = None,
    min_size: Annotated[
        int, typer.Option(help="Pixels or voxels of an object.", rich_help_panel=_PROMPTS, min=1)
    ] = 1,
    box: Annotated[str, typer.Option(help="exact or jitter.", rich_help_panel=_PROMPTS)] = "exact",
    click: Annotated[str, typer.Option(help="core or random.", rich_help_panel=_PROMPTS)] = "core",
    baseline: Annotated[
        str | None,
        typer.Option(help="ellipse: fill the box with one.", rich_help_panel=_PROMPTS),
    ] = None,
    ceiling: Annotated[
        bool,
        typer.Option(
            "--ceiling",
            help="Also what a perfect answer would reach: what resolution costs.",
            rich_help_panel=_PROMPTS,
        ),
    ] = False,
    channel: Annotated[
        str | None,
        typer.Option(help="Channel to show, by number or name.", rich_help_panel=_PROMPTS),
    ] = None,
    max_windows: Annotated[
        int,
        typer.Option(
            help="Windows of a 3D model that an object may grow over.", rich_help_panel=_PROMPTS
        ),
    ] = 32,
    seed: Annotated[int, typer.Option(help="Of all draws.", rich_help_panel=_PROMPTS)] = 0,
) -> None:
    """Measure masks against references, or a model on data; write a page with tables, charts and pictures.

    Files belong together by name, whatever their formats. A missing prediction counts as a missed object.
    A model is asked with boxes and clicks that are simulated, the same ones each time.
    """
    from samaritan.cli.evaluate_model import Wanted, evaluate_model

    asked = Wanted(
        model, data, base, device, split, limit, group_by, prompts, points, clicks, objects,
        max_objects, min_size, box, click, baseline, ceiling, channel, max_windows, seed,
        folds, clean,
    )  # fmt: skip
    given = {
        "--labels": labels, "--binary": binary, "--images": images, "--groups": groups,
        "--resample": resample, "--workers": workers > 1,
    }  # fmt: skip
    if protocol in _ASKING and model is None:
        raise typer.BadParameter(f"--protocol {protocol} asks a model: give --model and --data")
    if asked.checked(predictions, references, [name for name, value in given.items() if value]):
        evaluate_model(asked, output, protocol, tolerance, pictures, as_json)
        return
    assert predictions is not None
    assert references is not None
    _compare(
        predictions, references, output, labels, binary, images, groups, protocol, tolerance,
        resample, workers, pictures, as_json,
    )  # fmt: skip


def _compare(
    predictions: Path,
    references: Path,
    output: Path,
    labels: str | None,
    binary: bool,
    images: Path | None,
    groups: Path | None,
    protocol: str,
    tolerance: float | None,
    resample: bool,
    workers: int,
    pictures: int,
    as_json: bool,
) -> None:
    """Measure two folders, or two files."""
    from samaritan.cli.console import bars, warn
    from samaritan.cli.evaluate_told import tell
    from samaritan.errors import FileError
    from samaritan.evaluation import Report, compare, match, read_groups, write_report
    from samaritan.evaluation.choosing import picture_cases
    from samaritan.evaluation.comparing import Settings
    from samaritan.evaluation.cvpr25_scores import challenge_sheets
    from samaritan.evaluation.cvpr25_stored import compare_rounds
    from samaritan.evaluation.matching import names_beside
    from samaritan.evaluation.report import check_folder
    from samaritan.metrics import get_protocol

    convention = get_protocol(protocol, tolerance=tolerance)
    wanted, named = _parse_labels(labels)
    check_folder(output)
    matched = match(predictions, references, images)
    settings = Settings(
        protocol, tolerance, wanted, {**names_beside(references), **named}, binary, resample
    )
    known = {} if groups is None else read_groups(groups)
    with bars() as report:
        if protocol == "cvpr25":
            _check_rounds(wanted, binary, groups)
            found = compare_rounds(matched, settings, convention, progress=report)
        else:
            found = compare(matched, settings, groups=known, workers=workers, progress=report)
        if not found.rows:
            raise FileError(_nothing(found.problems, references))
        shown, colours = picture_cases(
            matched.pairs_of(found.rows),
            _final(found.rows),
            settings,
            each=pictures,
            progress=report,
        )
    notes = [*found.notes, *_notes(matched, known)]
    made = Report(
        f"{predictions.name} against {references.name}",
        found.rows,
        convention,
        {
            "predictions": str(predictions),
            "references": str(references),
            "made": time.strftime("%Y-%m-%d %H:%M"),
        },
        found.problems,
        notes,
        shown,
        colours,
        sheets=challenge_sheets(found.rows) if protocol == "cvpr25" else (),
    )
    where = write_report(made, output)
    for note in notes[:10]:
        warn(note)
    tell(made, where, as_json)


def _check_rounds(wanted: object, binary: bool, groups: Path | None) -> None:
    """Refuse what has no place in the challenge's scores."""
    from samaritan.errors import ConfigError

    if wanted or binary or groups is not None:
        raise ConfigError(
            "protocol 'cvpr25' scores all labels of each case: leave out --labels, --binary and --groups"
        )


def _final(rows: Sequence[Row]) -> list[Row]:
    """The rows of the last answers, where rows tell of several."""
    last = max((row.clicks for row in rows if row.clicks is not None), default=None)
    return [row for row in rows if row.clicks in (None, last)]


def _parse_labels(text: str | None) -> tuple[tuple[int | str, ...] | None, dict[int, str]]:
    """Read "1,2=spleen,liver" as labels to measure and names for them."""
    from samaritan.errors import ConfigError

    if text is None:
        return None, {}
    wanted: list[int | str] = []
    names: dict[int, str] = {}
    for part in (piece.strip() for piece in text.split(",")):
        number, _, name = (piece.strip() for piece in part.partition("="))
        if not part or (name and not number.isdigit()) or number == "0" or part.endswith("="):
            raise ConfigError(
                f"--labels {text!r}: {part!r} is not a label. Expected numbers from 1, names, or "
                "NUMBER=NAME, with commas between"
            )
        wanted.append(int(number) if number.isdigit() else number)
        if name:
            names[int(number)] = name
    return tuple(dict.fromkeys(wanted)), names


def _nothing(problems: dict[str, str] | Any, references: Path) -> str:
    from samaritan.cli.evaluate_told import problems_told

    if problems:
        return problems_told(problems)
    return (
        f"{references} and the predictions hold no label at all: there is nothing to measure. "
        "Name the labels that you expect with --labels"
    )


def _notes(matched: Matched, groups: Any) -> list[str]:
    """What readers should know beside the numbers."""
    notes = []
    if matched.extra:
        names = ", ".join(path.name for path in matched.extra[:5])
        more = ", ..." if len(matched.extra) > 5 else ""
        notes.append(f"Predictions without a reference ({len(matched.extra)}): {names}{more}.")
    if groups:
        without = [pair.case for pair in matched.pairs if pair.case not in groups]
        if without:
            notes.append(f"Cases in no group ({len(without)}), such as {', '.join(without[:3])}.")
    return notes
