"""Which intensities become black and white, by modality and by name: a table, not a guess."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from samaritan.errors import ConfigError

CT_WINDOWS: dict[str, tuple[float, float]] = {
    "abdomen": (-125.0, 275.0),
    "soft_tissue": (-160.0, 240.0),
    "liver": (-45.0, 105.0),
    "mediastinum": (-125.0, 225.0),
    "lung": (-1350.0, 150.0),
    "bone": (-500.0, 1300.0),
    "brain": (0.0, 80.0),
    "wide": (-1000.0, 1000.0),
}
"""Hounsfield units that become 0 and 255. "abdomen" is that of SAMed (TransUNet)."""

PERCENTILES: dict[str, tuple[float, float]] = {
    "MR": (0.5, 99.5),
    "PT": (0.5, 99.9),
    "US": (0.0, 100.0),
    "XR": (0.5, 99.5),
    "NM": (0.5, 99.9),
}
"""Percentiles of each volume that become 0 and 255, where units have no fixed meaning."""

MODALITIES: dict[str, str] = {
    "CT": "computed tomography",
    "MR": "magnetic resonance",
    "PT": "positron emission tomography",
    "NM": "scintigraphy, SPECT",
    "US": "ultrasound",
    "XR": "radiograph",
    "OP": "photograph, endoscopy, dermoscopy, fundus",
    "MI": "microscopy",
}
"""Names of modalities, after DICOM."""

_WORDS: dict[str, str] = {
    "CT": r"CBCT|CTA?",
    "MR": r"MRI?|MRA|CINE ?MRI?|T1\w*|T2\w*|FLAIR|PD|ADC|DWI|SWI|DIXON|STIR|T2SPIR|BSSFP",
    "PT": r"PET|PT|SUV",
    "NM": r"NM|SPECT",
    "US": r"US|ULTRASOUND|SONOGRAPHY",
    "XR": r"XR|X-?RAYS?|CXR|DX|CR|MG|MAMMOGRAPHY",
    "OP": r"OP|PHOTO\w*|ENDOSCOPY|COLONOSCOPY|DERMOSCOPY|FUNDUS",
    "MI": r"MI|MICROSCOPY|HISTOLOGY|FLUORESCENCE",
}


@dataclass(frozen=True)
class Window:
    """What becomes 0 and 255: fixed intensities, or percentiles of each volume."""

    low: float
    high: float
    percentiles: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.percentiles and not 0 <= self.low < self.high <= 100):
            kind = "percentiles from 0 to 100" if self.percentiles else "intensities"
            raise ConfigError(f"a window is two ascending {kind}, got {self.low:g}, {self.high:g}")

    def __str__(self) -> str:
        kind = "percentiles" if self.percentiles else "intensities"
        return f"{kind} {self.low:g} to {self.high:g}"


def modality_of(names: Sequence[str]) -> str | None:
    """Tell the modality from the words of channel names, or None if they do not say.

    >>> modality_of(["FLAIR", "T1c"]), modality_of(["CT"]), modality_of(["noNorm"])
    ('MR', 'CT', None)
    """
    found = {_one_modality(name) for name in names}
    return found.pop() if len(found) == 1 else None


def _one_modality(name: str) -> str | None:
    for modality, pattern in _WORDS.items():
        words = re.split(r"[^A-Za-z0-9-]+", name.strip())
        if any(re.fullmatch(pattern, word, re.IGNORECASE) for word in words if word):
            return modality
        if re.fullmatch(pattern, name.strip(), re.IGNORECASE):
            return modality
    if re.fullmatch(r"\w*MRI", name.strip(), re.IGNORECASE):
        return "MR"
    return None


def window_for(modality: str | None, window: str | tuple[float, float] | None = None) -> Window:
    """Look up the window of a modality.

    Args:
        modality: a key of `MODALITIES`.
        window: the name of a CT window, or two intensities; needed for CT, where organs differ.

    Raises:
        ConfigError: if the modality is not known, or CT comes without a window.

    >>> window_for("CT", "abdomen").low, window_for("MR").percentiles
    (-125.0, True)
    """
    if isinstance(window, tuple):
        return Window(float(window[0]), float(window[1]))
    if modality is None:
        raise ConfigError(
            "the modality is not known, and intensities are not guessed at: say it "
            f"({', '.join(MODALITIES)}), or give two intensities as the window"
        )
    if modality not in MODALITIES:
        raise ConfigError(
            f"modality {modality!r} is not known; expected one of {', '.join(MODALITIES)}"
        )
    if modality == "CT":
        if window not in CT_WINDOWS:
            said = "CT needs a window" if window is None else f"window {window!r} is not known"
            known = ", ".join(f"{n} ({a:g} to {b:g})" for n, (a, b) in CT_WINDOWS.items())
            raise ConfigError(f"{said}: choose one of {known}, or give two intensities")
        return Window(*CT_WINDOWS[window])
    if window is not None:
        raise ConfigError(
            f"window {window!r} is in Hounsfield units, which {modality} has not: "
            "give two intensities, or nothing for percentiles"
        )
    if modality not in PERCENTILES:
        raise ConfigError(
            f"{modality} has no intensities in the table: give two intensities as the window"
        )
    return Window(*PERCENTILES[modality], percentiles=True)
