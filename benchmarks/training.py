"""Time training steps against the plain published formulation: forward, backward and update of the weights.

    python benchmarks/training.py --rounds 3 --json training.json

Every contestant learns from the same batch in turn, round after round, from weights of its own; the first
losses must agree. Ratios are medians of ratios within a round. Peak memory is measured in a process of its
own for each: `peak` above what weights, optimiser and batch hold, `whole` all that the process holds.
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

import psutil
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

NAMES = ("plain", "samaritan", "samaritan, computing blocks again")
MOST_DIFFERENCE = 1e-4


@dataclass(frozen=True)
class Case:
    """One published step: its recipe, what its model is, and a batch."""

    recipe: str
    quirks: Any
    batch: Callable[[], dict[str, Tensor]]


def pictures() -> dict[str, Tensor]:
    """Two pictures of 512 x 512, labels of eight organs at the decoder's resolution."""
    blocks = torch.arange(128)[:, None] // 43 * 3 + torch.arange(128) // 43
    return {
        "image": torch.rand(2, 1, 512, 512).expand(-1, 3, -1, -1).contiguous(),
        "low_res_label": blocks.expand(2, -1, -1).contiguous(),
    }


def volume() -> dict[str, Tensor]:
    """One cube of 128 voxels a side, a ball in it to be found."""
    squares = (torch.arange(128) - 60.0).square()
    ball = squares[:, None, None] + squares[:, None] + squares < 30**2
    return {"image": torch.randn(1, 1, 128, 128, 128), "masks": ball[None, None]}


CASES = {
    "samed_vit_b": Case("samed", SAM_QUIRKS, pictures),
    "sammed3d_vit_b_ori": Case("sam_med3d", SAMMED3D_QUIRKS, volume),
}


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.peak:
        print(json.dumps(peak_memory(*options.peak)))
        return
    report = measuring.machine(options.threads) | {"cases": {}}
    print(f"torch {report['torch']}, {options.threads} threads, load {report['load']:.2f}")
    print(f"matrix product (2048^3, float32): {report['matmul_gflops']:.0f} GFLOP/s")
    for case in options.only or CASES:
        report["cases"][case] = rows = measure(case, options)
        show(case, rows)
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds that count")
    parser.add_argument("--only", nargs="+", choices=CASES, help="cases to run (default: all)")
    parser.add_argument("--threads", type=int, default=min(2, torch.get_num_threads()))
    parser.add_argument("--json", metavar="FILE", help="write all numbers here")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "NAME"), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """Times, memory and operations of every contestant."""
    updates = {name: contestant(case, name) for name in NAMES}
    rows: dict[str, Any] = {name: {} for name in NAMES}
    for name, update in updates.items():  # also warms up
        losses: list[float] = []
        rows[name]["gflop"] = measuring.gflop(lambda run=update, to=losses: to.append(run()))
        (rows[name]["loss"],) = losses
    for name in NAMES[1:]:
        difference = abs(rows[name]["loss"] / rows["plain"]["loss"] - 1)
        if not difference < MOST_DIFFERENCE:
            raise SystemExit(f"{case}: losses of {name} and plain differ by {difference:.2g}")
    for name, times in measuring.in_turn(updates, options.rounds).items():
        rows[name]["times_s"] = times
    for name, row in rows.items():
        row["ratio"] = measuring.median_ratio(row["times_s"], rows["plain"]["times_s"])
        command = [sys.executable, __file__, "--threads", str(options.threads)]
        command += ["--peak", case, name]
        out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        row |= json.loads(out)
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


def contestant(case: str, name: str) -> Update:
    """A step that learns and gives its loss: forward, backward, update."""
    model, batch = load(case)
    recipe = resolve(CASES[case].recipe)
    draws = torch.Generator().manual_seed(0)
    if name == "plain":
        learning = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            learning, lr=recipe.optim.lr, weight_decay=recipe.optim.weight_decay
        )
        return partial(updated, optimizer, plain_loss(case, model, batch, draws))
    optimizer = build_optimizer(model, recipe.optim, recipe.compat)
    if recipe.task == "multiclass":
        step = multiclass_step(recipe.loss, recipe.compat)
    else:
        step = iterated_step(recipe.clicks, recipe.loss, recipe.compat)

    def loss() -> Tensor:
        return next(step(model, batch, draws)).total

    def again() -> float:
        with saving_memory(model, name != "samaritan"):
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


def load(case: str) -> tuple[Sam, dict[str, Tensor]]:
    """The model with random weights, position tables included, and a batch."""
    torch.manual_seed(0)
    model = create_model(case, quirks=CASES[case].quirks)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "pos" in name or "adapters" in name:
                parameter.normal_(std=0.1)
    return model.train(), CASES[case].batch()


def peak_memory(case: str, name: str) -> dict[str, float]:
    """Highest memory of a step after one to warm up, above what was held before it, and in all."""
    update = contestant(case, name)
    update()
    measuring.give_back()
    before = psutil.Process().memory_info().rss
    with measuring.sampled_memory() as peak:
        update()
    return {"peak_mib": peak() / 2**20, "whole_mib": (before + peak()) / 2**20}


if __name__ == "__main__":
    main()
