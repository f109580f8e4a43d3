"""Published tests of 3D models as ways to ask: SAM-Med3D's, its older one, NeuroSAM3D's and M-SAM's.

All of them lay one window where the reference says, which nobody can do who does not know the answer. They
are here to compare with published numbers, and say so in whatever comes of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from samaritan import simulate
from samaritan.data.manifest import Manifest
from samaritan.data.volumes import Triple, around, inside
from samaritan.errors import ConfigError
from samaritan.evaluation.asking import Answer
from samaritan.evaluation.ceiling import box_on, nearest_logits
from samaritan.evaluation.overwriting import overwritten
from samaritan.evaluation.prompting import box_around, ellipse, generator
from samaritan.evaluation.targets import Mask, Subject, Target
from samaritan.evaluation.trial import CEILING, CEILING_WINDOW, ELLIPSE, Trial
from samaritan.evaluation.trials import Asking, check_image
from samaritan.geometry import Grid
from samaritan.infer import Predictor
from samaritan.infer.engine import Embedded
from samaritan.metrics import Protocol, dice, get_protocol
from samaritan.transforms import WindowPreprocess
from samaritan.volume import Volume

IN_WINDOW, BEST = "dice_in_window", "dice_best_in_window"
"""Scores that published tests count: in the window alone; the best of all clicks so far."""

Window = Bool[Tensor, "1 i j k"]


@dataclass(frozen=True)
class Published:
    """A published test.

    Attributes:
        name: as in `--protocol`.
        caution: in which way it is kinder than practice.
        source: where it was published.
        clicks: how many it gives.
        spacing_mm: what volumes are resampled to; None: voxels as they are.
        centre: the window lies about the object's box, or about a voxel of it.
        show: the model sees all clicks, or the newest alone.
        cores: so many clicks lie at the core of the deeper kind of error (what is missing, or too much).
        largest: the first click lies on the object's largest part.
        alone: one turn in the middle shows the last mask without any click.
        clamps: whether intensities are cut as the model's chain says.
        wrong_logit: logits above it are the mask when errors are looked for.
        mask_logit: logits above it are the mask that is measured.
        in_window: Dice is counted in the window alone.
        best: the best of all clicks is what is reported.
        overwrites: later labels overwrite earlier ones in one map.
        again: where nothing is wrong any more, one more click on the object is given.
    """

    name: str
    caution: str
    source: str
    clicks: int
    spacing_mm: tuple[float, float, float] | None = None
    centre: Literal["box", "voxel"] = "box"
    show: Literal["all", "newest"] = "newest"
    cores: int = 0
    largest: bool = False
    alone: bool = False
    clamps: bool = True
    wrong_logit: float = 0.5
    mask_logit: float = 0.5
    in_window: bool = True
    best: bool = False
    overwrites: bool = False
    again: bool = False

    @property
    def protocol(self) -> Protocol:
        """The convention: Dice, and surface Dice at 1 mm, on the image's own grid, beside its own scores."""
        ours = get_protocol("sam_med3d")
        own = "Its own score is Dice in the window" if self.in_window else ""
        own += ", and of it the best of all clicks" if self.best else ""
        told = f"The test of {self.source}, {self.caution}. {own}{'. ' if own else ''}"
        told += (
            "Dice, and surface Dice at 1 mm, are those of the whole object on the image's own grid."
        )
        return replace(ours, name=self.name, explanation=told, caution=self.caution)

    def trial(self, trial: Trial, *, clicks: int | None, chosen: bool) -> Trial:
        """What is asked: clicks alone, as many as published unless a number was given.

        Raises:
            ConfigError: if other prompts were chosen.
        """
        if chosen and trial.prompts != ("clicks",):
            raise ConfigError(f"protocol {self.name!r} has clicks alone: leave out --prompts")
        return replace(trial, prompts=("clicks",), clicks=clicks or self.clicks)

    def check(self, predictor: Predictor) -> WindowPreprocess:
        """The chain of a model that sees windows of one spacing.

        Raises:
            ConfigError: if it is for pictures, or sees windows of any size.
        """
        if isinstance(predictor.preprocess, WindowPreprocess):
            return predictor.preprocess
        name, flat = predictor.model.config.name, predictor.preprocess.n_axes == 2
        what = "is a 2D model" if flat else "looks at cubes of any size: use protocol 'samaritan'"
        raise ConfigError(f"protocol {self.name!r} is for windows of volumes, and {name!r} {what}")

    @property
    def asking(self) -> Asking:
        """How a model is asked."""
        return partial(ask_as_published, test=self)

    def chain(self, own: WindowPreprocess) -> WindowPreprocess:
        """A model's intensities, in the test's windows."""
        values = {field.name: getattr(own, field.name) for field in fields(own)}
        values |= {"spacing_mm": self.spacing_mm, "orientation": "RAS"}
        return ResampledFirst(**{**values, **({} if self.clamps else {"clamp": None})})


