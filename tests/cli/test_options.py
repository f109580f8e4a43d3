"""Options of all commands: what is yes or no is a flag, and choices are checked before work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from cli.run import samaritan

from samaritan.cli import app


def commands(group: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, *names, name)
        else:
            yield (*names, name), command


COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_what_is_yes_or_no_takes_no_value(words) -> None:
    """`--option False` would be read as yes: the published argument parsers do so."""
    for option in COMMANDS[words].params:
        if isinstance(option.default, bool):
            assert option.is_bool_flag, option.opts


def test_a_flag_is_followed_by_no_value(capsys) -> None:
    done = samaritan(capsys, "prepare", "slices", "IN", "OUT", "--keep-labels", "False")
    assert done.code == 2
    assert "False" in done.err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["evaluate", "a", "b", "-o", "OUT", "--protocol", "samd"], "samd"),
        (["train", "-r", "samd", "-d", "a", "-o", "OUT"], "samd"),
        (["train", "-r", "sam_med2d", "--set", "prompts.box_noise=on", "-o", "OUT"], "box_noise"),
        (["prepare", "slices", "a", "OUT", "--layout", "synaps"], "synaps"),
        (["train", "-r", "samed", "-o", "OUT", "--nonsense"], "--nonsense"),
    ],
)
def test_unknown_choices_fail_early(capsys, tmp_path, args, told) -> None:
    done = samaritan(capsys, *[str(a).replace("OUT", str(tmp_path / "out")) for a in args])
    assert done.code in (1, 2)
    assert told in done.err
    assert not (tmp_path / "out").exists()


def test_folders_for_results_are_made(capsys, tmp_path) -> None:
    out = tmp_path / "not/there/yet/phantom.nii.gz"
    assert samaritan(capsys, "phantom", out, "--shape", "16,16,8").code == 0
    assert out.is_file()
