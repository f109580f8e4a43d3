"""Plans files: inheritance, older forms, and what is told of those that cannot be followed."""

from __future__ import annotations

import copy
import json

import pytest

from samaritan.data.nnunet.plans import Plans
from samaritan.errors import ConfigError, CorruptFile, FileError


@pytest.fixture
def content(golden) -> dict:
    return copy.deepcopy(golden["plans"]["Dataset060_CHAOST2"])


def test_a_configuration_has_what_it_inherits_and_its_own(content) -> None:
    content["configurations"]["slabs"] = {
        "inherits_from": "3d_fullres",
        "patch_size": [4, 256, 256],
    }
    content["configurations"]["pairs"] = {"inherits_from": "slabs", "batch_size": 1}
    plans = Plans.of(content, "here")
    own, parent = plans.configuration("pairs"), plans.configuration("3d_fullres")
    assert own.patch_size == (4, 256, 256)
    assert own.batch_size == 1
    assert own.spacing == parent.spacing
    assert own.data_identifier == parent.data_identifier
    assert own.resampling["data"].order == 3
    assert own.resampling["seg"].labels


def test_a_circle_is_told_with_its_members(content) -> None:
    content["configurations"]["a"] = {"inherits_from": "b"}
    content["configurations"]["b"] = {"inherits_from": "a"}
    with pytest.raises(ConfigError, match="in a circle: a -> b -> a"):
        Plans.of(content, "here").configuration("a")


def test_an_unknown_configuration_is_told_with_those_there_are(content) -> None:
    with pytest.raises(
        ConfigError, match=r"no configuration '3d_lowres'; expected one of 2d, 3d_fullres"
    ):
        Plans.of(content, "here").configuration("3d_lowres")


def test_flat_configurations_leave_slices_alone(content) -> None:
    own = Plans.of(content, "here").configuration("2d")
    assert own.is_flat
    assert own.patch_3d() == (1, 256, 256)
    assert own.spacing_for((7.7, 2.0, 2.0)) == (7.7, 1.25, 1.25)


def test_transposition_has_a_way_back(content) -> None:
    plans = Plans.of({**content, "transpose_forward": [2, 0, 1]}, "here")
    assert tuple(plans.transpose_forward[a] for a in plans.transpose_backward) == (0, 1, 2)


def test_plans_before_the_architecture_had_a_place_are_read(content) -> None:
    own = content["configurations"]["3d_fullres"]
    del own["architecture"]
    own["conv_kernel_sizes"], own["pool_op_kernel_sizes"] = [[1, 3, 3]], [[1, 1, 1]]
    content["foreground_intensity_properties_by_modality"] = content.pop(
        "foreground_intensity_properties_per_channel"
    )
    plans = Plans.of(content, "here")
    assert plans.configuration("3d_fullres").architecture["strides"] == [[1, 1, 1]]
    assert plans.intensities[0]["max"] == 1014


def test_another_resampling_is_refused_by_name(content) -> None:
    content["configurations"]["3d_fullres"]["resampling_fn_data"] = "resample_torch_fornnunet"
    with pytest.raises(
        ConfigError, match="resampling 'resample_torch_fornnunet' of data is not known"
    ):
        Plans.of(content, "here").configuration("3d_fullres")


def test_a_missing_field_is_told(content) -> None:
    del content["configurations"]["2d"]["patch_size"]
    with pytest.raises(ConfigError, match="'2d' of here lacks or misstates 'patch_size'"):
        Plans.of(content, "here").configuration("2d")


@pytest.mark.parametrize("forward", [None, [0, 1], [0, 1, 1], ["a", 1, 2], 3])
def test_axes_that_are_none_are_told(forward, content) -> None:
    with pytest.raises(ConfigError, match="here"):
        Plans.of({**content, "transpose_forward": forward}, "here")


def test_plans_are_written_and_read_as_they_are(content, tmp_path) -> None:
    file = Plans.of(content, "here").write(tmp_path / "nnUNetPlans.json")
    assert Plans.read(file).content == content


def test_files_that_are_no_plans_are_told(tmp_path) -> None:
    with pytest.raises(FileError):
        Plans.read(tmp_path / "none.json")
    (tmp_path / "one.json").write_text("{")
    with pytest.raises(CorruptFile, match="is not JSON"):
        Plans.read(tmp_path / "one.json")
    (tmp_path / "two.json").write_text(json.dumps({"plans_per_stage": {}}))
    with pytest.raises(ConfigError, match="is no plans file of nnU-Net 2: it lacks configurations"):
        Plans.read(tmp_path / "two.json")
    with pytest.raises(ConfigError, match="a plans file of nnU-Net 1, a pickle"):
        Plans.read(tmp_path / "nnUNetPlansv2.1_plans_3D.pkl")