SAM_MED3D = Published(
    "sam_med3d",
    "ground-truth-centred: the window lies where the reference says",
    "SAM-Med3D (uni-medical/SAM-Med3D, utils/infer_utils.py, 2025)",
    clicks=10,
    spacing_mm=(1.5, 1.5, 1.5),
    show="all",
    clamps=False,
    wrong_logit=0.0,
    mask_logit=0.0,
    in_window=False,
    overwrites=True,
    again=True,
)
SAM_MED3D_2024 = Published(
    "sam_med3d_2024",
    "ground-truth-centred, counted in the window alone, the best of all clicks",
    "SAM-Med3D before May 2025 (validation.py)",
    clicks=5,
    cores=2,
    mask_logit=0.0,
    best=True,
)
NEUROSAM3D = Published(
    "neurosam3d",
    "ground-truth-centred (on a voxel of the object), counted in the window alone",
    "NeuroSAM3D (anthonyprinaldi/NeuroSAM3D, neuro_sam_model.py, validation_step)",
    clicks=11,
    centre="voxel",
    show="all",
    largest=True,
    alone=True,
)
M_SAM = Published(
    "m_sam",
    "ground-truth-centred, counted in the window alone, after the last of 11 clicks",
    "M-SAM (nanase1025/M-SAM, train_msam.py, validate_epoch)",
    clicks=11,
)

PUBLISHED: Mapping[str, Published] = {
    test.name: test for test in (SAM_MED3D, SAM_MED3D_2024, NEUROSAM3D, M_SAM)
}
"""Every published test of 3D models."""


@dataclass(frozen=True)
class ResampledFirst(WindowPreprocess):
    """Windows of a lattice that begins where the file does, as torchio resamples before it turns."""

    def lattice(self, grid: Grid) -> Grid:
        """Resample, then turn."""
        even = grid if self.spacing_mm is None else grid.resample(self.spacing_mm)
        return even.reorient(self.orientation)


def ask_as_published(
    predictor: Predictor, manifest: Manifest, subject: Subject, trial: Trial, *, test: Published
) -> Iterator[tuple[Target, Answer]]:
    """Ask for every object in a window around it, as a published test does.

    Raises:
        GeometryError: if the image is not a volume.
        ConfigError: if the model is not one for volumes, or the image has several channels.
    """
    del manifest
    own = test.check(predictor)
    check_image(predictor, subject)
    predictor.open(subject.image)  # refuses what the model cannot see
    asked = _asked(predictor, subject, trial, test, test.chain(own))
    one_map = subject.case.label_kind == "map" and trial.objects == "labels"
    yield from overwritten(asked) if test.overwrites and one_map else asked


def _asked(
    predictor: Predictor, subject: Subject, trial: Trial, test: Published, chain: WindowPreprocess
) -> Iterator[tuple[Target, Answer]]:
    shape = subject.image.shape
    for target in subject.targets:
        draws = partial(generator, trial, target)
        if trial.baseline:
            box = box_around(target, shape, trial)
            yield target, Answer(ELLIPSE, None, ellipse(*box, shape), box=box)
        room = _Room(predictor, subject.image, target.mask(shape), test, chain, draws)
        if trial.ceiling:
            yield target, Answer(CEILING_WINDOW, None, room.back(room.object[0]))
            yield target, Answer(CEILING, None, room.back(room.nearest()))
        for answer in room.answers(trial.clicks):
            yield target, answer


