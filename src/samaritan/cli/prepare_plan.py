"""`samaritan prepare plan`: measure, plan, split and preprocess an nnU-Net data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from samaritan.data.nnunet.planned import PlannedSet

Raw = Annotated[
    Path,
    typer.Argument(
        help="An nnU-Net raw folder (Dataset###_Name, or Task###_Name of version 1) with dataset.json.",
        show_default=False,
    ),
]


def plan(
    path: Raw,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder for plans, folds and preprocessed cases; what lies there is kept and gone on with. "
            "Default: NAME in $nnUNet_preprocessed, or else in ./preprocessed.",
        ),
    ] = None,
    configuration: Annotated[
        list[str] | None,
        typer.Option(
            "--configuration",
            "-c",
            help="Preprocess for this configuration, such as 3d_fullres or 2d; may be repeated. "
            "Default: 3d_fullres, of pictures 2d.",
        ),
    ] = None,
    later: Annotated[
        bool,
        typer.Option("--later", help="Preprocess nothing now: each case when it is first used."),
    ] = False,
    plans: Annotated[
        Path | None, typer.Option(help="Follow this plans file of nnU-Net 2 instead of planning.")
    ] = None,
    spacing: Annotated[
        str | None,
        typer.Option(help="Plan for voxels of so many mm along array axes i, j and k: 1,1,3."),
    ] = None,
    memory: Annotated[
        float,
        typer.Option(
            min=0.5, help="GB of the accelerator that patches and batches are planned for."
        ),
    ] = 8.0,
    by_patient: Annotated[
        bool,
        typer.Option(
            "--by-patient",
            help="No patient in two parts of a fold; nnU-Net's own folds split scans.",
        ),
    ] = False,
    patient: Annotated[
        str | None,
        typer.Option(help="Regular expression on case ids; its first group is the patient."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Cases at a time.")] = 2,
) -> None:
    """Do what nnU-Net does before training, with the same numbers: fingerprint, plans, folds, preprocessing.

    A run that was stopped, or met cases that cannot be used, goes on where it was.
    """  # fmt: skip
    from samaritan.cli.console import bars
    from samaritan.data.nnunet.planned import make
    from samaritan.data.nnunet.rawset import RawSet
    from samaritan.errors import ConfigError

    raw = RawSet.open(path, patient=patient)
    folder = output or default_folder() / raw.name
    with bars() as report:
        planned = make(
            raw,
            folder,
            plans=plans,
            spacing=_spacing(spacing),
            memory_gb=memory,
            by_patient=by_patient,
            patient=patient,
            workers=workers,
            progress=report,
        )
        names = configuration or _usual(planned)
        unknown = sorted(set(names) - set(planned.plans.names))
        if unknown:
            raise ConfigError(
                f"configuration {unknown[0]!r} is not planned; expected one of "
                f"{', '.join(planned.plans.names)}"
            )
        made = {} if later else {
            name: planned.make_all(
                planned.plans.configuration(name), workers=workers, progress=report
            )
            for name in names
        }  # fmt: skip
    _tell(planned, made)


def default_folder() -> Path:
    """Where folders of planned data sets lie."""
    return Path(os.environ.get("nnUNet_preprocessed", "preprocessed"))  # noqa: SIM112  (theirs)


def _usual(planned: PlannedSet) -> list[str]:
    names = planned.plans.names
    return ["3d_fullres"] if "3d_fullres" in names else list(names[:1])


def _spacing(text: str | None) -> tuple[float, ...] | None:
    """Read spacing in the order of the file's axes; nnU-Net counts them from the last."""
    if text is None:
        return None
    from samaritan.errors import ConfigError

    try:
        i, j, k = (float(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"spacing {text!r} must be three numbers, such as 1,1,3") from error
    if min(i, j, k) <= 0:
        raise ConfigError(f"spacing must be positive, got {text!r}")
    return k, j, i


def _tell(planned: PlannedSet, made: dict[str, int]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    assert planned.raw is not None
    name = planned.plans.dataset or planned.folder.name
    console.print(
        f"[bold]{escape(name)}[/]: {len(planned.raw.cases)} cases, channels "
        f"{escape(', '.join(planned.raw.channels))}, {len(planned.labels.foreground)} "
        f"{'region' if planned.labels.has_regions else 'label'}"
        f"{'s' * (len(planned.labels.foreground) > 1)}"
    )
    table = Table(box=None, pad_edge=False)
    for title in ("configuration", "voxels (mm)", "patch", "batch", "normalisation", "cases"):
        table.add_column(title, no_wrap=True)
    for one in planned.plans.names:
        found = planned.plans.configuration(one)
        schemes = dict.fromkeys(s.removesuffix("Normalization") for s in found.normalization)
        table.add_row(
            one,
            " x ".join(f"{s:.4g}" for s in found.spacing),
            " x ".join(map(str, found.patch_size)),
            str(found.batch_size),
            ", ".join(schemes) + (" inside" if any(found.use_mask) else ""),
            f"{len(planned.raw.cases)}, {made[one]} new" if one in made else "when used",
        )
    console.print(table)
    folds = ", ".join(f"{len(f.train)}/{len(f.val)}" for f in planned.folds)
    console.print(f"{len(planned.folds)} folds (training/validation): {folds}")
    _warn_of_shared(planned)
    typer.echo(f"wrote {planned.folder}")


def _warn_of_shared(planned: PlannedSet) -> None:
    """Say whether a fold has scans of one patient in both parts."""
    from samaritan.cli.console import warn
    from samaritan.data.nnunet.planned import shared_patients

    assert planned.raw is not None
    shared = shared_patients(planned.raw, planned.folds)
    if shared:
        warn(
            f"in a fold {shared} patient{'s have' if shared > 1 else ' has'} scans in both parts, as nnU-Net "
            "splits them; "
            "--by-patient in another folder keeps them apart"
        )
