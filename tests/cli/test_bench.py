"""`samaritan bench` runs scripts, and says what they measured in one table and one picture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.run import samaritan

from samaritan.cli.bench import find_programs
from samaritan.cli.bench_results import markdown, read_results
from samaritan.errors import FileError

MACHINE = {
    "torch": "2.0",
    "processor": "abacus",
    "threads": 2,
    "load": 0.5,
    "matmul_gflops": 100.0,
    "matmul_gflops_bfloat16": 400.0,
}
MEASURED = {
    **MACHINE,
    "cases": {
        "encode": {
            "samaritan": {"times_s": [1.0, 2.0, 1.5], "gflop": 75.0, "peak_mib": 10.4},
            "samaritan bfloat16": {"times_s": [0.5, 0.4, 0.5], "gflop": 75.0, "peak_mib": 7.0},
            "plain": {"times_s": [4.0, 5.0, 3.0], "gflop": 90.0},
            "other": {"times_s": [2.0]},
            "absent": {"absent": "it is not installed"},
        },
        "start": {
            "samaritan": {"times_s": [2.0], "of": "torch"},
            "torch": {"times_s": [1.0]},
            "nothing": {"times_s": [0.1]},
        },
        "alone": {"samaritan": {"times_s": [3.0]}},
    },
    "growth": {
        "reading": {"over": "voxels", "sizes": [8, 64], "times_s": [0.5, 4.0], "exponent": 1.0}
    },
}
SCRIPT = '''"""{question}

More of it.
"""
import json, sys
"--json", {flags}
if {fails!r}:
    print("it went wrong")
    sys.exit(3)
print("measured", *sys.argv[3:])
open(sys.argv[2], "w").write(json.dumps({values!r}))
'''


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    """A folder of benchmarks that measure nothing."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "measuring.py").write_text("'what they have alike'\n")

    def script(name: str, values: object, *, flags: str = "--quick", fails: bool = False) -> None:
        text = SCRIPT.format(
            question=f"Time {name}.", values=values, flags=json.dumps(flags), fails=fails
        )
        (folder / f"{name}.py").write_text(text)

    script("encode", MEASURED)
    script("slow", MEASURED, flags="--device")
    script("wrong", {}, fails=True)
    script("odd", {"cases": [1]})
    return folder


def rows(page: str, title: str) -> list[list[str]]:
    """Cells of the table under a title."""
    table = page.split(f"## {title}\n\n")[1].split("\n\n")[0].strip().split("\n")
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_table_holds_ours_beside_the_best_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "encode.json"
    path.write_text(json.dumps(MEASURED))
    page = markdown([read_results(path)], {})
    encode, start, alone = rows(page, "Beside others")
    assert encode == ["encode", "samaritan bfloat16", "0.5", "other", "2", "4.00", "20%", "7"]
    assert start == ["start", "samaritan", "2", "torch", "1", "0.50", "0%", ""]
    assert alone == ["alone", "samaritan", "3", "", "", "", "0%", ""]
    assert rows(page, "How cost grows") == [
        ["reading", "voxels", "8", "64", "0.5", "4", "1.00"],
    ]
    every = rows(page, "Everything")
    assert len(every) == 8  # what is absent has no times
    assert every[0] == ["encode", "samaritan", "1.5", "1", "2", "3", "75", "50%", "10"]
    assert every[1][7] == "38%"  # of the rate in bfloat16
    assert "abacus, 2 threads, torch 2.0" in page
    assert "100 GFLOP/s in float32 and 400 GFLOP/s in bfloat16" in page
    assert "Failed" not in page


def test_a_run_leaves_table_picture_numbers_and_what_was_printed(scripts, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    done = samaritan(capsys, "bench", "encode", "slow", "-o", out, "--scripts", scripts)
    assert done.code == 0, done.err
    page = (out / "bench.md").read_text()
    assert page in done.out
    assert [line[0] for line in rows(page, "Beside others")] == ["encode", "start", "alone"] * 2
    assert (out / "bench.png").read_bytes()[:4] == b"\x89PNG"
    assert json.loads((out / "encode.json").read_text()) == MEASURED
    assert (out / "slow.txt").read_text() == "measured\n"


def test_on_a_gpu_those_run_that_can(scripts, tmp_path, capsys) -> None:
    done = samaritan(capsys, "bench", "--device", "cuda", "-o", tmp_path, "--scripts", scripts)
    assert done.code == 0, done.err
    assert (tmp_path / "slow.txt").read_text() == "measured --device cuda\n"
    assert not (tmp_path / "encode.txt").exists()


def test_one_that_fails_is_told_and_the_others_count(scripts, tmp_path, capsys) -> None:
    out = tmp_path / "out"
    done = samaritan(capsys, "bench", "--quick", "--threads", 1, "-o", out, "--scripts", scripts)
    assert done.code == 1
    page = (out / "bench.md").read_text()
    assert len(rows(page, "Beside others")) == 3  # slow.py has no quick way
    assert "- wrong: it went wrong" in page
    assert "- odd: " in page
    assert "is not what a benchmark writes" in page
    assert (out / "encode.txt").read_text() == "measured --quick --threads 1\n"


def test_what_cannot_be_run_is_refused_with_what_to_do(scripts, tmp_path, capsys) -> None:
    done = samaritan(capsys, "bench", "encoed", "--scripts", scripts)
    assert done.code == 1
    assert "no benchmark 'encoed'; known: encode, odd, slow, wrong" in done.err
    done = samaritan(capsys, "bench", "slow", "--quick", "--scripts", scripts)
    assert "slow cannot run with --quick" in done.err
    done = samaritan(capsys, "bench", "encode", "--device", "cuda", "--scripts", scripts)
    assert "encode cannot run with --device" in done.err
    with pytest.raises(FileError, match=r"Clone the repository .* --scripts FOLDER"):
        find_programs(tmp_path)
    assert samaritan(capsys, "bench", "--list", "--scripts", scripts).out.split() == [
        word for name in ("encode", "odd", "slow", "wrong") for word in (name, "Time", f"{name}.")
    ]


def test_the_benchmarks_of_this_checkout_are_found_and_ask_one_question_each() -> None:
    found = find_programs(None)
    assert {"encode", "clicks", "labelling", "volumes", "startup", "growth"} <= set(found)
    knowing = lambda option: {name for name, p in found.items() if option in p.knows}  # noqa: E731
    assert knowing("--quick") >= {
        "clicks", "encode", "growth", "labelling", "startup", "training", "volumes",
    }  # fmt: skip
    assert knowing("--device") == {"clicks", "encode", "training"}
    assert all(program.question.endswith(".") for program in found.values())


def test_real_benchmarks_run_in_their_quick_way(tmp_path, capsys) -> None:
    out = tmp_path / "out"
    done = samaritan(
        capsys, "bench", "labelling", "volumes", "growth", "--quick", "--threads", 1, "-o", out
    )
    assert done.code == 0, (done.err, *(p.read_text() for p in out.glob("*.txt")))
    page = (out / "bench.md").read_text()
    labelled, slices = rows(page, "Beside others")
    assert labelled[0] == "label 32 x 24 x 20 voxels with 16 classes, network aside"
    assert slices[1] == "samaritan, file to file"
    assert slices[3] == "encoding alone"
    assert 0 < float(slices[5]) < 10
    grown = {line[0]: line for line in rows(page, "How cost grows")}
    assert {
        "read a packed file",
        "predict in windows",
        "keep largest parts",
        "evaluate: HD95",
    } <= set(grown)
    assert {line[1] for line in grown.values()} == {
        "voxels", "pixels", "slices", "clicks", "prompts",
    }  # fmt: skip
