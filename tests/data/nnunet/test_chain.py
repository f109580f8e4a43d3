"""What a checkpoint stores of plans is enough to prepare a case, and to come back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from infer.planned import chain as by_hand
from infer.planned import scene

from samaritan.data.nnunet.chain import PlannedChain
from samaritan.data.nnunet.preprocessing import without_labels
from samaritan.data.nnunet.rawset import RawCase
from samaritan.errors import ConfigError
from samaritan.transforms.preprocess import is_planned
from samaritan.volume import Volume


@pytest.fixture
def chain(planned) -> PlannedChain:
    own = planned.plans.configuration("3d_fullres")
    return PlannedChain.of(planned, own, patch_size=(4, 16, 16), mirror_axes=(1, 2), fold=2)


def test_a_chain_survives_json(chain) -> None:
    again = PlannedChain.from_dict(json.loads(json.dumps(chain.to_dict())))
    assert again == chain
    assert is_planned(chain.to_dict())
    assert not is_planned({"kind": "slices"})
    assert (again.patch_size, again.mirror_axes, again.fold) == ((4, 16, 16), (1, 2), 2)
    assert again.channels == ("MRI",)
    assert again.labels.titles() == {1: "near", 2: "far"}


def test_it_prepares_as_the_planned_set_does(planned, chain) -> None:
    own = planned.plans.configuration("3d_fullres")
    raw = planned.raw.read(planned.raw.cases.cases[0])
    stored = planned.case(own, planned.raw.cases.cases[0].id)
    made = PlannedChain.from_dict(chain.to_dict()).prepare(without_labels(raw))
    assert np.array_equal(made.image, np.asarray(stored.image))
    back = chain.way_back(made)
    assert back.restored(np.zeros(made.image.shape[1:], np.int8)).shape == raw.image.shape[1:]


@pytest.mark.parametrize("transpose", [(0, 1, 2), (2, 0, 1)])
def test_prepared_voxels_lie_as_the_scan_does(transpose) -> None:
    volume, _ = scene(code="LPS", zeros=False)
    spacing = tuple((4.0, 1.0, 1.3)[axis] for axis in transpose)
    made = by_hand(spacing=spacing, transpose=transpose, orientation="LPS")
    image = made.prepare(RawCase.of(volume)).image[0]
    shown = Volume(image, made.grid_of(image.shape)).reorient("RAS")
    wanted = volume.reorient("RAS")
    assert np.array_equal(shown.array, wanted.array)
    assert shown.grid.spacing_mm == pytest.approx(wanted.grid.spacing_mm)
    assert shown.grid.unit == "mm"
    assert by_hand().grid_of(image.shape).unit == "px"  # whose images lie in several ways


def test_nothing_of_the_cases_is_stored(planned, chain) -> None:
    text = json.dumps(chain.to_dict())
    assert not any(case.id in text for case in planned.raw.cases)
    assert str(planned.folder) not in text


def test_damage_is_told(chain) -> None:
    values = chain.to_dict()
    with pytest.raises(ConfigError, match="damaged: KeyError"):
        PlannedChain.from_dict({k: v for k, v in values.items() if k != "patch_size"})
    with pytest.raises(ConfigError, match="have 3 sides"):
        PlannedChain.from_dict({**values, "patch_size": [4, 4]})
    with pytest.raises(ConfigError, match="mirror_axes are 0 to 2"):
        PlannedChain.from_dict({**values, "mirror_axes": [3]})
