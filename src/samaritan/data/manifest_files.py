"""Manifests as JSON and CSV files: every wrong field is told at once."""

from __future__ import annotations

import csv
import io
import json
import os
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from samaritan.data.manifest import Case, Group, Manifest, told
from samaritan.errors import ConfigError, CorruptFile, FileError, UnsupportedFormat
from samaritan.io.files import replacing

FORMAT = "samaritan manifest 1"
"""Stands in every manifest file, so that another version can be told."""

_LISTS = ("images", "labels", "objects")
_MOST_BYTES = 1 << 30


def write(manifest: Manifest, path: Path) -> Path:
    """Write a manifest in the format of the suffix, complete or not at all.

    Raises:
        UnsupportedFormat: if the suffix is neither .json nor .csv.
        FileError: if the folder cannot be written.
    """
    root = os.path.relpath(manifest.root.resolve(), path.parent.resolve())
    head = {"format": FORMAT, "root": Path(root).as_posix(), "groups": _groups(manifest)}
    if path.suffix.lower() == ".json":
        rows = ",\n  ".join(json.dumps(_row(c), ensure_ascii=False) for c in manifest.cases)
        text = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
        text += f',\n "cases": [\n  {rows}\n ]\n}}\n'
    elif path.suffix.lower() == ".csv":
        text = _csv(manifest, head)
    else:
        raise UnsupportedFormat(f"{path}: a manifest is written as .json or .csv")
    with replacing(path) as (new,):
        new.write_text(text, "utf-8")
    return path


def read(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        FileError: if the file is missing or damaged.
        ConfigError: telling every field that is wrong.
    """
    if not path.is_file():
        raise FileError(f"{path} is not a file; expected a manifest, .json or .csv")
    if path.stat().st_size > _MOST_BYTES:
        raise CorruptFile(f"{path} is too large to be a manifest")
    try:
        content = path.read_text("utf-8-sig")
        head, rows = _from_csv(content) if path.suffix.lower() == ".csv" else _from_json(content)
    except (ValueError, RecursionError, csv.Error) as error:
        raise CorruptFile(f"{path} is not a manifest: {error}") from error
    cases, groups = _checked(rows, head.get("groups", {}), path)
    root = Path(os.path.normpath(path.parent / str(head.get("root", "."))))
    try:
        return Manifest(root, cases, groups)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def is_manifest(path: Path) -> bool:
    """Whether a file says that it is a manifest."""
    if not path.is_file() or path.suffix.lower() not in (".json", ".csv"):
        return False
    with path.open("rb") as file:
        return FORMAT.encode() in file.read(4096)


def _checked(rows: Any, groups: Any, path: Path) -> tuple[tuple[Case, ...], dict[str, Group]]:
    """Turn plain values into cases and groups, or tell every wrong field."""
    from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

    strict = with_config(ConfigDict(extra="forbid"))
    for kind in (Case, Group):
        strict(kind)
    problems: list[str] = []
    found: list[Any] = []
    for what, type_, value in (
        ("case", TypeAdapter(tuple[Case, ...]), rows),
        ("group", TypeAdapter(dict[str, Group]), groups),
    ):
        try:
            found.append(type_.validate_python(value))
        except ValidationError as error:
            for one in error.errors(include_url=False):
                where = ".".join(str(part) for part in one["loc"][1:])
                first = one["loc"][0] if one["loc"] else ""
                name = rows[first].get("id", first) if what == "case" and first != "" else first
                problems.append(f"{what} {name!r}, {where or 'whole'}: {one['msg']}")
    if problems:
        raise ConfigError(told(f"{path} has wrong fields", problems))
    return found[0], found[1]


def _row(case: Case) -> dict[str, Any]:
    """Keep the fields of a case that say something."""
    row = {k: v for k, v in asdict(case).items() if v not in ((), None, "")}
    if case.patient == case.id:
        row.pop("patient", None)
    if case.label_kind == "map":
        row.pop("label_kind")
    return row


def _groups(manifest: Manifest) -> dict[str, Any]:
    return {
        name: {k: v for k, v in asdict(group).items() if v not in ((), None, "", {})}
        for name, group in manifest.groups.items()
    }


def _from_json(text: str) -> tuple[dict[str, Any], list[Any]]:
    content = json.loads(text)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f'"format" must be {FORMAT!r}')
    if not isinstance(content.get("cases"), list):
        raise ValueError('"cases" must be a list')
    if not all(isinstance(row, dict) for row in content["cases"]):
        raise ValueError('each of "cases" must be an object with "id" and "images"')
    return content, content["cases"]


def _csv(manifest: Manifest, head: dict[str, Any]) -> str:
    out = io.StringIO()
    out.write(f"# {json.dumps(head, ensure_ascii=False)}\n")
    names = [f.name for f in fields(Case)]
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for case in manifest.cases:
        row = _row(case)
        for name in _LISTS:
            if any(";" in part for part in row.get(name, ())):
                raise FileError(
                    f"case {case.id!r}: {name} holds a semicolon, which parts names in CSV. Write .json"
                )
            row[name] = ";".join(row.get(name, ()))
        if "place" in row:
            row["place"] = json.dumps(row["place"])
        writer.writerow(row)
    return out.getvalue()


def _from_csv(text: str) -> tuple[dict[str, Any], list[Any]]:
    head: dict[str, Any] = {}
    if text.startswith("#"):
        first, _, text = text.partition("\n")
        head = json.loads(first[1:])
        if head.get("format") != FORMAT:
            raise ValueError(f'"format" must be {FORMAT!r}')
    reader = csv.DictReader(io.StringIO(text), strict=True)
    if not {"id", "images"} <= set(reader.fieldnames or ()):
        raise ValueError(f'columns "id" and "images" are needed, found {reader.fieldnames}')
    rows = []
    for line in reader:
        row: dict[str, Any] = {k: v for k, v in line.items() if v not in (None, "")}
        for name in _LISTS:
            if name in row:
                row[name] = row[name].split(";")
        if "place" in row:
            row["place"] = json.loads(row["place"])
        rows.append(row)
    if "groups" not in head:
        head["groups"] = {row.get("group", ""): {} for row in rows}
    return head, rows


def merged(manifests: dict[str, Manifest], root: Path) -> Manifest:
    """Put manifests of several data sets into one; ids get the name of their set in front.

    Args:
        manifests: name -> manifest; a manifest of one group gives it this name.
        root: a folder that holds all their roots.
    """
    cases: list[Case] = []
    groups: dict[str, Group] = {}
    for name, manifest in manifests.items():
        start = Path(os.path.relpath(manifest.root, root)).as_posix()
        for group, facts in manifest.groups.items():
            groups[_joined(name, group, len(manifest.groups))] = facts
        for case in manifest.cases:
            cases.append(
                replace(
                    case,
                    id=f"{name}/{case.id}",
                    group=_joined(name, case.group, len(manifest.groups)),
                    images=tuple(f"{start}/{p}" for p in case.images),
                    labels=tuple(f"{start}/{p}" for p in case.labels),
                )
            )
    return Manifest(root, tuple(cases), groups)


def _joined(name: str, group: str, count: int) -> str:
    return name if count == 1 else f"{name}/{group}"
