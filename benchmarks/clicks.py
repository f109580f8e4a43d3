"""Time a click in a picture or a volume that is encoded: the decoder, and the way to the mask on its grid.

    python benchmarks/clicks.py --rounds 20 --json click.json

"plain" is the published formulation: decode every mask token, enlarge to the size of the model's input, cut,
and resample onto the image; a window of a volume goes by nearest neighbour onto the whole of it. Both take
their turns round after round, so that a busy machine slows both alike. Weights of published models are random
here, so in volumes the answer is replaced by a ball of `--radius` mm once it is there; without that it would
be noise that fills every window. Told are wall times, processor times, peak memory and operations.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import measuring
import plain_decoder

import samaritan
from samaritan.geometry import Grid
from samaritan.infer import Predictor, Session
from samaritan.infer.engine import OpenImage
from samaritan.models import Sam
from samaritan.phantoms.picture import phantom_picture
from samaritan.volume import LabelMap, Volume

SHAPE = (240, 240, 155)
CENTRE = (120, 118, 77)
LOW_RES_MM = 6.0
SHIPPED = "samaritan_2d"

CASES = ("sam_vit_b", "sammed2d_vit_b", SHIPPED, "sammed3d_vit_b_ori")
QUICK = {"sam_vit_b": "sam_tiny", "sammed2d_vit_b": "sam_tiny", "sammed3d_vit_b_ori": None}

Works = dict[str, Callable[[], Any]]


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    report = measuring.machine(options.threads, options.device)
    report |= {"radius_mm": options.radius, "cases": {}}
    for name in options.only:
        case = QUICK.get(name, name) if options.quick else name
        if case is not None:
            report["cases"] |= measure(case, options)
    show(report["cases"])
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), help="models")
    parser.add_argument("--rounds", type=int, default=20, help="rounds that count")
    parser.add_argument("--radius", type=float, default=30.0, help="of the object, in mm")
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU: cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models, one round")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return options


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Decoder and whole click of one model, each beside the plain formulation where there is one."""
    torch.manual_seed(0)
    where: dict[str, Any] = {"device": options.device, "precision": "float32"}
    if name == SHIPPED:
        predictor = Predictor.from_checkpoint(name, **where)
    else:
        predictor = Predictor(samaritan.create_model(name), **where)
    model = predictor.model
    weights = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    flat = model.config.ndim == 2
    image = predictor.open(picture(model) if flat else volume())
    clicks = Clicks(image, None if flat else Ball(model, options.radius))
    clicks.answer()  # encodes, and warms up
    works: dict[str, Works] = {f"{name}: a click to its mask": {"samaritan": clicks.answer}}
    if name != SHIPPED:
        published = Plain(weights, clicks)
        works[f"{name}: a click to its mask"]["plain"] = published.answer
        works[f"{name}: the decoder"] = {"samaritan": clicks.decode, "plain": published.decode}
        difference = float((clicks.decode() - published.decode()).abs().max())
        if not difference < (1e-4 if options.device == "cpu" else 1e-3):
            raise SystemExit(f"{name}: samaritan and plain decode {difference:.2g} apart")
    return {case: timed(some, options) for case, some in works.items()}


def timed(works: Works, options: argparse.Namespace) -> dict[str, Any]:
    """Wall and processor time of some works in turn, their memory and operations."""
    rows: dict[str, Any] = {who: {"times_s": [], "cpu_s": []} for who in works}
    for turn in range(options.rounds + 2):
        for who, work in works.items():
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            measuring.wait(options.device)
            if turn >= 2:
                rows[who]["times_s"].append(time.perf_counter() - wall)
                rows[who]["cpu_s"].append(time.process_time() - cpu)
    for who, work in works.items():
        rows[who]["gflop"] = measuring.gflop(work)
        measuring.give_back()
        with measuring.sampled_memory(options.device) as peak:
            work()
            rows[who]["peak_mib"] = peak() / 2**20
    return rows


def picture(model: Sam) -> Volume:
    """A picture of the size that the model sees, or of 512 x 512 pixels."""
    side = 512 if model.config.name == SHIPPED else model.config.image_size[0]
    return phantom_picture("skin", shape=(side, side), seed=0).image


def volume() -> Volume:
    """An image of a brain's size."""
    array = np.random.default_rng(0).integers(0, 300, SHAPE).astype(np.int16)
    return Volume(array, Grid.from_spacing(SHAPE, (1, 1, 1), orientation="LPS"))


