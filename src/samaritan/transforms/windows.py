"""Windows of volumes for 3D models: one chain for training and inference, published variants by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from samaritan.errors import ConfigError
from samaritan.geometry import Grid
from samaritan.transforms.preprocess import Frame, Preprocess, Prompting, thinned
from samaritan.volume import Volume


@dataclass(frozen=True)
class WindowPreprocess(Preprocess):
    """Cubes of a volume for 3D models, as published for SAM-Med3D.

    The volume is turned to `orientation` and resampled to `spacing_mm`; a frame is a window of
    `size` voxels of that lattice, normalised to mean 0 and deviation 1 over its positive voxels.
    What lies outside the volume counts as intensity 0. Frames are named by the window's first voxel.
    Only the window is ever resampled.

    Source: uni-medical/SAM-Med3D, utils/infer_utils.py (torchio transforms). There the window is
    centred on the ground truth; here whoever asks places it.

    Raises:
        ConfigError: on a word or range that cannot be.
    """

    kind: ClassVar[str] = "windows"
    n_axes: ClassVar[int] = 3

    size: tuple[int, int, int] = (128, 128, 128)
    """Voxels of the model's input."""
    spacing_mm: tuple[float, float, float] | None = (1.5, 1.5, 1.5)
    """Voxel sides of the model's input; None: those of the image, whatever they are."""
    orientation: str = "RAS"
    """Where the axes of the model's input point."""
    clamp: tuple[float, float] | None = None
    """Intensities are cut to this range first, such as (-1000, 1000) for CT."""
    clamp_modalities: tuple[str, ...] = ()
    """Cut images of these modalities only, as `volume.meta["modality"]` has it; empty: every image."""
    percentiles: tuple[float, float] | None = None
    """Percentiles of the whole volume that become -1 and 1 first (NeuroSAM3D); None: nothing does."""
    measure: Literal["window", "volume"] = "window"
    """Take mean and deviation over each window (as published), or once over the whole volume."""
    prompting: Prompting = field(
        default_factory=lambda: Prompting(clicks="newest", multimask="never", first_mask="zeros")
    )
    """How prompts are put together."""

    def __post_init__(self) -> None:
        problems = []
        if self.measure not in ("window", "volume"):
            problems.append(f"measure is window or volume, got {self.measure!r}")
        if self.clamp is not None and not self.clamp[0] < self.clamp[1]:
            problems.append(f"clamp is two ascending intensities, got {self.clamp}")
        if self.percentiles and not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            problems.append(f"percentiles are two from 0 to 100, ascending, got {self.percentiles}")
        if problems:
            raise ConfigError("; ".join(problems))

    # -- where -----------------------------------------------------------------------------------

    def lattice(self, grid: Grid) -> Grid:
        """Give the lattice, all over the image, that windows are cut from."""
        turned = grid.reorient(self.orientation)
        return turned if self.spacing_mm is None else turned.resample(self.spacing_mm)

    def stored_grid(self, grid: Grid) -> Grid:
        """The grid that volumes are kept on for training: the lattice."""
        return self.lattice(grid)

    def frame_grid(self, grid: Grid, key: tuple[int, ...]) -> Grid:
        """Cut the window from the lattice."""
        return self.lattice(grid).window(key, self.size)

    # -- intensities -----------------------------------------------------------------------------

    def statistics(self, volume: Volume) -> dict[str, float]:
        """Measure what every window needs: "low" and "high" percentiles, "mean" and "std" of the volume.

        Without `percentiles`, and with each window normalised on its own, that is nothing.
        """
        found: dict[str, float] = {}
        if self.percentiles is None and self.measure == "window":
            return found
        with np.errstate(over="ignore"):
            values = thinned(one_channel(volume)).astype(np.float32, copy=False)
        values = values[np.isfinite(values)]
        if self.percentiles is not None:
            low, high = np.percentile(values, self.percentiles) if values.size else (0.0, 1.0)
            found = {"low": float(low), "high": float(max(high, low + 1e-6))}
        if self.measure == "volume":
            scaled = self.scaled(torch.from_numpy(values), modality_of(volume), found)
            found |= self.window_statistics(scaled)
        return found

    def scaled(self, values: Tensor, modality: str, statistics: Mapping[str, float]) -> Tensor:
        """Cut and scale intensities of an image of this modality, before they are normalised."""
        if self.clamp is not None and self.clamps(modality):
            values = values.clamp(*self.clamp)
        if self.percentiles is None:
            return values
        low, high = statistics["low"], statistics["high"]
        return ((values - low) * (2 / (high - low)) - 1).clamp(-1, 1)

    def clamps(self, modality: str) -> bool:
        """Tell whether intensities of this modality are cut; nobody knows of an empty one."""
        named = not self.clamp_modalities or modality.upper() in self.clamp_modalities
        return self.clamp is not None and named

    def normalised(
        self, values: Tensor, statistics: Mapping[str, float]
    ) -> tuple[Tensor, dict[str, float]]:
        """Bring scaled intensities to mean 0 and deviation 1; also tell which statistics were used."""
        measured = {**statistics}
        if "mean" not in measured:
            measured |= self.window_statistics(values)
        return (values - measured["mean"]) / measured["std"], measured

    def window_statistics(self, values: Tensor) -> dict[str, float]:
        """Measure mean and deviation over the positive voxels, or over all if none is positive."""
        positive = values[values > 0]
        chosen = positive if positive.numel() > 1 else values.flatten()
        deviation = float(chosen.std()) if chosen.numel() > 1 else 0.0
        mean = float(chosen.mean()) if chosen.numel() else 0.0
        return {"mean": mean, "std": max(deviation, 1e-6)}

    # -- frames ----------------------------------------------------------------------------------

    def window_values(
        self, volume: Volume, key: tuple[int, ...], statistics: Mapping[str, float] | None = None
    ) -> tuple[Tensor, Grid]:
        """Resample one window, cut and scale it, without normalising it; 0 outside the volume."""
        volume = one_channel(volume)
        grid = self.frame_grid(volume.grid, key)
        with np.errstate(over="ignore"):
            array = volume.to_grid(grid).array.astype(np.float32, copy=False)
        finite = np.nan_to_num(np.ascontiguousarray(array), posinf=0, neginf=0)
        values = torch.from_numpy(finite)
        measured = statistics if statistics or not self.percentiles else self.statistics(volume)
        values = self.scaled(values, modality_of(volume), measured or {})
        if self.percentiles is not None:
            values = values * torch.from_numpy(_inside(volume.grid, grid))
        return values, grid

    def frame(self, volume: Volume, key: tuple[int, ...], statistics: Mapping[str, float]) -> Frame:
        """Make the input for the window whose first voxel on the lattice is `key`."""
        if not {"low", "mean"} & statistics.keys():
            statistics = {**self.statistics(volume), **statistics}
        values, grid = self.window_values(volume, key, statistics)
        tensor, measured = self.normalised(values, statistics)
        return Frame(tensor[None, None], grid, 3, measured)


