"""Results as nnU-Net lays them out: folders of runs and predictions, and summary.json with its counts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from samaritan.data.nnunet.labels import Key, LabelSet
from samaritan.data.nnunet.planned import PlannedSet
from samaritan.errors import ConfigError, CorruptFile, FileError, GridMismatch
from samaritan.io import read_labels
from samaritan.io.files import file_size, replacing

Array = npt.NDArray[Any]

SUMMARY = "summary.json"
_MOST_BYTES = 256 << 20
_NAMES = ("Dice", "IoU", "FP", "TP", "FN", "TN", "n_pred", "n_ref")


def run_folder(
    root: Path, planned: PlannedSet, configuration: str, trainer: str, fold: int | Literal["all"]
) -> Path:
    """Name the folder of a run: ROOT/Dataset###_Name/TRAINER__PLANS__CONFIGURATION/fold_N."""
    name = f"{trainer}__{planned.plans.name}__{configuration}"
    return root / (planned.plans.dataset or planned.folder.name) / name / f"fold_{fold}"


def describe_run(folder: Path, planned: PlannedSet) -> None:
    """Put plans.json, dataset.json and the fingerprint where nnU-Net's tools look for them.

    Args:
        folder: of a run (beside its folds), or of predictions.
        planned: what the run followed.
    """
    contents: dict[str, Any] = {
        "dataset.json": planned.content,
        "plans.json": planned.plans.content,
    }
    print_ = planned.folder / "dataset_fingerprint.json"
    if print_.is_file():
        contents[print_.name] = json.loads(print_.read_text("utf-8-sig"))
    for name, content in contents.items():
        with replacing(folder / name) as (new,):
            new.write_text(json.dumps(content, indent=4), "utf-8")


def write_probabilities(path: Path, probabilities: Array) -> Path:
    """Write (heads, k, j, i) as nnU-Net's ensembles read them: `CASE.npz`, compressed."""
    with replacing(path) as (new,), new.open("wb") as out:
        np.savez_compressed(out, probabilities=probabilities.astype(np.float32, copy=False))
    return path


# -- summaries ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """One prediction held against its reference: label or region -> nnU-Net's counts."""

    prediction: str
    reference: str
    metrics: Mapping[Key, Mapping[str, float]]


def compare(prediction: Array, reference: Array, labels: LabelSet) -> dict[Key, dict[str, float]]:
    """Count voxels of each label or region, those with the ignored label left out.

    Dice and IoU are NaN where neither has any.
    """
    if prediction.shape != reference.shape:
        raise GridMismatch(f"prediction {prediction.shape} and reference {reference.shape} differ")
    counted = None if labels.ignore is None else reference != labels.ignore
    found = {}
    for key in labels.foreground:
        values = key if isinstance(key, tuple) else (key,)
        drawn, wanted = np.isin(prediction, values), np.isin(reference, values)
        if counted is not None:
            drawn, wanted = drawn & counted, wanted & counted
        both = int((drawn & wanted).sum())
        total = prediction.size if counted is None else int(counted.sum())
        found[key] = _counts(both, int(drawn.sum()), int(wanted.sum()), total)
    return found


def _counts(both: int, drawn: int, wanted: int, total: int) -> dict[str, float]:
    either = drawn + wanted - both
    return {
        "Dice": 2 * both / (drawn + wanted) if either else math.nan,
        "IoU": both / either if either else math.nan,
        "FP": drawn - both,
        "TP": both,
        "FN": wanted - both,
        "TN": total - either,
        "n_pred": drawn,
        "n_ref": wanted,
    }


def summarise(compared: Sequence[Compared], labels: LabelSet) -> dict[str, Any]:
    """Sum up as nnU-Net does: means of each label leave NaN out, the mean of labels does not.

    Raises:
        ConfigError: if nothing was compared.
    """
    if not compared:
        raise ConfigError("there is no prediction to sum up")
    means = {
        key: {name: _mean_of_known(c.metrics[key][name] for c in compared) for name in _NAMES}
        for key in labels.foreground
    }
    every = list(means.values())
    return {
        "foreground_mean": {n: float(np.mean([m[n] for m in every])) for n in _NAMES},
        "mean": {_text(key): values for key, values in means.items()},
        "metric_per_case": [
            {
                "metrics": {_text(key): dict(values) for key, values in c.metrics.items()},
                "prediction_file": c.prediction,
                "reference_file": c.reference,
            }
            for c in compared
        ],
    }


def summarise_folder(
    predictions: Path,
    references: Path,
    labels: LabelSet,
    file_ending: str,
    *,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Compare a folder of predictions with references of the same names, and write summary.json there.

    Raises:
        FileError: if a reference is missing.
        GridMismatch: if a prediction lies on another grid.
    """
    files = sorted(p for p in predictions.glob(f"*{file_ending}") if not p.name.startswith("."))
    compared = []
    for done, file in enumerate(files, 1):
        wanted = references / file.name
        if not wanted.is_file():
            raise FileError(f"{wanted} is missing: what is {file} to be compared with?")
        one, two = read_labels(file), read_labels(wanted)
        one.grid.require_same(two.grid, what=f"grids of {file.name} and its reference")
        found = compare(one.array, two.array, labels)
        compared.append(Compared(str(file), str(wanted), found))
        progress(done, len(files))
    summary = summarise(compared, labels)
    write_summary(summary, predictions / SUMMARY)
    return summary


def write_summary(summary: Mapping[str, Any], path: Path) -> Path:
    """Write summary.json; NaN as nnU-Net writes it, though it is no JSON."""
    with replacing(path) as (new,):
        new.write_text(json.dumps(summary, indent=4, sort_keys=True), "utf-8")
    return path


def read_summary(path: Path) -> dict[str, Any]:
    """Read summary.json of ours or of nnU-Net.

    Raises:
        CorruptFile: if it is none.
    """
    try:
        if file_size(path) > _MOST_BYTES:
            raise ValueError("it is too large")
        content = json.loads(path.read_text("utf-8-sig"))
        _ = content["foreground_mean"]["Dice"], content["mean"], content["metric_per_case"]
    except (ValueError, RecursionError, LookupError, TypeError) as error:
        raise CorruptFile(f"{path} is no summary of nnU-Net: {error!r}") from error
    found: dict[str, Any] = content
    return found


def _mean_of_known(values: Iterable[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def _text(key: Key) -> str:
    return str(key)
