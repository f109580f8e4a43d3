"""Voxel by voxel beside nnunetv2, where that is installed: not in CI, whose numbers are in golden.json."""

from __future__ import annotations

import json

import numpy as np
import pytest
from data.nnunet import oracle

from samaritan import Grid, LabelMap, write
from samaritan.data.nnunet.fingerprint import Fingerprint
from samaritan.data.nnunet.labels import LabelSet
from samaritan.data.nnunet.planning import make_plans
from samaritan.data.nnunet.plans import Plans
from samaritan.data.nnunet.preprocessing import preprocess
from samaritan.data.nnunet.rawset import RawSet
from samaritan.data.nnunet.restoring import WayBack, slabs_of
from samaritan.data.nnunet.results import summarise_folder
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


def test_their_tools_read_our_summaries_and_count_alike(tmp_path) -> None:
    from nnunetv2.evaluation.evaluate_predictions import (
        compute_metrics_on_folder,
        load_summary_json,
    )
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    rng = np.random.default_rng(0)
    grid = Grid.from_spacing((6, 7, 8), (1, 2, 3))
    for folder in ("pred", "ref"):
        for case in ("one", "two"):
            array = rng.integers(0, 3 if case == "one" else 2, grid.shape).astype(np.uint8)
            write(LabelMap(array, grid), tmp_path / folder / f"{case}.nii.gz")
    labels = LabelSet({"a": 1, "b": 2, "c": 3})
    mine = summarise_folder(tmp_path / "pred", tmp_path / "ref", labels, ".nii.gz")
    folders = (str(tmp_path / "ref"), str(tmp_path / "pred"))
    theirs = compute_metrics_on_folder(
        *folders, None, SimpleITKIO(), ".nii.gz", [1, 2, 3], num_processes=1
    )
    read = load_summary_json(str(tmp_path / "pred/summary.json"))
    assert repr(read["mean"]) == repr(
        {k: dict(sorted(v.items())) for k, v in theirs["mean"].items()}
    )
    assert [in_order(c["metrics"]) for c in read["metric_per_case"]] == [
        in_order(c["metrics"]) for c in theirs["metric_per_case"]
    ]
    assert in_order(mine["foreground_mean"]) == in_order(theirs["foreground_mean"])


def in_order(values) -> str:
    """Tell values, NaN among them, by name."""
    return repr(
        sorted((k, sorted(v.items()) if isinstance(v, dict) else v) for k, v in values.items())
    )


@pytest.mark.parametrize("name", ["large CT", "pictures"])
def test_their_tools_build_networks_from_our_plans(name, golden, tmp_path) -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    content = oracle.dataset_json(name)
    file = tmp_path / "dataset_fingerprint.json"
    file.write_text(json.dumps(oracle.made_up(name)))
    channels = tuple(content["channel_names"].values())
    labels = LabelSet.from_json(content, "here")
    raw = RawSet("Dataset001_X", channels, labels, content["file_ending"], content, ())  # type: ignore[arg-type]
    made = make_plans(raw, Fingerprint.read(file)).write(tmp_path / "nnUNetPlans.json")
    manager = PlansManager(str(made))
    for configuration in manager.available_configurations:
        own = manager.get_configuration(configuration)
        network = get_network_from_plans(
            own.network_arch_class_name, own.network_arch_init_kwargs,
            own.network_arch_init_kwargs_req_import, len(channels), labels.heads, allow_init=False,
        )  # fmt: skip
        assert sum(p.numel() for p in network.parameters()) > 1e6
