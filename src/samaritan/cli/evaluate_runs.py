"""The part of `samaritan evaluate` for runs on nnU-Net data: every fold on the cases that it held out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from samaritan.cli.automatic import Runs
    from samaritan.cli.console import Report as Progress
    from samaritan.cli.evaluate_model import Wanted
    from samaritan.data import Manifest
    from samaritan.evaluation import Picture
    from samaritan.evaluation.trials import Tried
    from samaritan.evaluation.validating import HeldOut
    from samaritan.infer.labeller import VolumeLabeller
    from samaritan.metrics import Protocol


def labelled(
    runs: Runs,
    labeller: VolumeLabeller,
    manifest: Manifest,
    protocol: Protocol,
    wanted: Wanted,
    output: Path,
    pictures: int,
    report: Progress,
) -> tuple[Tried, Sequence[Picture], Sequence[tuple[str, str]]]:
    """Measure a run on what its folds held out, or on a part that was named by all of them together."""
    from samaritan.errors import ConfigError
    from samaritan.evaluation.labelling import label_cases, picture_cases

    by: Any = wanted.group_by
    if wanted.prompts is not None or wanted.baseline is not None:
        raise ConfigError(
            f"model {labeller.model.config.name!r} takes no prompts: it labels whole volumes. Leave out "
            "--prompts and --baseline"
        )
    if protocol.name not in ("samaritan", "sam_med3d"):
        raise ConfigError(f"protocol {protocol.name!r} is not for models that label volumes")
    folds = [] if wanted.split is not None else held_out(runs, labeller, manifest)
    if folds:
        return validate(
            folds,
            runs,
            manifest,
            protocol,
            output,
            clean=wanted.clean,
            group_by=by,
            pictures=pictures,
            report=report,
        )
    if wanted.clean:
        raise ConfigError(
            "--clean decides by held-out cases: leave out --split, and give runs that held some out"
        )
    found = label_cases(labeller, manifest, protocol, group_by=by, progress=report)
    if wanted.split is None:
        note = "The run does not tell what it held out: it may have learned from these cases."
        found = replace(found, notes=(*found.notes, note))
    return found, *picture_cases(
        labeller, manifest, protocol, found.rows, each=pictures, progress=report
    )


def held_out(runs: Runs, labeller: VolumeLabeller, manifest: Manifest) -> list[HeldOut]:
    """Say which cases each run held out, as its data.json tells; none if one of them held out none."""
    from samaritan.cli.automatic import fact_of
    from samaritan.evaluation.validating import HeldOut

    found = []
    known = {case.id for case in manifest}
    for name, file, member in zip(runs.names, runs.files, labeller.members, strict=True):
        learned, validated = _parts(file.parent / "data.json")
        if not validated or set(learned) & set(validated):
            return []
        alone = replace(labeller, members=(member,))
        ids = tuple(i for i in validated if i in known) or tuple(validated)
        facts = {"model": member.model.config.name, "weights": fact_of(file)}
        found.append(HeldOut(Path(name).name, alone, ids, facts))
    return found


def validate(
    folds: Sequence[HeldOut],
    runs: Runs,
    manifest: Manifest,
    protocol: Protocol,
    output: Path,
    *,
    clean: bool,
    group_by: Any,
    pictures: int,
    report: Progress,
) -> tuple[Tried, Sequence[Picture], Sequence[tuple[str, str]]]:
    """Label what was held out, decide about largest parts if that is wanted, and measure."""
    from samaritan.errors import ConfigError
    from samaritan.evaluation import validating
    from samaritan.infer.cleaning import NAME

    if clean and runs.folder is None:
        raise ConfigError("--clean decides for one run: give one --model, the folder of its folds")
    labeller = folds[0].labeller
    done = validating.predict_held_out(folds, manifest, output / "predictions", progress=report)
    cleaning, notes = None, [_words(folds, done.predictions)]
    if clean:
        assert runs.folder is not None
        cleaning = validating.decide_cleaning(done, labeller, progress=report)
        path = cleaning.write(runs.folder / NAME)
        notes.append(
            f"Kept: {cleaning.words(labeller.chain.labels)} (mean Dice {_before_after(cleaning.told)}); "
            f"decided on these very cases, and kept in {path.name} beside the folds, for predict."
        )
    found = validating.measure(
        done,
        labeller.label_names,
        protocol,
        clean=cleaning,
        group_by=group_by,
        progress=report,
    )
    shown, colours = validating.show(
        done, found.rows, clean=cleaning, each=pictures, progress=report
    )
    return replace(found, notes=(*found.notes, *notes)), shown, colours


def _words(folds: Sequence[HeldOut], predictions: Any) -> str:
    names = ", ".join(fold.name for fold in folds)
    return (
        f"{len(predictions)} cases, each labelled by the run that did not learn from it ({names}). Label "
        "maps and nnU-Net's summary.json are in predictions/. nnU-Net leaves a structure that neither has "
        "out of its means, as this page does; one that is invented or missed counts as 0 in both."
    )


def _before_after(told: Any) -> str:
    before, after = (told[k]["foreground_mean"]["Dice"] for k in ("input_folder", "postprocessed"))
    return f"{before:.4f} before, {after:.4f} after"


def _parts(path: Path) -> tuple[list[str], list[str]]:
    """Read which cases a run learned from, and which it held out."""
    try:
        content = json.loads(path.read_text("utf-8"))
        return list(content["train"]), list(content["validate"])
    except (OSError, ValueError, LookupError, TypeError):
        return [], []
