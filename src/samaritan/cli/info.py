"""`samaritan info`: what an image is, and what is odd about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from samaritan.volume import LabelMap, Volume

PERCENTILES = (0.5, 5, 50, 95, 99.5)

_MOST_LABELS = 256
_LARGEST_LABEL = 100_000
_SAMPLES = 1_000_000


def info(
    images: Annotated[
        list[Path],
        typer.Argument(help="Files, or folders with a DICOM series.", show_default=False),
    ],
    series: Annotated[str | None, typer.Option(help="Which series of a DICOM folder.")] = None,
    labels: Annotated[
        bool | None,
        typer.Option(
            "--labels/--no-labels",
            help="Take it as a label map, or not; by default a look at the voxels decides.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Show shape, spacing, orientation, intensities, labels and what is odd.

    An image that cannot be read is told on standard error; the exit code is then 1.
    """
    from samaritan.errors import SamaritanError

    found, failed = [], False
    for path in images:
        try:
            known = describe(_read(path, series), path, labels=labels)
        except SamaritanError as error:
            failed = True
            typer.echo(f"samaritan: {error}", err=True)
            continue
        found.append(known)
        if not as_json:
            _show(known)
    if as_json:
        typer.echo(json.dumps(found if len(images) > 1 else found[0] if found else None, indent=1))
    if failed:
        raise typer.Exit(1)


def describe(volume: Volume, path: Path, *, labels: bool | None = None) -> dict[str, Any]:
    """Gather the facts about an image, as plain values for JSON.

    Args:
        volume: the image, all its frames.
        path: where it came from.
        labels: whether it is a label map; None looks at the voxels.

    Raises:
        SamaritanError: if `labels` is true and the values are no labels.
    """
    grid, meta = volume.grid, volume.meta
    known: dict[str, Any] = {
        "path": str(path),
        "format": meta.get("format"),
        "modality": meta.get("modality"),
        "shape": list(grid.shape),
        "unit": grid.unit,
        "spacing": _rounded(grid.spacing_mm),
        "field_of_view": _rounded(n * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)),
        "orientation": grid.orientation,
        "oblique": grid.is_oblique,
        "sheared": grid.is_sheared,
        "origin": _rounded(grid.origin_mm),
        "affine": [_rounded(row) for row in grid.affine],
        "stored_as": meta.get("dtype"),
        "dtype": str(volume.dtype),
        "channels": list(volume.channels),
        "frames": meta.get("frames") or 1,
        "bytes": int(volume.array.nbytes),
        **_intensities(volume),
    }
    drawn = _as_labels(volume, path, labels)
    if drawn is not None:
        known["labels"] = _labels(drawn)
        volume = drawn
    known["notes"] = [*volume.notes, *_odd(known)]
    return known


def looks_like_labels(volume: Volume) -> bool:
    """Guess whether voxels are labels: few whole values from 0 up, in patches."""
    import numpy as np

    array = volume.array
    if array.ndim != 3 or array.dtype.kind not in "uifb":
        return False
    lowest, highest = float(array.min()), float(array.max())
    if not (lowest >= 0 and 1 <= highest <= _LARGEST_LABEL):
        return False
    step = max(1, round((volume.grid.n_voxels / _SAMPLES) ** (1 / 3)))
    values = np.unique(array[tuple(slice(None, None, min(step, n)) for n in array.shape)])
    if len(values) > _MOST_LABELS or (values % 1 != 0).any():
        return False
    axis = int(np.argmax(array.shape))
    part = np.moveaxis(array, axis, 0)[:, :: max(1, step), :: max(1, step)]
    return bool(len(part) > 1 and (part[1:] == part[:-1]).mean() > 0.85)


def _read(path: Path, series: str | None) -> Volume:
    """Read whatever can be read: all frames, with gaps filled, overlapping segments side by side."""
    from samaritan.errors import FileError
    from samaritan.io import read

    def attempt(overlap: Literal["refuse", "channels"]) -> Volume:
        return read(
            path,
            frame="all",
            series=series,
            complex_part="magnitude",
            overlap=overlap,
            allow_gaps=True,
        )

    try:
        return attempt("refuse")
    except FileError as error:
        try:
            return attempt("channels")
        except FileError:
            raise error from None


def _as_labels(volume: Volume, path: Path, wanted: bool | None) -> LabelMap | None:
    from samaritan.errors import SamaritanError
    from samaritan.io import read_labels
    from samaritan.volume import LabelMap

    if isinstance(volume, LabelMap):
        return volume
    beside = {"gts", "segs"} & set(volume.meta.get("arrays", ()))  # of an .npz file
    if wanted is False or (wanted is None and not beside and not looks_like_labels(volume)):
        return None
    try:
        return read_labels(path)
    except SamaritanError:
        if wanted:
            raise
        return None


