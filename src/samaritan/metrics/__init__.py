"""How well a mask agrees with a reference: overlap, surfaces in millimetres, named conventions, summaries.

Everything here takes arrays and starts without torch. Conventions are told in docs/evaluation.md: above
all, an object that was missed counts (Dice 0, infinite distance) and is never left out.
"""

from samaritan.metrics.overlap import (
    dice,
    iou,
    precision,
    recall,
    relative_volume_error,
    volume_error,
)
from samaritan.metrics.protocols import PROTOCOLS, Protocol, get_protocol
from samaritan.metrics.rows import Row, measure_case
from samaritan.metrics.summary import Summary, summarise
from samaritan.metrics.surface import assd_mm, hd95_mm, hd_mm, surface_dice

__all__ = [
    "PROTOCOLS",
    "Protocol",
    "Row",
    "Summary",
    "assd_mm",
    "dice",
    "get_protocol",
    "hd95_mm",
    "hd_mm",
    "iou",
    "measure_case",
    "precision",
    "recall",
    "relative_volume_error",
    "summarise",
    "surface_dice",
    "volume_error",
]
