"""`samaritan segment`: point at something in an image, get its mask on the image's own grid."""

from __future__ import annotations

import json
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
    from samaritan.cli.console import Report
    from samaritan.cli.wanted import Wanted
    from samaritan.infer import Predictor, Session
    from samaritan.volume import LabelMap, Volume

SHIPPED = {2: "samaritan_2d", 3: "samaritan_3d"}
"""What is taken where no model is named: for pictures and slices, and for volumes."""
"""The model that comes with the package, for whoever names none."""

EMPTY_MASK = 3
"""Exit code: everything went well, but the mask holds no voxel."""

_PROMPTS = "What to segment"


def segment(
    image: Annotated[Path, typer.Argument(help="A file, or a folder with a DICOM series.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="The mask; its suffix says the format.", rich_help_panel=RESULTS
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A weight file, a run folder, or a name from `models list`; else what comes with the "
            "package: samaritan_2d for pictures and slices, samaritan_3d for volumes.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(
            "--point", "-p", help="[NAME=]i,j,k[:+|-], again and again.", rich_help_panel=_PROMPTS
        ),
    ] = None,
    box: Annotated[
        list[str] | None,
        typer.Option(
            "--box", "-b", help="[NAME=]i0,j0,k0,i1,j1,k1, half-open.", rich_help_panel=_PROMPTS
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option("--mask", help="A mask or label map to start from.", rich_help_panel=_PROMPTS),
    ] = None,
    everything: Annotated[
        bool,
        typer.Option("--everything", help="All that a 2D model finds.", rich_help_panel=_PROMPTS),
    ] = False,
    refine: Annotated[
        int,
        typer.Option(
            help="Stages in which objects are redrawn at the end.", min=0, rich_help_panel=_PROMPTS
        ),
    ] = 0,
    mm: Annotated[
        bool,
        typer.Option("--mm", help="Points are millimetres x,y,z (RAS+).", rich_help_panel=_PROMPTS),
    ] = False,
    replay: Annotated[
        Path | None,
        typer.Option("--session", help="A saved session to begin with.", rich_help_panel=_PROMPTS),
    ] = None,
    frame: Annotated[
        int | None, typer.Option(help="Which frame of a 4D image.", rich_help_panel=IMAGE)
    ] = None,
    series: Annotated[
        str | None, typer.Option(help="Which series of a DICOM folder.", rich_help_panel=IMAGE)
    ] = None,
    channel: Channel = None,
    window: Window = None,
    axis: Axis = None,
    index: Annotated[
        int | None,
        typer.Option("--slice", help="Slice for --everything.", rich_help_panel=IMAGE),
    ] = None,
    device: Device = None,
    precision: Precision = "auto",
    max_windows: MaxWindows = 32,
    random_weights: Annotated[
        bool,
        typer.Option(
            "--random-weights",
            help="Try the way without weights: the mask means nothing.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(help="A PNG with prompts and contour.", rich_help_panel=RESULTS),
    ] = None,
    save_session: Annotated[
        Path | None,
        typer.Option(help="Keep the prompts as JSON.", rich_help_panel=RESULTS),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Segment what you point at; the mask lies on the image's own grid.

    Points and boxes are array indices of the file (see `samaritan info`): i,j,k as nibabel gives them;
    row,column for a picture. Prompts with different names are different objects, and become one label map.
    """
    from samaritan.cli.console import bars, warn
    from samaritan.cli.prompt_options import cut_intensities, parse_pair
    from samaritan.cli.wanted import Wanted
    from samaritan.io import check_writable, read, write

    wanted = Wanted.parse(point, box, mask, everything, replay, mm, refine)
    pair = None if window is None else parse_pair(window, "window")
    with bars() as report:
        report("reading the image", 0, 0)
        every = "all" if channel is not None and frame is None else frame  # frames are channels too
        volume = read(image, frame=every, series=series, channel=channel_of(channel))  # type: ignore[arg-type]
        for note in volume.notes:
            warn(note)
        wanted.check(volume.grid)
        source = image if output.suffix.lower() == ".dcm" else None
        check_writable(output, volume.grid, source=source)
        if model is None:
            model = _default(volume, slices=everything or axis is not None)
        report("loading the model", 0, 0)
        predictor = _predictor(model, random_weights, device, precision, report)
        cut_intensities(predictor, pair)
        predictor.progress = report
        if random_weights:
            warn("the weights are random, so the mask means nothing")
        session: Session | None = None
        if everything:
            labels = _everything(predictor, volume, axis, index, pair, report)
        else:
            session = wanted.run(
                predictor.session(volume, axis=axis, max_windows=max_windows, window=pair)
            )
            report("segmenting", 0, 0)
            labels = session.mask
        for note in labels.notes:
            warn(note)
        report("writing", 0, 0)
        write(labels, output, source=source)
        if session is not None and save_session is not None:
            session.save(save_session)
        if picture is not None:
            _draw(volume, labels, wanted, picture)
    summary = _summary(labels, session, output)
    _print(summary, as_json)
    if not summary["objects"] or all(o["voxels"] == 0 for o in summary["objects"]):
        warn("the mask is empty")
        raise typer.Exit(EMPTY_MASK)


def _default(volume: Volume, *, slices: bool) -> str:
    """Choose a model where none was named, and say which."""
    from samaritan.cli.console import errors

    model = SHIPPED[2 if slices or volume.is_flat else 3]
    text = f"model: {model}, which comes with the package (--model for others)"
    if model == SHIPPED[2] and not volume.is_flat:
        text += "; it looks at single slices: those that hold a prompt"
    errors.print(text, highlight=False, soft_wrap=True)
    return model


def _predictor(
    model: str,
    random_weights: bool,
    device: str | None,
    precision: str,
    report: Report,
) -> Predictor:
    from samaritan.cli.console import find_weights
    from samaritan.infer import Predictor

    if random_weights:
        import torch

        from samaritan.assembly import create_model

        torch.manual_seed(0)
        return Predictor(create_model(model), device=device, precision=precision)  # type: ignore[arg-type]
    path = find_weights(model, report)
    return Predictor.from_checkpoint(path, device=device, precision=precision)  # type: ignore[arg-type]


def _everything(
    predictor: Predictor,
    volume: Volume,
    axis: int | None,
    index: int | None,
    window: tuple[float, float] | None,
    report: Report,
) -> LabelMap:
    from samaritan.infer.everything import generate_masks
    from samaritan.infer.mask_records import label_map

    records = generate_masks(
        predictor, volume, axis=axis, index=index, window=window, progress=report
    )
    return label_map(records, volume)


def _draw(volume: Volume, labels: LabelMap, wanted: Wanted, path: Path) -> None:
    import numpy as np

    from samaritan.pictures import draw, save_picture
    from samaritan.prompts import Boxes, Points

    points = boxes = None
    if wanted.points:
        at = np.array([p.at for p in wanted.points])
        signs = np.array([int(p.positive) for p in wanted.points])
        points = (
            Points.from_mm(at, signs, volume.grid) if wanted.mm else Points(at, signs, volume.grid)
        )
    if wanted.boxes:
        starts = np.array([b.start for b in wanted.boxes])
        boxes = Boxes(starts, np.array([b.stop for b in wanted.boxes]), volume.grid)
    save_picture(draw(volume, mask=labels, points=points, boxes=boxes), path)


def _summary(labels: LabelMap, session: Session | None, output: Path) -> dict[str, Any]:
    import numpy as np

    counts = np.bincount(labels.array.reshape(-1)) if labels.array.size else np.zeros(1, int)
    objects = []
    for value in sorted(set(labels.names) | set(np.flatnonzero(counts).tolist()) - {0}):
        voxels = int(counts[value]) if value < len(counts) else 0
        row: dict[str, Any] = {
            "label": int(value),
            "name": labels.names.get(value, f"label {value}"),
            "voxels": voxels,
        }
        if labels.grid.unit == "mm":
            row["volume_ml"] = round(voxels * labels.grid.voxel_volume_mm3 / 1000, 4)
        if session is not None:  # a label map also names what occurs nowhere
            known = row["name"] in session.objects
            row["model_quality"] = session.quality(row["name"]) if known else None
        objects.append(row)
    return {"mask": str(output), "objects": objects, "notes": list(labels.notes)}


def _print(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary))
        return
    for row in summary["objects"][:20]:
        size = f", {row['volume_ml']:g} ml" if "volume_ml" in row else ""
        typer.echo(f"{row['label']} {row['name']}: {row['voxels']} voxels{size}")
    if len(summary["objects"]) > 20:
        typer.echo(f"... and {len(summary['objects']) - 20} more")
    typer.echo(f"written: {summary['mask']}")