def sam_med3d_windows(size: int = 128) -> WindowPreprocess:
    """SAM-Med3D as it was trained: CT cut to -1000..1000, each window normalised over its positive voxels.

    Its own inference does not cut CT; of an image whose modality nobody says nothing is cut here either.

    Source: uni-medical/SAM-Med3D, utils/data_loader.py, which looks for "/ct_" in the path.
    """
    return WindowPreprocess(size=(size,) * 3, clamp=(-1000.0, 1000.0), clamp_modalities=("CT",))


def neurosam3d_windows(size: int = 112) -> WindowPreprocess:
    """NeuroSAM3D: voxels as they are, percentiles 0.05 and 99.95 to -1 and 1, then as SAM-Med3D.

    Source: anthonyprinaldi/NeuroSAM3D, utils/transforms.py and neuro_sam_model.py.
    """
    prompting = Prompting(clicks="all", multimask="never", first_mask="zeros")
    return WindowPreprocess(
        size=(size,) * 3, spacing_mm=None, percentiles=(0.05, 99.95), prompting=prompting
    )


def pooled(values: Tensor) -> Tensor:
    """Normalise a batch as SAM-Med3D's training does: over the positive voxels of all its windows at once.

    Source: uni-medical/SAM-Med3D, train.py: torchio sees the batch as the channels of one image.
    """
    positive = values[values > 0]
    chosen = positive if positive.numel() > 1 else values.flatten()
    return (values - chosen.mean()) / chosen.std().clamp(min=1e-6)


def modality_of(volume: Volume) -> str:
    """Tell the modality of a volume, as its file or its data set says; empty if neither does."""
    return str(volume.meta.get("modality") or "")


def one_channel(volume: Volume) -> Volume:
    """Give a volume of one channel back.

    Raises:
        ConfigError: if it has several.
    """
    if volume.array.ndim == 4:
        raise ConfigError(
            f"the image has {volume.n_channels} channels and 3D models take one; "
            "pick one with volume.channel(name)"
        )
    return volume


def _inside(source: Grid, grid: Grid) -> npt.NDArray[np.float32]:
    """Mark the voxels of a grid that lie in a source; no memory is taken for the source."""
    everywhere = np.broadcast_to(np.ones((), np.uint8), source.shape)
    found = Volume(everywhere, source).to_grid(grid, interpolation="nearest").array
    return np.ascontiguousarray(found, np.float32)
