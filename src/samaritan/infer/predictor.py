"""Answers to prompts on pictures, slices and volumes: the way in for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from samaritan.checkpoints import Header, load_model
from samaritan.errors import ConfigError, PromptError
from samaritan.infer.engine import Engine, OpenImage, Precision
from samaritan.infer.session import Session
from samaritan.transforms import CubePreprocess, Preprocess, SlicePreprocess
from samaritan.transforms.preprocess import is_planned, slice_axis
from samaritan.volume import Volume


class Predictor(Engine):
    """Answers prompts on pictures, slices and volumes.

    Args:
        model: from `create_model` or `load_model`.
        preprocess: the chain that the weights were trained with; None: the published one.
        device: such as "cpu" or "cuda:0"; None: the best there is.
        precision: "auto" is the fastest that keeps masks: bfloat16 on CUDA devices that have it, and on
            processors that have it for image encoders as large as SAM's; float32 elsewhere.
        compiled: put the image encoder through torch.compile, for CUDA devices: the first frame of each
            size, or batch, takes a minute or so, and all others are faster.
        cache_bytes: memory bound of the kept embeddings.
        progress: called with (what, done, total) while something takes long.

    Example::

        predictor = Predictor(create_model("sam3d_tiny"))
        session = predictor.session(volume).click((40, 120, 88))
        write(session.mask, "mask.nii.gz")
    """

    header: Header | None = None
    """What the file of the weights says about itself; None for a model that was handed over."""

    @classmethod
    def from_checkpoint(
        cls,
        path_or_name: str | Path,
        *,
        base: str | Path | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        **options: Any,
    ) -> Self:
        """Load a model from a file, or by the name of published weights that were fetched.

        `base` names the weights of the plain model for files of adapters alone; other arguments are those
        of the class.

        Raises:
            CheckpointError: if the file is not one, or does not fit.
            PromptError: if the model learned to label volumes from nnU-Net data.
            DownloadError: if named weights are not on this machine.
        """
        model, header = load_model(path_or_name, base=base)
        chain = header.preprocess
        if is_planned(chain):
            raise PromptError(
                f"model {model.config.name!r} labels whole volumes and answers no prompts: use samaritan "
                "predict, or samaritan.infer.labeller.VolumeLabeller. To mend its label maps, give them to a "
                "model with prompts (segment --mask)"
            )
        preprocess = Preprocess.from_dict(chain) if chain else None
        predictor = cls(model, preprocess, device=device, precision=precision, **options)
        predictor.header = header
        return predictor

    @property
    def label_names(self) -> dict[int, str]:
        """Names of the classes that were stored with the weights: label value -> name; empty if none were."""
        stored = self.header.extra.get("labels") if self.header is not None else None
        return {int(value): str(name) for value, name in dict(stored or {}).items()}

    def open(
        self,
        volume: Volume,
        *,
        axis: int | None = None,
        window: tuple[float, float] | None = None,
    ) -> OpenImage:
        """Make an image ready for prompts, its intensities as in training; nothing is encoded yet.

        For 2D models stored intensities of `window` become 0 and 255 if it is given (a manifest of prepared
        slices knows it). Else pictures and single slices of 8 bits stay as they are, even if the weights
        name a window: they were windowed when they were made. All others go by the chain of the
        weights: its window, or percentiles of the whole volume.

        Raises:
            PromptError: if there is no such axis, or a 3D model gets several channels.
            ConfigError: if a 2D model cannot see so many channels.
        """
        if axis is not None and axis not in (0, 1, 2):
            raise PromptError(f"slice axis must be 0, 1 or 2, got {axis}")
        chosen = slice_axis(volume.grid) if axis is None else axis
        if self.preprocess.n_axes == 3 and volume.array.ndim == 4:
            raise PromptError(
                f"the image has {volume.n_channels} channels ({', '.join(volume.channels)}) and 3D models "
                "take one: pick one with volume.channel(name), or --channel on the command line"
            )
        if isinstance(self.preprocess, CubePreprocess) and window is not None:
            return OpenImage(volume, self, chosen, dict(zip(("low", "high"), window, strict=True)))
        if isinstance(self.preprocess, SlicePreprocess):
            _check_channels(volume, self.preprocess.channels)
            if window is None and volume.dtype == np.uint8 and volume.is_flat:
                window = (0.0, 255.0)
            if window is not None:
                return OpenImage(
                    volume, self, chosen, dict(zip(("low", "high"), window, strict=True))
                )
        return OpenImage(volume, self, chosen, self.preprocess.statistics(volume))

    def session(
        self,
        volume: Volume,
        *,
        axis: int | None = None,
        max_windows: int = 32,
        window: tuple[float, float] | None = None,
    ) -> Session:
        """Begin a session of prompts on an image.

        Args:
            volume: a picture, a slice or a volume.
            axis: array axis that a 2D model's slices are taken across; None: that of the thickest voxels.
            max_windows: how many windows of a 3D model an object may grow over.
            window: stored intensities that become black and white for a 2D model or a small 3D one; None: as
                `open` tells.
        """
        return Session(self.open(volume, axis=axis, window=window), max_windows=max_windows)


def _check_channels(volume: Volume, taken: int) -> None:
    """Refuse channels that are neither grey nor colours."""
    count = volume.n_channels
    if count > 4 or (count not in (1, 4, taken) and taken != 1):
        names = ", ".join(volume.channels[:4]) + (", ..." if count > 4 else "")
        raise ConfigError(
            f"the image has {count} channels ({names}) and the model takes {taken}: pick one with "
            "volume.channel(name), or --channel on the command line"
        )
