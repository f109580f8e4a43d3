"""SAM-Med2D's two files: image2label_train.json and label2image_test.json."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samaritan.data.manifest import Case, Group, Manifest, told
from samaritan.data.sources.names import patients_of, stem_of
from samaritan.errors import ConfigError, CorruptFile, FileError

if TYPE_CHECKING:
    from samaritan.data.sources import SourceOptions

TRAIN, TEST = "image2label_train.json", "label2image_test.json"

SLICE_PATIENT = r"(.+)_\d+"
"""SAM-Med2D names pictures by volume and slice: `amos_0006_90`."""


def recognise(path: Path) -> bool:
    """Whether one of the two files is there, or is meant."""
    if path.is_file():
        return re.fullmatch(r"(image2label|label2image)_\w+\.json", path.name) is not None
    return any((path / name).is_file() for name in (TRAIN, TEST))


def manifest(path: Path, options: SourceOptions) -> Manifest:
    """Put both files into one manifest: images with one binary mask for each object.

    The published paths are relative to the working directory of the training code; here they may be
    relative to the JSON file's folder or to any folder above it.

    Raises:
        CorruptFile: if a file does not map paths to paths.
        FileError: if no folder fits the paths.
    """
    files = [path] if path.is_file() else [path / n for n in (TRAIN, TEST) if (path / n).is_file()]
    found: dict[str, tuple[list[str], str]] = {}
    for file in files:
        split = "test" if "test" in file.stem else "val" if "val" in file.stem else "train"
        for image, masks in _images(file).items():
            if image in found and found[image][1] != split:
                raise ConfigError(
                    f"{image} is in both {TRAIN} and {TEST}: an image is trained on or tested on"
                )
            found.setdefault(image, ([], split))[0].extend(masks)
    root = _root(files[0].parent, list(found))
    stems = {image: stem_of(image.rsplit("/", 1)[-1]) for image in found}
    unique = len(set(stems.values())) == len(stems)
    ids = {image: stems[image] if unique else image for image in found}
    pattern = options.patient
    if pattern is None and all(re.fullmatch(SLICE_PATIENT, s) for s in stems.values()):
        pattern = SLICE_PATIENT + "$"
    whose, note = patients_of(stems.values(), pattern)
    group = files[0].parent.resolve().name
    cases = tuple(
        Case(
            ids[image],
            (image,),
            tuple(masks),
            "masks",
            options.modality,
            whose[stems[image]],
            group,
            split,
            tuple(_object(stems[image], m) for m in masks),
        )
        for image, (masks, split) in found.items()
    )
    return Manifest(root, cases, {group: Group(note=note)})


def _images(file: Path) -> dict[str, list[str]]:
    """Read image -> masks, from either of the two ways round."""
    try:
        content = json.loads(file.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{file} is not JSON: {error}") from error
    problems: list[str] = []
    images: dict[str, list[str]] = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, str):
            images.setdefault(_plain(value), []).append(_plain(key))
        elif isinstance(value, list) and value and all(isinstance(v, str) for v in value):
            images.setdefault(_plain(key), []).extend(_plain(v) for v in value)
        else:
            problems.append(f"{key!r} must lead to a path or a list of paths, got {value!r:.60}")
    if problems or not images:
        raise CorruptFile(told(f"{file} does not map paths to paths", problems or ["it is empty"]))
    return images


def _root(folder: Path, images: list[str]) -> Path:
    """Find the folder that the paths are relative to: this one or one above."""
    here = folder.resolve()
    for root in (here, *here.parents[:4]):
        if any((root / image).is_file() for image in images[:50]):
            return root
    raise FileError(
        f"none of the images that {folder} lists is there, such as {images[0]!r}. The paths must be "
        "relative to that folder or to one above it"
    )


def _object(stem: str, mask: str) -> str:
    """Name an object by its class: STEM_liver_000.png shows liver."""
    name = stem_of(mask.rsplit("/", 1)[-1]).removeprefix(stem).strip("_")
    return re.sub(r"_\d{3}$", "", name) or "object"


def _plain(path: Any) -> str:
    return str(path).replace("\\", "/").removeprefix("./")
