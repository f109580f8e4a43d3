"""Label maps from models that take no prompts: every voxel gets its most probable class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from samaritan.errors import ConfigError, PromptError
from samaritan.infer.labeller import VolumeLabeller
from samaritan.infer.predictor import Predictor
from samaritan.models import ClassSam, Sam
from samaritan.transforms import SlicePreprocess
from samaritan.transforms.preprocess import displayed
from samaritan.volume import LabelMap, Volume, smallest_label_dtype

ENLARGED_FLOATS = 2**24
"""Logits of so many classes at a time are enlarged as fit into this many floats (64 MiB)."""


def predict_labels(
    predictor: Predictor | VolumeLabeller,
    volume: Volume,
    *,
    axis: int | None = None,
    batch_size: int = 8,
    window: tuple[float, float] | None = None,
) -> LabelMap:
    """Label a picture or volume with a model that takes no prompts, on its own grid.

    Models that learned from nnU-Net data label volumes in windows, as `VolumeLabeller` tells; the other
    arguments are not for them. Others label a volume slice by slice. The logits of each class are brought to
    the size of the model's input and from there onto the slice's own pixels, both linearly, and only then is
    the largest taken.

    Beside the label map itself memory holds `batch_size` slices as input and as low-resolution
    logits, and one slice with the enlarged logits of a few classes at a time (`ENLARGED_FLOATS`, or
    one class): never classes times volume.

    Args:
        predictor: with a model such as "samed_vit_b".
        volume: a picture, a slice or a volume.
        axis: array axis that slices lie across; None: that of the thickest voxels.
        batch_size: slices that go through the model together; it does not change the result.
        window: stored intensities that become 0 and 255; None: as `Predictor.open` tells.

    Returns:
        Labels with names: those that were stored with the weights, else "label N".

    Raises:
        PromptError: if the model takes prompts, or there is no such axis.
        ConfigError: if the model is not for pictures, or the image has the wrong channels.

    Example::

        predictor = Predictor.from_checkpoint("runs/samed/best.safetensors")
        write(predict_labels(predictor, read("scan.nii.gz")), "labels.nii.gz")
    """
    if isinstance(predictor, VolumeLabeller):
        return predictor.labels(volume)
    chain = require_classes(predictor)
    if batch_size < 1:
        raise ConfigError(f"batch_size must be 1 or more, got {batch_size}")
    image = predictor.open(volume, axis=axis, window=window)
    names = class_names(predictor)
    across, total = image.axis, volume.shape[image.axis]
    array = np.zeros(volume.shape, smallest_label_dtype(len(names)))
    labels = LabelMap(array, volume.grid, names=names, meta={"model": predictor.model.config.name})
    back = _WayBack.of(chain, displayed(volume.slice(across, 0), across), predictor)
    for start in range(0, total, batch_size):
        keys = [(across, i) for i in range(start, min(start + batch_size, total))]
        frames = [chain.frame(volume, key, image.statistics).tensor for key in keys]
        for key, logits in zip(keys, _logits(predictor, torch.cat(frames)), strict=True):
            shown = displayed(labels.slice(*key), across)  # a view: what is put there stays
            shown.array[:, :, 0] = back.labels(logits)
        predictor.progress("slices", keys[-1][1] + 1, total)
    return labels


def require_classes(predictor: Predictor) -> SlicePreprocess:
    """Refuse models that answer prompts; give the chain of one that labels pictures.

    Raises:
        PromptError: if the model takes prompts.
        ConfigError: if it is not for pictures.
    """
    name = predictor.model.config.name
    if not isinstance(predictor.model, ClassSam):
        raise PromptError(
            f"model {name!r} answers prompts and labels nothing without them: give it points, boxes or "
            "masks (predict --prompts FILE), or let it find everything in one picture "
            "(segment --everything)"
        )
    if not isinstance(predictor.preprocess, SlicePreprocess):
        raise ConfigError(f"model {name!r} labels 3D windows; only 2D models can do this so far")
    return predictor.preprocess


def class_names(predictor: Predictor | VolumeLabeller) -> dict[int, str]:
    """Name every class of a model, background left out."""
    if isinstance(predictor, VolumeLabeller):
        return dict(predictor.label_names)
    stored = predictor.label_names
    count = predictor.model.config.num_mask_tokens
    return {value: stored.get(value, f"label {value}") for value in range(1, count)}


def _logits(predictor: Predictor, images: Tensor) -> Float[Tensor, "b classes *low"]:
    """Logits of every class, background first, float32 on the model's device."""
    with predictor.running():
        output = Sam.forward(predictor.working, images.to(predictor.device), multimask_output=True)
    return output.low_res_logits.float()


@dataclass(frozen=True, eq=False)
class _WayBack:
    """From low-resolution logits to a slice's own pixels: both linear steps as one matrix per axis."""

    rows: Float[Tensor, "rows low"]
    columns: Float[Tensor, "columns low"]

    @classmethod
    def of(cls, chain: SlicePreprocess, shown: Volume, predictor: Predictor) -> _WayBack:
        """For slices that are looked at as `shown`."""
        content = chain.content_size(shown.grid)
        before, low = chain.offset(*content), predictor.low_res_size
        matrices = []
        for axis in range(2):
            pixels, size = shown.shape[axis], chain.size[axis]
            centres = (torch.arange(pixels, dtype=torch.float64) + 0.5) / pixels
            at_input = _linear(centres * content[axis] - 0.5 + before[axis], size)
            inputs = (torch.arange(size, dtype=torch.float64) + 0.5) / size
            from_low = _linear(inputs * low[axis] - 0.5, low[axis])
            matrices.append((at_input @ from_low).float().to(predictor.device))
        return cls(*matrices)

    def labels(self, logits: Float[Tensor, "classes rows columns"]) -> npt.NDArray[np.int64]:
        """The class with the largest logit at each pixel."""
        pixels = len(self.rows) * len(self.columns)
        step = max(ENLARGED_FLOATS // pixels, 1)
        with torch.inference_mode():
            best, found = self._largest(logits[:step])
            for start in range(step, len(logits), step):
                larger, which = self._largest(logits[start : start + step])
                found = torch.where(larger > best, which + start, found)
                best = torch.maximum(best, larger)
        labels: npt.NDArray[np.int64] = found.cpu().numpy()
        return labels

    def _largest(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        enlarged = self.rows @ logits @ self.columns.T
        largest = enlarged.max(dim=0)
        return largest.values, largest.indices


def _linear(at: Float[Tensor, " n"], count: int) -> Float[Tensor, "n count"]:
    """Weights of linear interpolation at positions among `count` centres; the edge value goes on."""
    at = at.clamp(0, count - 1)
    before = at.floor().long().clamp(max=max(count - 2, 0))
    share = at - before
    weights = torch.zeros(len(at), count, dtype=torch.float64)
    weights.scatter_add_(1, before[:, None], 1 - share[:, None])
    weights.scatter_add_(1, (before + 1).clamp(max=count - 1)[:, None], share[:, None])
    return weights
