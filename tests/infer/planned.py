"""Chains made by hand, and models that see nothing but grey values: what comes out is known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from samaritan.data.nnunet.chain import PlannedChain
from samaritan.geometry import Grid
from samaritan.models.voxel_classes import VoxelNet
from samaritan.volume import LabelMap, Volume

LABELS = {"background": 0, "near": 1, "far": 2}
GREYS = (0.0, 100.0, 200.0)


def chain(
    *,
    spacing: tuple[float, ...] = (3.0, 1.2, 1.1),
    patch: tuple[int, ...] = (4, 16, 12),
    transpose: tuple[int, int, int] = (0, 1, 2),
    mirror: tuple[int, ...] = (),
    labels: dict[str, Any] | None = None,
    channels: int = 1,
    **more: Any,
) -> PlannedChain:
    """A chain that leaves grey values as they are."""
    resampling = {
        f"resampling_fn_{kind}{end}": value
        for kind in ("data", "seg", "probabilities")
        for end, value in (
            ("", "resample_data_or_seg_to_shape"),
            (
                "_kwargs",
                {
                    "is_seg": kind == "seg",
                    "order": 3 if kind == "data" else 1,
                    "order_z": 0,
                    "force_separate_z": None,
                },
            ),
        )
    }
    configuration = {
        "data_identifier": "toy",
        "spacing": list(spacing),
        "patch_size": list(patch),
        "batch_size": 2,
        "normalization_schemes": ["NoNormalization"] * channels,
        "use_mask_for_norm": [False] * channels,
        **resampling,
    }
    backward = [transpose.index(a) for a in range(3)]
    dataset: dict[str, Any] = {
        "channel_names": {str(c): f"MRI {c}" for c in range(channels)},
        "labels": labels or LABELS,
        "file_ending": ".nii.gz",
        **{k: more.pop(k) for k in ("regions_class_order",) if k in more},
    }
    return PlannedChain.from_dict(
        {
            "plans": {
                "dataset_name": "Dataset007_Toy",
                "plans_name": "nnUNetPlans",
                "transpose_forward": list(transpose),
                "transpose_backward": backward,
                "configurations": {"toy": configuration},
            },
            "configuration": "toy",
            "dataset": dataset,
            "patch_size": list(patch),
            "mirror_axes": list(mirror),
            **more,
        }
    )


class ByGrey(VoxelNet):
    """The class of a voxel is the nearest of some grey values; the last channel of the input is looked at."""

    def __init__(self, greys: tuple[float, ...] = GREYS, *, sharp: float = 0.1) -> None:
        nn.Module.__init__(self)
        self.greys, self.sharp = greys, sharp
        self.seen: list[tuple[int, ...]] = []
        self.config: Any = SimpleNamespace(name="by_grey", in_channels=1)

    def forward(self, images: Tensor, *_: Any, **__: Any) -> Tensor:
        self.seen.append(tuple(images.shape))
        last = images[:, -1:]
        return torch.cat([-(last - grey).abs() * self.sharp for grey in self.greys], dim=1)


class Convolved(VoxelNet):
    """Random convolutions: what comes out depends on neighbours and directions."""

    def __init__(self, heads: int = 3, dims: int = 3, seed: int = 0) -> None:
        nn.Module.__init__(self)
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        torch.manual_seed(seed)
        self.net = nn.Sequential(conv(1, 4, 3, padding=1), nn.ReLU(), conv(4, heads, 3, padding=1))
        self.config: Any = SimpleNamespace(name="convolved", in_channels=1)

    def forward(self, images: Tensor, *_: Any, **__: Any) -> Tensor:
        found: Tensor = self.net(images / 100)
        return found


def scene(
    shape: tuple[int, int, int] = (26, 31, 11), code: str = "LPS", *, zeros: bool = True
) -> tuple[Volume, LabelMap]:
    """Two blocks of grey in an anisotropic volume with zeros around, and their labels."""
    grid = Grid.from_spacing(shape, (1.3, 1.0, 4.0), orientation=code, origin_mm=(5, -7, 9))
    truth = np.zeros(shape, np.uint8)
    truth[4:14, 5:20, 2:8] = 1
    truth[15:22, 8:26, 4:9] = 2
    array = np.array(GREYS, np.int16)[truth]
    if not zeros:
        array[array == 0] = 1
    return Volume(array, grid), LabelMap(truth, grid, names={1: "near", 2: "far"})


def dice(one: np.ndarray, two: np.ndarray) -> float:
    return float(2 * (one & two).sum() / max(one.sum() + two.sum(), 1))
