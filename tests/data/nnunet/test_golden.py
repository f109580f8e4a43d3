"""Plans, folds, fingerprints, arrays and the way back are those of nnunetv2 2.8.1, on real cases.

The numbers were made by oracle.py. Tolerance: 1e-6 of the largest value, since sums in another order and
another processor's multiply-add differ in the last digit; label maps and drawn voxels are the same.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from data.nnunet import oracle

from samaritan.data.nnunet.fingerprint import Fingerprint, take_fingerprint
from samaritan.data.nnunet.labels import LabelSet
from samaritan.data.nnunet.planning import make_plans
from samaritan.data.nnunet.plans import Plans
from samaritan.data.nnunet.preprocessing import preprocess
from samaritan.data.nnunet.rawset import RawSet
from samaritan.data.nnunet.restoring import WayBack, slabs_of
from samaritan.data.nnunet.splits import make_folds

CASES = [(name, case) for name, facts in oracle.VARIANTS.items() for case in facts[1]]


def differences(mine: Any, theirs: Any, path: str = "") -> list[str]:
    pairs: list[tuple[Any, Any, Any]] = []
    if isinstance(mine, dict) and isinstance(theirs, dict):
        lacking = [f"{path}/{k} is in one only" for k in mine.keys() ^ theirs.keys()]
        pairs = [(k, mine[k], theirs[k]) for k in mine.keys() & theirs.keys()]
        return lacking + [d for k, a, b in pairs for d in differences(a, b, f"{path}/{k}")]
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        pairs = [(n, a, b) for n, (a, b) in enumerate(zip(mine, theirs, strict=True))]
        return [d for n, a, b in pairs for d in differences(a, b, f"{path}/{n}")]
    if isinstance(mine, float) or isinstance(theirs, float):
        return (
            [] if mine == pytest.approx(theirs, rel=2e-6) else [f"{path}: {mine} is not {theirs}"]
        )
    return [] if mine == theirs else [f"{path}: {mine!r} is not {theirs!r}"]


@pytest.mark.parametrize("name", oracle.FINGERPRINTS)
def test_plans_for_made_up_fingerprints_are_theirs(name, golden, tmp_path) -> None:
    file = tmp_path / "dataset_fingerprint.json"
    file.write_text(json.dumps(oracle.made_up(name)))
    content = oracle.dataset_json(name)
    raw = RawSet(
        "Dataset001_X",
        tuple(content["channel_names"].values()),
        LabelSet.from_json(content, "here"),
        content["file_ending"],
        content,
        cases=(),  # type: ignore[arg-type]  # planning opens no case
    )
    made = make_plans(raw, Fingerprint.read(file))
    assert not differences(
        json.loads(json.dumps(made.content["configurations"])), golden["made_up"][name]
    )


@pytest.mark.parametrize("name", [oracle.SETS[0], oracle.SETS[2]])
def test_fingerprint_and_plans_of_a_real_set_are_theirs(name, golden, raw_dir) -> None:
    raw = RawSet.open(raw_dir / name)
    found = take_fingerprint(raw, workers=1)
    content = found.to_json()
    shapes = zlib.crc32(json.dumps([content.pop("shapes_after_crop")]).encode())
    del content["spacings"]
    assert not differences({**content, "crc": shapes}, golden["fingerprints"][name])
    assert not differences(
        json.loads(json.dumps(make_plans(raw, found).content)), golden["plans"][name]
    )


@pytest.mark.parametrize("name", oracle.SETS[:3])
def test_folds_are_theirs(name, golden, raw_dir) -> None:
    ids = [case.id for case in RawSet.open(raw_dir / name).cases]
    folds = [{"train": list(f.train), "val": list(f.val)} for f in make_folds(ids[::-1])]
    assert zlib.crc32(json.dumps(folds).encode()) == golden["folds"][name]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_cases_and_their_way_back_are_theirs(name, case, golden, raw_dir) -> None:
    which, _, _, _, described = oracle.VARIANTS[name]
    wanted = golden["cases"][f"{name}/{case}"]
    raw = RawSet.open(raw_dir / which)
    labels = LabelSet.from_json({**raw.content, **described}, "here")
    plans = Plans.of(oracle.variant_plans(name, golden["plans"][which]), "the plans")
    own = plans.configuration("mine")
    one = raw.read(raw.cases.select(ids=[case]).cases[0])
    made = preprocess(one, plans, own, labels)

    places = {json.dumps(key): voxels for key, voxels in made.places.items()}
    found = oracle.facts_of(made.image, made.labels, places)
    largest = max(abs(v) for v in wanted["image"][2:4])
    assert found.pop("image") == pytest.approx(wanted["image"], abs=1e-6 * max(largest, 1))
    assert found == {k: wanted[k] for k in found}
    assert [list(side) for side in made.properties.box] == wanted["box"]
    assert list(made.properties.spacing) == wanted["spacing"]

    way = WayBack(plans, own, labels, made.properties, made.image.shape[1:])
    logits = oracle.smooth_logits(made.image.shape[1:], labels.heads)
    back = way.labels_from(slabs_of(logits, 7))
    assert back.shape == one.image.shape[1:]
    # a few voxels lie where two logits are equal but for rounding; one of them moves these sums by 0.01
    assert oracle.summed_up(back) == pytest.approx(wanted["back"], abs=0.02)
    probabilities = way.probabilities_from(slabs_of(logits, 5))
    assert oracle.summed_up(probabilities) == pytest.approx(wanted["probabilities"], abs=2e-6)


def test_labels_stay_what_they_are_without_any_to_draw(golden, raw_dir) -> None:
    raw = RawSet.open(raw_dir / oracle.SETS[0])
    plans = Plans.of(golden["plans"][oracle.SETS[0]], "the plans")
    one = replace(raw.read(raw.cases.cases[0]), labels=None)
    made = preprocess(one, plans, plans.configuration("3d_fullres"), raw.labels)
    assert made.places == {}
    assert set(np.unique(made.labels)) <= {-1, 0}
