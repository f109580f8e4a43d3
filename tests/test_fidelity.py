"""Every test that docs/fidelity.md names is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def named() -> list[tuple[str, str]]:
    """File and function of each test that the page names; a file goes on until the next."""
    found, file = [], ""
    text = (ROOT / "docs/fidelity.md").read_text("utf-8")
    for here, test in re.findall(r"`([\w/]+\.py)?::(\w+)`", text):
        file = here or file
        found.append((file, test))
    return found


def test_the_page_names_tests_that_exist() -> None:
    assert len(named()) > 45
    for file, test in named():
        source = (ROOT / "tests" / file).read_text("utf-8")
        assert re.search(rf"^\s*def {test}\(", source, re.MULTILINE), f"{file}::{test}"


def test_every_line_of_the_specifications_is_there() -> None:
    heads = re.findall(
        r"^\| ([MT0-9][^|]*) \|", (ROOT / "docs/fidelity.md").read_text("utf-8"), re.M
    )
    lines: dict[str, set[int]] = {"": set(), "T": set(), "M": set()}
    for head in heads:
        for letter, first, last in re.findall(r"([TM]?)(\d+)(?: to [TM]?(\d+))?", head):
            lines[letter] |= set(range(int(first), int(last or first) + 1))
    assert lines["M"] == lines["T"] == set(range(1, 26))
    assert lines[""] == set(range(1, 26)) - {21}  # which the page tells of below the table
