"""The other half of `samaritan evaluate`: a model on a manifest, with simulated prompts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import typer

if TYPE_CHECKING:
    from samaritan.cli.automatic import Runs
    from samaritan.cli.console import Report as Progress
    from samaritan.data import Manifest
    from samaritan.evaluation import Picture
    from samaritan.evaluation.sheets import Sheet
    from samaritan.evaluation.trial import Trial
    from samaritan.evaluation.trials import Tried
    from samaritan.infer import Predictor
    from samaritan.infer.labeller import VolumeLabeller
    from samaritan.metrics import Protocol


@dataclass(frozen=True)
class Wanted:
    """What was typed about a model and its data."""

    model: str | None
    data: Path | None
    base: str | None
    device: str | None
    split: str | None
    limit: int | None
    group_by: str
    prompts: str | None
    points: str
    clicks: int | None
    objects: str
    max_objects: int | None
    min_size: int
    box: str
    click: str
    baseline: str | None
    ceiling: bool
    channel: str | None
    max_windows: int
    seed: int
    folds: str | None = None
    clean: bool = False

    def checked(
        self, predictions: Path | None, references: Path | None, given: Sequence[str]
    ) -> bool:
        """Whether a model shall be measured; else two folders are.

        Args:
            predictions: a folder, if one was given.
            references: a folder, if one was given.
            given: options that were given and that belong to folders.
        """
        model = self.model is not None or self.data is not None
        folders = predictions is not None or references is not None
        whole = self.model is not None and self.data is not None
        if model and (folders or not whole):
            missing = "--data" if self.data is None else "--model"
            what = "not two folders as well" if whole else f"{missing} is missing"
            raise typer.BadParameter(f"a model is measured with --model and --data: {what}")
        if not model and (predictions is None or references is None):
            raise typer.BadParameter(
                "say what to measure: two folders, PREDICTIONS and REFERENCES; or --model with --data"
            )
        if model and given:
            raise typer.BadParameter(f"{', '.join(given)}: for two folders, not for --model")
        return model

    def trial(self) -> Trial:
        """What to ask of each object."""
        from samaritan.errors import ConfigError
        from samaritan.evaluation.trial import Trial, parse_counts, parse_prompts

        if self.baseline not in (None, "ellipse"):
            raise ConfigError(f"--baseline {self.baseline!r} is not known; there is: ellipse")
        words: dict[str, Any] = {"objects": self.objects, "box": self.box, "click": self.click}
        if self.prompts is not None:
            words["prompts"] = parse_prompts(self.prompts)
        if self.clicks is not None:
            words["clicks"] = self.clicks
        if self.channel is not None:
            words["channel"] = int(self.channel) if self.channel.isdecimal() else self.channel
        return Trial(
            points=parse_counts(self.points, "--points"),
            ceiling=self.ceiling,
            max_objects=self.max_objects,
            min_size=self.min_size,
            baseline=self.baseline is not None,
            max_windows=self.max_windows,
            seed=self.seed,
            **words,
        )

    def manifest(self) -> Manifest:
        """The cases to measure on: those whose labels are known.

        Raises:
            ConfigError: if there are none in the part that was named.
        """
        from samaritan.cli.console import warn
        from samaritan.errors import ConfigError

        assert self.data is not None
        manifest = _cases_of(self.data)
        if self.split is not None:
            known = manifest.splits()
            manifest = manifest.select(split=self.split)
            if not manifest.cases:
                told = ", ".join(f"{name or 'undecided'} ({n})" for name, n in known.items())
                raise ConfigError(f"no case is in part {self.split!r}; there are: {told}")
        every, manifest = len(manifest), manifest.select(where=lambda case: bool(case.labels))
        if not manifest.cases:
            raise ConfigError(
                f"none of the {every} cases has labels to measure against. Name a part with "
                "--split, or other --data"
            )
        if len(manifest) < every:
            warn(f"{every - len(manifest)} of {every} cases have no labels and are left out")
        if self.limit is None:
            return manifest
        counts: dict[str, int] = {}
        kept = []
        for case in manifest:
            counts[case.group] = counts.get(case.group, 0) + 1
            if counts[case.group] <= self.limit:
                kept.append(case.id)
        return manifest.select(ids=kept)


def evaluate_model(
    wanted: Wanted,
    output: Path,
    protocol: str,
    tolerance: float | None,
    pictures: int,
    as_json: bool,
) -> None:
    """Ask a model for every object, measure its answers, and write the report."""
    from samaritan.cli.console import bars, warn
    from samaritan.cli.evaluate_runs import labelled
    from samaritan.cli.evaluate_told import problems_told, tell
    from samaritan.errors import ConfigError, FileError
    from samaritan.evaluation import Report, write_report
    from samaritan.evaluation.report import check_folder
    from samaritan.evaluation.trials import GroupBy
    from samaritan.evaluation.ways import protocol_named
    from samaritan.infer import Predictor

    convention, trial = protocol_named(protocol, tolerance=tolerance), wanted.trial()
    if wanted.group_by not in get_args(GroupBy):
        raise ConfigError(
            f"--group-by {wanted.group_by!r} is not known; use one of {', '.join(get_args(GroupBy))}"
        )
    check_folder(output)
    manifest = wanted.manifest()
    with bars() as report:
        report("loading the model", 0, 0)
        runs, predictor = _predictor(wanted, report)
        if isinstance(predictor, Predictor):
            _check_prompted(wanted)
            found, shown, colours = _tried(
                predictor, manifest, trial, convention, wanted, pictures, report
            )
        else:
            found, shown, colours = labelled(
                runs, predictor, manifest, convention, wanted, output, pictures, report
            )
        if not found.rows:
            raise FileError(
                problems_told(found.problems)
                if found.problems
                else f"{wanted.data} holds no object to ask for: labels are empty, or --min-size too large"
            )
    caution = f"Protocol {convention.stated}." if convention.caution else ""
    notes = (*([caution] if caution else ()), *found.notes)
    made = Report(
        f"{Path(wanted.model or '').name} on {wanted.data.name if wanted.data else ''}",
        found.rows,
        convention,
        _facts(predictor, manifest, found.trial or trial, wanted, convention),
        found.problems,
        notes,
        shown,
        colours,
        sheets=_sheets(convention, manifest, found),
    )
    where = write_report(made, output)
    for note in notes:
        warn(note)
    tell(made, where, as_json)


def _cases_of(path: Path) -> Manifest:
    """The cases of a manifest, a data set, or of the raw folder that was planned here."""
    from samaritan.data import load_manifest
    from samaritan.data.nnunet.planned import SOURCE, PlannedSet

    if (path / SOURCE).is_file():
        planned = PlannedSet.open(path)
        if planned.raw is not None:
            return planned.raw.cases
    return load_manifest(path)


def _predictor(wanted: Wanted, report: Progress) -> tuple[Runs, Predictor | VolumeLabeller]:
    from samaritan.cli.automatic import find_runs, load_any

    assert wanted.model is not None
    runs = find_runs([wanted.model], wanted.folds, report)
    predictor, _ = load_any(runs, wanted.base, wanted.device, "auto", report)
    return runs, predictor


def _check_prompted(wanted: Wanted) -> None:
    """Refuse what is for runs on nnU-Net data alone."""
    from samaritan.errors import ConfigError

    if wanted.clean:
        raise ConfigError(
            f"--clean decides for runs that learned from nnU-Net data; {wanted.model} did not"
        )


def _tried(
    predictor: Predictor,
    manifest: Manifest,
    trial: Trial,
    protocol: Protocol,
    wanted: Wanted,
    pictures: int,
    report: Progress,
) -> tuple[Tried, Sequence[Picture], Sequence[tuple[str, str]]]:
    """Ask models with prompts; let the others label."""
    from samaritan.errors import ConfigError
    from samaritan.evaluation.labelling import label_cases, picture_cases
    from samaritan.evaluation.showing import Gallery
    from samaritan.evaluation.trials import takes_prompts, try_model
    from samaritan.evaluation.ways import way_of

    by: Any = wanted.group_by
    if not takes_prompts(predictor):
        if wanted.prompts is not None or wanted.baseline is not None:
            raise ConfigError(
                f"model {predictor.model.config.name!r} takes no prompts: it labels the whole image. "
                "Leave out --prompts and --baseline"
            )
        if protocol.name in ("sam_med2d", "cvpr25"):
            raise ConfigError(
                f"protocol {protocol.name!r} is for models with prompts; this one has none"
            )
        found = label_cases(predictor, manifest, protocol, group_by=by, progress=report)
        return found, *picture_cases(
            predictor, manifest, protocol, found.rows, each=pictures, progress=report
        )
    trial, asking = way_of(
        protocol, predictor, trial, clicks=wanted.clicks, chosen=wanted.prompts is not None
    )
    found = try_model(
        predictor, manifest, trial, protocol, asking=asking, group_by=by, progress=report
    )
    gallery = Gallery(predictor, manifest, trial, asking)
    return found, *gallery.pictures(found.rows, each=pictures, progress=report)


def _sheets(protocol: Protocol, manifest: Manifest, found: Tried) -> Sequence[Sheet]:
    """The tables that a protocol has of its own."""
    if protocol.name != "cvpr25":
        return ()
    from samaritan.evaluation.cvpr25_scores import challenge_sheets

    return challenge_sheets(found.rows, [case.id for case in manifest])


def _facts(
    predictor: Predictor | VolumeLabeller,
    manifest: Manifest,
    trial: Trial,
    wanted: Wanted,
    protocol: Protocol,
) -> dict[str, str]:
    """What was asked of whom, for the head of the page."""
    from samaritan.evaluation.trials import takes_prompts
    from samaritan.infer import Predictor

    facts = {"model": f"{wanted.model} ({predictor.model.config.name})", "data": str(wanted.data)}
    if wanted.split is not None:
        facts["part"] = wanted.split
    if wanted.folds is not None:
        facts["folds"] = wanted.folds
    facts["cases"] = f"{len(manifest)} of {len(manifest.patients())} patients"
    if isinstance(predictor, Predictor) and takes_prompts(predictor):
        facts["asked"] = trial_words(trial, published=bool(protocol.caution))
    return {**facts, "device": str(predictor.device), "made": time.strftime("%Y-%m-%d %H:%M")}


def trial_words(trial: Trial, *, published: bool = False) -> str:
    """A trial in a sentence; where the prompts lie is said if no published test decides it."""
    words = [f"prompts {', '.join(trial.prompts)}", f"objects: {trial.objects}"]
    if trial.max_objects is not None:
        words.append(f"at most {trial.max_objects} of a case")
    if trial.min_size > 1:
        words.append(f"from {trial.min_size} voxels")
    if trial.channel is not None:
        words.append(f"channel {trial.channel}")
    if published:
        return "; ".join([*words, f"{trial.clicks} clicks as published", f"seed {trial.seed}"])
    return "; ".join([*words, f"{trial.box} boxes", f"{trial.click} clicks", f"seed {trial.seed}"])
