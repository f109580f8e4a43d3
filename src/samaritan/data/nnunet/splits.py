"""nnU-Net's folds: the same five from the same seed, or such that no patient is in two parts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from samaritan.errors import ConfigError, CorruptFile
from samaritan.io.files import file_size, replacing

SEED = 12345
FOLDS = 5
FILE_NAME = "splits_final.json"
_MOST_BYTES = 256 << 20


@dataclass(frozen=True)
class Fold:
    """Ids of the cases to learn from, and of those to validate on."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_folds(
    ids: Sequence[str], *, patients: Mapping[str, str] | None = None, count: int = FOLDS
) -> tuple[Fold, ...]:
    """Split cases into folds, each of which is held out once.

    Args:
        ids: of all cases; their order makes no difference.
        patients: id -> patient; None splits case by case, as nnU-Net does, so that two scans of a
            patient may end up in different parts.
        count: how many folds.

    Raises:
        ConfigError: if there are fewer cases (or patients) than folds.

    Source: KFold(5, shuffle, seed 12345) over the sorted ids, of nnU-Net 2.8.1 with scikit-learn 1.9; with
    patients the same is done with theirs.
    """
    cases = sorted(ids)
    whose = {case: case if patients is None else patients[case] for case in cases}
    units = sorted(set(whose.values()))
    if not 2 <= count <= len(units):
        what = "cases" if patients is None else "patients"
        raise ConfigError(
            f"{count} folds need at least 2 and as many {what}, and there are {len(units)}. "
            'Ask for fewer folds, or learn from fold "all"'
        )
    order = np.arange(len(units))
    np.random.RandomState(SEED).shuffle(order)  # nnU-Net's generator
    folds = []
    for held in np.array_split(order, count):
        names = {units[int(i)] for i in held}
        train = tuple(case for case in cases if whose[case] not in names)
        folds.append(Fold(train, tuple(case for case in cases if whose[case] in names)))
    return tuple(folds)


def fold_of(folds: Sequence[Fold], which: int | Literal["all"], ids: Sequence[str]) -> Fold:
    """Choose a fold: by number, or "all" cases for both parts.

    Beyond the last fold nnU-Net draws four fifths at random, seeded by the number; so do we.

    Raises:
        ConfigError: if a part is empty, a case is not there, or is in both parts.
    """
    cases = sorted(ids)
    if which == "all":
        return Fold(tuple(cases), tuple(cases))
    if which < 0:
        raise ConfigError(f"fold {which} must be 0 or more, or all")
    if which >= len(folds):
        rng = np.random.RandomState(SEED + which)  # nnU-Net's generator
        chosen = rng.choice(len(cases), int(len(cases) * 0.8), replace=False).tolist()
        others = [i for i in range(len(cases)) if i not in set(chosen)]
        fold = Fold(tuple(cases[i] for i in chosen), tuple(cases[i] for i in others))
    else:
        fold = folds[which]
    unknown = sorted({*fold.train, *fold.val} - set(cases))
    both = sorted(set(fold.train) & set(fold.val))
    if unknown or both or not fold.train or not fold.val:
        what = (
            f"names cases that are not there: {', '.join(unknown[:5])}"
            if unknown
            else f"has cases in both parts: {', '.join(both[:5])}"
            if both
            else f"has {len(fold.train)} cases to train on and {len(fold.val)} to validate on"
        )
        raise ConfigError(f"fold {which} {what}. Mend {FILE_NAME}, or remove it to split anew")
    return fold


def read_folds(path: Path) -> tuple[Fold, ...]:
    """Read splits_final.json.

    Raises:
        CorruptFile: if it is no list of folds.
    """
    try:
        if file_size(path) > _MOST_BYTES:
            raise ValueError("it is too large")
        content = json.loads(path.read_text("utf-8-sig"))
        folds = tuple(
            Fold(tuple(str(c) for c in f["train"]), tuple(str(c) for c in f["val"]))
            for f in content
        )
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise CorruptFile(
            f'{path} must be a list of folds such as {{"train": [...], "val": [...]}}: {error!r}'
        ) from error
    if not folds:
        raise CorruptFile(f"{path} has no folds")
    return folds


def write_folds(folds: Sequence[Fold], path: Path) -> Path:
    """Write splits_final.json as nnU-Net does."""
    content = [{"train": list(f.train), "val": list(f.val)} for f in folds]
    with replacing(path) as (new,):
        new.write_text(json.dumps(content, indent=4), "utf-8")
    return path
