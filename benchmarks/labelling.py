"""Peak memory and time of labelling a large volume with many classes, by a model that costs nothing.

    python benchmarks/labelling.py [--classes 16] [--shape 512 512 200] [--patch 28 256 256] [--json FILE]

The volume is as large as a CT scan; its intensities are the classes, and the stand-in reads them off, so
what is measured is windows, averaging, resampling and the way back. The labels are checked. Told is the time
of the processor as well, which other programs hardly change.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import measuring
from infer.planned import ByGrey, chain
from peak import peak_gib

from samaritan.geometry import Grid
from samaritan.infer.labeller import Member, VolumeLabeller
from samaritan.volume import Volume


def main() -> None:
    given = parse()
    torch.set_num_threads(given.threads)
    report = measuring.machine(given.threads)
    labels = {"background": 0, **{f"l{n}": n for n in range(1, given.classes)}}
    made = chain(labels=labels, spacing=(1.0, 1.0, 1.0), patch=tuple(given.patch))
    model = ByGrey(tuple(float(n) for n in range(given.classes)))
    array = np.random.default_rng(0).integers(1, given.classes, given.shape).astype(np.int16)
    volume = Volume(array, Grid.from_spacing(array.shape, (1, 1, 1)))
    before, start, used = peak_gib(), time.perf_counter(), time.process_time()
    found = VolumeLabeller((Member(model, made),)).labels(volume)
    wall, used = time.perf_counter() - start, time.process_time() - used
    if not (found.array == array).all():
        raise SystemExit("the labels are wrong")
    shape, whole = " x ".join(map(str, given.shape)), given.classes * array.size * 4 / 2**30
    print(
        f"{given.classes} classes, {shape} voxels, windows of {given.patch}: peak "
        f"{peak_gib():.2f} GiB ({before:.2f} before), all classes of the volume would be {whole:.1f} GiB; "
        f"{wall:.0f} s, {used:.0f} s of processor time; the labels are right"
    )
    row = {"times_s": [wall], "processor_s": used, "peak_mib": 1024 * (peak_gib() - before)}
    name = f"label {shape} voxels with {given.classes} classes, network aside"
    if given.json:
        report |= {"cases": {name: {"samaritan": row}}}
        Path(given.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=16)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 200))
    parser.add_argument("--patch", type=int, nargs=3, default=(28, 256, 256))
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument("--quick", action="store_true", help="a small volume: does it run?")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    given = parser.parse_args()
    if given.quick:
        given.shape, given.patch = (32, 24, 20), (8, 16, 16)
    return given


if __name__ == "__main__":
    main()
