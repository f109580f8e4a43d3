"""Answers to prompts on pictures, slices and volumes: the way in for programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch

from samaritan.checkpoints import Header, load_model
from samaritan.errors import PromptError
from samaritan.infer.engine import Engine, OpenImage, Precision
from samaritan.infer.session import Session
from samaritan.transforms import Preprocess
from samaritan.transforms.preprocess import slice_axis
from samaritan.volume import Volume


class Predictor(Engine):
    """Answers prompts on pictures, slices and volumes.

    Args:
        model: from `create_model` or `load_model`.
        preprocess: the chain that the weights were trained with; None: the published one.
        device: such as "cpu" or "cuda:0"; None: the best there is.
        precision: "auto" is bfloat16 on CUDA devices that have it, and float32 elsewhere.
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
            DownloadError: if named weights are not on this machine.
        """
        model, header = load_model(path_or_name, base=base)
        chain = header.preprocess
        preprocess = Preprocess.from_dict(chain) if chain else None
        predictor = cls(model, preprocess, device=device, precision=precision, **options)
        predictor.header = header
        return predictor

    @property
    def label_names(self) -> dict[int, str]:
        """Names of the classes that were stored with the weights: label value -> name; empty if none were."""
        stored = self.header.extra.get("labels") if self.header is not None else None
        return {int(value): str(name) for value, name in dict(stored or {}).items()}

    def open(self, volume: Volume, *, axis: int | None = None) -> OpenImage:
        """Make an image ready for prompts; nothing is encoded yet."""
        if axis is not None and axis not in (0, 1, 2):
            raise PromptError(f"slice axis must be 0, 1 or 2, got {axis}")
        chosen = slice_axis(volume.grid) if axis is None else axis
        if self.preprocess.n_axes == 3 and volume.array.ndim == 4:
            raise PromptError(
                f"the image has {volume.n_channels} channels ({', '.join(volume.channels)}) and 3D models "
                "take one: pick one with volume.channel(name)"
            )
        return OpenImage(volume, self, chosen, self.preprocess.statistics(volume))

    def session(self, volume: Volume, *, axis: int | None = None, max_windows: int = 32) -> Session:
        """Begin a session of prompts on an image.

        Args:
            volume: a picture, a slice or a volume.
            axis: array axis that a 2D model's slices are taken across; None: that of the thickest voxels.
            max_windows: how many windows of a 3D model an object may grow over.
        """
        return Session(self.open(volume, axis=axis), max_windows=max_windows)
