"""Time from the command to the mask in a fresh process, beside importing torch alone, and where it goes.

    python benchmarks/startup.py --rounds 5 --json startup.json

Every contestant is a process of its own, in turn, round after round: Python alone, `import torch`, and
`samaritan segment` on a small picture and on a small volume with the models that come along. Files are in
the system's cache. The breakdown is of one more process, in which the same steps are timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
import measuring

from samaritan import phantom, phantom_picture, write

STEPS = """
import sys, time
marks = [("", time.perf_counter())]
def mark(name):
    marks.append((name, time.perf_counter()))
from samaritan.cli import app
import samaritan.cli.console, samaritan.cli.wanted
mark("command line")
import torch
mark("torch")
from samaritan import Predictor, read, write
from samaritan.infer.everything import generate_masks
mark("the rest of samaritan")
image, mask, model, *box = sys.argv[1:]
volume = read(image)
mark("read the image")
predictor = Predictor.from_checkpoint(model)
mark("load the model")
corners = [int(n) for n in box]
found = predictor.session(volume).box(corners[:3], corners[3:]).mask
mark("segment")
write(found, mask)
mark("write the mask")
import json
print(json.dumps({name: end - start for (_, start), (name, end) in zip(marks, marks[1:])}))
"""
"""What `samaritan segment` does, in its order."""


def main() -> None:
    options = parse()
    report = measuring.machine(options.threads) | {"cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, (image, mask, model, box) in inputs(Path(folder)).items():
            report["cases"][name] = rows = measure(image, mask, model, box, options)
            show(name, rows)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return options


def inputs(folder: Path) -> dict[str, tuple[Path, Path, str, str]]:
    """Image, mask, model and box of each case."""
    picture, scan = folder / "picture.png", folder / "scan.nii.gz"
    write(phantom_picture("skin", shape=(256, 320), seed=1).image, picture)
    write(phantom("ct", shape=(96, 96, 60), spacing_mm=(4, 4, 5)).image, scan)
    return {
        "samaritan segment, picture of 256 x 320": (
            picture, folder / "mask.png", "samaritan_2d", "60,80,0,200,240,1",
        ),
        "samaritan segment, volume of 96 x 96 x 60": (
            scan, folder / "mask.nii.gz", "samaritan_3d", "20,20,10,50,60,40",
        ),
    }  # fmt: skip


def measure(
    image: Path, mask: Path, model: str, box: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Times of whole processes, and of the steps within one."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    command = [sys.executable, "-m", "samaritan", "segment", str(image), "-o", str(mask)]
    works: dict[str, Callable[[], Any]] = {
        name: partial(
            subprocess.run, arguments, check=True, capture_output=True, text=True, env=environment
        )
        for name, arguments in {
            "samaritan": [*command, "--model", model, "--box", box],
            "import torch": [sys.executable, "-c", "import torch"],
            "python": [sys.executable, "-c", "pass"],
        }.items()
    }
    works["samaritan"]()  # from here on files are in the system's cache
    rows: dict[str, Any] = {
        name: {"times_s": times} for name, times in measuring.in_turn(works, options.rounds).items()
    }
    traced = [sys.executable, "-c", STEPS, str(image), str(mask), model, *box.split(",")]
    done = subprocess.run(traced, check=True, capture_output=True, text=True, env=environment)
    rows["samaritan"]["steps_s"] = json.loads(done.stdout)
    rows["samaritan"]["of"] = "import torch"
    for row in rows.values():
        row["ratio"] = measuring.median_ratio(row["times_s"], rows["import torch"]["times_s"])
    return rows


def show(name: str, rows: dict[str, Any]) -> None:
    print(f"\n{name}")
    print(f"{'':28}{'median s':>10}{'min..max':>16}{'x torch':>10}")
    for who, row in rows.items():
        times = row["times_s"]
        spread = f"{min(times):.2f}..{max(times):.2f}"
        print(f"{who:28}{statistics.median(times):10.2f}{spread:>16}{row['ratio']:10.2f}")
    print("within samaritan, milliseconds")
    for step, seconds in rows["samaritan"]["steps_s"].items():
        print(f"  {step:26}{1000 * seconds:8.0f}")


if __name__ == "__main__":
    main()
