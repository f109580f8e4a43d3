"""The page stands alone, escapes what it shows, and a report is written whole or not at all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from samaritan.errors import FileError
from samaritan.evaluation import Picture, Report, write_report
from samaritan.evaluation.page import MOST_ROWS, page
from samaritan.evaluation.report import FILES, as_json
from samaritan.metrics import Row, get_protocol

VOID = {"meta", "br", "img", "input", "line", "circle", "rect", "path", "polygon", "polyline"}
NASTY = '<script>alert("x")</script>'


class Balance(HTMLParser):
    """Checks that every tag is closed, and collects what a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attrs):
        self.sources += [v for k, v in attrs if k in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def report(n=6, **changes):
    rows = [
        Row(f"case {i}", 1 + i % 2, NASTY, "found", True, {"dice": 0.9 - i / 100, "hd95_mm": 2.0 + i},
            group="ab"[i % 2])
        for i in range(n)
    ]  # fmt: skip
    made = {
        "title": f"{NASTY} against others",
        "rows": rows,
        "protocol": get_protocol(),
        "facts": {"predictions": NASTY},
        "problems": {NASTY: "grids differ"},
        "notes": [NASTY],
        "pictures": [Picture("worst", NASTY, NASTY, b"\x89PNG")],
        "colours": [(NASTY, "#ffd60a")],
    }
    return Report(**{**made, **changes})


def test_the_page_needs_nothing_else() -> None:
    text = page(report())
    assert "http" not in text
    assert "url(" not in text
    assert "@import" not in text
    found = Balance()
    found.feed(text)
    assert found.open == []
    assert all(source.startswith("data:image/png;base64,") for source in found.sources)


def test_what_is_shown_is_escaped() -> None:
    text = page(report())
    assert text.count("<script>") == 1
    assert "alert(" in text
    assert NASTY not in text


def test_the_page_is_light_and_dark() -> None:
    text = page(report())
    assert "prefers-color-scheme: dark" in text
    assert "color-scheme: light dark" in text


def test_the_page_holds_the_numbers_the_convention_and_the_problems() -> None:
    text = page(report())
    for wanted in ("0.875", "By group", "surface Dice measures", "1 case could not be measured"):
        assert wanted in text
    assert text.count("<figure>") == 1


def test_a_long_table_is_cut_at_the_better_end() -> None:
    rows = [
        Row(f"case {i}", 1, "a", "found", True, {"dice": i / 4000}) for i in range(MOST_ROWS + 50)
    ]
    text = page(report(rows=rows, problems={}, notes=(), pictures=()))
    assert f"The worst {MOST_ROWS} of {len(rows)}" in text
    assert '<td class="t">case 0<' in text
    assert f'<td class="t">case {len(rows) - 1}<' not in text


def test_an_infinite_mean_is_told_with_its_median() -> None:
    rows = [
        Row(f"case {i}", 1, "a", "found", True, {"hd95_mm": v})
        for i, v in enumerate((1.0, 2.0, 4.0, float("inf")))
    ]
    text = page(report(rows=rows))
    assert "\N{INFINITY}" in text
    assert "median 3.00<br>2.33 without 1" in text


def test_a_report_is_four_files_that_agree(tmp_path) -> None:
    made = report()
    where = write_report(made, tmp_path / "new" / "folder")
    assert where.name == "report.html"
    assert sorted(p.name for p in where.parent.iterdir()) == sorted(FILES)
    told = json.loads((where.parent / "report.json").read_text("utf-8"))
    assert told == json.loads(json.dumps(as_json(made)))
    assert told["overall"][0]["stats"]["dice"]["mean"] == pytest.approx(0.875)
    assert len(told["cases"]) == 6
    assert len((where.parent / "cases.csv").read_text("utf-8").splitlines()) == 7
    assert write_report(report(n=2), where.parent) == where  # replaces the earlier one


def test_nothing_is_left_where_writing_fails(tmp_path, monkeypatch) -> None:
    folder = tmp_path / "report"
    write_report(report(), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(FileError, match="No space left on device"):
        write_report(report(n=2), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(FileError):
        write_report(report(n=2), tmp_path / "other" / "place")
    assert not (tmp_path / "other").exists()


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(FileError, match="taken is not a folder that can be"):
        write_report(report(), tmp_path / "taken")


def test_the_script_is_valid(tmp_path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    script = re.search(r"<script>(.*)</script>", page(report()), re.DOTALL).group(1)
    (tmp_path / "page.js").write_text(script, "utf-8")
    subprocess.run([node, "--check", tmp_path / "page.js"], check=True)
