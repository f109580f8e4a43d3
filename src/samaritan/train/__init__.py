"""Training: steps that say what is learned, one loop that learns it, and the folder of a run.

Names are resolved on first use: they need torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Judge": "samaritan.train.judging",
    "Machine": "samaritan.train.machine",
    "RunFolder": "samaritan.train.folder",
    "Seen": "samaritan.train.loop",
    "Step": "samaritan.train.steps",
    "StepLoss": "samaritan.train.steps",
    "Trainer": "samaritan.train.loop",
    "Work": "samaritan.train.keeping",
    "interactive_judge": "samaritan.train.judging",
    "interactive_step": "samaritan.train.interactive",
    "iterated_judge": "samaritan.train.iterated",
    "iterated_step": "samaritan.train.iterated",
    "mask_classes_step": "samaritan.train.mask_classes",
    "multiclass_judge": "samaritan.train.judging",
    "multiclass_step": "samaritan.train.steps",
}

__all__ = [
    "Judge",
    "Machine",
    "RunFolder",
    "Seen",
    "Step",
    "StepLoss",
    "Trainer",
    "Work",
    "interactive_judge",
    "interactive_step",
    "iterated_judge",
    "iterated_step",
    "mask_classes_step",
    "multiclass_judge",
    "multiclass_step",
]

if TYPE_CHECKING:
    from samaritan.train.folder import RunFolder
    from samaritan.train.interactive import interactive_step
    from samaritan.train.iterated import iterated_judge, iterated_step
    from samaritan.train.judging import Judge, interactive_judge, multiclass_judge
    from samaritan.train.keeping import Work
    from samaritan.train.loop import Seen, Trainer
    from samaritan.train.machine import Machine
    from samaritan.train.mask_classes import mask_classes_step
    from samaritan.train.steps import Step, StepLoss, multiclass_step


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'samaritan.train' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
