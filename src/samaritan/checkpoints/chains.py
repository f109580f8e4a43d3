"""The chains from image to input that published weights were trained with, where they are not SAM's own."""

from __future__ import annotations

from typing import Any

from samaritan.checkpoints.cache import published_of
from samaritan.checkpoints.sources import Source
from samaritan.models.config import SamConfig
from samaritan.transforms import Prompting, SlicePreprocess

SYNAPSE_WINDOW = (-125.0, 275.0)
"""Hounsfield units that SAMed's CT slices were cut to."""


def published_preprocess(
    source: Source, config: SamConfig, sha256: str | None
) -> dict[str, Any] | None:
    """The chain of SAM-Med2D, FT-SAM or SAMed as plain values; None for others.

    FT-SAM has SAM's names and shapes, so it is known by its place in the cache alone.
    """
    if config.ndim != 2:
        return None
    published = published_of(source.file, sha256)
    if source.system.name == "sam-med2d" or (published and published.system == "FT-SAM"):
        return sam_med2d_chain(config).to_dict()
    if source.system.name in ("samed", "samed-lora", "samed-s-lora"):
        return samed_chain(config).to_dict()
    return None


def sam_med2d_chain(config: SamConfig) -> SlicePreprocess:
    """As SAM-Med2D's predictor: stretched by nearest pixels, blue first, mask prompts as probabilities.

    It takes the best of three masks whatever the prompt: the token for a single mask was never trained.
    """
    return SlicePreprocess(
        size=(config.image_size[0], config.image_size[1]),
        resize="stretch",
        interpolation="nearest",
        channel_order="bgr",
        prompting=Prompting(multimask="always", mask_values="probabilities"),
    )


def samed_chain(config: SamConfig) -> SlicePreprocess:
    """As SAMed on Synapse: abdominal CT cut to a window, brought to 0..1, stretched by a cubic."""
    return SlicePreprocess(
        size=(config.image_size[0], config.image_size[1]),
        mean=(0.0, 0.0, 0.0),
        std=(255.0, 255.0, 255.0),
        resize="stretch",
        interpolation="bicubic",
        window=SYNAPSE_WINDOW,
    )
