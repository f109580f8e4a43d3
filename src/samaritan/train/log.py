"""What happened, line by line: JSON always, TensorBoard if it is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from samaritan.errors import FileError, MissingPackage
from samaritan.io.files import replacing
from samaritan.optional import require


class Log:
    """Lines of a run. Each has its "kind" and "iteration"; times and speeds are the only values that vary."""

    def __init__(
        self, path: Path, tensorboard: Path | None = None, *, keep: int = 0, iteration: int = 0
    ) -> None:
        """Open a log.

        Args:
            path: the file of lines.
            tensorboard: the folder for TensorBoard.
            keep: how many lines to keep of those that are there: what a killed run did beyond its last
                checkpoint is forgotten.
            iteration: where the run goes on.
        """
        self.path = path
        self.lines = keep
        kept = read_log(path)[:keep]
        with replacing(path) as (temporary,):
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")
        self._board: Any = None
        if tensorboard is not None:
            try:
                module = require("tensorboard", extra="train", purpose="write TensorBoard logs")
            except MissingPackage:
                module = None
            if module is not None:
                from torch.utils.tensorboard.writer import SummaryWriter

                self._board = SummaryWriter(str(tensorboard), purge_step=iteration)

    def add(self, kind: str, iteration: int, values: Mapping[str, Any]) -> None:
        """Write a line.

        Raises:
            FileError: if it cannot be written.
        """
        line = json.dumps({"kind": kind, "iteration": iteration, **values}) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line)
            self.lines += 1
        except OSError as error:
            raise FileError(
                f"{self.path} could not be written: {error.strerror or error}"
            ) from error
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, iteration)

    def close(self) -> None:
        """Finish writing."""
        if self._board is not None:
            self._board.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a log."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text("utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # the last line of a killed process
            break
    return lines
