"""Time a click in a volume that is encoded: SAM-Med3D's decoder, the way to the image's grid, the label map.

    python benchmarks/click.py --repeats 50 --json click.json

"plain" is the published formulation: decode, enlarge to 128 x 128 x 128, cut, and resample the window by
nearest neighbour onto the whole image. Both take their turns round after round, so that a busy machine slows
both alike. The weights are random, so the answer is replaced by a ball of `--radius` mm once it is there;
without that it would be noise that fills every window. The processor's time is told as well.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import plain_decoder

from samaritan.geometry import Grid
from samaritan.infer import Predictor, Session
from samaritan.models import Sam, create_model
from samaritan.volume import LabelMap, Volume

SHAPE = (240, 240, 155)
CENTRE = (120, 118, 77)
LOW_RES_MM = 6.0


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = create_model("sammed3d_vit_b_ori")
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decoder = Ball(model, options.radius)
    image = volume()
    predictor = Predictor(model, device="cpu", precision="float32")
    session = predictor.session(image)
    start = time.perf_counter()
    session = clicked(session, np.random.default_rng(0))
    first = time.perf_counter() - start
    rows = measure(session, decoder, weights, options.repeats)
    report = {
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
        "threads": options.threads,
        "load": psutil.getloadavg()[0],
        "radius_mm": options.radius,
        "first_click_s": first,
        "rows": rows,
    }
    show(report)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=30, help="rounds that count")
    parser.add_argument("--radius", type=float, default=30.0, help="of the object, in mm")
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    return parser.parse_args()


def volume() -> Volume:
    """An image of a brain's size."""
    array = np.random.default_rng(0).integers(0, 300, SHAPE).astype(np.int16)
    return Volume(array, Grid.from_spacing(SHAPE, (1, 1, 1), orientation="LPS"))


class Ball:
    """Stands in the decoder's place: does its work, and gives a ball in place of noise."""

    def __init__(self, model: Sam, radius_mm: float) -> None:
        self.decoder, self.logits = model.mask_decoder, None
        cells = (torch.arange(32) - 15.5) * LOW_RES_MM
        squares = cells.square()
        distance = (squares[:, None, None] + squares[:, None] + squares).sqrt()
        self.ball = ((radius_mm - distance) / 2)[None, None]
        self.join, self.decode_joined = self.decoder.join, self.decoder.decode_joined
        model._modules.pop("mask_decoder")
        model.mask_decoder = self  # type: ignore[assignment]

    def __call__(self, **prompts: Any) -> tuple[Tensor, Tensor]:
        """Decode, and give the ball."""
        self.logits, quality = self.decoder(**prompts)
        return self.ball.clone(), quality


def clicked(session: Session, draws: np.random.Generator) -> Session:
    """One more click, answered."""
    point = [c + int(draws.integers(-15, 16)) for c in CENTRE]
    session = session.click(point, positive=bool(draws.integers(2)))
    session._state("object")
    return session


def measure(
    session: Session, decoder: Ball, weights: dict[str, Tensor], repeats: int
) -> dict[str, dict[str, list[float]]]:
    """Wall and processor time of each step of both contestants, round after round."""
    draws, grid = np.random.default_rng(1), session.grid
    (key, frame) = next(iter(session._state("object").frames.items()))
    embedded = session.image.embedded(key, frame.statistics)
    labels = np.zeros(SHAPE, np.uint8)
    rows: dict[str, dict[str, list[float]]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        found = work()
        row = rows.setdefault(name, {"wall_s": [], "cpu_s": []})
        row["wall_s"].append(time.perf_counter() - wall)
        row["cpu_s"].append(time.process_time() - cpu)
        return found

    for _ in range(repeats + 3):
        before = next(iter(session._state("object").frames.values())).logits
        session = timed("samaritan: click, decoded", partial(clicked, session, draws))
        timed("samaritan: label map on the image's grid", partial(getattr, session, "mask"))
        click = session.prompts[-1]
        point = embedded.to_frame(np.array([click.index]), grid)[None]
        mask = before[None, None]

        def answer(
            point: Tensor = point, mask: Tensor = mask, label: int = click.positive
        ) -> Tensor:
            with torch.inference_mode():
                return plain_decoder.decode(weights, embedded.features, point, int(label), mask)

        logits = timed("plain: click, decoded", answer)
        difference = float((logits - decoder.logits).abs().max())
        if difference > 1e-3:
            raise SystemExit(f"samaritan and plain differ by {difference:.2g}")
        timed(
            "plain: label map on the image's grid",
            lambda: pasted(decoder.ball, embedded.grid, grid, labels),
        )
    return {n: {k: v[3:] for k, v in row.items()} for n, row in rows.items()}


def pasted(logits: Tensor, window: Grid, grid: Grid, labels: np.ndarray) -> LabelMap:
    """As the published program: enlarge, cut, and resample by nearest neighbour onto the whole image."""
    whole = F.interpolate(logits, size=(128, 128, 128), mode="trilinear")[0, 0]
    drawn = (whole.sigmoid() > 0.5).to(torch.uint8).numpy()
    step = np.linalg.solve(window.affine, grid.affine)
    found = ndimage.affine_transform(
        drawn, step[:3, :3], step[:3, 3], output_shape=grid.shape, order=0, mode="constant"
    )
    labels = labels.copy()
    labels[found > 0] = 1
    return LabelMap(labels, grid)


def show(report: dict[str, Any]) -> None:
    print(f"torch {report['torch']}, {report['threads']} threads, load {report['load']:.2f}")
    print(f"image {SHAPE}, object of radius {report['radius_mm']:g} mm")
    print(f"first click, with encoding one window: {report['first_click_s']:.2f} s\n")
    print(f"{'ms':44}{'median':>9}{'least':>9}{'processor':>11}")
    for name, row in report["rows"].items():
        wall, cpu = ([1000 * t for t in row[k]] for k in ("wall_s", "cpu_s"))
        print(
            f"{name:44}{statistics.median(wall):9.1f}{min(wall):9.1f}{statistics.median(cpu):11.1f}"
        )
    for who in ("samaritan", "plain"):
        parts = [row["wall_s"] for name, row in report["rows"].items() if name.startswith(who)]
        both = [1000 * sum(times) for times in zip(*parts, strict=True)]
        print(f"{who + ': both':44}{statistics.median(both):9.1f}{min(both):9.1f}")


if __name__ == "__main__":
    main()
