"""Windows around objects, to train small 2D models that look at one object at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from samaritan.data.augment import Intensity
from samaritan.data.datasets import Item, ObjectDataset
from samaritan.data.manifest import Manifest
from samaritan.data.objects import Drawn
from samaritan.data.packing import Example
from samaritan.data.sampling import Draw
from samaritan.transforms import FocusPreprocess
from samaritan.transforms.focus import cut

Array = npt.NDArray[Any]

SPARE = 1.45
"""Side of what is cut out over the side of the window, so that there is something to turn into it."""


@dataclass(frozen=True)
class Looks:
    """How windows differ from the one that just holds the object."""

    close: tuple[float, float] = (1.15, 2.6)
    """Smallest and greatest side of a close window, times the object's."""
    inside: float = 0.12
    """Part of windows that show a part of the object only, so that it goes on beyond them."""
    wide: float = 0.25
    """Part of windows that are wider than that: up to the whole picture."""
    smallest: float = 14.0
    """Pixels of the input that the object's longer side keeps in a wide window."""
    off: float = 0.15
    """Greatest distance of the object from the middle, as a part of the window."""
    rotate: float = 25.0
    """Greatest rotation in degrees, beside flips and quarter turns."""
    stretch: float = 0.12
    """Deviation of the logarithm of how much one axis is longer than the other."""
    bend: float = 0.03
    """Greatest local displacement, as a part of the window; half of the windows have one."""


class FocusDataset(ObjectDataset):
    """One object and a window around it for each turn.

    Items: "image" (c, *size) float32; "masks" (1, *size) bool; "valid" (1) bool; "index" of the case. Without
    augmentation the window is the one that inference would place around a box: the same always.

    Args:
        manifest: of pictures with labels of any kind.
        chain: of the model.
        looks: how windows differ; None: not at all.
        intensity: how grey values and colours differ; None: not at all.
        more: see `ObjectDataset`.
    """

    def __init__(
        self,
        manifest: Manifest,
        chain: FocusPreprocess,
        *,
        looks: Looks | None = None,
        intensity: Intensity | None = None,
        **more: Any,
    ) -> None:
        self.looks, self.intensity, self.focus = looks, intensity, chain
        super().__init__(manifest, chain, count=1, **more)

    def __getitem__(self, key: int | Draw) -> Item:
        draw, example = self._example(key)
        rng = draw.generator(self.seed)
        large = self._large(example)
        for _ in range(4):
            chosen = _drawn(large, rng)
            pixels, content, mask = self._window(example, chosen, rng, self.looks)
            if mask.sum() >= self.min_size:
                break
        else:
            pixels, content, mask = self._window(example, chosen, rng, None)
        if self.intensity is not None:
            pixels = self.intensity(pixels, mask[None], rng)[0]
        image = self.focus.normalised(torch.from_numpy(pixels), content)[0]
        return {
            "image": image,
            "masks": torch.from_numpy(mask)[None],
            "labels": torch.tensor([chosen.label]),
            "valid": torch.ones(1, dtype=torch.bool),
            "index": torch.tensor(draw.item),
        }

    def _window(
        self, example: Example, chosen: Drawn, rng: np.random.Generator, looks: Looks | None
    ) -> tuple[Array, Tensor, npt.NDArray[np.bool_]]:
        """Cut a window: pixels (rows, columns, c), what of it lies on the picture, and the object."""
        inside = example.planes[chosen.plane] == chosen.value
        centre, side = _place(inside)
        if looks is None:
            side = max(side * self.focus.margin, 8.0)
            values, content, mask = self._cut(example.pixels, inside, centre, side, self.focus.size)
            return values, torch.from_numpy(content), mask > 127
        if rng.random() < looks.inside:
            centre, side = _within(inside, side, rng)
        else:
            sides = example.pixels.shape[:2]
            centre, side = _varied(centre, side, sides, self.focus.size[0], rng, looks)
        large = tuple(round(n * SPARE) for n in self.focus.size)
        values, content, mask = self._cut(example.pixels, inside, centre, side * SPARE, large)
        planes = np.concatenate([values, content[..., None] * 255, mask[..., None]], axis=2)
        turned = _turned(planes.astype(np.float32), self.focus.size, rng, looks)
        pixels = np.rint(turned[..., :-2]).clip(0, 255).astype(np.uint8)
        return pixels, torch.from_numpy(turned[..., -2] / 255), turned[..., -1] > 127

    @staticmethod
    def _cut(
        pixels: Array, inside: Array, centre: Array, side: float, size: tuple[int, ...]
    ) -> tuple[Array, Array, Array]:
        box = [*(centre - side / 2), *(centre + side / 2)]
        values, content = cut(pixels, box, (size[0], size[1]))
        mask, _ = cut(inside[..., None].astype(np.uint8) * 255, box, (size[0], size[1]))
        return values, content, mask[..., 0]


