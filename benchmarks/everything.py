"""Time everything-mode beside the published formulation, and segment-anything where it is installed.

    python benchmarks/everything.py --points 32 --rounds 1 --json everything.json

SAM ViT-B with random weights looks at a picture of 1024 x 1024 pixels. Every contestant encodes it, decodes
every click and makes masks of the answers, in turn; told is the time with and without the encoding. Random
weights give noise, so each answer is replaced, once it is there, by one that a seed draws: three ellipses,
those that hold the click first. `--sure` is the part of them that exceeds the published quality; two of five
are stable. All are given the same answers, so their masks must be the same. That the decoders themselves
agree is checked on some clicks before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
import measuring
import plain
import plain_decoder
import plain_everything

from samaritan import Predictor, create_model
from samaritan.infer.everything import generate_masks
from samaritan.infer.everything_options import EverythingOptions, point_grid
from samaritan.models import Sam
from samaritan.models.config import SAM_QUIRKS
from samaritan.phantoms.picture import phantom_picture
from samaritan.volume import Volume

Masks = list[np.ndarray]

ALIKE = 0.95
"""Intersection over union from which a mask of one is one of the other."""


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(json.dumps(peak_memory(options)))
        return
    report = measuring.machine(options.threads) | {"sure": options.sure, "points": options.points}
    report |= measure(options)
    show(report["cases"])
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--points", type=int, default=32, help="clicks along each side")
    parser.add_argument("--rounds", type=int, default=1, help="rounds that count")
    parser.add_argument("--only", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--sure", type=float, default=0.45, help="part of answers of good quality")
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument("--no-peak", action="store_true", help="do not measure memory")
    parser.add_argument("--quick", action="store_true", help="a tiny model, few clicks")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    parser.add_argument("--peak", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.points, options.rounds, options.no_peak = 4, 1, True
        options.only = [name for name in options.only if name != "segment-anything"]
    return options


@dataclass
class Scene:
    """What all contestants are given."""

    model: Sam
    picture: Volume
    answers: Answers
    options: EverythingOptions

    @classmethod
    def of(cls, options: argparse.Namespace) -> Scene:
        """Draw weights, picture and answers from one seed."""
        torch.manual_seed(0)
        model = create_model("sam_tiny" if options.quick else "sam_vit_b", quirks=SAM_QUIRKS)
        side = model.config.image_size[0]
        picture = phantom_picture("skin", shape=(side, side), seed=0).image
        answers = Answers(options.points, side, model.config.low_res_size[0], options.sure)
        return cls(
            model.eval(), picture, answers, EverythingOptions(points_per_side=options.points)
        )

    @property
    def pixels(self) -> np.ndarray:
        """Rows, columns, colours."""
        return np.ascontiguousarray(self.picture.array[:, :, 0])


class Answers:
    """The three masks of each click and their quality: ellipses that hold it, drawn by a seed."""

    def __init__(self, per_side: int, side: int, low: int, sure: float) -> None:
        draws = np.random.default_rng(0)
        clicks = point_grid(per_side) * side
        centres = draws.uniform(0, side, (150, 2))
        radii = side * draws.uniform(0.02, 0.25, (150, 1)) * draws.uniform(0.6, 1.0, (150, 2))
        offset = (clicks[:, None] - centres) / radii
        far = np.hypot(offset[..., 0], offset[..., 1])
        nearest = np.argsort(far, axis=1)[:, :3]  # those that hold it come first
        at = (np.arange(low) + 0.5) * side / low
        steep = draws.uniform(12, 120, 150)  # 78 and more are stable
        squares = ((at[None, :, None] - centres[:, None]) / radii[:, None]) ** 2
        distance = np.sqrt(squares[:, None, :, 0] + squares[:, :, None, 1])
        self.shapes = torch.from_numpy(steep[:, None, None] * (1 - distance)).float()
        self.which = torch.from_numpy(nearest)
        quality = draws.uniform(0.88 - 0.3 * (1 - sure), 0.88 + 0.3 * sure, nearest.shape)
        self.quality = torch.from_numpy(quality).float()
        self.begin()

    def begin(self) -> None:
        """Start with the first click."""
        self.rows = slice(0, 0)

    def next(self, n: int) -> tuple[Tensor, Tensor]:
        """Masks and quality of the next clicks."""
        self.rows = slice(self.rows.stop, self.rows.stop + n)
        return self.shapes[self.which[self.rows]], self.quality[self.rows]

    def upscaled(self, limit: float) -> Tensor:
        """Masks of the clicks just given, where one of the three has a greater quality."""
        some = (self.quality[self.rows] > limit).any(dim=1)
        return self.shapes[self.which[self.rows][some]]


@dataclass
class Ran:
    """One run: its masks, and where the time went."""

    masks: Masks
    encoding_s: float = 0.0
    total_s: float = 0.0


class Drawn(nn.Module):
    """Stands where quality is told: tells it, and then says what was drawn."""

    def __init__(self, head: nn.Module, answers: Answers) -> None:
        super().__init__()
        self.head, self.answers = head, answers

    def forward(self, x: Tensor) -> Tensor:
        """Quality of four tokens, the first unused."""
        self.head(x)
        return torch.cat([torch.zeros(len(x), 1), self.answers.next(len(x))[1]], dim=1)


def samaritan(scene: Scene, precision: str = "float32") -> Callable[[], Ran]:
    decoder = scene.model.mask_decoder
    predictor = Predictor(scene.model, device="cpu", precision=precision)  # type: ignore[arg-type]
    head, masks_of = decoder.iou_prediction_head, decoder.masks_of

    def drawn(*given: Any) -> Tensor:
        masks_of(*given)
        return scene.answers.upscaled(scene.options.pred_iou_thresh)

    def run() -> Ran:
        before = predictor.encoding_seconds
        decoder.iou_prediction_head, decoder.masks_of = Drawn(head, scene.answers), drawn
        try:
            records = generate_masks(predictor, scene.picture, options=scene.options)
        finally:
            decoder.iou_prediction_head, decoder.masks_of = head, masks_of
        masks = [record.mask() for record in records]
        return Ran(masks, predictor.encoding_seconds - before)

    return run


def in_bfloat16(scene: Scene) -> Callable[[], Ran]:
    return samaritan(scene, "bfloat16")


def plainly(scene: Scene) -> Callable[[], Ran]:
    weights = {name: tensor.clone() for name, tensor in scene.model.state_dict().items()}
    side = scene.model.config.image_size[0]
    heads = scene.model.config.decoder_heads
    image = Predictor(scene.model, device="cpu", precision="float32")
    tensor = image.preprocess.frame(scene.picture, (2, 0), {"low": 0.0, "high": 255.0}).tensor

    def run() -> Ran:
        start = time.perf_counter()
        with torch.inference_mode():
            features = plain.encode(weights, scene.model.config, tensor)
        encoding = time.perf_counter() - start

        def decode(points: Tensor) -> tuple[Tensor, Tensor]:
            ones = torch.ones(points.shape[:2])
            plain_decoder.decode(
                weights, features, points, ones, size=side, multimask=True, heads=heads
            )
            return scene.answers.next(len(points))

        with torch.inference_mode():
            found = plain_everything.everything(
                decode, (side, side), (side, side), side, scene.options
            )
        return Ran([record["segmentation"] for record in found], encoding)

    return run


def segment_anything(scene: Scene) -> Callable[[], Ran]:
    from segment_anything import SamAutomaticMaskGenerator, sam_model_registry

    model = sam_model_registry["vit_b"]()
    model.load_state_dict(scene.model.state_dict())
    model.eval()
    decode, encode, spent = model.mask_decoder.forward, model.image_encoder.forward, [0.0]

    def drawn(**given: Any) -> tuple[Tensor, Tensor]:
        decode(**given)
        return scene.answers.next(len(given["sparse_prompt_embeddings"]))

    def timed(x: Tensor) -> Tensor:
        start = time.perf_counter()
        found: Tensor = encode(x)
        spent[0] += time.perf_counter() - start
        return found

    model.mask_decoder.forward, model.image_encoder.forward = drawn, timed
    o = scene.options
    generator = SamAutomaticMaskGenerator(
        model, points_per_side=o.points_per_side, points_per_batch=o.points_per_batch
    )

    def run() -> Ran:
        spent[0] = 0.0
        found = generator.generate(scene.pixels)
        return Ran([record["segmentation"] for record in found], spent[0])

    return run


CONTESTANTS: dict[str, Callable[[Scene], Callable[[], Ran]]] = {
    "samaritan": samaritan,
    "samaritan, bfloat16": in_bfloat16,
    "plain": plainly,
    "segment-anything": segment_anything,
}


def timed(scene: Scene, run: Callable[[], Ran]) -> Ran:
    """Run from the first click on, and time it."""
    scene.answers.begin()
    start = time.perf_counter()
    ran = run()
    ran.total_s = time.perf_counter() - start
    return ran


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time all contestants in turn, with and without the encoding, and compare their masks."""
    scene = Scene.of(options)
    check_decoders(scene)
    runs, absent = {}, {}
    for name in options.only:
        try:
            runs[name] = CONTESTANTS[name](scene)
        except ImportError as reason:
            absent[name] = {"absent": str(reason)}
    kinds = ("everything, encoding included", "everything, picture encoded before")
    cases: dict[str, dict[str, Any]] = {kind: dict(absent) for kind in kinds}
    masks: dict[str, Masks] = {}
    for _ in range(options.rounds):
        for name, run in runs.items():
            ran = timed(scene, run)
            masks[name] = ran.masks
            for kind, seconds in zip(
                kinds, (ran.total_s, ran.total_s - ran.encoding_s), strict=True
            ):
                cases[kind].setdefault(name, {"times_s": []})["times_s"].append(seconds)
    facts = compared(masks)
    for name in runs:
        peak = {} if options.no_peak else told(options, name)
        for kind in kinds:
            cases[kind][name] |= facts[name] | peak
    return {"cases": cases}


