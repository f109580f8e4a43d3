"""Which models `--model` and `--folds` mean, and how automatic ones are loaded together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samaritan.errors import SamaritanError

if TYPE_CHECKING:
    from samaritan.cli.console import Report
    from samaritan.infer import Predictor
    from samaritan.infer.cleaning import Cleaning
    from samaritan.infer.labeller import VolumeLabeller


@dataclass(frozen=True)
class Runs:
    """The weights that were asked for."""

    files: tuple[Path, ...]
    folder: Path | None
    """Where folds lie beside each other, or the run itself; None for weights that are no run."""
    names: tuple[str, ...]
    """Of the folds, such as "fold_0"; of other weights their files'."""

    @property
    def cleaning(self) -> Path | None:
        """Where it stands which structures are kept to their largest part, if that was decided."""
        from samaritan.infer.cleaning import NAME

        path = None if self.folder is None else self.folder / NAME
        return path if path is not None and path.is_file() else None


def find_runs(models: Sequence[str], folds: str | None, report: Report) -> Runs:
    """Find the weights that are meant.

    A folder with fold_0, fold_1, ... stands for all of these that have weights, or for those named.

    Raises:
        ConfigError: if folds are named of what has none, or one has no weights.
    """
    from samaritan.cli.console import find_weights
    from samaritan.errors import ConfigError

    every: dict[str, Path] = {}
    folder: Path | None = None
    for model in models:
        found = Path(model).expanduser()
        there = _folds_of(found)
        if there:
            chosen = _chosen(found, there, folds)
            prefix = f"{found.name}/" if len(models) > 1 else ""
            every |= {f"{prefix}{name}": find_weights(str(path), report) for name, path in chosen}
        elif folds is not None:
            raise ConfigError(
                f"--folds {folds}: {model} holds no folder fold_0, fold_1, ...: give the folder that does"
            )
        else:
            every[model] = find_weights(model, report)
        folder = found if found.is_dir() else None
    return Runs(tuple(every.values()), folder if len(models) == 1 else None, tuple(every))


def load_any(
    runs: Runs,
    base: str | None,
    device: str | None,
    precision: str,
    report: Report,
    *,
    mirror: bool | None = None,
    step: float | None = None,
    batch_size: int | None = None,
) -> tuple[Predictor | VolumeLabeller, dict[str, Any]]:
    """Load what was found; also tell what identifies it.

    Raises:
        ConfigError: if several models are given that cannot be averaged, or options that are not theirs.
    """
    from samaritan.cli.console import find_weights
    from samaritan.errors import ConfigError
    from samaritan.infer import Predictor
    from samaritan.infer.labeller import VolumeLabeller, labels_volumes

    report("loading the model", 0, 0)
    plain = None if base is None else find_weights(base, report)
    windows: dict[str, Any] = {
        k: v for k, v in {"mirror": mirror, "step": step}.items() if v is not None
    }
    facts = {"base": None if plain is None else fact_of(plain), "precision": precision}
    options: dict[str, Any] = {"base": plain, "device": device, "precision": precision}
    if len(runs.files) > 1 or labels_volumes(runs.files[0]):
        labeller = VolumeLabeller.from_checkpoints(
            runs.files, **options, **windows, batch_size=batch_size
        )
        told = [
            f"{name}: {fact_of(path)}" for name, path in zip(runs.names, runs.files, strict=True)
        ]
        names = {"model": labeller.model.config.name, "weights": told}
        return labeller, {**names, **facts, **windows}
    if windows:
        raise ConfigError(
            f"{runs.files[0]} labels no volumes in windows: leave out --{' and --'.join(windows)}"
        )
    predictor = Predictor.from_checkpoint(runs.files[0], **options)
    return predictor, {
        "model": predictor.model.config.name,
        "weights": fact_of(runs.files[0]),
        **facts,
    }


def warn_of_other_data(images: Path, labeller: VolumeLabeller) -> None:
    """Say so if images lie in a data set of nnU-Net with other channels or labels than the model's."""
    from samaritan.cli.console import warn
    from samaritan.data.nnunet.labels import LabelSet

    folder = images if images.is_dir() else images.parent
    file = next((f for f in (folder, folder.parent) if (f / "dataset.json").is_file()), None)
    if file is None:
        return
    try:
        content = json.loads((file / "dataset.json").read_text("utf-8-sig"))
        labels = dict(sorted(LabelSet.from_json(content, str(file)).titles().items()))
        named = content.get("channel_names", content.get("modality"))
        channels = [str(named[key]) for key in sorted(named, key=int)]
    except (SamaritanError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # whatever it is, it is not needed
    pairs = (
        ("channels", list(labeller.chain.channels), channels),
        (
            "labels",
            list(dict(sorted(labeller.label_names.items())).values()),
            list(labels.values()),
        ),
    )
    differ = [f"{k} {', '.join(a)} (here {', '.join(b)})" for k, a, b in pairs if a != b]
    if differ:
        warn(
            f"the images lie in another data set than the model learned from, which has {'; '.join(differ)}"
        )


def cleaning_of(runs: Runs, wanted: bool | None) -> Cleaning | None:
    """Read which structures are kept to their largest part: where that was decided, unless it is not wanted.

    Raises:
        ConfigError: if it is asked for and was not decided.
    """
    from samaritan.cli.console import errors
    from samaritan.errors import ConfigError
    from samaritan.infer.cleaning import NAME, Cleaning

    path = runs.cleaning
    if wanted is False or (path is None and wanted is None):
        return None
    if path is None:
        raise ConfigError(
            f"--clean: {runs.folder or 'the model'} has no {NAME}. Decide it by validation: samaritan "
            "evaluate --model RUN --data DATASET --clean -o REPORT"
        )
    errors.print(
        f"largest parts: as {path} says (--no-clean for none)", highlight=False, soft_wrap=True
    )
    return Cleaning.read(path)


def _folds_of(folder: Path) -> dict[str, Path]:
    """Folders of folds with weights in them, in order."""
    from samaritan.checkpoints.sniffing import FILES_OF_RUNS

    found = [
        path
        for path in (folder.glob("fold_*") if folder.is_dir() else ())
        if any((path / name).is_file() for name in FILES_OF_RUNS)
    ]
    return {path.name: path for path in sorted(found, key=lambda p: (len(p.name), p.name))}


def _chosen(folder: Path, there: Mapping[str, Path], folds: str | None) -> list[tuple[str, Path]]:
    from samaritan.errors import ConfigError

    if folds is None:
        return list(there.items())
    names = [f"fold_{part.strip()}" for part in folds.split(",") if part.strip()]
    missing = [name for name in names if name not in there]
    if missing or not names:
        raise ConfigError(
            f"--folds {folds}: {folder} has no weights in {', '.join(missing) or 'none'}; it has them in "
            f"{', '.join(there)}"
        )
    return [(name, there[name]) for name in dict.fromkeys(names)]


def fact_of(path: Path) -> str:
    """Tell a file by its name and content."""
    from samaritan.io.files import sha256_of

    return f"{path.name}, sha256 {sha256_of(path)}"
