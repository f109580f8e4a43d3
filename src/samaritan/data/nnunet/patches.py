"""Patches of preprocessed cases to train models of classes on, with nnU-Net's share of foreground.

An item is a function of (seed, epoch, turn, case) alone: the same with any number of workers, and after a run
was stopped. Cases are memory-mapped; of each only the patch and what turning it needs is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from samaritan.data.manifest import Case
from samaritan.data.nnunet.augment import PatchAugment
from samaritan.data.nnunet.cases import StoredCase
from samaritan.data.nnunet.cropping import OUTSIDE
from samaritan.data.nnunet.planned import PlannedSet
from samaritan.data.nnunet.plans import Configuration
from samaritan.data.sampling import Draw
from samaritan.errors import ConfigError

Array = npt.NDArray[Any]
Item = dict[str, Tensor]

_OPEN_CASES = 64
"""Memory-mapped cases that a process keeps open; each takes three file handles."""

_WHOLE_CASES = 2
"""Cases of `.npz` that a process keeps: they are in memory as a whole."""


class PatchDataset(Dataset[Item]):
    """Patches of a configuration's size, a third of which must show foreground.

    Items: "image" (c, *patch) float32; "label" (*patch) int64, label values as in the files, the ignored one
    included; "index" of the case. A flat configuration gives slices (c, rows, columns).

    The last third of each batch shows a voxel of a class that is drawn evenly from those of the case. With an
    ignored label all others show a voxel that somebody decided. Draw with `DrawSampler(dataset.cases,
    length=...)` and batches of `batch_size`, since the place in the batch is that of the turn.

    Args:
        planned: the folder; cases that are not there are made when they are first drawn.
        configuration: one of its plans.
        ids: of the cases, such as those of a fold.
        batch_size: None: that of the configuration.
        patch_size: None: that of the configuration.
        foreground: share of each batch that must show foreground; nnU-Net says 0.33.
        augment: None: patches as they are.
        seed: another seed draws otherwise.

    Raises:
        ConfigError: if there is no case, or one that is not known.
    """

    def __init__(
        self,
        planned: PlannedSet,
        configuration: Configuration,
        ids: Sequence[str],
        *,
        batch_size: int | None = None,
        patch_size: Sequence[int] | None = None,
        foreground: float = 0.33,
        augment: PatchAugment | None = None,
        seed: int = 0,
    ) -> None:
        unknown = sorted(set(ids) - set(planned.ids(configuration)))
        if unknown or not ids:
            raise ConfigError(
                f"cases {unknown[:5]} are not in {planned.folder}"
                if unknown
                else "no case to learn from"
            )
        self.planned, self.configuration = planned, configuration
        self.labels = planned.labels
        self.ids = tuple(ids)
        self.cases = _cases(planned, self.ids)
        self.batch_size = batch_size or configuration.batch_size
        self.patch_size = tuple(patch_size or configuration.patch_size)
        if len(self.patch_size) != len(configuration.patch_size):
            raise ConfigError(
                f"patches of {configuration.name!r} have {len(configuration.patch_size)} axes, "
                f"got {self.patch_size}"
            )
        self.foreground, self.augment, self.seed, self.epoch = foreground, augment, seed, 0
        self._case = self._cache()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_case"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._case = self._cache()

    def _cache(self) -> Callable[[str], StoredCase]:
        file = self.planned.cases_folder(self.configuration) / f"{self.ids[0]}.npz"
        packed = file.is_file() and not file.with_suffix(".npy").is_file()
        return lru_cache(maxsize=_WHOLE_CASES if packed else _OPEN_CASES)(self._opened)

    def set_epoch(self, epoch: int) -> None:
        """Say how often the data were gone through; for plain indices, `Draw`s bring their own."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, key: int | Draw) -> Item:
        draw = key if isinstance(key, Draw) else Draw(int(key), self.epoch, int(key))
        if not 0 <= draw.item < len(self):
            raise IndexError(draw.item)
        case, rng = self._case(self.ids[draw.item]), draw.generator(self.seed)
        patch = self.patch_size if len(self.patch_size) == 3 else (1, *self.patch_size)
        size = self._read_size()
        start = self._start(case, size, patch, self._must_show(draw.turn), rng)
        image, label = self._changed(*_read(case, start, size), rng)
        return {
            "image": image,
            "label": label.clamp(min=0).long(),
            "index": torch.tensor(draw.item),
        }

    def _opened(self, case: str) -> StoredCase:
        return self.planned.case(self.configuration, case)

    def _must_show(self, turn: int) -> bool:
        """Tell whether a turn is among the last of its batch, which show foreground."""
        return turn % self.batch_size >= round(self.batch_size * (1 - self.foreground))

    def _read_size(self) -> tuple[int, ...]:
        size = self.patch_size if self.augment is None else self.augment.read_size(self.patch_size)
        return size if len(size) == 3 else (1, *size)

    def _start(
        self,
        case: StoredCase,
        size: Sequence[int],
        patch: Sequence[int],
        must_show: bool,
        rng: np.random.Generator,
    ) -> tuple[int, ...]:
        """Say where reading starts: anywhere, or so that a chosen voxel is in the middle.

        Source: `get_bbox` of nnU-Net 2.8.1: patches reach over the border by what turning needs, and smaller
        images lie in the middle; around a voxel they may reach over the far border by half.
        """
        pads = [max(s - p, s - n) for s, p, n in zip(size, patch, case.shape, strict=True)]
        low = [-(pad // 2) - pad % 2 for pad in pads]
        high = [
            n + pad // 2 + pad % 2 - s for n, pad, s in zip(case.shape, pads, size, strict=True)
        ]
        voxels = self._voxels(case, must_show, rng)
        if voxels is None:
            return tuple(int(rng.integers(a, b + 1)) for a, b in zip(low, high, strict=True))
        voxel = voxels[int(rng.integers(len(voxels)))]
        return tuple(max(a, int(v) - s // 2) for a, v, s in zip(low, voxel, size, strict=True))

    def _voxels(self, case: StoredCase, must_show: bool, rng: np.random.Generator) -> Array | None:
        """Choose the class whose voxels a patch must show one of; None: it may show anything."""
        decided = self.labels.annotated
        if not must_show:
            found = case.places.get(decided) if self.labels.ignore is not None else None
            return found if found is not None and len(found) else None
        known = [key for key, voxels in case.places.items() if len(voxels)]
        known = [key for key in known if key != decided] or known
        return case.places[known[int(rng.integers(len(known)))]] if known else None

    def _changed(
        self, image: Array, labels: Array, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        flat = len(self.patch_size) == 2
        shown = torch.from_numpy(image[:, 0] if flat else image)
        drawn = torch.from_numpy(labels[0] if flat else labels)
        if self.augment is None:
            return shown, drawn
        return self.augment(shown, drawn, self.patch_size, rng, self.configuration.use_mask)


def _read(case: StoredCase, start: Sequence[int], size: Sequence[int]) -> tuple[Array, Array]:
    """Cut a box that may lie partly outside: there the image is 0 and labels are `OUTSIDE`."""
    low = [min(max(s, 0), n) for s, n in zip(start, case.shape, strict=True)]
    high = [max(min(s + d, n), a) for s, d, n, a in zip(start, size, case.shape, low, strict=True)]
    image = np.zeros((case.image.shape[0], *size), np.float32)
    labels = np.full(tuple(size), OUTSIDE, np.int16)
    there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    here = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    image[(slice(None), *here)] = case.image[(slice(None), *there)]
    labels[here] = case.labels[(slice(None), *there)][0]
    return image, labels


def _cases(planned: PlannedSet, ids: Sequence[str]) -> tuple[Case, ...]:
    """Name the cases as samplers want them; without the raw folder each is a patient of its own."""
    if planned.raw is None:
        return tuple(Case(one, (one,)) for one in ids)
    known = {case.id: case for case in planned.raw.cases}
    return tuple(known[one] for one in ids)
