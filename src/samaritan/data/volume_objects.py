"""What data sets of single objects in volumes share: turns, channels, and what an item holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from samaritan.data.manifest import Case, Manifest
from samaritan.data.sampling import Draw
from samaritan.data.volume_packing import Packed, PackedVolumes
from samaritan.errors import ConfigError

Item = dict[str, Tensor]


class VolumeObjects(Dataset[Item]):
    """Objects of volumes, one for each item: a part of the volume around it, and its mask there.

    Items: "image" (1, *size) float32; "masks" (1, *size) bool; "labels" (1), the place of its class in
    `names`; "valid" (1) bool; "index" of the object.

    Attributes:
        volumes: on the grid that the chain keeps them on.
        cases: of each item.
        names: every class that occurs.
        channel: which channel of images that have several; None: one drawn for each turn.
        seed: another seed draws otherwise.
    """

    volumes: PackedVolumes
    cases: tuple[Case, ...]
    names: tuple[str, ...]
    channel: int | None
    seed: int
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        """Say how often the data were gone through; for plain indices, `Draw`s bring their own."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.cases)

    def _draw(self, key: int | Draw) -> Draw:
        draw = key if isinstance(key, Draw) else Draw(int(key), self.epoch, int(key))
        if not 0 <= draw.item < len(self):
            raise IndexError(draw.item)
        return draw

    def _channel(self, packed: Packed, rng: np.random.Generator) -> int:
        count = len(packed.image)
        if self.channel is None:
            return int(rng.integers(count)) if count > 1 else 0
        if self.channel >= count:
            raise ConfigError(f"channel {self.channel} was chosen, and an image has {count}")
        return self.channel

    def _item(
        self, image: npt.NDArray[Any], mask: npt.NDArray[np.bool_], name: str, draw: Draw
    ) -> Item:
        return {
            "image": torch.from_numpy(image)[None],
            "masks": torch.from_numpy(mask)[None],
            "labels": torch.tensor([self.names.index(name)]),
            "valid": torch.ones(1, dtype=torch.bool),
            "index": torch.tensor(draw.item),
        }


def labelled_cases(manifest: Manifest) -> Manifest:
    """The cases that have labels.

    Raises:
        ConfigError: if none has.
    """
    labelled = manifest.select(where=lambda case: bool(case.labels))
    if not len(labelled):
        raise ConfigError("no case has labels: is the part that was chosen empty?")
    return labelled
