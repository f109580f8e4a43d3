"""What is compared: the proposals of a model, the classes of label maps, and how much each term counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Found(NamedTuple):
    """Proposals of a model for n slices, q in each."""

    class_logits: Tensor
    """(n, q, classes + 1); "no object" is the last."""
    mask_logits: Tensor
    """(n, q, h, w)."""
    aux_logits: Tensor
    """(n, q, h, w): of the masks that became prompts."""
    boxes: Tensor
    """(n, q, 4): (x, y) of the first and the last corner, as parts of the slice."""


class Targets(NamedTuple):
    """What is there in n slices: at most one mask of each class, background included."""

    labels: Tensor
    """(n, h, w): the class of every pixel, whole numbers from 0."""
    present: Tensor
    """(n, classes): whether there are any pixels of a class."""
    boxes: Tensor
    """(n, classes, 4): boxes of those that are there, in the form of `Found.boxes`."""


@dataclass(frozen=True)
class SetWeights:
    """Weights of the terms, of matching and loss alike; those of MaskSAM for ACDC and Synapse."""

    classes: float = 0.2
    """Which class a mask is of."""
    no_object: float = 0.1
    """How much a proposal without an object counts in that, beside one with."""
    mask: float = 1.5
    """Cross-entropy of masks over points."""
    dice: float = 1.5
    """Their overlap over points."""
    aux_mask: float = 0.5
    """The same of masks that became prompts."""
    aux_dice: float = 0.5
    """Their overlap."""
    box: float = 0.5
    """Distance of box corners."""
    giou: float = 0.2
    """Overlap of boxes."""
    points: int = 32_768
    """Points at which masks are compared."""
    by_class: bool = False
    """Query n stands for class n in every slice that shows it, instead of the assignment of least cost. This
    teaches faster; needs as many queries as classes, background included (MaskFormer's fixed matching)."""


AMOS = SetWeights(mask=1.2, dice=1.2, points=131_072)
"""MaskSAM's weights for AMOS."""
