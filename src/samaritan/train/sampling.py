"""Which examples are learned from, in which order, by which process: a function of seed and epoch alone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch

from samaritan.errors import TrainingError


@dataclass(frozen=True)
class Group:
    """The batches of one process that make one iteration."""

    batches: tuple[tuple[int, ...], ...]
    """Indices of examples."""
    total: int
    """Examples in this iteration over all processes."""


def plan_epoch(
    n: int,
    *,
    batch_size: int,
    accumulate: int,
    world: int,
    rank: int,
    seed: int,
    epoch: int,
    shuffle: bool = True,
) -> list[Group]:
    """Shuffle the examples and share them out: every example once, the last iteration may be smaller.

    A larger batch over fewer processes or fewer accumulated batches takes the same examples in each
    iteration. Of the last iteration as many examples are left out as there are too few for every process
    to have one. Without `shuffle` they come in their own order.

    Raises:
        TrainingError: if there is not an example for each process.

    >>> plan = plan_epoch(5, batch_size=1, accumulate=2, world=2, rank=0, seed=0, epoch=0)
    >>> [(len(group.batches), group.total) for group in plan]
    [(2, 4)]
    """
    if n < world:
        raise TrainingError(
            f"there are {n} examples to learn from, fewer than the {world} processes. Give more data"
        )
    order = list(range(n))
    if shuffle:
        order = torch.randperm(n, generator=generator(seed, "order", epoch)).tolist()
    size = batch_size * accumulate * world
    groups = []
    for start in range(0, n, size):
        chunk = order[start : start + size]
        if len(chunk) < world:
            break
        own = chunk[rank::world]
        batches = [tuple(own[i : i + batch_size]) for i in range(0, len(own), batch_size)]
        groups.append(Group(tuple(batches), len(chunk)))
    return groups


def seed_of(*parts: object) -> int:
    """One seed from several words and numbers, so that streams do not meet."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "big")


def generator(*parts: object) -> torch.Generator:
    """A generator, on the CPU, of the stream that `parts` name."""
    return torch.Generator().manual_seed(seed_of(*parts))
