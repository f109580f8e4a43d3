"""Time training steps against the plain published formulation: forward, backward and update of the weights.

    python benchmarks/training.py --rounds 3 --json training.json

Every contestant learns from the same batch in turn, round after round, from weights of its own; the first
losses must agree. Ratios are medians of ratios within a round. Peak memory is measured in a process of its
own for each: `peak` above what weights, optimiser and batch hold, `whole` all that the process holds, or of
a GPU (`--device cuda`) all that its tensors hold; there steps are also taken in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
import measuring
import plain_training

from samaritan.assembly import create_model
from samaritan.models.config import SAM_QUIRKS, SAMMED3D_QUIRKS
from samaritan.models.sam import Sam
from samaritan.recipes import resolve
from samaritan.train import iterated_step, multiclass_step
from samaritan.train.machine import saving_memory
from samaritan.train.optim import build_optimizer

Update = Callable[[], float]

AGAIN = ", computing blocks again"
LOW = " bfloat16"
NAMES = ("plain", "samaritan", "samaritan" + AGAIN)
NAMES_ON_GPUS = (*NAMES, "plain" + LOW, "samaritan" + LOW)
MOST_DIFFERENCE = 3e-2
"""Of the first loss to that of plain, in bfloat16; in float32 see `Case.agree`."""


@dataclass(frozen=True)
class Case:
    """One published step: its recipe, what its model is, a batch, and a small model of the kind.

    `agree`: how much the first losses may differ. Where clicks follow answers they may by more: a voxel whose
    logit is zero but for rounding moves the clicks that come after it.
    """

    recipe: str
    quirks: Any
    batch: Callable[[int], dict[str, Tensor]]
    side: int
    tiny: str
    tiny_side: int
    agree: float = 1e-4


def pictures(side: int) -> dict[str, Tensor]:
    """Two pictures, labels of eight organs at the decoder's resolution."""
    thirds = torch.arange(side // 4) // (side // 12 + 1)
    blocks = thirds[:, None] * 3 + thirds
    return {
        "image": torch.rand(2, 1, side, side).expand(-1, 3, -1, -1).contiguous(),
        "low_res_label": blocks.expand(2, -1, -1).contiguous(),
    }


def volume(side: int) -> dict[str, Tensor]:
    """One cube, a ball in it to be found."""
    squares = (torch.arange(side) - side * 0.47).square()
    ball = squares[:, None, None] + squares[:, None] + squares < (side * 0.235) ** 2
    return {"image": torch.randn(1, 1, side, side, side), "masks": ball[None, None]}


CASES = {
    "samed_vit_b": Case("samed", SAM_QUIRKS, pictures, 512, "samed_tiny", 64),
    "sammed3d_vit_b_ori": Case("sam_med3d", SAMMED3D_QUIRKS, volume, 128, "sam3d_tiny", 32, 2e-3),
}


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(json.dumps(peak_memory(*options.peak, options)))
        return
    report = measuring.machine(options.threads, options.device) | {"cases": {}}
    print(f"torch {report['torch']}, {options.threads} threads, load {report['load']:.2f}")
    print(report["processor"])
    print(f"matrix product (2048^3, float32): {report['matmul_gflops']:.0f} GFLOP/s")
    for case in options.only or CASES:
        report["cases"][f"training step, {case}"] = rows = measure(case, options)
        show(case, rows)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    parser.add_argument("--only", nargs="+", choices=CASES, help="cases to run (default: all)")
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument("--device", default="cpu", help="cpu, or a GPU: cuda")
    parser.add_argument("--quick", action="store_true", help="tiny models, one round")
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.quick:
        options.rounds = 1
    return options


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Times, memory and operations of every contestant."""
    names = NAMES if options.device == "cpu" else NAMES_ON_GPUS
    updates = {name: contestant(case, name, options) for name in names}
    rows: dict[str, Any] = {name: {} for name in names}
    for name, update in updates.items():  # also warms up
        losses: list[float] = []
        rows[name]["gflop"] = measuring.gflop(lambda run=update, to=losses: to.append(run()))
        (rows[name]["loss"],) = losses
    for name in names:
        difference = abs(rows[name]["loss"] / rows["plain"]["loss"] - 1)
        if not difference < (MOST_DIFFERENCE if name.endswith(LOW) else CASES[case].agree):
            raise SystemExit(f"{case}: losses of {name} and plain differ by {difference:.2g}")
    for name, times in measuring.in_turn(updates, options.rounds, options.device).items():
        rows[name]["times_s"] = times
    updates.clear()  # or a GPU would hold all of them
    command = [sys.executable, __file__, *["--quick"] * options.quick]
    command += ["--threads", str(options.threads), "--peak", case]
    for name, row in rows.items():
        row["ratio"] = measuring.median_ratio(row["times_s"], rows["plain"]["times_s"])
        if options.device == "cpu":
            out = subprocess.run([*command, name], check=True, capture_output=True, text=True)
            row |= json.loads(out.stdout)
        else:
            row |= peak_memory(case, name, options)
    return rows


def show(case: str, rows: dict[str, Any]) -> None:
    print(f"\n{case}")
    print(
        f"{'':36}{'median s':>10}{'min..max':>14}{'x plain':>9}{'GFLOP':>8}{'peak MiB':>10}{'whole MiB':>11}"
    )
    for name, row in rows.items():
        times = row["times_s"]
        spread = f"{min(times):.2f}..{max(times):.2f}"
        print(
            f"{name:36}{statistics.median(times):10.2f}{spread:>14}{row['ratio']:9.2f}"
            f"{row['gflop']:8.0f}{row['peak_mib']:10.0f}{row['whole_mib']:11.0f}"
        )


def contestant(case: str, name: str, options: argparse.Namespace) -> Update:
    """A step that learns and gives its loss: forward, backward, update."""
    model, batch = load(case, options)
    recipe = resolve(CASES[case].recipe)
    draws = torch.Generator().manual_seed(0)
    low = torch.autocast(batch["image"].device.type, torch.bfloat16, name.endswith(LOW))
    if name.startswith("plain"):
        learning = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            learning, lr=recipe.optim.lr, weight_decay=recipe.optim.weight_decay
        )
        return partial(updated, optimizer, low(plain_loss(case, model, batch, draws)))
    optimizer = build_optimizer(model, recipe.optim, recipe.compat)
    if recipe.task == "multiclass":
        step = multiclass_step(recipe.loss, recipe.compat)
    else:
        step = iterated_step(recipe.clicks, recipe.loss, recipe.compat)

    @low
    def loss() -> Tensor:
        return next(step(model, batch, draws)).total

    def again() -> float:
        with saving_memory(model, name.endswith(AGAIN)):
            return updated(optimizer, loss)

    return again


def updated(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> float:
    """Go back through a loss, update the weights, and give the loss."""
    value = loss()
    value.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value.item()


def plain_loss(
    case: str, model: Sam, batch: dict[str, Tensor], draws: torch.Generator
) -> Callable[[], Tensor]:
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    config, images = model.config, batch["image"]
    if "masks" not in batch:
        return partial(plain_training.samed, weights, config, images, batch["low_res_label"])
    clicks = resolve(CASES[case].recipe).clicks
    masks = batch["masks"].flatten(0, 1)
    return partial(plain_training.sammed3d, weights, config, images, masks, clicks, draws)


def load(case: str, options: argparse.Namespace) -> tuple[Sam, dict[str, Tensor]]:
    """The model with random weights, position tables included, and a batch."""
    torch.manual_seed(0)
    told = CASES[case]
    name, side = (told.tiny, told.tiny_side) if options.quick else (case, told.side)
    model = create_model(name, quirks=told.quirks, image_size=side)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "pos" in name or "adapters" in name:
                parameter.normal_(std=0.1)
    batch = {key: tensor.to(options.device) for key, tensor in told.batch(side).items()}
    return model.train().to(options.device), batch


def peak_memory(case: str, name: str, options: argparse.Namespace) -> dict[str, float]:
    """Highest memory of a step after one to warm up, above what was held before it, and in all."""
    update = contestant(case, name, options)
    update()
    measuring.give_back()
    before = measuring.memory_held(options.device)
    with measuring.sampled_memory(options.device) as peak:
        update()
        highest = peak()
    return {"peak_mib": highest / 2**20, "whole_mib": (before + highest) / 2**20}


if __name__ == "__main__":
    main()