class _Room:
    """One object in its window."""

    def __init__(
        self,
        predictor: Predictor,
        image: Volume,
        mask: Mask,
        test: Published,
        chain: WindowPreprocess,
        draws: Callable[[str], torch.Generator],
    ) -> None:
        self.predictor, self.image, self.test, self.chain = predictor, image, test, chain
        self.draws = draws("clicks")
        drawn = Volume(mask.view(np.uint8), image.grid)
        self.key = window_of(drawn, test, chain, draws("window"))
        self.grid = chain.frame_grid(image.grid, self.key)
        laid = drawn.to_grid(self.grid, interpolation="nearest").array
        self.object: Window = torch.from_numpy(np.ascontiguousarray(laid))[None] > 0

    def answers(self, clicks: int) -> Iterator[Answer]:
        """One answer after each click; empty ones where the lattice misses the object altogether."""
        size, low = tuple(self.object.shape[1:]), self.predictor.low_res_size
        logits: Tensor = torch.full(size, -1.0)
        low_res = torch.zeros(1, 1, *low)
        coords, labels = torch.zeros(1, 0, 3), torch.zeros(1, 0, dtype=torch.long)
        middle = 2 + int(torch.randint(7, (), generator=self.draws)) if self.test.alone else -1
        best, there = 0.0, bool(self.object.any())
        for turn in range(clicks):
            start, encoding = time.perf_counter(), None
            new = self.click(logits, turn) if there else None
            if new is not None:
                if not turn:
                    embedded = self.encoded()
                    encoding = time.perf_counter() - start
                before = (
                    (coords, labels) if self.test.show == "all" else (coords[:, :0], labels[:, :0])
                )
                coords, labels = (torch.cat(pair, dim=1) for pair in zip(before, new, strict=True))
                points = None if turn == middle else (coords, labels)
                low_res = self.predictor.decode(embedded, points=points, masks=low_res)[0]
                logits = F.interpolate(low_res, size, mode="trilinear", align_corners=False)[0, 0]
            found = logits > self.test.mask_logit
            mask = self.back(found)
            seconds = None if new is None else time.perf_counter() - start
            scores = {}
            if self.test.in_window:
                now = round(dice(found.numpy(), self.object[0].numpy()), 4) if there else 0.0
                best = max(best, now)
                scores = {BEST: best, IN_WINDOW: now} if self.test.best else {IN_WINDOW: now}
            yield Answer(
                "clicks", turn + 1, mask, seconds=seconds, encoding=encoding, scores=scores
            )

    def click(self, logits: Float[Tensor, "i j k"], turn: int) -> tuple[Tensor, Tensor] | None:
        """The next click in the window: coordinates (1, 1, 3) and label; None where nothing is wrong."""
        predicted = logits[None] > self.test.wrong_logit
        if turn == 0 and self.test.largest:
            source = simulate.largest_component(self.object)
            return simulate.random_points(source, 1, self.draws), torch.ones(1, 1, dtype=torch.long)
        wrong = predicted != self.object
        if not wrong.any():
            if not self.test.again:
                return None
            at = simulate.random_points(self.object, 1, self.draws)
            return at, torch.ones(1, 1, dtype=torch.long)
        if turn < self.test.cores:
            wrong = deeper(wrong & self.object, wrong & predicted)
        at = simulate.random_points(wrong, 1, self.draws)
        label = self.object[(0, *at[0, 0].long().tolist())]
        return at, label.long().reshape(1, 1)

    def encoded(self) -> Embedded:
        """See the window."""
        frame = self.chain.frame(self.image, self.key, self.chain.statistics(self.image))
        with self.predictor.running():
            features = self.predictor.model.image_encoder(frame.tensor.to(self.predictor.device))
        return Embedded(features.float(), frame.grid, frame.n_axes, frame.statistics)

    def nearest(self) -> Bool[Tensor, "i j k"]:
        """What a perfect answer's low-resolution logits leave of the object."""
        low, size = self.predictor.low_res_size, tuple(self.object.shape[1:])
        logits = nearest_logits(self.object[0].float(), low)[None, None]
        return F.interpolate(logits, size, mode="trilinear", align_corners=False)[0, 0] > 0

    def back(self, mask: Bool[Tensor, "i j k"]) -> Mask:
        """Paste a mask back onto the image's grid by nearest neighbour."""
        pasted = Volume(mask.numpy().view(np.uint8), self.grid)
        found: Mask = pasted.to_grid(self.image.grid, interpolation="nearest").array != 0
        return found


def window_of(
    drawn: Volume, test: Published, chain: WindowPreprocess, draws: torch.Generator
) -> Triple:
    """First voxel, on the lattice, of the window that a published test lays around an object."""
    lattice = chain.lattice(drawn.grid)
    where = np.argwhere(drawn.array)
    start, stop = box_on(lattice, drawn.grid, where.min(axis=0), where.max(axis=0) + 1)
    near = lattice.window(start, [b - a for a, b in zip(start, stop, strict=True)])
    there = drawn.to_grid(near, interpolation="nearest").array != 0
    if not there.any():
        return around(start, stop, chain.size)
    found = np.argwhere(there) + np.asarray(start)
    if test.centre == "voxel":
        one = found[int(torch.randint(len(found), (), generator=draws))]
        before = np.asarray(chain.size) // 2
        return inside(tuple((one - before).tolist()), chain.size, lattice.shape)
    low, high = found.min(axis=0).tolist(), (found.max(axis=0) + 1).tolist()
    return around((low[0], low[1], low[2]), (high[0], high[1], high[2]), chain.size)


def deeper(missing: Window, too_much: Window) -> Window:
    """The core of what is missing or of what is too much, whichever is deeper (by distance in voxels).

    Source: uni-medical/SAM-Med3D, utils/click_method.py, get_next_click3D_torch_ritm.
    """
    from scipy.ndimage import distance_transform_edt

    one, two = (
        distance_transform_edt(np.pad(mask[0].numpy(), 1))[1:-1, 1:-1, 1:-1]
        for mask in (missing, too_much)
    )
    depth = one if one.max() > two.max() else two
    return torch.from_numpy(depth > depth.max() / 2)[None]
