"""Learning rates as a pure function of the iteration, so that resuming needs no state."""

from __future__ import annotations

import math

from samaritan.recipes.sections import Schedule


def rate(schedule: Schedule, iteration: int, *, per_epoch: int, epochs: int) -> float:
    """The part of the full learning rate that an iteration learns with.

    Args:
        schedule: how the rate goes.
        iteration: from 0.
        per_epoch: iterations in an epoch.
        epochs: of the run; the rate falls to its end over them, unless the schedule has a horizon.

    Source: warm-up, polynomial and lag: SAMed, trainer.py. The warm-up does not shorten the horizon, and
    the rate is set after the step, so the first two iterations share one.

    >>> rate(Schedule(kind="polynomial", warmup=250, lag=1), 251, per_epoch=93, epochs=200)
    1.0
    """
    if schedule.steps == "epoch":
        iteration -= iteration % per_epoch
    at = max(iteration - schedule.lag, 0)
    if at < schedule.warmup:
        return (at + 1) / schedule.warmup
    since = at - schedule.warmup
    horizon = max((schedule.horizon or epochs) * per_epoch, 1)
    done = min(since / horizon, 1.0)
    if schedule.kind == "polynomial":
        return float((1 - done) ** schedule.power)
    if schedule.kind == "cosine":
        done = min(since / max(horizon - schedule.warmup, 1), 1.0)
        return float(schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * done)))
    if schedule.kind == "multistep":
        each = per_epoch if schedule.milestones_in == "epochs" else 1
        passed = sum(at >= milestone * each for milestone in schedule.milestones)
        return float(schedule.gamma**passed)
    if schedule.kind == "step" and schedule.every:
        return float(schedule.gamma ** (since // schedule.every))
    return 1.0
