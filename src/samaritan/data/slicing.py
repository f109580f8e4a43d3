"""2D sets from volumes: windowed slices as they are looked at, with labels and a manifest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from samaritan.data.manifest import Case, Group, Manifest, told
from samaritan.data.places import place_of
from samaritan.data.reading import case_image, case_labels
from samaritan.data.windows import Window, window_for
from samaritan.errors import ConfigError, FileError, SamaritanError
from samaritan.io.files import replacing
from samaritan.volume import LabelMap, Volume, smallest_label_dtype

Array = npt.NDArray[Any]
Progress = Callable[[int, int], None]

MANIFEST = "manifest.json"
"""Name of the manifest that is written beside the slices."""

_DONE = ".done"


@dataclass(frozen=True)
class SliceOptions:
    """How slices are made; part of what a resumed run compares."""

    window: str | tuple[float, float] | None = None
    """A CT window by name, or two intensities; see `samaritan.data.windows`."""
    modality: str | None = None
    """The modality of all volumes, if the source does not say it."""
    axis: int | None = None
    """Array axis that slices lie across; None: that of the thickest voxels."""
    min_foreground: int = 1
    """Pixels of labels that a slice needs; 0 keeps every slice."""
    bits: Literal[8, 16] = 8
    """Of the pictures: intensities between the window's ends become 0 to 2^bits - 1."""
    channel: int | str | None = None
    """Take one channel; three channels otherwise become red, green and blue."""

    def __post_init__(self) -> None:
        if self.axis not in (None, 0, 1, 2) or self.bits not in (8, 16) or self.min_foreground < 0:
            raise ConfigError(
                "axis is 0, 1 or 2, bits 8 or 16, min_foreground 0 or more; "
                f"got {self.axis}, {self.bits}, {self.min_foreground}"
            )


def make_slices(
    manifest: Manifest,
    out: Path,
    options: SliceOptions | None = None,
    *,
    workers: int = 2,
    progress: Progress = lambda done, total: None,
) -> Manifest:
    """Write slices of every volume as PNG, and the manifest of them.

    Pictures lie in `images/`, label maps in `masks/`, under the same names. Each case keeps its patient,
    data set, part, modality and place in its volume. A volume whose slices are there, made with the same
    options, is not made again: a run that was stopped goes on where it was. Every file appears complete
    or not at all; the manifest comes last.

    Args:
        manifest: of volumes, with labels unless `min_foreground` is 0.
        out: a folder; made if it is missing.
        options: see `SliceOptions`.
        workers: volumes at a time.
        progress: called with (volumes done, volumes in all).

    Returns:
        The manifest that was written as manifest.json in `out`.

    Raises:
        ConfigError: naming every case whose window is not known; nothing is written then.
        FileError: if a volume cannot be read, or the folder cannot be written.
    """
    options = options or SliceOptions()
    windows = _windows(manifest, options)
    _make(out / _DONE)
    top = float(2**options.bits - 1)
    groups = {
        name: replace(g, channels=(), window=(0.0, top)) for name, g in manifest.groups.items()
    }
    names = file_names(manifest)

    def one(case: Case) -> list[Case]:
        try:
            return _volume_slices(manifest, case, names[case.id], out, options, windows[case.id])
        except SamaritanError as error:
            raise type(error)(f"case {case.id!r}: {error}") from error

    cases: list[Case] = []
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for done, made in enumerate(pool.map(one, manifest.cases)):
            cases += made
            progress(done + 1, len(manifest))
    if not cases:
        raise FileError(
            f"no slice has {options.min_foreground} pixels of labels; min_foreground 0 keeps all slices"
        )
    kept = {c.group for c in cases}
    notes = {n: _noted(g, windows, manifest, n) for n, g in groups.items() if n in kept}
    result = Manifest(out, tuple(cases), notes)
    result.write(out / MANIFEST)
    return result


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(
            f"{folder.parent} cannot be made: {reason}. Choose another folder"
        ) from error


def _windows(manifest: Manifest, options: SliceOptions) -> dict[str, Window]:
    """Look up the window of each case, or tell all that have none."""
    found: dict[str, Window] = {}
    problems: dict[str, list[str]] = {}
    for case in manifest.cases:
        known = manifest.group_of(case).window
        window = options.window if options.window is not None else known
        try:
            found[case.id] = window_for(options.modality or case.modality, window)
        except ConfigError as error:
            problems.setdefault(str(error), []).append(case.id)
    if problems:
        lines = [
            f"{ids[0]}{f' and {len(ids) - 1} more' if len(ids) > 1 else ''}: {text}"
            for text, ids in problems.items()
        ]
        raise ConfigError(told("no slices were made", lines))
    return found


def _volume_slices(
    manifest: Manifest, case: Case, name: str, out: Path, options: SliceOptions, window: Window
) -> list[Case]:
    """Write the slices of one volume, or find them there; the note that it is done comes last."""
    note = out / _DONE / f"{name}.json"
    key = _key(manifest, case, options, window)
    if note.is_file():
        known = json.loads(note.read_text("utf-8"))
        if known.get("key") == key and all(
            (out / f).is_file() for row in known["slices"] for f in row["files"]
        ):
            return [_case(case, row, options) for row in known["slices"]]
    rows = list(_write_slices(manifest, case, name, out, options, window))
    with replacing(note) as (new,):
        new.write_text(json.dumps({"key": key, "slices": rows}), "utf-8")
    return [_case(case, row, options) for row in rows]