class Ball:
    """Stands in the decoder's place: does its work, and gives a ball in place of noise."""

    def __init__(self, model: Sam, radius_mm: float) -> None:
        self.decoder = model.mask_decoder
        cells = (torch.arange(32) - 15.5) * LOW_RES_MM
        squares = cells.square()
        distance = (squares[:, None, None] + squares[:, None] + squares).sqrt()
        device = next(model.parameters()).device
        self.ball = ((radius_mm - distance) / 2)[None, None].to(device)
        model._modules.pop("mask_decoder")
        model.mask_decoder = self  # type: ignore[assignment]

    def __call__(self, **prompts: Any) -> tuple[Tensor, Tensor]:
        """Decode, and give the ball."""
        _, quality = self.decoder(**prompts)
        return self.ball.clone(), quality


class Clicks:
    """Second clicks on objects of one image, whose frames are encoded."""

    def __init__(self, image: OpenImage, ball: Ball | None) -> None:
        self.image, self.ball, engine = image, ball, image.engine
        self.size = engine.model.config.image_size[0]
        self.decoder = engine.model.mask_decoder if ball is None else ball.decoder
        at = (
            CENTRE if ball is not None else (image.volume.shape[0] // 2, image.volume.shape[1] // 2)
        )
        self.begun = Session(image).click(at)
        _ = self.begun.mask
        self.at = tuple(n + 3 for n in at)
        middle = torch.full((1, 1, engine.model.config.ndim), self.size / 2 + 3)
        self.points, self.positive = middle.to(engine.device), torch.ones(1, 1).to(engine.device)
        self.mask = torch.zeros(1, 1, *engine.low_res_size).to(engine.device)

    def answer(self) -> LabelMap:
        """The mask on the image's grid after one more click; nothing of it is known before."""
        session = Session(self.image, self.begun.log)
        for key, state in self.begun._kept.states._values.items():
            session._kept.states.get(key, lambda state=state: state)
        return session.click(self.at).mask

    def features(self) -> Tensor:
        """The embedding of the one frame."""
        (key, frame) = next(iter(self.begun._state("object").frames.items()))
        return self.image.embedded(key, frame.statistics).features

    def decode(self) -> Tensor:
        """Logits of a click and the mask before."""
        model = self.image.engine.model
        with torch.inference_mode():
            sparse, dense = model.prompt_encoder(
                points=(self.points, self.positive), masks=self.mask
            )
            logits, _ = self.decoder(
                image_embeddings=self.features(),
                image_pe=self.image.engine._positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
            )
        return logits


class Plain:
    """The same, as published."""

    def __init__(self, weights: dict[str, Tensor], clicks: Clicks) -> None:
        self.weights, self.clicks = weights, clicks
        self.heads = clicks.image.engine.model.config.decoder_heads

    def decode(self) -> Tensor:
        """Logits of a click and the mask before."""
        given, clicks = (self.weights, self.clicks.features()), self.clicks
        with torch.inference_mode():
            return plain_decoder.decode(
                *given,
                clicks.points,
                clicks.positive,
                clicks.mask,
                size=clicks.size,
                heads=self.heads,
            )[0]

    def answer(self) -> LabelMap:
        """Enlarge, cut, and resample by nearest neighbour onto a volume; a picture fills the input."""
        logits, clicks, image = self.decode(), self.clicks, self.clicks.image
        size, grid = clicks.size, image.volume.grid
        if clicks.ball is None:
            whole = F.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
            drawn = F.interpolate(whole, grid.shape[:2], mode="bilinear", align_corners=False) > 0
            return LabelMap(drawn[0, 0, :, :, None].to(torch.uint8).cpu().numpy(), grid)
        whole = F.interpolate(clicks.ball.ball, size=(size, size, size), mode="trilinear")[0, 0]
        drawn = (whole.sigmoid() > 0.5).to(torch.uint8).cpu().numpy()
        (key, _) = next(iter(clicks.begun._state("object").frames.items()))
        step = np.linalg.solve(image.frame_grid(key).affine, grid.affine)
        found = ndimage.affine_transform(
            drawn, step[:3, :3], step[:3, 3], output_shape=grid.shape, order=0, mode="constant"
        )
        return LabelMap((found > 0).astype(np.uint8), grid)


def show(cases: dict[str, Any]) -> None:
    print(
        f"{'':40}{'':12}{'median ms':>10}{'min..max':>16}{'cpu ms':>8}{'GFLOP':>7}{'MiB':>6}{'x':>7}"
    )
    for case, rows in cases.items():
        for who, row in rows.items():
            wall = [1000 * t for t in row["times_s"]]
            spread = f"{min(wall):.1f}..{max(wall):.1f}"
            ratio = measuring.median_ratio(row["times_s"], rows["samaritan"]["times_s"])
            print(
                f"{case:40}{who:12}{statistics.median(wall):10.1f}{spread:>16}"
                f"{1000 * statistics.median(row['cpu_s']):8.1f}{row['gflop']:7.2f}{row['peak_mib']:6.0f}"
                f"{ratio:7.2f}"
            )


if __name__ == "__main__":
    main()
