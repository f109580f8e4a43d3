"""The commands that the documentation shows for clusters are commands: the example script, and each line."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest
from cli.run import samaritan
from torch.distributed.run import get_args_parser

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs/examples/train.slurm"


def parsed(capsys, words: list[str]):
    """Read the words of a launcher, and let `samaritan train` read its own."""
    launcher, *rest = words
    at = rest.index("-m")
    assert rest[at + 1 : at + 3] == ["samaritan", "train"]
    given = rest[at + 3 :]
    if "..." not in given:
        own = [word for word in given if word != "--resume"]
        if "--recipe" not in own:
            own = ["--recipe", "toy_3d", *own]
        done = samaritan(capsys, "train", *own, "--print-config")
        assert done.code == 0, done.err
    if launcher == "torchrun":
        return get_args_parser().parse_args(rest), given
    from accelerate.commands.launch import launch_command_parser

    assert rest[0] == "launch"
    return launch_command_parser().parse_args(rest[1:]), given


def lines() -> list[str]:
    text = (ROOT / "docs/clusters.md").read_text("utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line]


@pytest.mark.parametrize("line", [one for one in lines() if not one.startswith("sbatch")])
def test_lines_of_the_page_are_read_by_the_launchers(capsys, line) -> None:
    found, _ = parsed(capsys, shlex.split(line))
    assert found.module


def submitted(tmp_path: Path, *words: str) -> list[str]:
    """What the script asks srun to do."""
    for name, text in (
        ("srun", 'printf "%s\\n" "$@" > "$ASKED"'),
        ("scontrol", 'seq -f "node%.0f" 7 99999'),  # more than a pipe holds
    ):
        file = tmp_path / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/usr/bin/env bash\n{text}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "ASKED": str(tmp_path / "asked"),
        "SLURM_JOB_NODELIST": "node[7-8]",
        "SLURM_NNODES": "2",
        "SLURM_JOB_ID": "42",
        "SLURM_GPUS_ON_NODE": "4",
    }
    subprocess.run(["bash", str(SCRIPT), *words], check=True, env=environment)
    return (tmp_path / "asked").read_text().splitlines()


def test_the_script_starts_a_process_for_each_gpu_and_resumes(capsys, tmp_path) -> None:
    run = tmp_path / "my run"
    asked = submitted(tmp_path, "DATA", str(run), "--set", "optim.lr=1e-5")
    found, given = parsed(capsys, asked)
    assert (found.nnodes, found.nproc_per_node, found.rdzv_endpoint) == ("2", "4", "node7:29500")
    assert given[:4] == ["--recipe", "sam_med3d", "--set", "optim.lr=1e-5"]
    assert given[given.index("--output") + 1] == str(run)
    run.mkdir()
    (run / "recipe.yaml").write_text("")
    _, given = parsed(capsys, submitted(tmp_path, "DATA", str(run), "--set", "optim.lr=1e-5"))
    assert given[0] == "--resume"
    assert "--set" not in given


def test_the_script_tells_slurm_one_task_a_machine() -> None:
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(\S+)", SCRIPT.read_text("utf-8")))
    assert asked["ntasks-per-node"] == "1"
    assert asked["nodes"] == "2"
