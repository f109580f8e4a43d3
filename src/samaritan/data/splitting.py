"""Splitting by patient, each data set by itself, the same for the same seed."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from samaritan.errors import ConfigError

if TYPE_CHECKING:
    from samaritan.data.manifest import Manifest


def split_by_patient(
    manifest: Manifest, fractions: Mapping[str, float], *, seed: int, again: bool
) -> Manifest:
    """Do what `Manifest.split` says.

    Raises:
        ConfigError: if the fractions are not positive or do not add up to 1.
    """
    shares = [float(f) for f in fractions.values()]
    if not shares or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(
            f"fractions must be positive and add up to 1, got {dict(fractions)}: "
            'for example {"train": 0.8, "val": 0.2}'
        )
    decided: dict[tuple[str, str], str] = {}
    for group in manifest.groups:
        waiting = []
        for who, cases in manifest.patients().items():
            if who[0] != group:
                continue
            known = sorted({c.split for c in cases if c.split})
            if known and not again:
                if len(known) > 1:
                    raise ConfigError(
                        f"patient {who[1]!r} of {group!r} is in {known} already: a leak. "
                        "Mend the manifest, or split anew with again=True"
                    )
                decided[who] = known[0]
            else:
                waiting.append(who)
        order = _shuffled(waiting, group, seed)
        for part, count in zip(fractions, quotas(shares, len(order)), strict=True):
            decided.update((who, part) for who in order[:count])
            order = order[count:]
    return _with_splits(manifest, decided)


def folds_by_patient(manifest: Manifest, k: int, *, seed: int) -> list[Manifest]:
    """Do what `Manifest.folds` says.

    Raises:
        ConfigError: if there are fewer patients than folds.
    """
    if not 2 <= k <= len(manifest.patients()):
        raise ConfigError(f"{len(manifest.patients())} patients cannot make {k} folds")
    fold: dict[tuple[str, str], int] = {}
    for group in manifest.groups:
        whose = [who for who in manifest.patients() if who[0] == group]
        for position, who in enumerate(_shuffled(whose, group, seed)):
            fold[who] = position % k
    return [
        _with_splits(manifest, {who: "val" if f == i else "train" for who, f in fold.items()})
        for i in range(k)
    ]


def quotas(shares: list[float], total: int) -> list[int]:
    """Divide a total by shares; what is left after rounding down goes to the largest remainders."""
    exact = np.asarray(shares) / sum(shares) * total
    counts = np.floor(exact + 1e-9).astype(int)
    largest = np.argsort(-(exact - counts), kind="stable")[: total - int(counts.sum())]
    counts[largest] += 1
    return [int(c) for c in counts]


def _shuffled(whose: list[tuple[str, str]], group: str, seed: int) -> list[tuple[str, str]]:
    generator = np.random.default_rng((seed, zlib.crc32(group.encode())))
    ordered = sorted(whose)
    return [ordered[i] for i in generator.permutation(len(ordered))]


def _with_splits(manifest: Manifest, decided: Mapping[tuple[str, str], str]) -> Manifest:
    cases = tuple(replace(c, split=decided[(c.group, c.patient)]) for c in manifest.cases)
    return replace(manifest, cases=cases)
