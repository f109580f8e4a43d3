"""Preprocessed cases on disk: our own, memory-mapped, and those that nnU-Net leaves (.npz, .npy, .b2nd).

Ours are `CASE.npy` and `CASE_seg.npy`, as nnU-Net unpacks its own, `CASE_places.npy` with the voxels that
oversampling draws from, and `CASE.json`, written last: a case without it is not there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan import optional
from samaritan.data.nnunet.labels import Key
from samaritan.data.nnunet.notes import read_notes
from samaritan.data.nnunet.preprocessing import Places, Prepared, Properties
from samaritan.errors import ConfigError, CorruptFile, FileError
from samaritan.io.files import check_need, guard, replacing

Array = npt.NDArray[Any]

STOPPED_S = 3600.0
"""After this time nobody writes at a file any more."""

_SUFFIXES = (".npy", ".b2nd", ".npz")
_ANEW = "Remove it, and prepare the case again: samaritan prepare plan"


@dataclass(frozen=True, eq=False)
class StoredCase:
    """A preprocessed case; what is cut from its arrays is read then.

    Attributes:
        image: (c, *grid) float32: an array, memory-mapped where the file allows, or one that is
            decompressed block by block (.b2nd).
        labels: (1, *grid), whole numbers; -1 where the image is zero all around.
        properties: for the way back.
        places: label or region -> (n, 3) voxels of it.
    """

    image: Any
    labels: Any
    properties: Properties
    places: Places

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the grid."""
        k, j, i = (int(n) for n in self.image.shape[1:])
        return k, j, i


def stored_ids(folder: Path) -> tuple[str, ...]:
    """List the preprocessed cases of a folder, in order.

    Raises:
        ConfigError: if it holds several kinds of them, as no nnU-Net can read either.
    """
    if not folder.is_dir():
        return ()
    found = {suffix: _ids(folder, suffix) for suffix in _SUFFIXES}
    unpacked = found[".npz"] and found[".npy"] <= found[".npz"]  # nnU-Net's own copies
    kinds = [s for s in _SUFFIXES if found[s] and not (s == ".npy" and unpacked)]
    if len(kinds) > 1:
        raise ConfigError(
            f"{folder} holds cases of several kinds ({', '.join(kinds)}): one may be stale. "
            "Move the others away"
        )
    return tuple(sorted(found[kinds[0]])) if kinds else ()


def _ids(folder: Path, suffix: str) -> set[str]:
    names = {p.name.removesuffix(suffix) for p in folder.glob(f"*{suffix}") if p.name[0] != "."}
    return {n for n in names if not n.endswith(("_seg", "_places")) or f"{n}_seg" in names}


def open_case(folder: Path, case: str) -> StoredCase:
    """Open a preprocessed case.

    Raises:
        FileError: if files are missing or damaged.
        MissingPackage: if it is a .b2nd and blosc2 is not installed.
    """
    kind = next((s for s in _SUFFIXES if (folder / f"{case}{s}").is_file()), None)
    if kind is None:
        raise FileError(f"{folder} has no preprocessed case {case!r}")
    image, labels = _OPEN[kind](folder, case)
    if image.ndim != 4 or labels.ndim != 4 or tuple(labels.shape[1:]) != tuple(image.shape[1:]):
        raise CorruptFile(
            f"{folder / case}: image {image.shape} and labels {labels.shape} do not belong together. {_ANEW}"
        )
    if np.dtype(image.dtype).kind != "f" or np.dtype(labels.dtype).kind not in "iu":
        raise CorruptFile(
            f"{folder / case}: expected an image of floats and labels of whole numbers, got "
            f"{image.dtype} and {labels.dtype}"
        )
    properties, places = _notes(folder, case)
    return StoredCase(image, labels, properties, places)


def save_case(folder: Path, case: str, made: Prepared, *, key: str = "") -> None:
    """Write a case, wholly or not at all.

    Args:
        folder: of the configuration.
        case: its id.
        made: what preprocessing gave.
        key: sums up what it was made from; `stored_key` gives it back.

    Raises:
        FileError: if it cannot be written, such as on a full disk; nothing is left then.
    """
    rows: list[Any] = []
    start = 0
    for name, voxels in made.places.items():
        rows.append([list(name) if isinstance(name, tuple) else name, start, start + len(voxels)])
        start += len(voxels)
    places = list(made.places.values())
    drawn = np.concatenate(places) if places else np.zeros((0, 3), np.int32)
    arrays = (made.image, made.labels[None], drawn)
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    note = {"key": key, "properties": asdict(made.properties), "places": rows}
    note["sha256"] = digest.hexdigest()
    paths = [folder / f"{case}{end}" for end in (".npy", "_seg.npy", "_places.npy", ".json")]
    with replacing(*paths) as (*files, text):
        for path, array in zip(files, arrays, strict=True):
            with path.open("wb") as out:
                np.save(out, array, allow_pickle=False)
        text.write_text(json.dumps(note), "utf-8")


