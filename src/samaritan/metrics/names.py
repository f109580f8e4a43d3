"""What each metric is called, in which unit, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "zero"]


@dataclass(frozen=True)
class Metric:
    """How a column of numbers is told to people.

    Attributes:
        key: its name in rows and files.
        title: its name in tables and charts.
        better: which way is better.
        digits: decimals worth showing.
        meaning: one sentence.
    """

    key: str
    title: str
    better: Better
    digits: int
    meaning: str

    @property
    def is_part(self) -> bool:
        """Whether it lies between 0 and 1, 1 being best."""
        return self.better == "higher"


_KNOWN = {
    metric.key: metric
    for metric in (
        Metric("dice", "Dice", "higher", 3, "Twice the shared voxels over the sum of both masks."),
        Metric("dice_in_window", "Dice in window", "higher", 3, "Dice of what lies in one window."),
        Metric(
            "dice_best_in_window", "best Dice in window", "higher", 3,
            "The best Dice in one window after any of the clicks so far.",
        ),
        Metric("iou", "IoU", "higher", 3, "Shared voxels over the voxels of either mask."),
        Metric("surface_dice", "surface Dice", "higher", 3, "Part of both surfaces within the tolerance."),
        Metric("precision", "precision", "higher", 3, "Part of the prediction that is right."),
        Metric("recall", "recall", "higher", 3, "Part of the reference that was found."),
        Metric("hd95", "HD95", "lower", 2, "Nearly the largest distance between the surfaces (95 %)."),
        Metric("assd", "ASSD", "lower", 2, "Mean distance between the surfaces."),
        Metric("volume_error", "volume error", "zero", 2, "Volume of the prediction less the reference's."),
        Metric(
            "relative_volume_error", "relative volume error", "zero", 3,
            "Volume error as a part of the reference.",
        ),
        Metric("predicted_iou", "expected IoU", "higher", 3, "The model's own estimate of its IoU."),
        Metric("seconds", "seconds", "lower", 3, "How long the answer took."),
    )
}  # fmt: skip

_UNITS = {"_mm": "mm", "_px": "px", "_voxels": "voxels", "_ml": "ml"}


def metric(key: str) -> Metric:
    """Describe a column; one that is not known is told by its key.

    >>> metric("hd95_mm").title
    'HD95 (mm)'
    """
    suffix = next((s for s in _UNITS if key.endswith(s)), "")
    known = _KNOWN.get(key.removesuffix(suffix))
    if known is None:
        return Metric(key, key.replace("_", " "), "higher", 3, "")
    title = f"{known.title} ({_UNITS[suffix]})" if suffix else known.title
    return Metric(key, title, known.better, known.digits, known.meaning)
