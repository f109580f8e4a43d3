"""predict.json: what was made in a folder, with which model and settings, so that a stopped run goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from samaritan._version import __version__
from samaritan.data.manifest import told
from samaritan.errors import ConfigError, CorruptFile, FileError
from samaritan.io.files import replacing

NAME = "predict.json"
FORMAT = "samaritan-predict/1"

SECONDS = 10.0
"""The file is written anew at most this often while a run goes on."""


@dataclass
class Ledger:
    """What is known of a folder of predictions.

    Attributes:
        folder: where the predictions are.
        made_with: model and settings, as plain values; a run with others does not go on here.
        cases: case -> what became of it: "output", "status" ("waiting", "done", "failed", "no prompts"),
            "made_from" and more.
    """

    folder: Path
    made_with: dict[str, Any]
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    _written: float = field(default=0.0, repr=False)

    @classmethod
    def open(cls, folder: Path, made_with: Mapping[str, Any], *, overwrite: bool) -> Ledger:
        """Take up the ledger of a folder, or begin one; nothing is written yet.

        Args:
            folder: where the predictions are.
            made_with: model and settings of this run.
            overwrite: begin anew whatever is there.

        Raises:
            ConfigError: telling what differs from the run that is there.
            CorruptFile: if the file there is damaged.
        """
        plain = json.loads(json.dumps(made_with))
        path = folder / NAME
        if overwrite or not path.exists():
            return cls(folder, plain)
        known = _read(path)
        differs = list(_differences(known["made_with"], plain))
        if differs:
            problem = told(f"{folder} holds predictions that were made otherwise", differs)
            raise ConfigError(
                f"{problem}\nChoose another folder, or make everything anew with --overwrite"
            )
        return cls(folder, plain, known["cases"])

    def is_done(self, case: str, output: Path, made_from: str) -> bool:
        """Whether an output is there, made in this folder from what it would be made from now."""
        known = self.cases.get(case, {})
        same = known.get("output") == output.name and known.get("made_from") == made_from
        return same and output.is_file()

    def note(self, case: str, **told: Any) -> None:
        """Write down what became of a case; the file follows within seconds."""
        self.cases[case] = {**self.cases.get(case, {}), **told}
        if time.monotonic() - self._written > SECONDS:
            self.write()

    def write(self) -> None:
        """Write the file whole or not at all.

        Raises:
            FileError: if it cannot be written.
        """
        content = {
            "format": FORMAT,
            "samaritan": __version__,
            "made_with": self.made_with,
            "cases": self.cases,
        }
        with replacing(self.folder / NAME) as (temporary,):
            temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
        self._written = time.monotonic()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from predicting into a folder; also sweep out what a killed one left.

    Raises:
        FileError: if another one is at it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".predict.lock", timeout=0)
        lock.acquire()
    except Timeout as error:
        raise FileError(f"another process is predicting into {folder}") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise FileError(f"{folder} cannot be written: {reason}. Choose another folder") from error
    try:
        for leftover in folder.glob(".tmp-*"):
            leftover.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
        (folder / ".predict.lock").unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text("utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}")
        if not all(isinstance(v, dict) for v in (content["made_with"], *content["cases"].values())):
            raise TypeError("cases must be objects")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFile(
            f"{path} is no record of predictions ({error!r}). Choose another folder, or --overwrite"
        ) from error
    known: dict[str, Any] = content
    return known


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
