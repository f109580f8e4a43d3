"""nnU-Net's five ways to normalise a channel, chosen by its name in dataset.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.errors import ConfigError

Array = npt.NDArray[Any]

_LEAST = 1e-8

BY_CHANNEL = {
    "ct": "CTNormalization",
    "nonorm": "NoNormalization",
    "zscore": "ZScoreNormalization",
    "rescale_to_0_1": "RescaleTo01Normalization",
    "rgb_to_0_1": "RGBTo01Normalization",
}
"""Lower-case name of a channel -> its scheme; every other channel gets z-scores."""


def scheme_of(channel: str) -> str:
    """Choose the scheme of a channel by its name.

    >>> scheme_of("CT"), scheme_of("T2SPIR")
    ('CTNormalization', 'ZScoreNormalization')
    """
    return BY_CHANNEL.get(channel.casefold(), "ZScoreNormalization")


def normalise(
    scheme: str,
    image: Array,
    *,
    inside: Array | None,
    intensities: Mapping[str, float],
) -> Array:
    """Normalise one channel of a case.

    Args:
        scheme: its name in a plans file.
        image: (k, j, i) float32; it may be changed.
        inside: where the image is, to measure and change it there only; None: everywhere.
        intensities: of the data set's foreground, for CT.

    Raises:
        ConfigError: if there is no such scheme, or the values cannot be what it says.
    """
    if scheme not in _SCHEMES:
        raise ConfigError(
            f"normalisation {scheme!r} is not known; expected one of {', '.join(_SCHEMES)}. "
            "Is the plans file one of a changed nnU-Net?"
        )
    return _SCHEMES[scheme](image, inside, intensities)


def _z_score(image: Array, inside: Array | None, intensities: Mapping[str, float]) -> Array:
    if inside is None:
        mean, deviation = image.mean(), image.std()
        image -= mean
        image /= max(deviation, _LEAST)
        return image
    values = image[inside]
    image[inside] = (values - values.mean()) / max(values.std(), _LEAST)
    return image


def _ct(image: Array, inside: Array | None, intensities: Mapping[str, float]) -> Array:
    missing = {"percentile_00_5", "percentile_99_5", "mean", "std"} - set(intensities)
    if missing:
        raise ConfigError(
            f"CT needs {', '.join(sorted(missing))} of the data set's foreground, which the plans lack"
        )
    np.clip(image, intensities["percentile_00_5"], intensities["percentile_99_5"], out=image)
    image -= intensities["mean"]
    image /= max(intensities["std"], _LEAST)
    return image


def _none(image: Array, inside: Array | None, intensities: Mapping[str, float]) -> Array:
    return image


def _rescale(image: Array, inside: Array | None, intensities: Mapping[str, float]) -> Array:
    image -= image.min()
    image /= max(image.max(), _LEAST)
    return image


def _rgb(image: Array, inside: Array | None, intensities: Mapping[str, float]) -> Array:
    if image.min() < 0 or image.max() > 255:
        raise ConfigError(
            f"channel rgb_to_0_1 must lie in 0 to 255, got {image.min():g} to {image.max():g}"
        )
    image /= 255.0
    return image


_Scheme = Callable[[Array, "Array | None", Mapping[str, float]], Array]

_SCHEMES: dict[str, _Scheme] = {
    "ZScoreNormalization": _z_score,
    "CTNormalization": _ct,
    "NoNormalization": _none,
    "RescaleTo01Normalization": _rescale,
    "RGBTo01Normalization": _rgb,
}

USES_MASK = frozenset({"ZScoreNormalization"})
"""Schemes that can leave voxels outside the image at zero."""
