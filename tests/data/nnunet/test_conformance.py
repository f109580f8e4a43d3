"""Voxel by voxel beside nnunetv2, where that is installed: not in CI, whose numbers are in golden.json."""

from __future__ import annotations

import json

import numpy as np
import pytest
from data.nnunet import oracle

from samaritan.data.nnunet.labels import LabelSet
from samaritan.data.nnunet.plans import Plans
from samaritan.data.nnunet.preprocessing import preprocess
from samaritan.data.nnunet.rawset import RawSet
from samaritan.data.nnunet.restoring import WayBack, slabs_of
from samaritan.data.nnunet.splits import make_folds

pytest.importorskip("nnunetv2", reason="nnunetv2 is not installed; golden.json holds its numbers")
pytestmark = pytest.mark.filterwarnings("ignore")

CASES = [(name, facts[1][0]) for name, facts in oracle.VARIANTS.items()]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_every_voxel_is_theirs(name, case, golden, raw_dir) -> None:
    which, _, _, _, described = oracle.VARIANTS[name]
    theirs = oracle.their_case(name, case, golden["plans"][which], raw_dir)
    raw = RawSet.open(raw_dir / which)
    labels = LabelSet.from_json({**raw.content, **described}, "here")
    plans = Plans.of(oracle.variant_plans(name, golden["plans"][which]), "the plans")
    own = plans.configuration("mine")
    made = preprocess(raw.read(raw.cases.select(ids=[case]).cases[0]), plans, own, labels)
    assert np.abs(made.image - theirs["image"]).max() <= 1e-6
    assert np.array_equal(made.labels, theirs["labels"])
    assert made.labels.dtype == theirs["labels"].dtype
    assert {json.dumps(k) for k in made.places} == set(theirs["places"])
    assert all(np.array_equal(v, theirs["places"][json.dumps(k)]) for k, v in made.places.items())
    way = WayBack(plans, own, labels, made.properties, made.image.shape[1:])
    logits = oracle.smooth_logits(made.image.shape[1:], labels.heads)
    # these smooth logits are equal but for rounding at a voxel or two in millions
    assert np.count_nonzero(way.labels_from(slabs_of(logits)) != theirs["back"]) <= 3
    probabilities = way.probabilities_from(slabs_of(logits))
    assert np.abs(probabilities - theirs["probabilities"]).max() <= 1e-6


@pytest.mark.parametrize("count", [5, 7, 14, 100, 208])
def test_folds_of_any_size_are_theirs(count) -> None:
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    ids = sorted(f"case_{n * 37 % 1000:03d}" for n in range(count))
    mine = [{"train": list(f.train), "val": list(f.val)} for f in make_folds(ids)]
    assert mine == generate_crossval_split(ids)