def _write_slices(
    manifest: Manifest, case: Case, name: str, out: Path, options: SliceOptions, window: Window
) -> Iterator[dict[str, Any]]:
    from samaritan.transforms.preprocess import displayed, slice_axis

    image = case_image(manifest, case)
    if options.channel is not None:
        image = image.channel(options.channel)
    if image.n_channels not in (1, 3):
        raise ConfigError(
            f"{image.n_channels} channels {image.channels} make no picture: choose one by its name or number"
        )
    drawn = _one_map(case_labels(manifest, case), case)
    if drawn is not None:
        image.grid.require_same(drawn.grid, what="grids of image and labels")
    axis = slice_axis(image.grid) if options.axis is None else options.axis
    low, high = ends(image, window)
    for index in range(image.shape[axis]):
        flat = None if drawn is None else displayed(drawn.slice(axis, index), axis)
        count = 0 if flat is None else int(np.count_nonzero(flat.array))
        if count < options.min_foreground:
            continue
        shown = displayed(image.slice(axis, index), axis)
        stem = f"{name}_{'ijk'[axis]}{index:04d}.png"
        files = [f"images/{stem}"]
        _write_png(out / files[0], scaled(shown.array[:, :, 0], low, high, options.bits))
        if flat is not None:
            files.append(f"masks/{stem}")
            labels = flat.array[:, :, 0]
            dtype = smallest_label_dtype(max(int(labels.max()), 1))
            _write_png(out / files[1], np.ascontiguousarray(labels.astype(dtype)))
        place = place_of(case.id, image.grid, axis, index)
        yield {"files": files, "place": asdict(place), "foreground": count}


def _one_map(found: list[LabelMap], case: Case) -> LabelMap | None:
    if len(found) > 1:
        raise ConfigError(
            f"case {case.id!r} has {len(found)} label files: volumes are sliced with one label map"
        )
    return found[0] if found else None


def ends(volume: Volume, window: Window) -> tuple[float, float]:
    """Find the intensities of a volume that become black and white."""
    if not window.percentiles:
        return window.low, window.high
    from samaritan.transforms.preprocess import thinned

    values = thinned(volume)
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (window.low, window.high))
    return float(low), float(max(high, low + 1e-6))


def scaled(values: Array, low: float, high: float, bits: int) -> Array:
    """Bring intensities to 0 .. 2^bits - 1; NaN becomes 0."""
    top = 2**bits - 1
    out = (values.astype(np.float32) - low) * (top / (high - low))
    clipped = np.clip(np.nan_to_num(out), 0, top)
    return np.ascontiguousarray(np.rint(clipped).astype(np.uint8 if bits == 8 else np.uint16))


def _case(case: Case, row: dict[str, Any], options: SliceOptions) -> Case:
    from samaritan.data.manifest import Place

    place = row["place"]
    affine = tuple(tuple(line) for line in place["affine"])
    where = Place(place["volume"], place["axis"], place["index"], tuple(place["shape"]), affine)
    files = row["files"]
    stem = files[0].removeprefix("images/").removesuffix(".png")
    return replace(
        case,
        id=stem,
        images=(files[0],),
        labels=tuple(files[1:]),
        patient=case.patient,
        modality=options.modality or case.modality,
        place=where,
    )


def file_names(manifest: Manifest) -> dict[str, str]:
    """Give each case a name that is fit for a file and its own."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for case in manifest.cases:
        name = "".join(c if c.isalnum() or c in "-_." else "_" for c in case.id)
        if name.lower() in taken:
            name += "_" + hashlib.sha256(case.id.encode()).hexdigest()[:8]
        taken.add(name.lower())
        names[case.id] = name
    return names


def _key(manifest: Manifest, case: Case, options: SliceOptions, window: Window) -> str:
    """Sum up what the slices of a volume depend on."""
    facts = [asdict(options), asdict(window), case.label_kind, file_facts(manifest, case)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def file_facts(manifest: Manifest, case: Case) -> list[tuple[str, int, int]]:
    """Name, size and time of change of each file of a case.

    Raises:
        FileError: if one is missing.
    """
    facts = []
    for file in (*case.images, *case.labels):
        path = manifest.path(file)
        if not path.exists():
            raise FileError(f"{path} is missing")
        stat = path.stat()
        facts.append((file, stat.st_size, stat.st_mtime_ns))
    return facts


def _noted(group: Group, windows: dict[str, Window], manifest: Manifest, name: str) -> Group:
    """Write down which intensities became black and white, so that models see volumes alike."""
    used = {windows[c.id] for c in manifest.cases if c.group == name}
    note = f"{group.note} Slices: {', '.join(sorted(map(str, used)))}.".strip()
    return replace(group, note=note, volume_window=used.pop() if len(used) == 1 else None)


def _write_png(path: Path, array: Array) -> None:
    from PIL import Image

    with replacing(path) as (new,):
        Image.fromarray(array).save(new, format="PNG", compress_level=3)
