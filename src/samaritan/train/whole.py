"""Whole held-out volumes of a fold, labelled window by window on their files' own grids, and scored."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from samaritan.data.nnunet.cases import StoredCase
from samaritan.data.nnunet.chain import PlannedChain
from samaritan.data.nnunet.planned import PlannedSet
from samaritan.data.nnunet.rawset import to_file
from samaritan.data.nnunet.restoring import Slab, WayBack, decide
from samaritan.data.nnunet.results import SUMMARY, Compared, compare, summarise, write_summary
from samaritan.errors import ConfigError
from samaritan.io import write
from samaritan.models import Sam, patch_logits
from samaritan.train.machine import Machine
from samaritan.train.voxel_classes import titles

logger = logging.getLogger(__name__)

Told = Callable[[int, int], None]


class Windows(Protocol):
    """How an image is gone through: `samaritan.infer.sliding.SlidingWindows` is it."""

    def slabs(self, model: Callable[[Tensor], Tensor], image: Any) -> Iterator[Slab]:
        """Yield logits slice after slice."""
        ...


MakeWindows = Callable[..., Windows]
"""Called with `patch_size`, `mirror` (axes) and `device`."""


def whole_judge(
    planned: PlannedSet, chain: PlannedChain, ids: Sequence[str], windows: MakeWindows | None
) -> Callable[[Sam, Machine], dict[str, float]]:
    """Judge a model on whole volumes, without mirroring: "dice" and "class_NAME", means over volumes.

    Raises:
        ConfigError: if nobody says how volumes are gone through.
    """
    if windows is None:
        raise ConfigError(
            "validation.on volumes needs windows: give train() samaritan.infer.sliding.SlidingWindows"
        )

    def judge(model: Sam, machine: Machine) -> dict[str, float]:
        learning = model.training
        model.eval()
        with machine.autocast():
            found = compared(model, planned, chain, ids, windows, machine, mirror=False)
        model.train(learning)
        return scores_of(summarise(found, chain.labels), chain)

    return judge


def finish(
    model: Sam,
    planned: PlannedSet,
    chain: PlannedChain,
    ids: Sequence[str],
    windows: MakeWindows,
    machine: Machine,
    folder: Path,
    *,
    mirror: bool = True,
    told: Told = lambda done, total: None,
) -> dict[str, float]:
    """Label whole volumes, and keep label maps and summary.json as nnU-Net does.

    Args:
        model: in evaluation mode, on the machine's device.
        planned: where the volumes are.
        chain: of the model.
        ids: of the volumes.
        windows: how they are gone through.
        machine: its processes share the volumes.
        folder: for the label maps.
        mirror: show windows reversed as well, along the axes that training reversed.
        told: called with (volumes done, volumes of this process).

    Returns:
        "dice" and "class_NAME", means over volumes.
    """
    found = compared(
        model, planned, chain, ids, windows, machine, mirror=mirror, folder=folder, told=told
    )
    summary = summarise(found, chain.labels)
    if machine.leads:
        folder.mkdir(exist_ok=True)
        write_summary(summary, folder / SUMMARY)
    return scores_of(summary, chain)


def scores_of(summary: dict[str, Any], chain: PlannedChain) -> dict[str, float]:
    """Dice of each class and their mean, as a validation tells them."""
    means = [summary["mean"][str(key)]["Dice"] for key in chain.labels.foreground]
    named = {f"class_{n}": v for n, v in zip(titles(chain.labels), means, strict=True)}
    known = [value for value in means if not math.isnan(value)]
    return {"dice": float(np.mean(known)) if known else math.nan, **named}


@torch.no_grad()
def compared(
    model: Sam,
    planned: PlannedSet,
    chain: PlannedChain,
    ids: Sequence[str],
    windows: MakeWindows,
    machine: Machine,
    *,
    mirror: bool,
    folder: Path | None = None,
    told: Told = lambda done, total: None,
) -> list[Compared]:
    """Hold what a model says of volumes against their labels; processes share the volumes."""
    axes = chain.mirror_axes if mirror else ()
    slide = windows(patch_size=chain.patch_size, mirror=axes, device=machine.device)
    regions = chain.labels.has_regions
    own: list[Compared] = []

    def believed(patches: Tensor) -> Tensor:
        """Scores that prediction averages: probabilities, of regions above or below one half."""
        logits = patch_logits(model, patches).float()
        return logits.sigmoid() - 0.5 if regions else logits.softmax(dim=1)

    mine = ids[machine.rank :: machine.world]
    for done, case in enumerate(mine, 1):
        stored = planned.case(chain.configuration, case)
        slabs = slide.slabs(believed, stored.image)
        own.append(_compared(case, stored, slabs, planned, chain, folder))
        told(done, len(mine))
    every = [one for part in machine.gathered(own) for one in part]
    return sorted(every, key=lambda one: one.prediction)


def _compared(
    case: str,
    stored: StoredCase,
    slabs: Iterator[Slab],
    planned: PlannedSet,
    chain: PlannedChain,
    folder: Path | None,
) -> Compared:
    """Compare on the file's grid; on the prepared one where the files are not known."""
    if planned.raw is None:
        array = torch.cat([decide(logits, chain.labels) for _, logits in slabs]).numpy()
        drawn = np.maximum(np.asarray(stored.labels[0]), 0)
        return Compared(case, case, compare(array, drawn, chain.labels))
    known = planned.raw.cases.select(ids=[case]).cases[0]
    raw = planned.raw.read(known)
    assert raw.labels is not None
    way = WayBack(chain.plans, chain.configuration, chain.labels, stored.properties, stored.shape)
    found = way.label_map(slabs, raw.grid)
    name = f"{case}{planned.raw.file_ending}"
    if folder is not None:
        folder.mkdir(exist_ok=True)
        write(found, folder / name)
    return Compared(
        name if folder is None else str(folder / name),
        str(planned.raw.cases.path(known.labels[0])),
        compare(found.array, to_file(raw.labels, raw.grid), chain.labels),
    )
