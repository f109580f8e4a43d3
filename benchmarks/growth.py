"""How cost grows with voxels, with the size of an image, the slices of a batch, and the prompts of an image.

    python benchmarks/growth.py --json growth.json

Every way is timed at several sizes, in turn, round after round; the exponent is the slope of the logarithms,
fitted to the quickest rounds: 1 is linear. Volumes are cubes. Networks stand aside there: the model of
classes reads grey values off in windows that do not overlap, and the one of slices is tiny. An image
encoder's global attention grows with the square of its tokens, all else in it with the tokens.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import measuring
from infer.planned import ByGrey, chain

from samaritan import Grid, LabelMap, Predictor, Volume, create_model, read, write
from samaritan.data.nnunet.preprocessing import preprocess
from samaritan.data.nnunet.rawset import RawCase
from samaritan.infer.classes import predict_labels
from samaritan.infer.cleaning import largest_only
from samaritan.infer.engine import Embedded, OpenImage
from samaritan.infer.labeller import Member, VolumeLabeller
from samaritan.infer.session import Session
from samaritan.metrics import hd95_mm, surface_dice
from samaritan.phantoms.picture import phantom_picture

Works = dict[str, Callable[[], Any]]
"""What is timed at one size, by name."""


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    report = measuring.machine(options.threads) | {"growth": {}}
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.only:
            report["growth"] |= measure(*KINDS[kind](options.quick, Path(folder)), options.rounds)
    show(report["growth"])
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS), help="what grows")
    parser.add_argument(
        "--rounds", type=int, default=3, help="rounds, of which the quickest counts"
    )
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return options


def measure(over: str, sizes: dict[float, Works], rounds: int) -> dict[str, Any]:
    """Times of each way at each size, and the exponent that fits them."""
    found: dict[str, Any] = {}
    for works in sizes.values():  # warms up
        for work in works.values():
            work()
    for works in sizes.values():
        for name, times in measuring.in_turn(works, rounds).items():
            row = found.setdefault(name, {"over": over, "sizes": list(sizes), "times_s": []})
            row["times_s"].append(min(times))
    for row in found.values():
        slope, _ = np.polyfit(np.log(row["sizes"]), np.log(row["times_s"]), 1)
        row["exponent"] = float(slope)
    return found


def volumes(quick: bool, folder: Path) -> tuple[str, dict[float, Works]]:
    """All that is done with a volume, network aside."""
    sides = (32, 64) if quick else (64, 96, 128, 192)
    predictor = Predictor(
        create_model("samed_tiny", num_classes=8, image_size=64), device="cpu", precision="float32"
    )
    return "voxels", {float(n**3): dict(of_volume(n, folder, predictor)) for n in sides}


def of_volume(side: int, folder: Path, predictor: Predictor) -> Iterator[tuple[str, Any]]:
    """Ways through a cube of eight structures."""
    grid = Grid.from_spacing((side,) * 3, (1.0, 1.0, 1.0), orientation="LPS")
    truth = structures(side, shift=0)
    labels, moved = LabelMap(truth, grid), structures(side, shift=side // 32)
    noise = np.random.default_rng(0).integers(-4, 5, truth.shape)
    volume = Volume((100 * truth + noise).astype(np.int16), grid)
    packed, plain = folder / f"{side}.nii.gz", folder / f"{side}.nii"
    write(volume, packed)
    write(volume, plain)
    yield "read a packed file", partial(read, packed)
    yield "read a plain file and look at a slice", lambda: read(plain).slice(2, 1).array.copy()
    yield "write a label map", partial(write, labels, folder / f"labels{side}.nii.gz")
    yield "resample to another grid", partial(volume.to_grid, coarser(grid))
    names = {"background": 0, **{f"l{n}": n for n in range(1, 9)}}
    planned = chain(labels=names, spacing=(1.2, 1.2, 1.2), patch=(32, 32, 32))
    case = RawCase.of(volume)
    yield "preprocess as nnU-Net", partial(preprocess, case, planned.plans, planned.configuration)
    greys = ByGrey(tuple(100.0 * n for n in range(9)))
    labeller = VolumeLabeller((Member(greys, planned),), step=1.0)
    yield "predict in windows", partial(labeller.labels, volume)
    yield "predict slice by slice", partial(predict_labels, predictor, volume)
    yield "keep largest parts", partial(largest_only, truth, tuple(range(1, 9)))
    one, two = truth == 1, moved == 1
    yield "evaluate: HD95", partial(hd95_mm, one, two, spacing_mm=1.0)
    yield (
        "evaluate: surface Dice",
        partial(surface_dice, one, two, tolerance_mm=1.0, spacing_mm=1.0),
    )


def structures(side: int, *, shift: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Eight balls in a cube, labelled 1 to 8."""
    half = side // 2
    line = (np.arange(side) - shift) % half - half / 2 + 0.5
    squares = line**2
    inside = squares[:, None, None] + squares[:, None] + squares < (0.35 * half) ** 2
    which = (np.arange(side) >= half).astype(np.uint8)
    number = 1 + 4 * which[:, None, None] + 2 * which[:, None] + which
    return np.where(inside, number, 0).astype(np.uint8)


