"""Time the slices of a CT from file to file beside encoding them alone, with SAMed.

    python benchmarks/volumes.py --slices 200 --json volumes.json

"samaritan, file to file" reads a packed NIfTI file of 512 x 512 slices, normalises, encodes and decodes
slices in batches, finds the class of every voxel and writes the label map on the scan's grid. "encoding
alone" is the image encoder on the same slices, in the same batches and precision, with nothing before and
nothing after. Both take their turns, round after round. What each step takes alone is told as well. With
`--once` there is one run from file to file, and encoding is what the encoder took in it: for many slices. The
weights are random.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import measuring

from samaritan import Grid, Predictor, Volume, create_model, read, write
from samaritan.infer import classes
from samaritan.transforms.preprocess import displayed

ROWS = 512


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    report = measuring.machine(options.threads) | {"cases": {}}
    predictor = labelling_model(options)
    name = (
        f"{predictor.model.config.name} at {options.size}, {options.slices} slices of {ROWS} x {ROWS}, "
        f"{str(predictor.dtype).removeprefix('torch.')}"
    )
    with tempfile.TemporaryDirectory() as folder:
        report["cases"][name] = rows = measure(predictor, options, Path(folder))
    show(name, rows, options.slices)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--slices", type=int, default=24)
    parser.add_argument(
        "--size", type=int, default=512, help="rows and columns that the model sees"
    )
    parser.add_argument("--batch", type=int, default=8, help="slices that go through it together")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    parser.add_argument("--once", action="store_true", help="one run, encoding timed within it")
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model, one round: does it run?"
    )
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    options = parser.parse_args()
    if options.quick:
        options.slices, options.size, options.rounds = 4, 64, 1
    return options


def labelling_model(options: argparse.Namespace) -> Predictor:
    """SAMed with eight organs."""
    name = "samed_tiny" if options.quick else "samed_vit_b"
    model = create_model(name, num_classes=8, image_size=options.size)
    return Predictor(model, device="cpu", precision=options.precision)


def scan(slices: int) -> Volume:
    """Intensities as smooth and as noisy as those of a CT."""
    draws = np.random.default_rng(0)
    coarse = torch.from_numpy(draws.normal(0, 400, (1, 1, 32, 32, max(slices // 4, 2))))
    smooth = torch.nn.functional.interpolate(coarse, (ROWS, ROWS, slices), mode="trilinear")[0, 0]
    array = (smooth.numpy() + draws.normal(0, 15, smooth.shape)).astype(np.int16)
    return Volume(array, Grid.from_spacing(array.shape, (0.8, 0.8, 2.5), orientation="LPS"))


def measure(predictor: Predictor, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Times of both in turn, memory of the whole, and times of its steps."""
    source, target = folder / "scan.nii.gz", folder / "labels.nii.gz"
    volume = scan(options.slices)
    write(volume, source)

    def whole() -> None:
        write(classes.predict_labels(predictor, read(source), batch_size=options.batch), target)

    if options.once:
        return measured_once(predictor, whole)
    batches = list(frames(predictor, volume, options.batch))

    def encoding() -> None:
        for batch in batches:
            with predictor.running():
                predictor.working.image_encoder(batch)

    works = {"samaritan, file to file": whole, "encoding alone": encoding}
    encoding()  # warms up
    times = measuring.in_turn(works, options.rounds)
    rows: dict[str, Any] = {name: {"times_s": found} for name, found in times.items()}
    base = times["encoding alone"]
    for row in rows.values():
        row["ratio"] = measuring.median_ratio(row["times_s"], base)
        row["of"] = "encoding alone"
    for name, work in works.items():
        measuring.give_back()
        with measuring.sampled_memory() as peak:
            work()
        rows[name]["peak_mib"] = peak() / 2**20
    rows["samaritan, file to file"]["steps_s"] = steps(predictor, options, source, target)
    return rows


def measured_once(predictor: Predictor, whole: Callable[[], None]) -> dict[str, Any]:
    """Times of one run as a whole and of the encoder in it."""
    starts: list[float] = []
    ends: list[float] = []
    encoder = predictor.working.image_encoder
    encoder.register_forward_pre_hook(lambda *_: starts.append(time.perf_counter()))
    encoder.register_forward_hook(lambda *_: ends.append(time.perf_counter()))
    with measuring.sampled_memory() as peak:
        start = time.perf_counter()
        whole()
        seconds = time.perf_counter() - start
        held = peak() / 2**20
    within = sum(ends) - sum(starts)
    row = {
        "times_s": [seconds],
        "peak_mib": held,
        "ratio": seconds / within,
        "of": "encoding in it",
    }
    return {
        "samaritan, file to file": row,
        "encoding in it": {"times_s": [within], "ratio": 1.0, "peak_mib": held},
    }


def frames(predictor: Predictor, volume: Volume, size: int) -> Any:
    """Slices as the model sees them, in batches."""
    image = predictor.open(volume)
    chain, total = predictor.preprocess, volume.shape[image.axis]
    for start in range(0, total, size):
        keys = [(image.axis, i) for i in range(start, min(start + size, total))]
        yield torch.cat([chain.frame(volume, key, image.statistics).tensor for key in keys])


def steps(
    predictor: Predictor, options: argparse.Namespace, source: Path, target: Path
) -> dict[str, float]:
    """Seconds of each step alone, over all slices."""
    found: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        found[name] = found.get(name, 0.0) + time.perf_counter() - start
        return result

    volume = timed("read", lambda: read(source))
    image = timed("measure intensities", lambda: predictor.open(volume))
    batches = timed("normalise", lambda: list(frames(predictor, volume, options.batch)))
    shown = displayed(volume.slice(image.axis, 0), image.axis)
    back = classes._WayBack.of(predictor.preprocess, shown, predictor)
    for batch in batches:
        features = timed("encode", lambda batch=batch: encoded(predictor, batch))
        logits = timed("decode", lambda features=features: decoded(predictor, features))
        timed("label", lambda logits=logits: [back.labels(one) for one in logits])
    labels = classes.predict_labels(predictor, volume, batch_size=options.batch)
    timed("write", lambda: write(labels, target))
    return found


def encoded(predictor: Predictor, batch: Tensor) -> Tensor:
    with predictor.running():
        return predictor.working.image_encoder(batch)


def decoded(predictor: Predictor, features: Tensor) -> Tensor:
    model = predictor.working
    with predictor.running():
        sparse, dense = model.prompt_encoder(None, None, None)
        logits, _ = model.mask_decoder(
            image_embeddings=features,
            image_pe=model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
    return logits.float()


def show(name: str, rows: dict[str, Any], slices: int) -> None:
    print(name)
    print(f"{'':28}{'median s':>10}{'min..max':>16}{'x encoding':>12}{'peak MiB':>10}")
    for who, row in rows.items():
        times = row["times_s"]
        spread = f"{min(times):.2f}..{max(times):.2f}"
        print(
            f"{who:28}{statistics.median(times):10.2f}{spread:>16}{row['ratio']:12.3f}{row['peak_mib']:10.0f}"
        )
    steps_s = rows["samaritan, file to file"].get("steps_s", {})
    if steps_s:
        print("\neach step alone, milliseconds a slice")
    for step, seconds in steps_s.items():
        print(f"  {step:26}{1000 * seconds / slices:8.1f}")


if __name__ == "__main__":
    main()
