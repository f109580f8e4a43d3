"""Models that take no prompts: the label map of every case against its reference; SAMed's published test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from samaritan.data.manifest import Case, Manifest
from samaritan.data.places import put_back
from samaritan.data.reading import case_image, case_labels
from samaritan.data.zooming import zoomed
from samaritan.errors import ConfigError, SamaritanError
from samaritan.evaluation.choosing import MOST_COLOURED, caption_of, choose_cases
from samaritan.evaluation.pictures import colour_of, draw_case
from samaritan.evaluation.report import Picture
from samaritan.evaluation.trials import GroupBy, Progress, Tried, group_name, patient_name, why
from samaritan.infer import Predictor
from samaritan.infer.classes import class_names, predict_labels, require_classes
from samaritan.infer.labeller import VolumeLabeller
from samaritan.metrics import Protocol, Row, measure_case
from samaritan.volume import LabelMap, Volume

Array = npt.NDArray[Any]
Labels = Predictor | VolumeLabeller
"""A model that takes no prompts."""

SHRUNK = (224, 224)
"""SAMed's test first shrinks every slice of a volume to this, since it learned from such."""


def label_cases(
    predictor: Labels,
    manifest: Manifest,
    protocol: Protocol,
    *,
    group_by: GroupBy = "set",
    progress: Progress | None = None,
) -> Tried:
    """Label every case with a model that takes no prompts, and measure every class that it knows.

    Under the protocol "samed" slices go through SAMed's published chain, and slices of one volume are
    measured together, on its grid. A case that fails is told, and the others go on.

    Raises:
        PromptError: if the model takes prompts.
        ConfigError: if it is not for pictures.
    """
    published = protocol.name == "samed"
    if not isinstance(predictor, VolumeLabeller):
        require_classes(predictor)
    elif published:
        raise ConfigError("protocol 'samed' is for models of slices that did not learn from plans")
    predict = _as_samed if published else _as_ours
    known = class_names(predictor)
    rows: list[Row] = []
    problems: dict[str, str] = {}
    wholes = _wholes(manifest) if published else {case.id: [case] for case in manifest}
    for done, (name, cases) in enumerate(wholes.items()):
        if progress is not None:
            progress("labelling", done, len(wholes))
        try:
            prediction, reference = _labelled(predictor, manifest, cases, predict)
            found = measured_labels(
                known, manifest, cases[0], prediction, reference, name, protocol
            )
        except (SamaritanError, MemoryError, RuntimeError) as error:
            problems[name] = why(error)
        else:
            group = group_name(cases[0], group_by)
            rows += [replace(row, group=group, patient=patient_name(cases[0])) for row in found]
    return Tried(tuple(rows), problems)


def picture_cases(
    predictor: Labels,
    manifest: Manifest,
    protocol: Protocol,
    rows: Sequence[Row],
    *,
    each: int = 3,
    progress: Progress | None = None,
) -> tuple[list[Picture], list[tuple[str, str]]]:
    """Draw the worst, median and best cases, labelled again, which gives the same.

    Args:
        predictor: as in `label_cases`.
        manifest: as in `label_cases`.
        protocol: as in `label_cases`.
        rows: what was measured.
        each: how many of each kind.
        progress: called with (what, done, total).

    Returns:
        The pictures, and (label name, colour) for a legend.
    """
    published = protocol.name == "samed"
    wholes = _wholes(manifest) if published else {case.id: [case] for case in manifest}
    names = {row.label: row.name for row in rows}
    labels = sorted(names)[:MOST_COLOURED]
    chosen = choose_cases(rows, each=each) if each else {}
    total = sum(map(len, chosen.values()))
    pictures: list[Picture] = []
    for kind, found in chosen.items():
        for name in found:
            cases = wholes[name]
            pair = _labelled(predictor, manifest, cases, _as_samed if published else _as_ours)
            image = case_image(manifest, cases[0]) if len(cases) == 1 else None
            png = draw_case(*pair, image=image, labels=labels)
            pictures.append(Picture(kind, name, caption_of(name, rows), png))
            if progress is not None:
                progress("drawing", len(pictures), total)
    return pictures, [(names[label], colour_of(at)) for at, label in enumerate(labels)]


def samed_input(
    plane: Array, size: tuple[int, int], *, shrink: tuple[int, int] | None = SHRUNK
) -> npt.NDArray[np.float32]:
    """Bring a slice (rows, columns) to the input's size by cubic splines, shrunk on the way.

    Source: hitachinsk/SAMed, utils.py test_single_volume.
    """
    found = plane if shrink is None else zoomed(plane, shrink, order=3)
    return np.asarray(zoomed(found, size, order=3), np.float32)


def samed_labels(predictor: Predictor, volume: Volume, intensities: Array) -> LabelMap:
    """Label a volume slice by slice as SAMed's test does: across its third axis, rows along its second.

    Pictures, and pages of pictures, keep rows and columns, and single ones are not shrunk first.

    Args:
        predictor: with a model that takes no prompts.
        volume: where the labels shall lie.
        intensities: of its shape, brought to about 0 to 1.
    """
    from scipy.ndimage import zoom

    chain = require_classes(predictor)
    labels = np.zeros(volume.shape, np.uint8)
    turned = volume.grid.unit == "mm" and not volume.is_flat
    across = volume.shape.index(1) if volume.is_flat and volume.shape[2] != 1 else 2
    planes, found = np.moveaxis(intensities, across, 0), np.moveaxis(labels, across, 0)
    for index, plane in enumerate(planes):
        seen = plane.T if turned else plane
        made = samed_input(seen, chain.size, shrink=None if volume.is_flat else SHRUNK)
        classes = _classes(predictor, torch.from_numpy(made))
        factors = [new / old for new, old in zip(seen.shape, classes.shape, strict=True)]
        back = zoom(classes, factors, order=0) if seen.shape != classes.shape else classes
        found[index] = back.T if turned else back
        predictor.progress("slices", index + 1, len(planes))
    return LabelMap(labels, volume.grid, names=class_names(predictor))