def _drawn(large: list[Drawn], rng: np.random.Generator) -> Drawn:
    """Draw a label, then one of its objects, so that many small ones do not outweigh a large one."""
    label = rng.choice(sorted({one.label for one in large}))
    some = [one for one in large if one.label == label]
    return some[int(rng.integers(len(some)))]


def _place(inside: Array) -> tuple[Array, float]:
    """The middle of an object in pixel edges, and its longer side."""
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    low = np.array([rows[0], columns[0]], float)
    high = np.array([rows[-1] + 1, columns[-1] + 1], float)
    return (low + high) / 2, float((high - low).max())


def _within(inside: Array, side: float, rng: np.random.Generator) -> tuple[Array, float]:
    """A window about some pixel of the object, smaller than the object is long."""
    pixels = np.argwhere(inside)
    centre = pixels[int(rng.integers(len(pixels)))] + 0.5
    return centre, max(side * float(rng.uniform(0.35, 1.1)), 8.0)


def _varied(
    centre: Array,
    side: float,
    picture: tuple[int, ...],
    size: int,
    rng: np.random.Generator,
    looks: Looks,
) -> tuple[Array, float]:
    """Another window that shows the object: closer or wider, and off its middle."""
    low, high = looks.close
    widest = min(max(picture), side * size / looks.smallest)
    if rng.random() < looks.wide and widest > side * high:
        low, high = high, widest / side
    made = max(side * math.exp(rng.uniform(math.log(low), math.log(high))), 8.0)
    most = max(looks.off * made, (made - side) / 2)
    return centre + rng.uniform(-most, most, 2), made


def _turned(
    planes: npt.NDArray[np.float32], size: tuple[int, ...], rng: np.random.Generator, looks: Looks
) -> npt.NDArray[np.float32]:
    """Turn, flip, stretch and bend the middle of (rows, columns, c) into a window of `size`."""
    angle = math.radians(rng.uniform(-looks.rotate, looks.rotate)) + rng.integers(4) * math.pi / 2
    cos, sin = math.cos(angle), math.sin(angle)
    stretch = math.exp(float(rng.normal()) * looks.stretch)
    flip = 1.0 if rng.random() < 0.5 else -1.0
    turn = np.array([[cos, -sin], [sin, cos]]) @ np.diag([flip * stretch, 1 / stretch]) / SPARE
    theta = torch.tensor(np.hstack([turn, np.zeros((2, 1))]), dtype=torch.float32)[None]
    grid = F.affine_grid(theta, [1, 1, *size], align_corners=False)
    if rng.random() < 0.5:
        knots = torch.from_numpy(rng.uniform(-1, 1, (1, 2, 5, 5)).astype(np.float32))
        bent = F.interpolate(knots, list(size), mode="bicubic", align_corners=True)
        grid = grid + bent.movedim(1, -1) * (2 * looks.bend * float(rng.random()))
    values = torch.from_numpy(planes).permute(2, 0, 1)[None]
    found = F.grid_sample(values, grid, mode="bilinear", align_corners=False)
    turned: npt.NDArray[np.float32] = found[0].permute(1, 2, 0).contiguous().numpy()
    return turned
