"""Plans of our own where there are none, by the rules that nnU-Net documents.

Source: `ExperimentPlanner` of nnU-Net 2.8.1; for the same fingerprint the plans are the same, patch, batch
and network included, and nnU-Net reads them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from samaritan.data.nnunet.fingerprint import Fingerprint
from samaritan.data.nnunet.normalising import USES_MASK, scheme_of
from samaritan.data.nnunet.plans import PLANS_NAME, Plans
from samaritan.data.nnunet.rawset import RawSet
from samaritan.data.nnunet.resampling import ANISOTROPY, new_shape
from samaritan.data.nnunet.topology import CONVOLUTIONS, Topology, topology_for

Vector = npt.NDArray[np.float64]

_READERS = {".png": "NaturalImage2DIO", ".bmp": "NaturalImage2DIO", ".tif": "NaturalImage2DIO"}


@dataclass(frozen=True)
class Budget:
    """How large a network may get."""

    memory_gb: float = 8.0
    """Of the accelerator; patches and batches grow with it."""
    smallest_batch: int = 2
    """A batch never has fewer patches."""
    most_of_set: float = 0.05
    """A batch shows no more than this part of the data set's voxels."""

    def features(self, dims: int) -> tuple[float, int]:
        """Give the numbers in all features that fit, and the batch that this is meant for."""
        known, batch = (85_000_000, 12) if dims == 2 else (560_000_000, 2)
        return known * self.memory_gb / 8, batch


@dataclass(frozen=True)
class _Facts:
    """What every configuration is planned from."""

    raw: RawSet
    fingerprint: Fingerprint
    budget: Budget
    plans_name: str


def make_plans(
    raw: RawSet,
    fingerprint: Fingerprint,
    *,
    budget: Budget | None = None,
    spacing: Sequence[float] | None = None,
    name: str = PLANS_NAME,
) -> Plans:
    """Plan "2d" and, for volumes, "3d_fullres"; "3d_lowres" with its cascade where patches show too little.

    Args:
        raw: channels decide the normalisation, labels the size of the output.
        fingerprint: of its cases.
        budget: of memory.
        spacing: of axes k, j and i, in mm, to use instead of the planned one.
        name: of the plans.
    """
    facts = _Facts(raw, fingerprint, budget or Budget(), name)
    target = np.asarray(spacing, float) if spacing is not None else target_spacing(fingerprint)
    first = int(np.argmax(target))
    forward = [first, *(a for a in range(3) if a != first)]
    shapes = [
        new_shape(n, own, target.tolist())
        for n, own in zip(fingerprint.shapes, fingerprint.spacings, strict=True)
    ]
    median = np.median(shapes, axis=0)[forward]
    turned = target[forward]
    count = int(raw.content.get("numTraining", len(raw.cases)))
    voxels = float(np.prod(median)) * count
    configurations = {
        "2d": {**_planned(facts, "2d", turned[1:], median[1:], voxels), "batch_dice": True}
    }
    if median[0] != 1:
        full = _planned(facts, "3d_fullres", turned, median, voxels)
        low = _low_resolution(facts, full, turned, median, count)
        if low is not None:
            configurations["3d_lowres"] = {
                **low, "batch_dice": False, "next_stage": "3d_cascade_fullres",
            }  # fmt: skip
        configurations["3d_fullres"] = {**full, "batch_dice": low is not None}
        if low is not None:
            configurations["3d_cascade_fullres"] = {
                "inherits_from": "3d_fullres", "previous_stage": "3d_lowres",
            }  # fmt: skip
    content: dict[str, Any] = {
        "dataset_name": raw.name,
        "plans_name": name,
        "original_median_spacing_after_transp": _median(fingerprint.spacings, forward),
        "original_median_shape_after_transp": [
            round(n) for n in _median(fingerprint.shapes, forward)
        ],
        "image_reader_writer": _reader(raw),
        "transpose_forward": forward,
        "transpose_backward": [forward.index(a) for a in range(3)],
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {
            str(c): dict(values) for c, values in enumerate(fingerprint.intensities)
        },
    }
    return Plans.of(content, "the plans that were made")


def _reader(raw: RawSet) -> str:
    """Name what nnU-Net would read the files with."""
    asked = raw.content.get("overwrite_image_reader_writer", "None")
    return _READERS.get(raw.file_ending, "SimpleITKIO") if asked == "None" else str(asked)


