"""The training loop: batches in, updates, log, validation, checkpoints; exact after any interruption.

Everything random in an iteration is a function of (seed, epoch, iteration, process), so the state of a run
is its weights, its optimiser and a few counts.
"""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from samaritan.errors import TrainingError
from samaritan.recipes import Recipe, rate
from samaritan.train.average import MovingAverage
from samaritan.train.curves import draw_curves
from samaritan.train.folder import RunFolder
from samaritan.train.judging import validate
from samaritan.train.keeping import Live, Progress, Work, export, keep, keep_frozen, take_up
from samaritan.train.loading import groups_of_batches, load
from samaritan.train.log import Log
from samaritan.train.machine import Machine, saving_memory
from samaritan.train.optim import build_optimizer, hold_still
from samaritan.train.samples import Samples, draw_samples
from samaritan.train.sampling import Group, generator, plan_epoch, seed_of
from samaritan.train.state import statistics
from samaritan.train.steps import Batch, StepLoss

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seen:
    """What a run tells while it goes on."""

    iteration: int
    iterations: int
    epoch: int
    loss: float | None
    dice: float | None
    per_second: float
    """Images."""
    held_out: float | None
    """Dice of the last validation."""


class Trainer:
    """One run, from its beginning or from its last checkpoint to its end."""

    def __init__(
        self,
        recipe: Recipe,
        work: Work,
        folder: RunFolder,
        machine: Machine,
        *,
        workers: int = 0,
        report: Callable[[Seen], None] | None = None,
    ) -> None:
        self.recipe, self.work, self.folder, self.machine = recipe, work, folder, machine
        self.workers, self.report = workers, report
        self.model = work.model.to(machine.device)
        hold_still(self.model, recipe.compat)
        self.optimizer = machine.wrapped(build_optimizer(self.model, recipe.optim, recipe.compat))
        self.average = MovingAverage(self.model, recipe.run.ema) if recipe.run.ema else None
        self.live = Live(recipe, work, folder, machine, self.optimizer, self.average)
        self.per_epoch = len(self._plan(0))
        self.pending: list[dict[str, Tensor]] = []
        self.log: Log | None = None
        self.clock = (time.monotonic(), 0)

    @property
    def progress(self) -> Progress:
        """Where the run is."""
        return self.live.progress

    # -- the run ---------------------------------------------------------------------------------

    def run(self, *, resume: bool = False) -> dict[str, float]:
        """Train to the end.

        Returns:
            The best and the last validation, and how many iterations there were.

        Raises:
            TrainingError: if the loss is no longer finite; the last good checkpoint is kept.
            FileError: if a file cannot be written; the last checkpoint is kept.
        """
        with contextlib.ExitStack() as stack:
            if self.machine.leads:
                stack.enter_context(self.folder.locked())
                self.folder.tidy()
            stack.callback(torch.set_rng_state, torch.get_rng_state())
            self._begin(resume)
            if self.log is not None:
                stack.callback(self.log.close)
            stack.enter_context(saving_memory(self.model, self.recipe.run.gradient_checkpointing))
            self.model.train()
            self._epochs()
            self.model.eval()
        best, last = self.progress.best, self.progress.last
        return {
            "iterations": self.progress.iteration,
            "best": best if math.isfinite(best) else math.nan,
            "last": math.nan if last is None else last,
        }

    def _begin(self, resume: bool) -> None:
        """Go back to the last checkpoint, or write the first."""
        if resume:
            take_up(self.live)
        progress = self.progress
        self.clock = (time.monotonic(), progress.iteration)
        if not self.machine.leads:
            return
        self.log = Log(
            self.folder.log,
            self.folder.tensorboard,
            keep=progress.lines,
            iteration=progress.iteration,
        )
        if not resume:
            keep_frozen(self.live)
            keep(self.live)

    def _epochs(self) -> None:
        run = self.recipe.run
        while self.progress.epoch < run.epochs and not self._stopped():
            groups = self._plan(self.progress.epoch)[self.progress.within :]
            batches = groups_of_batches(
                self.work.train,
                groups,
                device=self.machine.device,
                workers=self.workers,
                epoch=self.progress.epoch,
            )
            for group, parts in batches:
                self._iteration(group, parts)
                if self._stopped():
                    break
                if self.progress.iteration % run.checkpoint_every == 0:
                    self._checkpoint()
            self._end_epoch()

    def _iteration(self, group: Group, batches: list[Batch]) -> None:
        """Learn from the batches of one iteration: their losses in step, one update after another."""
        recipe, done = self.recipe, self.progress.iteration
        seeds = (recipe.run.seed, "iteration", done, self.machine.rank)
        torch.manual_seed(seed_of(*seeds))
        self._set_rate(done)
        steps = [
            self.work.step(self.model, batch, generator(*seeds, i))
            for i, batch in enumerate(batches)
        ]
        shares = [len(batch["image"]) / group.total for batch in batches]
        while (logs := self._update(steps, shares)) is not None:
            last = logs
        self.pending.append(last)
        self.progress.iteration += 1
        self.progress.within += 1
        if self.progress.iteration % recipe.run.log_every == 0:
            self._write_log()

    def _update(
        self, steps: list[Iterator[StepLoss]], shares: list[float]
    ) -> dict[str, Tensor] | None:
        """Go back through the next loss of every batch and update once; None if there is none."""
        sums: dict[str, Tensor] = {}
        for step, share in zip(steps, shares, strict=True):
            with self.machine.autocast():
                loss = next(step, None)
            if loss is None:
                return None
            self.machine.backward(loss.total * share)
            for name, value in {"loss": loss.total, **loss.logs}.items():
                sums[name] = sums.get(name, 0) + value.detach().float() * share
        parameters = list(self.model.parameters())
        self.machine.sum_gradients(parameters)
        self.machine.clip(parameters, self.recipe.run.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.machine.average(statistics(self.model).values())
        if self.average is not None:
            self.average.update(self.model)
        return sums

    def _end_epoch(self) -> None:
        """Validate if it is time, and keep everything."""
        progress, run = self.progress, self.recipe.run
        self._write_log()  # while it is still this epoch
        finished = progress.within >= self.per_epoch
        if finished:
            progress.epoch += 1
            progress.within = 0
        over = progress.epoch >= run.epochs or self._stopped()
        self._check_weights()
        if over or (finished and progress.epoch % self.recipe.validation.every == 0):
            self._validate()
        self._checkpoint()
        if self.machine.leads and (over or finished):
            export(self.live, self.folder.last)
            draw_curves(self.folder.log, self.folder.curves)
        self.clock = (time.monotonic(), progress.iteration)

    def _stopped(self) -> bool:
        """Whether the run is over before its epochs are."""
        limit, patience = self.recipe.run.max_iterations, self.recipe.validation.patience
        if limit is not None and self.progress.iteration >= limit:
            return True
        return patience is not None and self.progress.worse >= patience

    # -- watching --------------------------------------------------------------------------------

    def _write_log(self) -> None:
        """Average what happened since the last line, and look whether it is finite.

        Raises:
            TrainingError: if it is not.
        """
        if not self.pending:
            return
        names = list(self.pending[0])
        own = torch.stack([torch.stack([logs[name] for name in names]) for logs in self.pending])
        everyone = self.machine.gathered(own.tolist())
        rows = [[sum(v) for v in zip(*same, strict=True)] for same in zip(*everyone, strict=True)]
        self.pending = []
        first = self.progress.iteration - len(rows)
        for i, row in enumerate(rows):
            if not math.isfinite(row[names.index("loss")]):
                raise self._not_finite(first + i, dict(zip(names, row, strict=True)))
        values = {name: sum(row[i] for row in rows) / len(rows) for i, name in enumerate(names)}
        seconds, before = time.monotonic() - self.clock[0], self.clock[1]
        images = (self.progress.iteration - before) * self._images_per_iteration()
        per_second = images / max(seconds, 1e-9)
        self.clock = (time.monotonic(), self.progress.iteration)
        lr = float(self.optimizer.param_groups[0]["lr"])
        line = {
            "epoch": self.progress.epoch,
            **values,
            "lr": lr,
            "images_per_s": round(per_second, 2),
        }
        if self.log is not None:
            self.log.add("train", self.progress.iteration, line)
        self._tell(values, per_second)

    def _tell(self, values: Mapping[str, float], per_second: float) -> None:
        if self.report is None or not self.machine.leads:
            return
        total = self.per_epoch * self.recipe.run.epochs
        total = min(total, self.recipe.run.max_iterations or total)
        self.report(
            Seen(
                iteration=self.progress.iteration,
                iterations=total,
                epoch=self.progress.epoch,
                loss=values.get("loss"),
                dice=values.get("dice"),
                per_second=per_second,
                held_out=self.progress.last,
            )
        )

    def _not_finite(self, iteration: int, values: Mapping[str, float]) -> TrainingError:
        parts = ", ".join(f"{name} {value:g}" for name, value in values.items())
        return TrainingError(
            f"the loss of iteration {iteration} is not a finite number ({parts}). Nothing after the last "
            f"checkpoint in {self.folder.path} was kept. Lower optim.lr, set run.clip_norm=1, or use "
            "run.precision=float32; look at the images if they hold values that are not finite"
        )

    def _check_weights(self) -> None:
        """See that the last update left finite weights.

        Raises:
            TrainingError: if it did not.
        """
        finite = [p.detach().isfinite().all() for p in self.model.parameters() if p.requires_grad]
        if not bool(torch.stack(finite).all()):
            raise self._not_finite(self.progress.iteration - 1, {"weights": math.nan})

    def _validate(self) -> None:
        with self.live.shown():
            scores, samples = self._judged()
        if not scores:
            return
        self.progress.last = scores.get("dice", math.nan)
        better = self.progress.last > self.progress.best
        self.progress.worse = 0 if better else self.progress.worse + 1
        if self.log is not None:
            self.log.add(
                "validation", self.progress.iteration, {"epoch": self.progress.epoch, **scores}
            )
            stem = f"epoch_{self.progress.epoch:04d}"
            draw_samples(samples, self.folder.pictures, stem, grid=self.work.grid)
        if better:
            self.progress.best = self.progress.last
            if self.machine.leads and self.recipe.validation.keep == "best":
                export(self.live, self.folder.best)
        logger.info("epoch %d: held-out Dice %.4f", self.progress.epoch, self.progress.last)

    def _judged(self) -> tuple[dict[str, float], Samples]:
        """Scores of a validation, none where there is nothing to validate on; and some samples."""
        work, wanted = self.work, self.recipe.validation
        if work.whole is not None:
            return work.whole(self.model, self.machine), []
        if work.validation is None or work.judge is None:
            return {}, []
        size, count = self.recipe.data.batch_size, len(work.validation)
        plan = [list(range(count)[i : i + size]) for i in range(0, count, size)]
        plan = plan[: wanted.batches]
        numbers = range(self.machine.rank, len(plan), self.machine.world)
        batches = load(
            work.validation,
            [plan[i] for i in numbers],
            device=self.machine.device,
            workers=self.workers,
            epoch=0,
        )
        scores, samples = validate(
            self.model,
            zip(numbers, batches, strict=True),
            work.judge,
            self.machine,
            seed=wanted.seed,
            keep=wanted.pictures if self.machine.leads else 0,
        )
        return (work.finish(scores) if work.finish else scores), samples

    def _checkpoint(self) -> None:
        """Keep the state, once it is known to be good."""
        self._write_log()
        self._check_weights()
        if self.log is not None:
            self.progress.lines = self.log.lines
            keep(self.live)

    # -- small -----------------------------------------------------------------------------------

    def _plan(self, epoch: int) -> list[Group]:
        return plan_epoch(
            len(self.work.train),
            batch_size=self.recipe.data.batch_size,
            accumulate=self.recipe.run.accumulate,
            world=self.machine.world,
            rank=self.machine.rank,
            seed=self.recipe.run.seed,
            epoch=epoch,
            shuffle=not getattr(self.work.train, "ordered", False),
        )

    def _images_per_iteration(self) -> float:
        return len(self.work.train) / self.per_epoch

    def _set_rate(self, iteration: int) -> None:
        part = rate(
            self.recipe.schedule,
            iteration,
            per_epoch=self.per_epoch,
            epochs=self.recipe.run.epochs,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["full_lr"] * part
