"""Open an image with the intensities that the model was trained to see."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from samaritan.errors import ConfigError
from samaritan.infer.engine import OpenImage
from samaritan.infer.predictor import Predictor
from samaritan.transforms import SlicePreprocess
from samaritan.volume import Volume


def open_as_trained(
    predictor: Predictor,
    volume: Volume,
    *,
    axis: int | None = None,
    window: tuple[float, float] | None = None,
) -> OpenImage:
    """Open an image for a model, its intensities brought to 0..255 as in training.

    Stored intensities of `window` become 0 and 255 if it is given (a manifest of prepared slices knows it).
    Else pictures and single slices of 8 bits stay as they are, even if the weights name a window: they were
    windowed when they were made. All others go by the chain of the weights: its window, or percentiles
    of the whole volume.

    Args:
        predictor: the model.
        volume: a picture, a slice or a volume.
        axis: array axis that a 2D model's slices are taken across; None: that of the thickest voxels.
        window: stored intensities that become 0 and 255.

    Raises:
        PromptError: if the axis is none, or a 3D model gets several channels.
        ConfigError: if a 2D model cannot see so many channels.
    """
    image = predictor.open(volume, axis=axis)
    if not isinstance(predictor.preprocess, SlicePreprocess):
        return image
    _check_channels(volume, predictor.preprocess.channels)
    if window is None and volume.dtype == np.uint8 and volume.is_flat:
        window = (0.0, 255.0)
    if window is None:
        return image
    return replace(image, statistics={"low": float(window[0]), "high": float(window[1])})


def _check_channels(volume: Volume, taken: int) -> None:
    """Refuse channels that are neither grey nor colours."""
    count = volume.n_channels
    if count > 4 or (count not in (1, 4, taken) and taken != 1):
        names = ", ".join(volume.channels[:4]) + (", ..." if count > 4 else "")
        raise ConfigError(
            f"the image has {count} channels ({names}) and the model takes {taken}: pick one with "
            "volume.channel(name), or --channel on the command line"
        )
