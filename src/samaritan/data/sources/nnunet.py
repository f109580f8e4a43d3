"""nnU-Net raw folders: `Dataset###_Name` (version 2) and `Task###_Name` (version 1, and the Decathlon)."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samaritan.data.manifest import Case, Group, Manifest, told
from samaritan.data.sources.names import SUFFIXES, images_in, patients_of, stem_of
from samaritan.data.windows import modality_of
from samaritan.errors import ConfigError, CorruptFile

if TYPE_CHECKING:
    from samaritan.data.sources import SourceOptions

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_MOST_BYTES = 256 << 20


def recognise(path: Path) -> bool:
    """Whether there is a dataset.json with labels, or a path to one."""
    file = path if path.name == "dataset.json" else path / "dataset.json"
    if not file.is_file() or file.stat().st_size > _MOST_BYTES:
        return False
    try:
        content = json.loads(file.read_text("utf-8-sig"))
    except (ValueError, RecursionError):
        return True  # to be told what is wrong with it
    return isinstance(content, dict) and "labels" in content


def manifest(path: Path, options: SourceOptions) -> Manifest:
    """Read dataset.json and list the files that belong to it.

    Regions, an ignored label and a `dataset` mapping of case to files are honoured. Cases of imagesTs
    are in the part "test"; of the others nothing is decided, unless splits_final.json has a first fold.

    Raises:
        CorruptFile: if dataset.json is not JSON.
        ConfigError: telling every wrong field of it.
    """
    root = path.parent if path.name == "dataset.json" else path
    file = root / "dataset.json"
    try:
        content = json.loads(file.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{file} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorruptFile(f"{file} must hold an object with labels and channel names")
    problems: list[str] = []
    channels = _channels(content, problems)
    labels, regions, ignore = _labels(content, problems)
    if problems:
        raise ConfigError(told(f"{file} has wrong fields", problems))
    name = root.name
    files = _cases(root, content, len(channels))
    decided = _first_fold(root / "splits_final.json")
    whose, note = patients_of(files, options.patient)
    modality = options.modality or modality_of(channels)
    cases = tuple(
        Case(
            case,
            images,
            label,
            options.label_kind or "map",
            modality,
            whose[case],
            name,
            split or decided.get(case),
        )
        for case, (images, label, split) in files.items()
    )
    return Manifest(root, cases, {name: Group(labels, channels, regions, ignore, note=note)})


def _first_fold(file: Path) -> dict[str, str]:
    """Read which cases nnU-Net's first fold holds out, if its splits_final.json lies here.

    Raises:
        CorruptFile: if it is no list of folds.
    """
    if not file.is_file() or file.stat().st_size > _MOST_BYTES:
        return {}
    try:
        fold = json.loads(file.read_text("utf-8-sig"))[0]
        return {str(c): part for part in ("train", "val") for c in fold[part]}
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise CorruptFile(
            f'{file} must be a list of folds such as {{"train": [...], "val": [...]}}: {error!r}'
        ) from error


def _channels(content: Mapping[str, Any], problems: list[str]) -> tuple[str, ...]:
    key = "channel_names" if "channel_names" in content else "modality"
    names = content.get(key)
    if not isinstance(names, Mapping) or not names:
        problems.append(
            f'"channel_names" (version 1: "modality") must be like {{"0": "CT"}}, got {names!r}'
        )
        return ()
    if sorted(map(str, names)) != sorted(str(i) for i in range(len(names))):
        problems.append(f'"{key}" must be numbered from "0" without gaps, got {list(names)}')
        return ()
    return tuple(str(names[k]) for k in sorted(names, key=int))


def _labels(
    content: Mapping[str, Any], problems: list[str]
) -> tuple[dict[int, str], dict[str, tuple[int, ...]], int | None]:
    """Read labels both ways round: name -> value(s) (version 2), value -> name (version 1)."""
    given = content.get("labels")
    if not isinstance(given, Mapping):
        problems.append(f'"labels" must be an object, got {type(given).__name__}')
        return {}, {}, None
    values: dict[str, tuple[int, ...]] = {}
    for key, value in given.items():
        name, numbers = (
            (str(value), key) if _is_number(key) and isinstance(value, str) else (key, value)
        )
        listed = list(numbers) if isinstance(numbers, list | tuple) else [numbers]
        if not listed or not all(_is_number(n) for n in listed):
            problems.append(
                f"label {key!r} must be a whole number from 0, or a list of them, got {value!r}"
            )
            continue
        values[name] = tuple(int(n) for n in listed)
    ignore = values.pop("ignore", (None,))[0]
    names: dict[int, str] = {}
    regions: dict[str, tuple[int, ...]] = {}
    for name, numbers in values.items():
        if numbers == (0,):
            continue
        if "regions_class_order" in content:
            regions[name] = numbers
        if len(numbers) == 1:
            if numbers[0] in names:
                problems.append(f"label {numbers[0]} is both {names[numbers[0]]!r} and {name!r}")
            names[numbers[0]] = name
        elif "regions_class_order" not in content:
            problems.append(f'label {name!r} is a region, but "regions_class_order" is missing')
    for number in sorted({n for numbers in regions.values() for n in numbers} - {0}):
        names.setdefault(number, f"label {number}")
    if ignore is not None and names and ignore <= max(names):
        problems.append(f'"ignore" must be the highest label, got {ignore} beside {max(names)}')
    return dict(sorted(names.items())), regions, ignore


def _is_number(value: object) -> bool:
    if isinstance(value, bool):
        return False
    return (isinstance(value, int) and value >= 0) or (isinstance(value, str) and value.isdigit())


_Files = tuple[tuple[str, ...], tuple[str, ...], str | None]


def _cases(root: Path, content: Mapping[str, Any], channels: int) -> dict[str, _Files]:
    """List case -> (images, labels, part)."""
    if isinstance(content.get("dataset"), Mapping):
        return {
            str(case): (
                tuple(_plain(p) for p in files.get("images", ())),
                (_plain(files["label"]),) if files.get("label") else (),
                None,
            )
            for case, files in content["dataset"].items()
        }
    endings = (str(content["file_ending"]),) if "file_ending" in content else SUFFIXES
    found: dict[str, _Files] = {}
    for images, labels, part in (("imagesTr", "labelsTr", None), ("imagesTs", "labelsTs", "test")):
        found.update(_folder(root, images, labels, part, endings, channels))
    for case, files in _listed(root, content, channels).items():
        found.setdefault(case, files)
    return found


def _folder(
    root: Path, images: str, labels: str, part: str | None, endings: tuple[str, ...], channels: int
) -> dict[str, _Files]:
    """Group files by case; a label without image becomes a case whose image is missing."""

    def stems(folder: str) -> dict[str, str]:
        files = [p for p in images_in(root / folder) if p.name.lower().endswith(endings)]
        return {stem_of(p.name): f"{folder}/{p.name}" for p in files}

    drawn = stems(labels)
    grouped: dict[str, dict[int, str]] = {}
    for stem, file in stems(images).items():
        match = _CHANNEL.fullmatch(stem)
        # the Decathlon numbers nothing: there a name that ends in digits is a case
        case, channel = (match[1], int(match[2])) if match and stem not in drawn else (stem, 0)
        grouped.setdefault(case, {})[channel] = file
    apart = channels == 1 or any(max(here) > 0 for here in grouped.values())  # a file each
    found: dict[str, _Files] = {}
    for case in sorted({*grouped, *drawn}):
        here = grouped.get(case, {})
        ending = next((s for s in endings if drawn.get(case, "").lower().endswith(s)), endings[0])
        wanted = range(channels) if apart or not here else sorted(here)
        files = [here.get(c, f"{images}/{case}_{c:04d}{ending}") for c in wanted]
        files += [file for c, file in sorted(here.items()) if c not in wanted]
        found[case] = (tuple(files), (drawn[case],) if case in drawn else (), part)
    return found


def _listed(root: Path, content: Mapping[str, Any], channels: int) -> dict[str, _Files]:
    """Read the lists `training` and `test` of version 1, whose files may lack the channel number."""
    found: dict[str, _Files] = {}
    for key, part in (("training", None), ("test", "test")):
        listed = content.get(key)
        for entry in listed if isinstance(listed, list) else ():
            image, label = (
                (entry.get("image"), entry.get("label"))
                if isinstance(entry, Mapping)
                else (entry, None)
            )
            if not isinstance(image, str):
                continue
            plain = _plain(image)
            stem, folder = stem_of(Path(plain).name), Path(plain).parent.as_posix()
            numbered = [
                f"{folder}/{stem}_{c:04d}{Path(plain).name.removeprefix(stem)}"
                for c in range(channels)
            ]
            here = any((root / n).exists() for n in numbered) and not (root / plain).exists()
            labels = (_plain(label),) if isinstance(label, str) else ()
            found[stem] = (tuple(numbered) if here else (plain,), labels, part)
    return found


def _plain(path: Any) -> str:
    return str(path).replace("\\", "/").removeprefix("./")