def check_decoders(scene: Scene) -> None:
    """Stop unless our decoder and the plain one agree on some clicks."""
    config = scene.model.config
    features = torch.randn(1, config.embed_dim, *config.grid)
    points, ones = torch.rand(8, 1, 2) * config.image_size[0], torch.ones(8, 1)
    weights = scene.model.state_dict()
    with torch.inference_mode():
        sparse, dense = scene.model.prompt_encoder(points=(points, ones))
        ours = scene.model.mask_decoder(
            image_embeddings=features,
            image_pe=scene.model.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        theirs = plain_decoder.decode(
            weights,
            features,
            points,
            ones,
            size=config.image_size[0],
            multimask=True,
            heads=config.decoder_heads,
        )
    worst = max(float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True))
    if worst > 1e-4:
        raise SystemExit(f"samaritan and plain decode to logits that differ by {worst:.2g}")


def compared(masks: dict[str, Masks]) -> dict[str, dict[str, Any]]:
    """How many masks each found, and how many of the first contestant that is not ours are among them."""
    other = next((m for name, m in masks.items() if not name.startswith("samaritan")), None)
    return {
        name: {"masks": len(own)}
        | ({} if other is None else {"of_other": len(other), "shared": shared(other, own)})
        for name, own in masks.items()
    }


