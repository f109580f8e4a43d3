"""Small sets of bright shapes on a dark ground, with their masks, for models that see brightness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from infer.oracle import BrightnessOracle
from torch import Tensor

from samaritan.data import Manifest, load_manifest
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.io import write
from samaritan.transforms import SlicePreprocess
from samaritan.volume import LabelMap, Volume

SIZE = 64


def disc(centre: tuple[int, int], radius: float, size: int = SIZE) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def write_set(folder: Path, masks: dict[str, np.ndarray]) -> Path:
    """Each mask as a pair of files: the object at 200 on 20, and its labels."""
    for name, mask in masks.items():
        grid = Grid.pixels((*mask.shape, 1))
        image = np.where(mask > 0, 200, 20).astype(np.uint8)
        write(Volume(image[:, :, None], grid), folder / "images" / f"{name}.png")
        write(LabelMap(mask.astype(np.uint8)[:, :, None], grid), folder / "masks" / f"{name}.png")
    return folder


def three_discs(folder: Path) -> Manifest:
    """Three pictures of a disc each."""
    masks = {f"p{i}": disc((20 + 6 * i, 30), 8 + 2 * i) for i in range(3)}
    return load_manifest(write_set(folder, masks))


class Nothing(BrightnessOracle):
    """A model that never finds anything."""

    def _decode(self, **options: object) -> tuple[Tensor, Tensor]:
        logits, quality = super()._decode(**options)  # type: ignore[arg-type]
        return logits * 0 - 10, quality


def seer(kind: type[BrightnessOracle] = BrightnessOracle, size: int = SIZE) -> Predictor:
    """A predictor whose answer is whatever is bright."""
    chain = SlicePreprocess(size=(size, size))
    return Predictor(kind((size, size), channels=3), chain, device="cpu")  # type: ignore[arg-type]