def coarser(grid: Grid) -> Grid:
    """The same cube in voxels that are a fifth longer."""
    return grid.resize(tuple(round(n / 1.2) for n in grid.shape))


def images(quick: bool, folder: Path) -> tuple[str, dict[float, Works]]:
    """An image encoder at several sizes of its input."""
    sides = (64, 128) if quick else (256, 512, 768, 1024)
    name = "sam_tiny" if quick else "sam_vit_b"
    return "pixels", {float(n * n): {f"encode, {name}": encoding(name, n, 1)} for n in sides}


def batches(quick: bool, folder: Path) -> tuple[str, dict[float, Works]]:
    """An image encoder with several slices at once."""
    name, side = ("sam_tiny", 64) if quick else ("sam_vit_b", 256)
    counts = (1, 2) if quick else (1, 2, 4, 8)
    return "slices", {
        float(b): {f"encode in batches, {name} at {side}": encoding(name, side, b)} for b in counts
    }


def encoding(name: str, side: int, count: int) -> Callable[[], Any]:
    """Encode so many images, as a `Predictor` does."""
    predictor = Predictor(create_model(name, image_size=side), device="cpu")
    image = torch.randn(count, predictor.model.config.in_channels, side, side)

    def work() -> None:
        with predictor.running():
            predictor.working.image_encoder(image)

    return work


def clicks(quick: bool, folder: Path) -> tuple[str, dict[float, Works]]:
    """Clicks that are answered at once, as everything-mode does, on one image."""
    name = "sam_tiny" if quick else "sam_vit_b"
    predictor = Predictor(create_model(name), device="cpu")
    config, side = predictor.model.config, predictor.model.config.image_size[0]
    features = torch.randn(1, config.embed_dim, *config.grid)
    embedded = Embedded(features, Grid.pixels((side, side)), 2, {})

    def decode(points: torch.Tensor) -> None:
        predictor.decode(embedded, points=(points, torch.ones(points.shape[:2])), multimask=True)

    counts = (1, 4, 16) if quick else (1, 4, 16, 64, 256)
    return "clicks", {
        float(n): {f"decode clicks at once, {name}": partial(decode, side * torch.rand(n, 1, 2))}
        for n in counts
    }


def prompts(quick: bool, folder: Path) -> tuple[str, dict[float, Works]]:
    """Prompts of a session, the picture encoded before."""
    predictor = Predictor.from_checkpoint("samaritan_2d", device="cpu")
    image = predictor.open(phantom_picture("skin", shape=(256, 256), seed=0).image)
    counts = (1, 4) if quick else (1, 4, 16, 64)
    return "prompts", {float(n): dict(of_session(n, image)) for n in counts}


def of_session(count: int, image: OpenImage) -> Iterator[tuple[str, Any]]:
    """So many clicks on one object, and so many objects in boxes."""
    places = np.random.default_rng(0).integers(8, 208, (count, 2)).tolist()

    def click() -> None:
        session = Session(image)
        for n, place in enumerate(places):
            session = session.click(place, positive=n % 2 == 0)
            _ = session.mask

    def draw() -> None:
        session = Session(image)
        for n, (i, j) in enumerate(places):
            session = session.box((i, j), (i + 40, j + 40), object=f"object {n}")
        _ = session.mask

    yield "click by click on an object, a mask after each", click
    yield "a mask of objects, a box for each", draw


KINDS = {
    "volumes": volumes,
    "images": images,
    "batches": batches,
    "clicks": clicks,
    "prompts": prompts,
}


def show(growth: dict[str, Any]) -> None:
    print(f"{'':48}{'over':>8}{'exponent':>10}   seconds")
    for name, row in growth.items():
        times = "  ".join(f"{t:.3f}" for t in row["times_s"])
        print(f"{name:48}{row['over']:>8}{row['exponent']:10.2f}   {times}")
    for over in dict.fromkeys(row["over"] for row in growth.values()):
        sizes = next(row["sizes"] for row in growth.values() if row["over"] == over)
        print(f"{over}: {'  '.join(f'{n:.4g}' for n in sizes)}")


if __name__ == "__main__":
    main()
