"""A program that torchrun would start twice: what each process computes of one step, kept for comparison."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from train.test_mixed import run
from train.volume_toys import batch

from samaritan.assembly import create_model
from samaritan.recipes.sections import Clicks, Compat, Loss
from samaritan.train import Machine, iterated_step
from samaritan.train.state import statistics

CLICKS = Clicks(count=(3, 3), mask_only="none", at="core", first_at="core")


def model_of(name: str) -> Any:
    torch.manual_seed(0)
    return create_model(name).train()


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def back(model: Any, rank: int, machine: Machine, share: float = 1.0) -> None:
    """Go back through the loss of a crop that this process alone has."""
    crops = {name: value[rank : rank + 1] for name, value in batch(2).items()}
    draws = torch.Generator().manual_seed(rank)
    for found in iterated_step(CLICKS, Loss(dice=1, cross_entropy=1), Compat())(
        model, crops, draws
    ):
        machine.backward(found.total * share)


def of_gradients(machine: Machine) -> dict[str, Any]:
    """Own gradients, those that are summed, and those of the published pattern."""
    own, summed, published = (model_of("sam3d_tiny") for _ in range(3))
    back(own, machine.rank, machine)
    back(summed, machine.rank, machine, share=1 / machine.world)
    machine.sum_gradients(summed.parameters())
    wrapped = DistributedDataParallel(published, find_unused_parameters=True)
    back(wrapped.module, machine.rank, machine)
    return {
        "own": gradients(own),
        "summed": gradients(summed),
        "published": gradients(published),
    }


def of_statistics(machine: Machine) -> dict[str, Any]:
    """What batch norms count: each for itself, and averaged."""
    model = nn.Sequential(nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4)).train()
    draws = torch.Generator().manual_seed(machine.rank)
    model(torch.randn(2, 1, 6, 6, 6, generator=draws) * (1 + machine.rank))
    own = {name: value.clone() for name, value in statistics(model).items()}
    machine.average(statistics(model).values())
    return {"own": own, "averaged": dict(statistics(model))}


def of_a_run(folder: Path) -> dict[str, Any]:
    """All that a model with batch norms holds after two updates, and its moving average."""
    trainer, _ = run(folder / "run", "run.epochs=1", "validation.clicks=1", "prompts.rounds=1", n=8)
    assert trainer.average is not None
    held = trainer.model.state_dict()
    return {"held": dict(held), "averaged": dict(trainer.average.values)}


def main() -> None:
    """Keep what rank R found as FOLDER/R.pt."""
    torch.set_num_threads(1)
    folder, what = sys.argv[1:]
    machine = Machine("float32", "cpu")
    Path(folder).mkdir(exist_ok=True)
    if what == "run":
        found = of_a_run(Path(folder))
    else:
        found = {"gradients": of_gradients, "statistics": of_statistics}[what](machine)
    torch.save(found, Path(folder) / f"{machine.rank}.pt")
    machine.close()


if __name__ == "__main__":
    main()