def _intensities(volume: Volume) -> dict[str, Any]:
    """Range, percentiles and broken values, over all channels."""
    import numpy as np

    array = np.abs(volume.array) if volume.dtype.kind == "c" else volume.array
    known: dict[str, Any] = {"nan": 0, "infinite": 0, "range": None, "percentiles": None}
    if array.dtype.kind == "f":
        known["nan"] = int(np.isnan(array).sum())
        known["infinite"] = int(np.isinf(array).sum())
    finite = array[np.isfinite(array)] if known["nan"] or known["infinite"] else array.reshape(-1)
    if finite.size:
        step = max(1, finite.size // 2_000_000)
        levels = np.percentile(finite[::step].astype(np.float64), PERCENTILES)
        known["range"] = [finite.min().item(), finite.max().item()]
        known["percentiles"] = {
            f"{p:g}": float(f"{v:.6g}") for p, v in zip(PERCENTILES, levels, strict=True)
        }
        known["mean"] = float(f"{finite.mean(dtype=np.float64):.6g}")
    return known


def _labels(drawn: LabelMap) -> list[dict[str, Any]]:
    """Values, names and volumes of the labels, background left out."""
    from collections import Counter

    import numpy as np

    counts: Counter[int] = Counter()
    for part in drawn.array:  # a slice at a time: the whole would be copied to be sorted
        counts.update(
            dict(zip(*(v.tolist() for v in np.unique(part, return_counts=True)), strict=True))
        )
    rows = []
    for value, count in sorted(counts.items()):
        if value == 0:
            continue
        row: dict[str, Any] = {"value": value, "name": drawn.names.get(value), "voxels": count}
        if drawn.grid.unit == "mm":
            row["volume_ml"] = float(f"{count * drawn.grid.voxel_volume_mm3 / 1000:.6g}")
        rows.append(row)
    return rows


def _odd(known: dict[str, Any]) -> list[str]:
    """Say what is odd about the values and the grid, beyond what the reader noted."""
    odd = []
    for what in ("nan", "infinite"):
        if known[what]:
            odd.append(
                f"{known[what]} voxels are {'not a number' if what == 'nan' else 'infinite'}."
            )
    if known["range"] is None:
        odd.append("No voxel holds a finite number.")
    elif known["range"][0] == known["range"][1]:
        odd.append(f"Every voxel has the value {known['range'][0]:g}.")
    if known["sheared"]:
        odd.append(
            "The axes are not at right angles; NIfTI and NRRD can hold this, ITK formats cannot."
        )
    sides = known["spacing"]
    if known["unit"] == "mm" and max(sides) > 50:
        odd.append(
            f"Voxels of {max(sides):g} mm are unlikely; perhaps the spacing is in other units."
        )
    if known["unit"] == "mm" and max(known["field_of_view"]) < 1:
        odd.append("The field of view is under a millimetre; perhaps the spacing is in metres.")
    return odd


def _rounded(values: Any) -> list[float]:
    return [float(f"{value:.7g}") for value in values]


def _show(known: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True)
    unit = known["unit"]
    kinds = [name for name in ("oblique", "sheared") if known[name]]
    stored = known["stored_as"]
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")

    def times(values: list[float]) -> str:
        return " x ".join(f"{value:g}" for value in values)

    told = [str(known[key]) for key in ("format", "modality") if known[key]]
    table.add_row("format", ", ".join(told) or "unknown")
    table.add_row("shape", times(known["shape"]))
    table.add_row("spacing", f"{times(known['spacing'])} {unit}")
    table.add_row("orientation", ", ".join([known["orientation"], *kinds]))
    table.add_row(
        "field of view", f"{times([float(f'{v:.4g}') for v in known['field_of_view']])} {unit}"
    )
    table.add_row(
        "origin",
        f"({', '.join(f'{v:g}' for v in known['origin'])}) {unit}{', RAS+' if unit == 'mm' else ''}",
    )
    table.add_row(
        "voxels",
        known["dtype"] + (f", stored as {stored}" if stored and stored != known["dtype"] else ""),
    )
    table.add_row("memory", _told_bytes(known["bytes"]))
    if known["frames"] > 1:
        table.add_row("frames", f"{known['frames']}: choose one with --frame")
    if known["channels"]:
        names = known["channels"]
        more = f", ... ({len(names)})" if len(names) > 8 else ""
        table.add_row("channels", escape(", ".join(names[:8]) + more))
    if known["range"] is not None:
        low, high = known["range"]
        table.add_row("intensity", f"{low:g} to {high:g}, mean {known['mean']:g}")
        levels = ", ".join(f"{p} %: {v:g}" for p, v in known["percentiles"].items())
        table.add_row("percentiles", levels)
    console.print(escape(known["path"]), style="bold underline")
    console.print(table)
    if "labels" in known:
        _show_labels(console, known["labels"])
    for note in known["notes"]:
        console.print(f"[yellow]odd:[/] {escape(note)}")
    console.print()


def _show_labels(console: Any, labels: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in ("label", "name", "voxels", "ml"):
        table.add_column(title, justify="left" if title == "name" else "right")
    for row in labels:
        size = f"{row['volume_ml']:g}" if "volume_ml" in row else ""
        table.add_row(str(row["value"]), row["name"] or "", str(row["voxels"]), size)
    console.print(table if labels else "no labels: every voxel is background")


def _told_bytes(count: int) -> str:
    from samaritan.io.files import told_bytes

    return told_bytes(count)
