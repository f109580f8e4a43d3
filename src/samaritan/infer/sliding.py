"""Any model of classes over a whole image: overlapping windows, weighed towards their middle, mirrored.

Source: nnU-Net 2.8.1's predictor: places of windows, weights and mirrored averages are the same. Finished
slices are handed on while others are worked on, so logits of all classes of a whole volume are never held.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from samaritan.errors import ConfigError

ClassModel = Callable[[Tensor], Tensor]
"""Takes patches (b, c, *patch), gives logits (b, heads, *patch)."""

Progress = Callable[[int, int], None]

_SIGMA = 1 / 8
"""Of the weights, as a part of the window."""


@dataclass(frozen=True)
class SlidingWindows:
    """How an image is gone through.

    Attributes:
        patch_size: of the model: three axes, or two for a model of single slices.
        step: how far windows move, as a part of their size.
        mirror: axes of the patch along which it is also shown reversed, all combinations averaged:
            (0, 1, 2) costs eight times as much.
        batch_size: windows that go through the model together.
        device: of the model.

    Raises:
        ConfigError: if something is not possible.
    """

    patch_size: tuple[int, ...]
    step: float = 0.5
    mirror: tuple[int, ...] = ()
    batch_size: int = 1
    device: str | torch.device = "cpu"

    def __post_init__(self) -> None:
        dims = len(self.patch_size)
        if dims not in (2, 3) or min(self.patch_size) < 1:
            raise ConfigError(f"patch_size must be two or three sizes, got {self.patch_size}")
        if not 0 < self.step <= 1:
            raise ConfigError(f"step must be above 0 and at most 1, got {self.step}")
        if any(not 0 <= a < dims for a in self.mirror) or self.batch_size < 1:
            raise ConfigError(
                f"mirror names axes of the patch, 0 to {dims - 1}, and batch_size is 1 or more; "
                f"got {self.mirror} and {self.batch_size}"
            )

    def slabs(
        self,
        model: ClassModel,
        image: npt.NDArray[np.float32] | Tensor,
        *,
        progress: Progress = lambda done, total: None,
    ) -> Iterator[tuple[int, Tensor]]:
        """Predict an image, and yield slices as soon as no window will change them.

        Memory holds logits for as many slices as a window is deep, (heads + 1) x patch depth x rows x columns
        float32 numbers, and a few windows; never heads x volume. The image is read window by window.

        Args:
            model: called without gradients, on the device.
            image: (c, *grid), also memory-mapped; outside it is zero.
            progress: called with (windows done, windows in all).

        Yields:
            The number of a slice, and its logits (heads, 1, rows, columns) on the CPU, in order.
        """
        if image.ndim != 4:
            raise ConfigError(f"the image must be (channels, k, j, i), got {tuple(image.shape)}")
        flat = len(self.patch_size) == 2
        patch = (1, *self.patch_size) if flat else self.patch_size
        shape = tuple(int(n) for n in image.shape[1:])
        padded = tuple(max(n, p) for n, p in zip(shape, patch, strict=True))
        before = tuple((p - n) // 2 for n, p in zip(shape, padded, strict=True))
        starts = [window_starts(n, p, self.step) for n, p in zip(padded, patch, strict=True)]
        if flat:
            starts[0] = list(range(padded[0]))
        weights = window_weights(patch).to(self.device)
        board = _Board(padded, before, shape, patch[0])
        places = list(itertools.product(*starts))
        for done in range(0, len(places), self.batch_size):
            some = places[done : done + self.batch_size]
            windows = [
                _cut(image, [s - b for s, b in zip(p, before, strict=True)], patch) for p in some
            ]
            logits = self._weighed(model, torch.stack(windows).to(self.device), weights)
            for place, one in zip(some, logits, strict=True):
                yield from board.finished(place[0])  # the ring turns within a batch as well
                board.add(place, one, weights)
            progress(min(done + self.batch_size, len(places)), len(places))
        yield from board.finished(padded[0])

    def logits(
        self,
        model: ClassModel,
        image: npt.NDArray[np.float32] | Tensor,
        *,
        progress: Progress = lambda done, total: None,
    ) -> Tensor:
        """Predict an image at once: (heads, *grid) float32, all in memory."""
        return torch.cat([one for _, one in self.slabs(model, image, progress=progress)], dim=1)

    def _weighed(self, model: ClassModel, windows: Tensor, weights: Tensor) -> Tensor:
        """Ask a model about windows, mirrored in all ways, and weigh the mean of its answers."""
        flat = len(self.patch_size) == 2
        shown = windows[:, :, 0] if flat else windows
        axes = [a + 2 for a in self.mirror]
        with torch.inference_mode():
            total = model(shown).float()
            for count in range(1, len(axes) + 1):
                for some in itertools.combinations(axes, count):
                    total = total + model(shown.flip(some)).float().flip(some)
            answers = total[:, :, None] if flat else total
            return answers.mul_(
                weights / 2 ** len(axes)
            )  # in place: with many classes they are large


def window_starts(size: int, window: int, step: float) -> list[int]:
    """Say where windows start along an axis: evenly, the last one flush with the end.

    >>> window_starts(110, 64, 0.5)
    [0, 23, 46]
    """
    count = math.ceil((size - window) / (window * step)) + 1
    between = (size - window) / (count - 1) if count > 1 else 0.0
    return [int(np.round(between * i)) for i in range(count)]


def window_weights(patch: Sequence[int]) -> Tensor:
    """Weigh the voxels of a window: a Gaussian of an eighth of each side, 1 in the middle, never 0."""
    from scipy import ndimage

    weights = np.ones(())
    for n in patch:
        line = np.zeros(n)
        line[n // 2] = 1
        line = ndimage.gaussian_filter(line, n * _SIGMA, mode="constant")
        weights = weights[..., None] * line
    made = torch.from_numpy(weights / weights.max()).float()
    made[made == 0] = made[made > 0].min()
    return made


def _cut(
    image: npt.NDArray[np.float32] | Tensor, start: Sequence[int], patch: Sequence[int]
) -> Tensor:
    """Cut a window that may reach outside, where it is zero."""
    sizes = image.shape[1:]
    low = [max(s, 0) for s in start]
    high = [min(s + n, size) for s, n, size in zip(start, patch, sizes, strict=True)]
    inner = image[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
    found = torch.as_tensor(np.array(inner) if not isinstance(inner, Tensor) else inner).float()
    if list(found.shape[1:]) == list(patch):
        return found
    made = torch.zeros((found.shape[0], *patch), device=found.device)
    inside = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
    made[(slice(None), *inside)] = found
    return made


class _Board:
    """Sums of logits and weights over the slices that windows still come to: a ring as deep as a window."""

    def __init__(
        self, padded: tuple[int, ...], before: tuple[int, ...], shape: tuple[int, ...], depth: int
    ) -> None:
        self.padded, self.before, self.shape, self.depth = padded, before, shape, depth
        self.first = 0
        self.total: Tensor | None = None
        self.weights: Tensor | None = None

    def add(self, place: Sequence[int], logits: Tensor, weights: Tensor) -> None:
        """Add a window; those that start in one slice come one after another."""
        if self.total is None or self.weights is None:
            plane = self.padded[1:]
            self.total = torch.zeros((len(logits), self.depth, *plane), device=logits.device)
            self.weights = torch.zeros((self.depth, *plane), device=logits.device)
        inside = tuple(slice(s, s + n) for s, n in zip(place[1:], logits.shape[2:], strict=True))
        turn = place[0] % self.depth
        for there, here in (
            (slice(turn, None), slice(0, self.depth - turn)),
            (slice(0, turn), slice(self.depth - turn, None)),
        ):
            self.total[(slice(None), there, *inside)] += logits[:, here]
            self.weights[(there, *inside)] += weights[here]

    def finished(self, upto: int) -> Iterator[tuple[int, Tensor]]:
        """Hand on the slices before `upto`, without those that were added around the image."""
        rows, columns = (
            slice(b, b + n) for b, n in zip(self.before[1:], self.shape[1:], strict=True)
        )
        while self.first < upto and self.total is not None and self.weights is not None:
            turn, z = self.first % self.depth, self.first - self.before[0]
            if 0 <= z < self.shape[0]:
                weights = self.weights[turn, rows, columns]
                yield z, (self.total[:, turn, rows, columns] / weights)[:, None].cpu()
            self.total[:, turn] = 0
            self.weights[turn] = 0
            self.first += 1