def target_spacing(fingerprint: Fingerprint) -> Vector:
    """Choose the voxels of full resolution: the median of each axis.

    Where slices are thick and few, the axis across them takes the 10th percentile instead, since resampling
    thinner slices to the median would blur what little there is.
    """
    spacings = np.array(fingerprint.spacings, float)
    target: Vector = np.percentile(spacings, 50, axis=0)
    sizes = np.percentile(np.array(fingerprint.shapes), 50, axis=0)
    thick = int(np.argmax(target))
    others = [a for a in range(3) if a != thick]
    finer = max(target[others])
    if target[thick] > ANISOTROPY * finer and sizes[thick] * ANISOTROPY < min(sizes[others]):
        wanted = np.percentile(spacings[:, thick], 10)
        target[thick] = wanted if wanted >= finer else finer + 1e-5
    return target


def _planned(
    facts: _Facts, name: str, spacing: Vector, median: Vector, voxels: float
) -> dict[str, Any]:
    """Plan one configuration: the largest patch that fits, then the largest batch."""
    dims = len(spacing)
    limit, batch = facts.budget.features(dims)
    classes = len(facts.raw.content["labels"])
    topology = topology_for(spacing.tolist(), _first_patch(spacing, median))
    while topology.feature_voxels(classes) / batch * facts.budget.smallest_batch > limit:
        topology = _smaller(topology, spacing, median)
    fitting = round(limit / topology.feature_voxels(classes) * batch)
    covering = round(voxels * facts.budget.most_of_set / math.prod(topology.patch_size))
    schemes = [scheme_of(channel) for channel in facts.raw.channels]
    masked = facts.fingerprint.relative_size < 3 / 4
    return {
        "data_identifier": f"{facts.plans_name}_{name}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": max(min(fitting, covering), facts.budget.smallest_batch),
        "patch_size": list(topology.patch_size),
        "median_image_size_in_voxels": median.tolist(),
        "spacing": spacing.tolist(),
        "normalization_schemes": schemes,
        "use_mask_for_norm": [masked and scheme in USES_MASK for scheme in schemes],
        **_resampling(),
        "architecture": _architecture(topology),
    }


def _first_patch(spacing: Vector, median: Vector) -> list[float]:
    """Take a patch as long in mm along each axis, surely too large, cut to the median image."""
    dims = len(spacing)
    inverse = 1 / spacing
    whole = 256**3 if dims == 3 else 2048**2
    sides = inverse * (whole / np.prod(inverse)) ** (1 / dims)
    return [min(round(float(n)), float(m)) for n, m in zip(sides, median, strict=True)]


def _smaller(topology: Topology, spacing: Vector, median: Vector) -> Topology:
    """Shorten the axis of which the patch shows most, by the least that strides allow."""
    size = list(topology.patch_size)
    axis = int(np.argsort([n / m for n, m in zip(size, median, strict=True)])[-1])
    tried = list(size)
    tried[axis] -= topology.divisor[axis]
    size[axis] -= topology_for(spacing.tolist(), tried).divisor[axis]
    return topology_for(spacing.tolist(), size)


def _low_resolution(
    facts: _Facts, full: dict[str, Any], spacing: Vector, median: Vector, count: int
) -> dict[str, Any] | None:
    """Plan coarser voxels until a patch shows a quarter of the image; None if that is not needed."""
    made, sides = None, spacing.copy()
    patch, voxels = math.prod(full["patch_size"]), float(np.prod(median))
    while patch / voxels < 0.25:
        finer = sides.max() / sides > 2
        sides = np.where(finer, sides * 1.03, sides) if finer.any() else sides * 1.03
        shape = spacing / sides * median
        voxels = float(np.prod(shape))
        rounded = np.array([round(float(n)) for n in shape], float)
        made = _planned(facts, "3d_lowres", sides, rounded, voxels * count)
        patch = math.prod(made["patch_size"])
    if np.prod(median) / voxels < 2:
        return None
    return made


def _median(rows: Sequence[Sequence[float]], order: Sequence[int]) -> list[float]:
    found: list[float] = np.median(rows, axis=0)[list(order)].tolist()
    return found


def _resampling() -> dict[str, Any]:
    settings = {"data": (False, 3), "seg": (True, 1), "probabilities": (False, 1)}
    found: dict[str, Any] = {}
    for kind, (labels, order) in settings.items():
        found[f"resampling_fn_{kind}"] = "resample_data_or_seg_to_shape"
        found[f"resampling_fn_{kind}_kwargs"] = {
            "is_seg": labels, "order": order, "order_z": 0, "force_separate_z": None,
        }  # fmt: skip
    return found


def _architecture(topology: Topology) -> dict[str, Any]:
    dims, stages = len(topology.patch_size), len(topology.strides)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(topology.features()),
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [list(k) for k in topology.kernels],
            "strides": [list(s) for s in topology.strides],
            "n_conv_per_stage": [CONVOLUTIONS] * stages,
            "n_conv_per_stage_decoder": [CONVOLUTIONS] * (stages - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
