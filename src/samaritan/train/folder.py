"""The folder of a run: what went in, what happened, what came out. Nothing in it is ever half written."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from samaritan.errors import ConfigError, FileError
from samaritan.io.files import replacing
from samaritan.recipes import Recipe, dump, load


class RunFolder:
    """Where everything is.

    - recipe.yaml, environment.json, data.json, init.json: what went in
    - log.jsonl, tensorboard/, curves.png, pictures/: what happened
    - best.safetensors (unless validation.keep is last), last.safetensors: the models
    - state.pt, frozen.safetensors: what `--resume` needs
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.environment = path / "environment.json"
        self.data = path / "data.json"
        self.init = path / "init.json"
        self.log = path / "log.jsonl"
        self.tensorboard = path / "tensorboard"
        self.curves = path / "curves.png"
        self.pictures = path / "pictures"
        self.best = path / "best.safetensors"
        self.last = path / "last.safetensors"
        self.state = path / "state.pt"
        self.frozen = path / "frozen.safetensors"

    @property
    def model(self) -> Path:
        """The weights to use: the best, where a run keeps them, or else the last."""
        return self.best if self.best.is_file() else self.last

    def check_free(self) -> None:
        """See, before anything slow, that the folder can be made and nothing in it is overwritten.

        Raises:
            FileError: if it cannot, or something is there.
        """
        if self.recipe.exists():
            raise FileError(
                f"{self.path} holds another run. Go on with it by --resume, or choose another --output"
            )
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise FileError(
                f"{self.path} exists and is not an empty folder. Choose another --output"
            )
        above = next(p for p in self.path.absolute().parents if p.exists())
        if not (above.is_dir() and os.access(above, os.W_OK)):
            why = "cannot be written" if above.is_dir() else "is a file"
            raise FileError(f"{self.path} cannot be made: {above} {why}. Choose another --output")

    def check_there(self) -> None:
        """See that there is a run to go on with.

        Raises:
            FileError: if there is none.
        """
        if not (self.recipe.is_file() and self.data.is_file()):
            raise FileError(f"{self.path} holds no run to go on with. Start it without --resume")

    def create(
        self,
        recipe: Recipe,
        environment: Mapping[str, Any],
        data: Mapping[str, Any],
        init: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the folder with what goes in; it appears complete or not at all.

        Raises:
            FileError: if it cannot be made, or is there already.
        """
        self.check_free()
        new = self.path.with_name(f".{self.path.name}.new")
        try:
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir(parents=True)
            (new / self.recipe.name).write_text(dump(recipe), "utf-8")
            (new / self.environment.name).write_text(_json(environment), "utf-8")
            (new / self.data.name).write_text(_json(data), "utf-8")
            if init is not None:
                (new / self.init.name).write_text(_json(init), "utf-8")
            new.replace(self.path)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            reason = error.strerror or str(error)
            raise FileError(
                f"{self.path} cannot be made: {reason}. Choose another --output"
            ) from error

    def begun(self) -> dict[str, Any]:
        """Which weights the run began with; empty: random ones."""
        if not self.init.is_file():
            return {}
        found: dict[str, Any] = json.loads(self.init.read_text("utf-8"))
        return found

    def check_same(self, recipe: Recipe, data: Mapping[str, Any]) -> None:
        """See that a run goes on with the recipe and data that it began with.

        Raises:
            ConfigError: telling what differs. The length of the run may.
        """
        problems = []
        old, new = load(self.recipe).model_dump(), recipe.model_dump()
        for section, values in old.items():
            if isinstance(values, dict):
                problems += [
                    f"{section}.{name} was {value!r}, is {new[section][name]!r}"
                    for name, value in values.items()
                    if new[section][name] != value and f"{section}.{name}" not in _MAY_CHANGE
                ]
            elif new[section] != values:
                problems.append(f"{section} was {values!r}, is {new[section]!r}")
        before = json.loads(self.data.read_text("utf-8")).get("fingerprint")
        if before != data.get("fingerprint"):
            problems.append("the data have changed since the run began")
        if problems:
            raise ConfigError(
                f"{self.path} cannot go on exactly: {'; '.join(problems)}. Start a new run for that"
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing here; a killed process lets go by itself.

        Raises:
            FileError: if another one is at it.
        """
        from filelock import FileLock, Timeout

        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise FileError(f"{self.path} is being trained in by another process") from error
        try:
            yield
        finally:
            lock.release()

    def tidy(self) -> None:
        """Remove what a killed process left half written."""
        for leftover in self.path.glob(".tmp-*"):
            leftover.unlink(missing_ok=True)


_MAY_CHANGE = ("run.epochs", "run.max_iterations")


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, default=str) + "\n"


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write plain values whole or not at all."""
    with replacing(path) as (temporary,):
        temporary.write_text(_json(values), "utf-8")
