"""From data sets to batches on the device, in an order that can be taken up anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from samaritan.train.sampling import Group
from samaritan.train.steps import Batch


class Examples(Protocol):
    """What can be learned from: tensors by name for each index, the same whenever it is asked for.

    One that has `set_epoch(epoch)` may give something else in each epoch, such as another augmentation.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Tensor]: ...


def groups_of_batches(
    examples: Examples, groups: Sequence[Group], *, device: torch.device, workers: int, epoch: int
) -> Iterator[tuple[Group, list[Batch]]]:
    """Load the batches of one process, those of one iteration together."""
    plan = [list(batch) for group in groups for batch in group.batches]
    batches = iter(load(examples, plan, device=device, workers=workers, epoch=epoch))
    for group in groups:
        yield group, [next(batches) for _ in group.batches]


def load(
    examples: Examples, plan: list[list[int]], *, device: torch.device, workers: int, epoch: int
) -> Iterator[Batch]:
    """Load batches of these indices."""
    if hasattr(examples, "set_epoch"):
        examples.set_epoch(epoch)
    loader: DataLoader[Any] = DataLoader(
        examples,  # type: ignore[arg-type]
        batch_sampler=plan,
        num_workers=min(workers, len(plan)),
        pin_memory=device.type == "cuda",
        generator=torch.Generator().manual_seed(epoch),  # leaves torch's own randomness alone
    )
    for batch in loader:
        yield {
            name: value.to(device, non_blocking=True)
            for name, value in batch.items()
            if isinstance(value, Tensor)
        }
