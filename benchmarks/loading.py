"""Samples per second of each dataset, by number of worker processes.

    python benchmarks/loading.py [DATA] [--workers 0 1 2] [--seconds 4] [--json FILE]

DATA is any source of pictures that `samaritan prepare check` knows; without it, pictures are computed. The
batches are what training gets: decoded, augmented, normalised, collated. Packing (decoding and resizing once)
is timed apart. The file of numbers has the seconds that one sample takes.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parent))
import measuring

from samaritan.data import Manifest, SourceOptions, load_manifest
from samaritan.data.augment import SamedAugment, heavy
from samaritan.data.datasets import ObjectDataset, SliceDataset
from samaritan.data.sampling import DrawSampler
from samaritan.transforms import SlicePreprocess


def computed(folder: Path, count: int = 40) -> Manifest:
    """Pictures of phantoms with their labels, as folders of pairs."""
    from samaritan import write
    from samaritan.phantoms import phantom_picture

    kinds = ("ultrasound", "xray", "skin")
    for number in range(count):
        made = phantom_picture(kinds[number % 3], shape=(512, 640), seed=number)
        write(made.image, folder / f"images/{number:03d}.png")
        write(made.labels, folder / f"masks/{number:03d}.png")
    return load_manifest(folder, SourceOptions(label_kind="map"))


def datasets(manifest: Manifest):
    """Name and maker of each dataset that is timed."""
    grey = {"mean": (0.0,) * 3, "std": (255.0,) * 3}
    at = {n: SlicePreprocess(size=(n, n), **grey) for n in (256, 512)}
    maps = manifest.select(where=lambda c: c.label_kind == "map" and bool(c.labels))
    yield "objects 256, plain", lambda: ObjectDataset(manifest, at[256])
    yield "objects 256, heavy", lambda: ObjectDataset(manifest, at[256], augment=heavy())
    if len(maps):
        yield (
            "slices 512, SAMed",
            lambda: SliceDataset(maps, at[512], augment=SamedAugment()),
        )
        yield "slices 256, SAMed", lambda: SliceDataset(maps, at[256], augment=SamedAugment())


def samples_per_second(data, workers: int, seconds: float, batch: int = 16) -> float:
    """Draw batches for some seconds, after a first one that starts the workers."""
    loader = DataLoader(
        data,
        batch,
        sampler=DrawSampler(data.cases, length=1_000_000),
        num_workers=workers,
        worker_init_fn=_one_thread,
        multiprocessing_context="fork" if workers else None,
    )
    drawn = iter(loader)
    next(drawn)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        count += len(next(drawn)["image"])
    return count / (time.perf_counter() - start)


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--quick", action="store_true", help="few pictures: does it run?")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    if asked.quick:
        asked.workers, asked.seconds = [0], 0.1
    torch.set_num_threads(asked.threads)
    report = measuring.machine(asked.threads) | {"cases": {}}
    with tempfile.TemporaryDirectory() as folder:
        manifest = (
            load_manifest(asked.data)
            if asked.data
            else computed(Path(folder), 3 if asked.quick else 40)
        )
        print(f"{len(manifest)} pictures, {os.cpu_count()} cores; samples per second")
        print(
            f"{'dataset':22} {'packing':>9} " + " ".join(f"{n:>4} workers" for n in asked.workers)
        )
        for name, make in datasets(manifest):
            start = time.perf_counter()
            data = make()
            packing = len(data) / (time.perf_counter() - start)
            rates = [samples_per_second(data, n, asked.seconds) for n in asked.workers]
            report["cases"][f"a sample of {name}"] = {
                f"samaritan, {n} workers": {"times_s": [1 / rate], "packing_s": 1 / packing}
                for n, rate in zip(asked.workers, rates, strict=True)
            }
            print(f"{name:22} {packing:9.0f} " + " ".join(f"{r:12.0f}" for r in rates), flush=True)
        if asked.json:
            asked.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
