"""Sample pictures of a validation: what was right, what was missed, and what was found wrongly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from samaritan.geometry import Grid
from samaritan.pictures import draw, save_picture
from samaritan.volume import LabelMap, Volume

Array = npt.NDArray[Any]

Samples = Sequence[tuple[Tensor, Tensor, Tensor]]
"""Image, reference and prediction of each."""

NAMES = {1: "right", 2: "missed", 3: "wrong"}


def draw_samples(
    samples: Samples,
    folder: Path,
    stem: str,
    *,
    grid: Callable[[tuple[int, ...]], Grid] | None = None,
) -> None:
    """Draw samples of (image, reference, prediction) as STEM_0.png and so on; of objects the first.

    Args:
        samples: to draw.
        folder: for the pictures.
        stem: of their names.
        grid: tells how a volume of some shape lies; else its voxels are cubes in RAS.
    """
    of_volumes = grid or (lambda shape: Grid.from_spacing(shape, (1, 1, 1)))
    for number, (image, reference, predicted) in enumerate(samples):
        if reference.ndim == image.ndim:  # k *size: masks of several objects
            reference, predicted = reference[0], predicted[0]
        array = image[0].float().numpy()
        flat = array.ndim == 2
        here = Grid.pixels(array.shape) if flat else of_volumes(array.shape)
        marked = _agreement(reference.numpy(), predicted.numpy()).reshape(here.shape)
        image_of = Volume(array.reshape(here.shape), here)
        figure = draw(image_of, mask=LabelMap(marked, here, names=NAMES))
        save_picture(figure, folder / f"{stem}_{number}.png")


def _agreement(reference: Array, predicted: Array) -> Array:
    right = (predicted == reference) & (reference > 0)
    missed = (reference > 0) & (predicted == 0)
    wrong = (predicted > 0) & (predicted != reference)
    marked: Array = np.select([right, missed, wrong], [1, 2, 3]).astype(np.uint8)
    return marked
