"""SAM-Med2D's published test as a way to ask: its own input, its own draws, the best of three masks.

Its metrics are the protocol "sam_med2d" of `samaritan.metrics`.

Source: OpenGVLab/SAM-Med2D, DataLoader.py, utils.py, test.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from samaritan import simulate
from samaritan.data.manifest import Manifest
from samaritan.errors import ConfigError, GeometryError
from samaritan.evaluation.asking import Answer
from samaritan.evaluation.prompting import box_around, ellipse, generator
from samaritan.evaluation.targets import Mask, Subject, Target
from samaritan.evaluation.trial import ELLIPSE, Trial
from samaritan.infer import Predictor
from samaritan.infer.engine import Embedded, OpenImage
from samaritan.transforms import FocusPreprocess, SlicePreprocess
from samaritan.transforms.preprocess import displayed, to_bytes

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class MedFrame:
    """A picture as SAM-Med2D's DataLoader lays it into its input.

    Small pictures (both sides below the input's) are padded around, all others stretched by the nearest
    pixel as OpenCV picks it: the one at the upper left of the place, not at its centre.
    """

    shape: tuple[int, int]
    """Rows and columns of the picture."""
    size: tuple[int, int]
    """Rows and columns of the input."""

    @property
    def padded(self) -> bool:
        """Whether the picture is padded rather than stretched."""
        return self.shape[0] < self.size[0] and self.shape[1] < self.size[1]

    @property
    def offset(self) -> tuple[int, int]:
        """Rows above and columns to the left of a padded picture."""
        return (self.size[0] - self.shape[0]) // 2, (self.size[1] - self.shape[1]) // 2

    def lay(self, picture: Array, fill: float = 0) -> Array:
        """Lay (rows, columns, ...) into the input."""
        if not self.padded:
            rows, columns = (
                np.minimum((np.arange(n) * (old / n)).astype(int), old - 1)
                for n, old in zip(self.size, self.shape, strict=True)
            )
            return np.ascontiguousarray(picture[rows][:, columns])
        whole = np.full((*self.size, *picture.shape[2:]), fill, picture.dtype)
        top, left = self.offset
        whole[top : top + self.shape[0], left : left + self.shape[1]] = picture
        return whole

    def back(self, logits: Float[Tensor, "low low"]) -> Float[Tensor, "rows columns"]:
        """Enlarge low-resolution logits to the input, and bring them back to the picture."""
        at_input = F.interpolate(
            logits[None, None], self.size, mode="bilinear", align_corners=False
        )
        if self.padded:
            top, left = self.offset
            return at_input[0, 0, top : top + self.shape[0], left : left + self.shape[1]]
        return F.interpolate(at_input, self.shape, mode="bilinear", align_corners=False)[0, 0]


def ask_as_sam_med2d(
    predictor: Predictor, manifest: Manifest, subject: Subject, trial: Trial
) -> Iterator[tuple[Target, Answer]]:
    """Ask as SAM-Med2D's test.py does: boxes and points are drawn evenly, at the size of the input.

    "points" are given at once; "clicks" add one on an error each time, with all before it and the last
    answer. Answers carry no boxes or points, since these lie in the input.

    Raises:
        GeometryError: if the case is not a picture.
        ConfigError: if the trial or the model asks for what the published test does not have.
    """
    check_trial(predictor, trial)
    if not subject.image.is_flat:
        raise GeometryError(
            f"a volume of shape {subject.image.shape}, and protocol 'sam_med2d' is for pictures. Make "
            "slices first with `samaritan prepare slices`, and evaluate on these"
        )
    start = time.perf_counter()
    window = manifest.group_of(subject.case).window
    image = predictor.open(subject.image, window=window)
    rows, columns = displayed(image.volume, image.axis).shape[:2]
    frame = MedFrame((rows, columns), chain_of(predictor).size)
    features = encoded(predictor, image, frame)
    opening: float | None = time.perf_counter() - start
    for target in subject.targets:
        box = box_around(target, image.volume.shape, trial)
        if trial.baseline:
            yield target, Answer(ELLIPSE, None, ellipse(*box, image.volume.shape))
        inside = _inside(image, frame, target)
        asked = _Asked(predictor, features, inside, partial(generator, trial, target))
        start = time.perf_counter()
        for prompt, clicks, logits, quality in asked.answers(trial):
            found = frame.back(logits)
            # metrics.py takes logits for probabilities where none is negative
            mask = (found > (0.5 if found.min() >= 0 else 0.0)).numpy()
            stored = _as_stored(mask, image)
            seconds = time.perf_counter() - start
            yield target, Answer(prompt, clicks, stored, quality, seconds, opening)
            start, opening = time.perf_counter(), None


def check_trial(predictor: Predictor, trial: Trial) -> None:
    """Refuse what the published test does not have.

    Raises:
        ConfigError: if the model is not for pictures, or the trial asks for other prompts.
    """
    chain_of(predictor)
    if "box+clicks" in trial.prompts or trial.box != "exact":
        raise ConfigError(
            "protocol 'sam_med2d' has exact boxes, points and clicks: leave out box+clicks and --box"
        )


def chain_of(predictor: Predictor) -> SlicePreprocess:
    """The chain of a model for pictures.

    Raises:
        ConfigError: if it is not one.
    """
    chain, name = predictor.preprocess, predictor.model.config.name
    if isinstance(chain, FocusPreprocess) or not isinstance(chain, SlicePreprocess):
        seen = "windows of pictures" if chain.n_axes == 2 else "volumes: it is a 3D model"
        raise ConfigError(
            f"{name!r} looks at {seen}; protocol 'sam_med2d' gives a model whole pictures"
        )
    return chain


def encoded(predictor: Predictor, image: OpenImage, frame: MedFrame) -> Embedded:
    """Encode a picture as it lies in the published input."""
    chain = chain_of(predictor)
    shown = displayed(image.volume, image.axis)
    pixels = to_bytes(shown.array[:, :, 0], image.statistics["low"], image.statistics["high"])
    pixels = pixels.reshape(*pixels.shape[:2], -1)  # grey has no axis of channels
    # the chain normalises a picture that has its size already, so it is laid there by value
    plain = chain.tensor(frame.lay(pixels)) if not frame.padded else _padded(chain, frame, pixels)
    with predictor.running():
        features = predictor.model.image_encoder(plain.to(predictor.device))
    return Embedded(features.float(), shown.grid, 2, image.statistics)


def _padded(chain: SlicePreprocess, frame: MedFrame, pixels: Array) -> Float[Tensor, "1 c h w"]:
    """Zeros around a normalised picture."""
    return replace(chain, resize="pad").tensor(pixels)


def _inside(image: OpenImage, frame: MedFrame, target: Target) -> Bool[Tensor, "1 h w"]:
    """The object in the input."""
    mask = image.volume.with_array(target.mask(image.volume.shape).view(np.uint8))
    laid = frame.lay(displayed(mask, image.axis).array[:, :, 0])
    return torch.from_numpy(laid)[None] > 0


def _as_stored(mask: Mask, image: OpenImage) -> Mask:
    """Turn a mask (rows, columns) back to the axes of the image."""
    stored = image.volume.with_array(np.zeros(image.volume.shape, np.uint8))
    displayed(stored, image.axis).array[:, :, 0] = mask  # a view: what is put there stays
    found: Mask = stored.array.view(bool)
    return found


@dataclass(frozen=True, eq=False)
class _Asked:
    """One object in one encoded picture."""

    predictor: Predictor
    features: Embedded
    inside: Bool[Tensor, "1 h w"]
    draws: Callable[[str], torch.Generator]
    """Randomness for each kind of prompt."""

    def answers(self, trial: Trial) -> Iterator[tuple[str, int | None, Tensor, float]]:
        """Kind of prompt, number of points, low-resolution logits, and the model's estimate."""
        if "box" in trial.prompts:
            largest = simulate.largest_component(self.inside)
            corners = simulate.boxes_of(largest)[:, [1, 0, 3, 2]]  # x, y; one past the last pixel
            yield "box", None, *self._decode(boxes=corners)
        if "points" in trial.prompts:
            for count in trial.points:
                points = simulate.first_points(self.inside, count, self.draws("points"))
                yield "points", count, *self._decode(points=points)
        if "clicks" in trial.prompts:
            yield from self._clicks(trial.clicks)

    def _clicks(self, most: int) -> Iterator[tuple[str, int, Tensor, float]]:
        coords, labels = simulate.first_points(self.inside, 1, self.draws("points"))
        draws = self.draws("clicks")
        previous = None
        for count in range(1, most + 1):
            logits, quality = self._decode(points=(coords, labels), masks=previous)
            yield "clicks", count, logits, quality
            size = tuple(self.inside.shape[1:])
            large = F.interpolate(logits[None, None], size, mode="bilinear", align_corners=False)
            at, label = simulate.error_points(large[0] > 0, self.inside, 1, draws)
            coords, labels = torch.cat([coords, at], dim=1), torch.cat([labels, label], dim=1)
            policy = chain_of(self.predictor).prompting.mask_values
            previous = (logits.sigmoid() if policy == "probabilities" else logits)[None, None]

    def _decode(
        self,
        points: tuple[Tensor, Tensor] | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, float]:
        """The best of three masks by the model's own estimate, or the only one of models that have one."""
        if points is not None:
            points = (points[0].flip(-1), points[1])
        several = chain_of(self.predictor).prompting.multimask != "never"
        low_res, quality = self.predictor.decode(
            self.features, points=points, boxes=boxes, masks=masks, multimask=several
        )
        best = int(quality[0].argmax())
        return low_res[0, best], float(quality[0, best])
