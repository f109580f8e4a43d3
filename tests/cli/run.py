"""Run the command line in this process, as `samaritan ARGS` would."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from samaritan.__main__ import main


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str


def samaritan(capsys: pytest.CaptureFixture[str], *args: object) -> Done:
    """Run a command and catch its exit."""
    before, sys.argv = sys.argv, ["samaritan", *map(str, args)]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.argv = before
    out, err = capsys.readouterr()
    return Done(code, out, err)