def shared(one: Masks, two: Masks) -> int:
    """Masks of one that have one of two alike."""
    if not one or not two:
        return 0
    a, b = (np.stack([m.ravel() for m in masks]).astype(np.float32) for masks in (one, two))
    both = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1) - both
    return int(((both / np.maximum(union, 1)).max(axis=1) >= ALIKE).sum())


def told(options: argparse.Namespace, name: str) -> dict[str, float]:
    """Peak memory in a process of its own, on one batch of clicks: more of them need no more."""
    command = [sys.executable, __file__, "--threads", str(options.threads), "--peak", name]
    out = subprocess.run([*command, "--points", "8"], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(out.stdout.strip().split("\n")[-1])
    return found


def peak_memory(options: argparse.Namespace) -> dict[str, float]:
    """Highest memory of 64 clicks, above what is held before."""
    scene = Scene.of(options)
    run = CONTESTANTS[options.peak](scene)
    measuring.give_back()
    with measuring.sampled_memory() as peak:
        timed(scene, run)
    return {"peak_mib": peak() / 2**20}


def show(cases: dict[str, Any]) -> None:
    for case, rows in cases.items():
        print(f"\n{case}")
        print(
            f"{'':22}{'median s':>10}{'min..max':>16}{'x ours':>8}{'masks':>7}{'shared':>9}{'MiB':>7}"
        )
        base = rows.get("samaritan", {}).get("times_s")
        for name, row in rows.items():
            if "absent" in row:
                print(f"{name:22}  ({row['absent']})")
                continue
            times = row["times_s"]
            ratio = f"{measuring.median_ratio(times, base):.2f}" if base else ""
            spread = f"{min(times):.2f}..{max(times):.2f}"
            alike = f"{row['shared']}/{row['of_other']}" if "shared" in row else ""
            peak = f"{row['peak_mib']:.0f}" if "peak_mib" in row else ""
            print(
                f"{name:22}{statistics.median(times):10.2f}{spread:>16}{ratio:>8}{row['masks']:7}"
                f"{alike:>9}{peak:>7}"
            )


if __name__ == "__main__":
    main()