def forget_stopped(folder: Path) -> None:
    """Remove what a run that was killed had half written; what is newer may be another's that goes on."""
    for path in folder.glob(".tmp-*"):
        with contextlib.suppress(OSError):  # another run may do the same
            if time.time() - path.stat().st_mtime > STOPPED_S:
                path.unlink()


def stored_key(folder: Path, case: str) -> str | None:
    """Tell what a case of ours was made from; None if it is not there, or not whole."""
    note = _note(folder, case)
    return None if note is None else note["key"]


def stored_digest(folder: Path, case: str) -> str | None:
    """Sum up the values of a case of ours: the same however often, and wherever, it is made."""
    note = _note(folder, case)
    return None if note is None else note.get("sha256", note["key"])


def _note(folder: Path, case: str) -> dict[str, str] | None:
    ends = (".npy", "_seg.npy", "_places.npy", ".json")
    if not all((folder / f"{case}{end}").is_file() for end in ends):
        return None
    try:
        note = json.loads((folder / f"{case}.json").read_text("utf-8"))
        return {
            name: str(note[name]) for name in ("key", "sha256") if name == "key" or name in note
        }
    except (OSError, ValueError, LookupError, TypeError):
        return None


# -- kinds -------------------------------------------------------------------------------------------


def _mapped(path: Path) -> Array:
    try:
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{path} is damaged: {error}. {_ANEW}") from error
    return found


def _open_npy(folder: Path, case: str) -> tuple[Any, Any]:
    return _mapped(folder / f"{case}.npy"), _mapped(folder / f"{case}_seg.npy")


def _open_npz(folder: Path, case: str) -> tuple[Any, Any]:
    """Unpack an archive; its sizes are looked at before memory is taken."""
    path = folder / f"{case}.npz"
    with guard(path):
        with zipfile.ZipFile(path) as archive:
            need = sum(member.file_size for member in archive.infolist())
        check_need(path, need, None)
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["data"], arrays["seg"]


def _open_b2nd(folder: Path, case: str) -> tuple[Any, Any]:
    blosc2 = optional.require(
        "blosc2", extra="nnunet", purpose="read the .b2nd cases of nnU-Net 2.6 and newer"
    )
    opened = []
    for path in (folder / f"{case}.b2nd", folder / f"{case}_seg.b2nd"):
        if not path.is_file():
            raise FileError(f"{path} is missing")
        with guard(path):
            found = blosc2.open(
                str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1}, deserialize="safe"
            )
        if not isinstance(found, blosc2.NDArray):
            raise CorruptFile(f"{path} holds a {type(found).__name__}, not an array")
        opened.append(found)
    return opened[0], opened[1]


_OPEN = {".npy": _open_npy, ".npz": _open_npz, ".b2nd": _open_b2nd}


# -- what belongs to them -------------------------------------------------------------------------------


def _notes(folder: Path, case: str) -> tuple[Properties, Places]:
    ours, theirs = folder / f"{case}.json", folder / f"{case}.pkl"
    if ours.is_file():
        with guard(ours):
            content = json.loads(ours.read_text("utf-8"))
            voxels = _mapped(folder / f"{case}_places.npy")
            places = {_key(k): voxels[a:b] for k, a, b in content["places"]}
            return _properties(content["properties"], "box", "shape_after_cropping"), places
    if not theirs.is_file():
        raise FileError(f"{theirs} is missing: it tells the spacing and the box of the case")
    content = read_notes(theirs)
    with guard(theirs):
        drawn = {
            _key(k): np.asarray(v, np.int32).reshape(-1, 4)[:, 1:]
            for k, v in content.get("class_locations", {}).items()
        }
        keys = "bbox_used_for_cropping", "shape_after_cropping_and_before_resampling"
        return _properties(content, *keys), drawn


def _properties(content: dict[str, Any], box: str, after: str) -> Properties:
    k, j, i = (float(s) for s in content["spacing"])
    return Properties(
        (k, j, i),
        tuple(int(n) for n in content["shape_before_cropping"]),
        tuple((int(a), int(b)) for a, b in content[box]),
        tuple(int(n) for n in content[after]),
    )


def _key(key: Any) -> Key:
    return tuple(int(v) for v in key) if isinstance(key, list | tuple) else int(key)
