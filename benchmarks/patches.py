"""Patches per second of an nnU-Net data set: as they are, and augmented.

    python benchmarks/patches.py RAW [--output FOLDER] [--configuration 3d_fullres] [--count 60]

RAW is a raw folder; it is planned and preprocessed into FOLDER once. Counted is the time of the processor,
one thread, so that other programs make little difference.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from samaritan.data.nnunet.augment import PatchAugment
from samaritan.data.nnunet.patches import PatchDataset
from samaritan.data.nnunet.planned import make
from samaritan.data.nnunet.rawset import RawSet
from samaritan.data.sampling import DrawSampler


def per_second(data: PatchDataset, count: int) -> float:
    """Patches for each second of the processor."""
    draws = list(DrawSampler(data.cases, length=count))
    for draw in draws:
        data[draw._replace(epoch=1)]  # so that every case is open
    start = time.process_time()
    for draw in draws:
        data[draw]
    return count / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--configuration", default="3d_fullres")
    parser.add_argument("--count", type=int, default=60)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    raw = RawSet.open(chosen.raw)
    with tempfile.TemporaryDirectory() as folder:
        planned = make(raw, (chosen.output or Path(folder)) / raw.name, workers=1)
        own = planned.plans.configuration(chosen.configuration)
        start = time.process_time()
        made = planned.make_all(own, workers=1)
        print(f"{raw.name} {own.name}, patches {own.patch_size}")
        print(f"{made} cases preprocessed in {time.process_time() - start:.1f} s of one processor")
        axes = tuple(range(len(own.patch_size)))
        for name, augment in (("as they are", None), ("augmented", PatchAugment(mirror_axes=axes))):
            data = PatchDataset(planned, own, planned.ids(own), augment=augment)
            print(f"{name}: {per_second(data, chosen.count):.1f} patches a second")


if __name__ == "__main__":
    main()
