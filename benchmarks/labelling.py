"""Peak memory and time of labelling a large volume with many classes, by a model that costs nothing.

    python benchmarks/labelling.py [--classes 61] [--shape 512 512 200] [--patch 28 256 256]

The volume is as large as a CT scan; its intensities are the classes, and the stand-in reads them off, so
what is measured is windows, averaging, resampling and the way back. The labels are checked.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from infer.planned import ByGrey, chain
from peak import peak_gib

from samaritan.geometry import Grid
from samaritan.infer.labeller import Member, VolumeLabeller
from samaritan.volume import Volume


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=61)
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 200))
    parser.add_argument("--patch", type=int, nargs=3, default=(28, 256, 256))
    given = parser.parse_args()
    labels = {"background": 0, **{f"l{n}": n for n in range(1, given.classes)}}
    made = chain(labels=labels, spacing=(1.0, 1.0, 1.0), patch=tuple(given.patch))
    model = ByGrey(tuple(float(n) for n in range(given.classes)))
    array = np.random.default_rng(0).integers(1, given.classes, given.shape).astype(np.int16)
    volume = Volume(array, Grid.from_spacing(array.shape, (1, 1, 1)))
    before, start = peak_gib(), time.process_time()
    found = VolumeLabeller((Member(model, made),)).labels(volume)
    whole = given.classes * array.size * 4 / 2**30
    print(
        f"{given.classes} classes, {given.shape} voxels, windows of {given.patch}: peak "
        f"{peak_gib():.2f} GiB ({before:.2f} before), all classes of the volume would be {whole:.1f} GiB; "
        f"{time.process_time() - start:.0f} s of processor time; right: {bool((found.array == array).all())}"
    )


if __name__ == "__main__":
    main()
