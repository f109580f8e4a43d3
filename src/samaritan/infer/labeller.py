"""Automatic models on whole volumes: from a scan to its label map, on the scan's own grid.

One way for all models that learned from nnU-Net data: what the weights store says how a scan is turned,
cropped, normalised and resampled; windows slide over it, mirrored, through every model; and all the way back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from samaritan.checkpoints import load_model, read_header
from samaritan.data.nnunet.chain import PlannedChain
from samaritan.data.nnunet.preprocessing import Prepared, preprocess
from samaritan.data.nnunet.rawset import RawCase
from samaritan.data.nnunet.restoring import Slab, WayBack
from samaritan.errors import CheckpointError, ConfigError
from samaritan.infer.engine import Precision, Progress, resolve_device, resolve_precision
from samaritan.infer.sliding import SlidingWindows
from samaritan.models.patch_classes import patch_logits
from samaritan.models.sam import Sam
from samaritan.transforms.preprocess import is_planned
from samaritan.volume import LabelMap, Volume

Tee = Callable[[Iterable[Slab], WayBack, Volume], Iterator[Slab]]
"""Looks at the probabilities of a case on their way: (slices, what they lie on, the turned scan)."""


@dataclass(frozen=True, eq=False)
class Member:
    """One model, and how it sees images."""

    model: Sam
    chain: PlannedChain


@dataclass(eq=False)
class VolumeLabeller:
    """Labels whole volumes with one model, or with several whose probabilities are averaged.

    Every model's probabilities (softmax of classes, sigmoid of regions) are averaged over overlapping
    windows, mirrored views and models, resampled linearly to the scan's voxels, and only then is the largest
    taken: they are probabilities all the way. nnU-Net averages logits instead; its windows, weights and
    mirrored views are the same.

    Beside the scan and its preprocessed copy memory holds, for models of one preprocessing together, heads x
    (depth of a window) x rows x columns float32 numbers, and some slices; never heads x volume.

    Attributes:
        members: the models.
        device: of the models.
        dtype: that they compute in.
        mirror: also show windows reversed, along the axes that training reversed.
        step: how far windows move, as a part of their size.
        batch_size: windows that go through a model together; None: one, or eight of single slices.
        progress: called with (what, done, total).

    Raises:
        ConfigError: if the models do not label the same.

    Example::

        labeller = VolumeLabeller.from_checkpoints(["runs/acdc/fold_0", "runs/acdc/fold_1"])
        write(labeller.labels(read("scan.nii.gz")), "labels.nii.gz")
    """

    members: tuple[Member, ...]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    mirror: bool = True
    step: float = 0.5
    batch_size: int | None = None
    progress: Progress = lambda what, done, total: None

    def __post_init__(self) -> None:
        if not self.members:
            raise ConfigError("there is no model to label with")
        first = self.chain
        for member in self.members[1:]:
            other = member.chain
            odd = [
                what
                for what, one, two in (
                    ("labels", first.labels, other.labels),
                    ("channels", first.channels, other.channels),
                    ("axes", first.plans.transpose_forward, other.plans.transpose_forward),
                    ("orientation", first.orientation, other.orientation),
                )
                if one != two
            ]
            if odd:
                names = (self.model.config.name, member.model.config.name)
                raise ConfigError(
                    f"models {names[0]!r} and {names[1]!r} differ in {', '.join(odd)}: only models of one "
                    "data set are averaged"
                )
        for member in self.members:
            member.model.to(self.device).eval()

    @classmethod
    def from_checkpoints(
        cls,
        paths: Sequence[str | Path],
        *,
        base: str | Path | None = None,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        **options: Any,
    ) -> Self:
        """Load models that learned from nnU-Net data, such as those of several folds.

        Args:
            paths: files or folders of runs.
            base: weights of the plain model, for files that hold what was trained alone.
            device: None: the best there is.
            precision: as in `Predictor`.
            **options: other attributes.

        Raises:
            CheckpointError: if a file is none of them.
        """
        members = []
        for path in paths:
            model, header = load_model(path, base=base)
            if not is_planned(header.preprocess):
                raise CheckpointError(
                    f"{path} says nothing of plans: it did not learn from nnU-Net data, so it cannot label "
                    "volumes in windows. Give such a model alone, without --folds and others beside it"
                )
            members.append(Member(model, PlannedChain.from_dict(header.preprocess or {})))
        chosen = resolve_device(device)
        return cls(tuple(members), chosen, resolve_precision(precision, chosen), **options)

    @property
    def chain(self) -> PlannedChain:
        """How the first model sees images."""
        return self.members[0].chain

    @property
    def model(self) -> Sam:
        """The first model."""
        return self.members[0].model

    @property
    def label_names(self) -> Mapping[int, str]:
        """Label value -> name."""
        return self.chain.labels.titles()

    def labels(self, volume: Volume, *, tee: Tee | None = None) -> LabelMap:
        """Label a scan, on its own grid.

        Args:
            volume: with the channels that the models know.
            tee: called once, to look at the probabilities on their way.

        Raises:
            ConfigError: if it has other channels.
            FileError: if it has voxels that are not finite.
        """
        self._check(volume)
        turned = self._turned(volume)
        stream, way = self._probabilities(RawCase.of(turned))
        if tee is not None:
            stream = tee(stream, way, turned)
        regions = self.chain.labels.has_regions
        scores = (
            (first, p - 0.5 if regions else p) for first, p in stream
        )  # decided at 0 or the largest
        found = way.label_map(scores, turned.grid).to_grid(volume.grid)
        return replace(found, meta={"model": self.model.config.name})

    def _check(self, volume: Volume) -> None:
        wanted = self.chain.channels
        if volume.n_channels != len(wanted):
            there = f" ({', '.join(volume.channels)})" if volume.channels else ""
            count = f"{volume.n_channels} channel{'s' * (volume.n_channels > 1)}"
            raise ConfigError(
                f"the image has {count}{there} and the model takes {len(wanted)}: {', '.join(wanted)}. Name "
                "files CASE_0000, CASE_0001, ... in this order, or pick one (--channel)"
            )

    def _turned(self, volume: Volume) -> Volume:
        """Lay the axes of a scan as those of the training images lay: a view."""
        wanted = self.chain.orientation
        return volume.reorient(wanted) if wanted and volume.grid.unit == "mm" else volume

    # -- probabilities -----------------------------------------------------------------------------

    def _probabilities(self, raw: RawCase) -> tuple[Iterator[Slab], WayBack]:
        """Probabilities on the cropped scan, slice after slice, and the way from there to the whole scan."""
        groups = self._groups()
        total = len(self.members)
        streams, ways = [], []
        for chain, models in groups:
            prepared = preprocess(raw, chain.plans, chain.configuration)
            way = chain.way_back(prepared)
            streams.append(way.resampled(self._slabs(chain, models, prepared)))
            ways.append(way)
        shares = [len(models) / total for _, models in groups]
        last = replace(ways[0], shape=ways[0].properties.shape_after_cropping)
        return (streams[0] if len(streams) == 1 else _mixed(streams, shares)), last

    def _groups(self) -> list[tuple[PlannedChain, list[Sam]]]:
        """Models that see images alike, together: their windows are the same."""
        found: list[tuple[PlannedChain, list[Sam]]] = []
        for member in self.members:
            chain = replace(member.chain, fold=None)
            same = next((models for known, models in found if _alike(known, chain)), None)
            if same is None:
                found.append((chain, [member.model]))
            else:
                same.append(member.model)
        return found

    def _slabs(
        self, chain: PlannedChain, models: Sequence[Sam], prepared: Prepared
    ) -> Iterator[Slab]:
        flat = len(chain.patch_size) == 2
        windows = SlidingWindows(
            chain.patch_size,
            step=self.step,
            mirror=chain.mirror_axes if self.mirror else (),
            batch_size=self.batch_size or (8 if flat else 1),
            device=self.device,
        )
        regions = chain.labels.has_regions

        def believed(patches: Tensor) -> Tensor:
            total: Tensor | None = None
            for model in models:
                with self._running():
                    logits = patch_logits(model, patches)
                one = logits.float().sigmoid() if regions else logits.float().softmax(dim=1)
                del logits
                total = one if total is None else total.add_(one)
            assert total is not None
            return total.div_(len(models)) if len(models) > 1 else total

        return windows.slabs(
            believed,
            prepared.image,
            progress=lambda done, count: self.progress("windows", done, count),
        )

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        mixed = self.dtype != torch.float32
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=mixed):
            yield


def _mixed(streams: Sequence[Iterator[Slab]], shares: Sequence[float]) -> Iterator[Slab]:
    """Average several streams slice by slice."""
    for slabs in zip(*streams, strict=True):
        firsts = [first for first, _ in slabs]
        yield (
            firsts[0],
            torch.stack([p * s for (_, p), s in zip(slabs, shares, strict=True)]).sum(0),
        )


def _alike(one: PlannedChain, two: PlannedChain) -> bool:
    """Whether two chains make the same of an image."""
    return {**one.to_dict(), "dataset": None} == {**two.to_dict(), "dataset": None}


def labels_volumes(path: str | Path) -> bool:
    """Tell, without reading weights, whether a file is of a model that learned from nnU-Net data."""
    try:
        return is_planned(read_header(path).preprocess)
    except CheckpointError:  # of another system
        return False
