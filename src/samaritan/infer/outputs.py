"""Where the prediction of each case goes, in which format; and what must never be replaced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from samaritan.data.manifest import Case, Manifest
from samaritan.data.nnunet.chain import PlannedChain
from samaritan.data.slicing import file_names
from samaritan.errors import ConfigError, FileError
from samaritan.infer.ledger import NAME, Ledger
from samaritan.io import WRITABLE
from samaritan.io.files import replacing
from samaritan.io.npz_arrays import holds

_FORMATS = tuple(suffix for suffix in WRITABLE if suffix != ".dcm")
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".npz")
_PAGES = (".tif", ".tiff")


def known_suffix(format: str) -> str:
    """The suffix of a format, however it is typed.

    Raises:
        ConfigError: if predictions are not written in it.

    >>> known_suffix("nii.gz")
    '.nii.gz'
    """
    suffix = "." + format.lower().lstrip(".")
    if suffix not in _FORMATS:
        raise ConfigError(
            f"predictions are not written as {format!r}. Use one of {', '.join(_FORMATS)}"
        )
    return suffix


def name_outputs(manifest: Manifest, folder: Path, format: str | None) -> dict[str, Path]:
    """Name the output of each case: by its id, and by its own kind unless a format is given."""
    names = file_names(manifest)
    return {
        case.id: folder / f"{names[case.id]}{format or _default_suffix(manifest, case)}"
        for case in manifest
    }


def is_picture(path: Path) -> bool:
    """Whether a file holds pixels without a place."""
    return path.name.lower().endswith((*_PICTURES, *_PAGES))


def check_inputs_stay(manifest: Manifest, folder: Path, outputs: Mapping[str, Path]) -> None:
    """See that no output comes in place of an input, or among several.

    Raises:
        FileError: if one does, or the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file. Give a folder for the predictions")
    inputs = {
        manifest.path(name).resolve() for case in manifest for name in (*case.images, *case.labels)
    }
    folders = {path if path.is_dir() else path.parent for path in inputs}
    if folder.resolve() in folders and len(manifest) > 1:
        raise FileError(
            f"{folder} is where images or labels are: predictions would be taken for those the next time. "
            "Choose a folder elsewhere"
        )
    for output in outputs.values():
        if output.resolve() in inputs:
            raise FileError(f"{output} is one of the inputs. Choose another folder")


def check_strangers(ledger: Ledger, outputs: Mapping[str, Path]) -> None:
    """See that no file is replaced that was not made here.

    Raises:
        FileError: if one would be.
    """
    strange = [p.name for case, p in outputs.items() if case not in ledger.cases and p.exists()]
    if strange:
        told = ", ".join(strange[:5]) + (", ..." if len(strange) > 5 else "")
        raise FileError(
            f"{ledger.folder} holds files that its {NAME} does not know: {told}. Choose another folder, or "
            "replace them with --overwrite"
        )


def remove(output: Path) -> None:
    """Remove an output that is out of date.

    Raises:
        FileError: if that cannot be done.
    """
    try:
        output.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{output} cannot be replaced: {error.strerror or error}") from error


def describe(folder: Path, chain: PlannedChain) -> None:
    """Put dataset.json and plans.json beside predictions, where nnU-Net's tools look for them."""
    dataset = {"file_ending": ".nii.gz", **chain.dataset}
    for name, content in (("dataset.json", dataset), ("plans.json", chain.plans.content)):
        with replacing(folder / name) as (new,):
            new.write_text(json.dumps(content, indent=4), "utf-8")


def _default_suffix(manifest: Manifest, case: Case) -> str:
    name = case.images[0].lower()
    if name.endswith(".npz") and holds(manifest.path(case.images[0]), "imgs"):
        return ".npz"  # a volume of the CVPR 2025 challenge, which wants its answers so
    return ".png" if name.endswith(_PICTURES) else ".tif" if name.endswith(_PAGES) else ".nii.gz"
