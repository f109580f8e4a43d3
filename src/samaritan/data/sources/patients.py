"""Whose each image is, kept beside layouts that have no place for it: patients.json."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from samaritan.data.manifest import Manifest
from samaritan.errors import CorruptFile
from samaritan.io.files import replacing

FORMAT = "samaritan patients 1"
NAME = "patients.json"

_ABOVE = 2
"""How many folders above a data set it is looked for: TARGET/DATASET of SAM-Med3D has it there."""


def write_patients(folder: Path, whose: Mapping[str, str]) -> None:
    """Write the patient of each image, named relative to the folder with forward slashes."""
    content = {"format": FORMAT, "patients": dict(sorted(whose.items()))}
    with replacing(folder / NAME) as (new,):
        new.write_text(json.dumps(content, indent=1, ensure_ascii=False), "utf-8")


def with_patients(manifest: Manifest) -> Manifest:
    """Put in whose cases are, where a patients.json in the folder or just above it says so.

    Raises:
        CorruptFile: if that file is damaged.
    """
    root = manifest.root.absolute()
    folders = (root, *root.parents)[: _ABOVE + 1]
    where = next((folder for folder in folders if (folder / NAME).is_file()), None)
    whose = {} if where is None else _read(where / NAME)
    if where is None or not whose:
        return manifest
    start = Path(os.path.relpath(root, where)).as_posix()
    named = {
        case.id: whose.get(os.path.normpath(f"{start}/{case.images[0]}").replace(os.sep, "/"))
        for case in manifest
    }
    cases = tuple(replace(c, patient=named[c.id] or c.patient) for c in manifest)
    told = Counter(c.group for c in manifest if named[c.id])
    groups = {
        name: replace(group, note=f"Patients are told by {NAME}.") if told[name] else group
        for name, group in manifest.groups.items()
    }
    return replace(manifest, cases=cases, groups=groups)


def _read(path: Path) -> dict[str, str]:
    """Read the file; what is of another kind tells nothing."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return {}
    return {str(image): str(patient) for image, patient in content["patients"].items()}
