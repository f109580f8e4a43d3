"""Losses between sets: masks with classes that a model proposes, and the classes that are there.

Each proposal of a slice is matched with one class of it or none; what it should have been follows from that.
Targets are read off label maps: no stack of masks is ever made, and only one small table of costs for all
slices together leaves the device.
"""

from samaritan.set_losses.boxes import box_l1, giou
from samaritan.set_losses.criterion import SetLosses, set_losses
from samaritan.set_losses.matching import costs, match
from samaritan.set_losses.points import label_parts, sample, spread_points, uncertain_points
from samaritan.set_losses.sets import Found, SetWeights, Targets

__all__ = [
    "Found",
    "SetLosses",
    "SetWeights",
    "Targets",
    "box_l1",
    "costs",
    "giou",
    "label_parts",
    "match",
    "sample",
    "set_losses",
    "spread_points",
    "uncertain_points",
]
