"""`samaritan prepare`: look over a data set, make 2D sets from volumes, lay volumes out anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from samaritan.cli.options import channel_of
from samaritan.cli.prepare_plan import plan
from samaritan.cli.prepare_recipe import recipe

if TYPE_CHECKING:
    from samaritan.data import Manifest, Report

app = typer.Typer(
    help="Check data sets, make 2D sets from volumes, move volumes between layouts.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

app.command("recipe")(recipe)
app.command("plan")(plan)

_MOST_SHOWN = 40

Source = Annotated[
    Path,
    typer.Argument(
        help="A data set: nnU-Net folder, SAM-Med3D or NeuroSAM3D folders, images/ beside masks/, SAM-Med2D "
        "JSON files, Synapse slices, DICOM folders, a manifest, or a folder of such.",
        show_default=False,
    ),
]
Modality = Annotated[
    str | None, typer.Option(help="CT, MR, US, XR, ...: if the data do not say it.")
]
Patient = Annotated[
    str | None,
    typer.Option(help="Regular expression on case ids; its first group is the patient."),
]
LabelKind = Annotated[
    str | None, typer.Option("--labels", help="What label files hold: map, instances or masks.")
]
Split = Annotated[
    str | None,
    typer.Option(help="Split by patient, such as train=0.8,val=0.2; what is split already stays."),
]
Seed = Annotated[int, typer.Option(help="Another seed is another split.")]
Channel = Annotated[str | None, typer.Option(help="Which channel to take, by number or name.")]
Workers = Annotated[int, typer.Option(min=1, help="Cases at a time.")]


@app.command("check")
def check(
    path: Source,
    modality: Modality = None,
    patient: Patient = None,
    labels: LabelKind = None,
    split: Split = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write a manifest, .json or .csv.")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Write the manifest even if something is wrong.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
    workers: Workers = 2,
) -> None:
    """Read everything once and tell every problem of every case.

    The exit code is 1 if something breaks training.
    """
    from samaritan.cli.console import bars
    from samaritan.data.checking import check as look

    manifest = _manifest(path, modality, patient, labels, split, seed)
    with bars() as report:
        found = look(
            manifest, workers=workers, progress=lambda done, n: report("reading cases", done, n)
        )
    if as_json:
        typer.echo(json.dumps({**_facts(manifest), **found.to_dict()}, indent=1))
    else:
        _show(manifest, found)
    if output is not None and (found.ok or anyway):
        manifest.write(output)
        typer.echo(f"wrote {output}", err=True)
    if not found.ok:
        raise typer.Exit(1)


@app.command("slices")
def slices(
    path: Source,
    out: Annotated[Path, typer.Argument(help="A folder for the slices.", show_default=False)],
    window: Annotated[
        str | None,
        typer.Option(help="A CT window by name (abdomen, lung, bone, ...), or LOW,HIGH."),
    ] = None,
    modality: Modality = None,
    axis: Annotated[
        int | None,
        typer.Option(
            min=0, max=2, help="Array axis across which slices lie; default: the thick one."
        ),
    ] = None,
    min_foreground: Annotated[
        int, typer.Option(min=0, help="Pixels of labels that a slice needs; 0 keeps every slice.")
    ] = 1,
    bits: Annotated[int, typer.Option(help="8 or 16 bits a pixel.")] = 8,
    channel: Channel = None,
    patient: Patient = None,
    split: Split = "train=0.8,val=0.2",
    seed: Seed = 0,
    layout: Annotated[
        str, typer.Option(help="pairs (PNG), or synapse (SAMed's .npz and .npy.h5).")
    ] = "pairs",
    keep_labels: Annotated[
        bool, typer.Option(help="Layout synapse: do not renumber labels by SAMed's table.")
    ] = False,
    workers: Workers = 2,
) -> None:
    """Make a 2D set from volumes, split by patient; goes on where it was stopped."""
    from samaritan.cli.console import bars
    from samaritan.data.slicing import SliceOptions, make_slices
    from samaritan.data.synapse_export import SYNAPSE_LABELS, make_synapse
    from samaritan.errors import ConfigError

    if layout not in ("pairs", "synapse"):
        raise ConfigError(f"layout {layout!r} is not known; expected pairs or synapse")
    manifest = _manifest(path, modality, patient, None, split if layout == "pairs" else None, seed)
    with bars() as report:

        def tell(done: int, total: int) -> None:
            report("slicing volumes", done, total)

        if layout == "synapse":
            table = None if keep_labels else SYNAPSE_LABELS
            made = make_synapse(manifest, out, table=table, progress=tell)
        else:
            options = SliceOptions(
                window=_window(window),
                modality=modality,
                axis=axis,
                min_foreground=min_foreground,
                bits=bits,  # type: ignore[arg-type]
                channel=channel_of(channel),
            )
            made = make_slices(manifest, out, options, workers=workers, progress=tell)
    typer.echo(f"{out}: {_counted(made)}")


@app.command("convert")
def convert(
    path: Source,
    out: Annotated[Path, typer.Argument(help="A folder for the volumes.", show_default=False)],
    to: Annotated[
        str, typer.Option(help="nnunet, sam_med3d, neurosam3d or cvpr25.", show_default=False)
    ],
    spacing: Annotated[
        str | None,
        typer.Option(
            help="Resample to voxels of so many mm: 1.5, or one number for each axis: 1,1,3."
        ),
    ] = None,
    channel: Channel = None,
    min_volume: Annotated[
        float, typer.Option(min=0, help="Leave out masks of less than so many cubic millimetres.")
    ] = 0.0,
    merge_overlaps: Annotated[
        bool,
        typer.Option(
            "--merge-overlaps", help="In label maps, smaller masks lie on top of larger ones."
        ),
    ] = False,
    modality: Modality = None,
    patient: Patient = None,
    labels: LabelKind = None,
    split: Annotated[
        str | None, typer.Option(help="Split by patient first, such as train=0.8,val=0.2.")
    ] = None,
    seed: Seed = 0,
    workers: Workers = 2,
) -> None:
    """Write volumes in another layout, resampled where asked; goes on where it was stopped."""
    from samaritan.cli.console import bars
    from samaritan.data.converting import ConvertOptions, convert

    options = ConvertOptions(to, _sides(spacing), channel_of(channel), min_volume, merge_overlaps)
    manifest = _manifest(path, modality, patient, labels, split, seed)
    with bars() as report:
        made = convert(
            manifest,
            out,
            options,
            workers=workers,
            progress=lambda done, total: report("converting volumes", done, total),
        )
    typer.echo(f"{out}: {_counted(made)}")
    missing = len(manifest) - len(made)
    if missing:
        typer.echo(
            f"{missing} cases in which nothing is drawn have no place in this layout", err=True
        )


def _sides(text: str | None) -> tuple[float, float, float] | None:
    if text is None:
        return None
    from samaritan.errors import ConfigError

    try:
        sides = [float(part) for part in text.split(",")]
        i, j, k = sides * 3 if len(sides) == 1 else sides
    except ValueError as error:
        raise ConfigError(f"spacing {text!r} must be one number or three, such as 1,1,3") from error
    return i, j, k


def _manifest(
    path: Path,
    modality: str | None,
    patient: str | None,
    labels: str | None,
    split: str | None,
    seed: int,
) -> Manifest:
    from samaritan.data import SourceOptions, load_manifest
    from samaritan.data.windows import MODALITIES
    from samaritan.errors import ConfigError

    if modality is not None and modality not in MODALITIES:
        raise ConfigError(
            f"modality {modality!r} is not known; expected one of {', '.join(MODALITIES)}"
        )
    if labels not in (None, "map", "instances", "masks"):
        raise ConfigError(f"labels {labels!r} is not known; expected map, instances or masks")
    options = SourceOptions(modality, patient, labels)  # type: ignore[arg-type]
    manifest = load_manifest(path, options)
    return manifest if split is None else manifest.split(_shares(split), seed=seed)


def _shares(text: str) -> dict[str, float]:
    from samaritan.errors import ConfigError

    try:
        return {name.strip(): float(part) for name, part in (p.split("=") for p in text.split(","))}
    except ValueError as error:
        raise ConfigError(f"split {text!r} must be like train=0.8,val=0.2") from error


def _window(text: str | None) -> str | tuple[float, float] | None:
    if text is None or "," not in text:
        return text
    from samaritan.errors import ConfigError

    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"window {text!r} must be a name, or two numbers such as -125,275"
        ) from error
    return low, high


def _counted(manifest: Manifest) -> str:
    parts = {str(part or "undecided"): n for part, n in manifest.splits().items()}
    told = ", ".join(f"{n} {part}" for part, n in sorted(parts.items()))
    return f"{len(manifest)} cases of {len(manifest.patients())} patients ({told})"


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "root": str(manifest.root),
        "patients": len(manifest.patients()),
        "splits": {str(part or ""): n for part, n in manifest.splits().items()},
        "groups": {
            name: {"cases": sum(c.group == name for c in manifest), "note": group.note}
            for name, group in manifest.groups.items()
        },
    }


def _show(manifest: Manifest, found: Report) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(str(manifest.root))}[/]: {_counted(manifest)}")
    table = Table(box=None, pad_edge=False)
    for title in ("data set", "cases", "patients", "modality", "labels (cases)"):
        table.add_column(title, overflow="fold")
    for name, group in manifest.groups.items():
        cases = [c for c in manifest if c.group == name]
        counts = found.labels.get(name, {})
        drawn = [
            f"{value} {group.labels.get(value, '')}".strip() + f" ({n})"
            for value, n in counts.items()
        ]
        kinds = sorted({c.modality or "?" for c in cases})
        patients = len({c.patient for c in cases})
        told = ", ".join(drawn[:12]) + (", ..." if len(drawn) > 12 else "")
        table.add_row(name, str(len(cases)), str(patients), ", ".join(kinds), escape(told))
    console.print(table)
    for name, group in manifest.groups.items():
        if group.note:
            console.print(f"{escape(name)}: {escape(group.note)}", style="dim")
    _show_problems(console, found)


def _show_problems(console: Any, found: Report) -> None:
    from rich.markup import escape

    ordered = sorted(found.problems, key=lambda p: not p.breaks)
    for problem in ordered[:_MOST_SHOWN]:
        word = "[red]wrong[/]" if problem.breaks else "[yellow]odd[/]"
        console.print(f"{word} {escape(problem.case)}: {problem.kind}: {escape(problem.text)}")
    if len(ordered) > _MOST_SHOWN:
        console.print(f"... and {len(ordered) - _MOST_SHOWN} more; --json tells all")
    wrong = sum(p.breaks for p in ordered)
    if wrong:
        console.print(f"[red]{wrong} problems break training[/], {len(ordered) - wrong} are odd")
    else:
        odd = f"; {len(ordered)} odd things" if ordered else ""
        console.print(f"[green]nothing breaks training[/]{odd}")