def samed_intensities(
    predictor: Predictor, volume: Volume, window: tuple[float, float] | None
) -> Array:
    """Bring a grey volume to 0..1: Synapse's arrays are so already, all others go by the model's window.

    Raises:
        ConfigError: if it has channels.
    """
    if volume.array.ndim == 4:
        raise ConfigError("protocol 'samed' is for images of one channel; this one has several")
    values = volume.array.astype(np.float32)
    if volume.dtype.kind == "f" and values.min() > -1 and values.max() < 2:
        return values
    measured = predictor.open(volume, window=window).statistics
    low, high = measured["low"], measured["high"]
    scaled: Array = (np.clip(values, low, high) - low) / (high - low)
    return scaled


def _classes(predictor: Predictor, picture: Float[Tensor, "h w"]) -> npt.NDArray[np.uint8]:
    """The most probable class at each pixel of the input."""
    chain = require_classes(predictor)
    mean, std = (torch.tensor(v)[:, None, None] for v in (chain.mean, chain.std))
    images = (255 * picture.expand(chain.channels, -1, -1) - mean) / std
    with predictor.running():
        masks = predictor.model(images[None].to(predictor.device)).masks
    best: npt.NDArray[np.uint8] = masks.float().argmax(dim=1)[0].cpu().numpy().astype(np.uint8)
    return best


Predict = Callable[[Any, Volume, "tuple[float, float] | None"], LabelMap]


def _as_ours(predictor: Labels, volume: Volume, window: tuple[float, float] | None) -> LabelMap:
    return predict_labels(predictor, volume, window=window)


def _as_samed(predictor: Predictor, volume: Volume, window: tuple[float, float] | None) -> LabelMap:
    return samed_labels(predictor, volume, samed_intensities(predictor, volume, window))


def _wholes(manifest: Manifest) -> dict[str, list[Case]]:
    """Cases that are slices of one volume, together; those cut across another axis are others."""
    found: dict[tuple[str, str], list[Case]] = {}
    for case in manifest:
        place = case.place
        key = ("", case.id) if place is None else (f"{case.group}, axis {place.axis}", place.volume)
        found.setdefault(key, []).append(case)
    names = [name for _, name in found]
    return {
        name if names.count(name) == 1 else f"{name} ({where})": cases
        for (where, name), cases in found.items()
    }


def _labelled(
    predictor: Labels, manifest: Manifest, cases: list[Case], predict: Predict
) -> tuple[LabelMap, LabelMap]:
    """Prediction and reference of a case, or of the slices of a volume put together."""
    pairs = [_pair(predictor, manifest, case, predict) for case in cases]
    if len(pairs) == 1:
        return pairs[0]
    one, two = (put_back(_slices(cases, [pair[side] for pair in pairs])) for side in (0, 1))
    return one, two


def _pair(
    predictor: Labels, manifest: Manifest, case: Case, predict: Predict
) -> tuple[LabelMap, LabelMap]:
    if case.label_kind != "map" or not case.labels:
        raise ConfigError(
            f"case {case.id!r} has {'a label map' if case.labels else 'no labels'} of kind "
            f"{case.label_kind!r}: a model of classes is measured against label maps"
        )
    image, (labels,) = case_image(manifest, case), case_labels(manifest, case)
    image.grid.require_same(labels.grid, what="grids of image and labels")
    group = manifest.group_of(case)
    return without_ignored(manifest, case, predict(predictor, image, group.window), labels)


def without_ignored(
    manifest: Manifest, case: Case, prediction: LabelMap, labels: LabelMap
) -> tuple[LabelMap, LabelMap]:
    """Take voxels that nobody decided for background in both."""
    group = manifest.group_of(case)
    if group.ignore is not None:
        ignored = labels.array == group.ignore
        prediction, labels = (
            m.with_array(np.where(ignored, 0, m.array)) for m in (prediction, labels)
        )
    return prediction, labels


def _slices(cases: list[Case], maps: list[LabelMap]) -> Iterator[tuple[Any, Array]]:
    for case, labels in zip(cases, maps, strict=True):
        yield case.place, labels.array[:, :, 0]


def measured_labels(
    names: Mapping[int, str],
    manifest: Manifest,
    case: Case,
    prediction: LabelMap,
    reference: LabelMap,
    name: str,
    protocol: Protocol,
) -> list[Row]:
    """A row for each class of the model, and for labels of the data that it does not know."""
    grid, group = reference.grid, manifest.group_of(case)
    every = {**names, **reference.names, **group.labels}
    known = {*names, *group.labels, *reference.labels()} - {0, group.ignore}
    return measure_case(
        prediction.array,
        reference.array,
        case=name,
        spacing=grid.spacing_mm,
        unit=grid.unit,
        protocol=protocol,
        labels=sorted(known),
        names=every,
    )
