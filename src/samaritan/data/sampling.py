"""Which picture comes when: a pure function of seed and epoch, so that a resumed run draws the same."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

from samaritan.data.manifest import Case
from samaritan.data.splitting import quotas
from samaritan.errors import ConfigError


class Draw(NamedTuple):
    """One turn: which picture, and what its randomness depends on."""

    item: int
    """Position in the dataset."""
    epoch: int = 0
    """How often the data were gone through before."""
    turn: int = 0
    """How many pictures came before in this epoch."""

    def generator(self, seed: int) -> np.random.Generator:
        """Make the generator of this turn; no other turn has it."""
        return np.random.default_rng((seed, self.epoch, self.turn, self.item))


class DrawSampler(Sampler[Draw]):
    """Draw every picture once in each epoch, or so many of each data set as the weights say.

    With weights, patients of a data set take turns, and the pictures of a patient: one with many slices
    does not outweigh the others. The dataset gets `Draw`s, so workers need no epoch of their own.

    Args:
        cases: of the dataset, in its order.
        weights: data set -> its share of the draws; those that are left out are not drawn.
        length: draws in an epoch; None: as many as there are cases.
        seed: another seed is another order.
        shuffle: without it (and without weights) the order is that of the cases.

    Raises:
        ConfigError: if a weight is negative, or names a data set that is not there.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        *,
        weights: Mapping[str, float] | None = None,
        length: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        self.seed, self.shuffle = seed, shuffle
        self.epoch = self.start = 0
        self.length = len(cases) if length is None else length
        self.weights = dict(weights) if weights else None
        self._count = len(cases)
        self._groups: dict[str, dict[str, list[int]]] = {}
        for index, case in enumerate(cases):
            self._groups.setdefault(case.group, {}).setdefault(case.patient, []).append(index)
        unknown = set(self.weights or {}) - set(self._groups)
        if unknown or any(w < 0 for w in (self.weights or {}).values()) or not cases:
            raise ConfigError(
                f"weights must be positive numbers for {sorted(self._groups)}, got {self.weights}"
            )
        if self.length < 1 or (self.weights and not sum(self.weights.values())):
            raise ConfigError("an epoch needs at least one draw: give a length and weights above 0")

    def __len__(self) -> int:
        return self.length - self.start

    def __iter__(self) -> Iterator[Draw]:
        order = self.order(self.epoch)
        for turn in range(self.start, self.length):
            yield Draw(int(order[turn]), self.epoch, turn)

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """Give the indices of an epoch."""
        rng = np.random.default_rng((self.seed, epoch, 0x5A))
        if self.weights is None:
            return self._plain(rng)
        groups = [g for g, w in self.weights.items() if w > 0]
        counts = quotas([self.weights[g] for g in groups], self.length)
        drawn = [self._of_group(g, n, epoch) for g, n in zip(groups, counts, strict=True)]
        return rng.permutation(np.concatenate(drawn))

    def _plain(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        rounds = -(-self.length // self._count)
        each = [
            rng.permutation(self._count) if self.shuffle else np.arange(self._count)
            for _ in range(rounds)
        ]
        return np.concatenate(each)[: self.length].astype(np.int64)

    def _of_group(self, group: str, count: int, epoch: int) -> npt.NDArray[np.int64]:
        """Let patients take turns, and each patient's pictures."""
        rng = np.random.default_rng((self.seed, epoch, zlib.crc32(group.encode())))
        patients = self._groups[group]
        names = sorted(patients)
        queues: dict[str, list[int]] = {name: [] for name in names}
        drawn: list[int] = []
        while len(drawn) < count:
            for position in rng.permutation(len(names))[: count - len(drawn)]:
                name = names[position]
                if not queues[name]:
                    queues[name] = [patients[name][i] for i in rng.permutation(len(patients[name]))]
                drawn.append(queues[name].pop())
        return np.array(drawn, np.int64)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Go to an epoch, past its first `start` draws: those that were learned from already."""
        if not 0 <= start <= self.length:
            raise ConfigError(f"an epoch has {self.length} draws; cannot start at {start}")
        self.epoch, self.start = epoch, start

    def state_dict(self, consumed: int = 0) -> dict[str, Any]:
        """Give what a resumed run needs.

        Args:
            consumed: draws since this epoch was begun or resumed that were learned from; loaders fetch
                ahead, so only the training loop knows.
        """
        return {"seed": self.seed, "epoch": self.epoch, "start": self.start + consumed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ConfigError: if it is of another seed.
        """
        if state["seed"] != self.seed:
            raise ConfigError(f"the state is of seed {state['seed']}, this sampler has {self.seed}")
        self.set_epoch(int(state["epoch"]), int(state["start"]))
