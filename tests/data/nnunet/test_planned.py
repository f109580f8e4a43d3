"""Planned folders: made once, gone on with after a stop, and clear about what cannot be used."""

from __future__ import annotations

import json

import numpy as np
import pytest
from data.nnunet.conftest import TOYS

from samaritan import Grid, LabelMap, Volume, write
from samaritan.data.nnunet import cases
from samaritan.data.nnunet.planned import PlannedSet, make, shared_patients
from samaritan.data.nnunet.preprocessing import preprocess
from samaritan.data.nnunet.rawset import RawSet
from samaritan.errors import ConfigError, FileError


def own(planned: PlannedSet):
    return planned.plans.configuration("3d_fullres")


def test_all_cases_are_made_once_and_opened_as_made(planned) -> None:
    assert planned.make_all(own(planned), workers=1) == 5
    assert planned.make_all(own(planned), workers=1) == 0
    assert planned.ids(own(planned)) == TOYS
    case = planned.raw.cases.cases[3]
    wanted = preprocess(planned.raw.read(case), planned.plans, own(planned), planned.labels)
    found = planned.case(own(planned), case.id)
    assert np.array_equal(found.image, wanted.image)
    assert np.array_equal(found.labels[0], wanted.labels)
    assert found.properties == wanted.properties
    assert all(np.array_equal(found.places[k], v) for k, v in wanted.places.items())


def test_a_case_is_made_when_it_is_first_asked_for(planned) -> None:
    folder = planned.cases_folder(own(planned))
    assert not folder.exists()
    planned.case(own(planned), TOYS[1])
    assert cases.stored_ids(folder) == (TOYS[1],)


def test_a_folder_is_opened_without_the_images_too(planned, toy_raw) -> None:
    planned.make_all(own(planned), workers=1)
    shape = planned.case(own(planned), TOYS[0]).shape
    toy_raw.rename(toy_raw.with_name("away"))
    found = PlannedSet.open(planned.folder)
    assert found.raw is None
    assert found.ids(own(found)) == TOYS
    assert found.case(own(found), TOYS[0]).shape == shape


def test_a_changed_image_is_preprocessed_again(planned, toy_raw) -> None:
    planned.make_all(own(planned), workers=1)
    file = toy_raw / f"imagesTr/{TOYS[2]}_0000.nii.gz"
    one = planned.raw.read(planned.raw.cases.cases[2])
    write(Volume(one.image[0].T.astype(np.float32) + 7, one.grid), file)
    assert planned.make_all(own(planned), workers=1) == 1


def test_bad_cases_are_told_together_and_the_others_are_done(planned, toy_raw) -> None:
    drawn = np.zeros((20, 24, 9), np.uint8)
    drawn[3, 4, 5] = 6
    grid = planned.raw.read(planned.raw.cases.cases[0]).grid
    write(LabelMap(drawn, grid), toy_raw / f"labelsTr/{TOYS[0]}.nii.gz")
    other = Grid.from_spacing((21, 24, 9), (1.0, 1.5, 6.0), orientation="LPS")
    write(LabelMap(np.zeros(other.shape, np.uint8), other), toy_raw / f"labelsTr/{TOYS[1]}.nii.gz")
    with pytest.raises(FileError, match="2 problems") as told:
        planned.make_all(own(planned), workers=1)
    assert f"case {TOYS[0]!r}: its label map has values [6] that dataset.json" in str(told.value)
    assert f"case {TOYS[1]!r}: grids of image and labels differ" in str(told.value)
    assert cases.stored_ids(planned.cases_folder(own(planned))) == TOYS[2:]


def test_a_full_disk_leaves_nothing_half_done_and_a_second_run_goes_on(
    planned, monkeypatch
) -> None:
    real, calls = np.save, []

    def full(file, array, **more) -> None:
        calls.append(array.shape)
        if len(calls) > 4:  # the first case has three arrays
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        real(file, array, **more)

    monkeypatch.setattr(cases.np, "save", full)
    with pytest.raises(
        FileError, match=r"No space left on device\. 1 of 5 cases are done: free some"
    ):
        planned.make_all(own(planned), workers=1)
    folder = planned.cases_folder(own(planned))
    assert all(p.name.startswith(TOYS[0]) for p in folder.iterdir())
    assert cases.stored_ids(folder) == (TOYS[0],)
    monkeypatch.undo()
    assert planned.make_all(own(planned), workers=1) == 4


def test_plans_and_folds_that_lie_there_are_kept(planned, toy_raw) -> None:
    file = planned.folder / "nnUNetPlans.json"
    content = json.loads(file.read_text())
    content["configurations"]["mine"] = {"inherits_from": "3d_fullres", "batch_size": 9}
    file.write_text(json.dumps(content))
    one_fold = [{"train": [TOYS[0]], "val": [TOYS[2]]}]
    (planned.folder / "splits_final.json").write_text(json.dumps(one_fold))
    again = make(RawSet.open(toy_raw), planned.folder)
    assert again.plans.configuration("mine").batch_size == 9
    assert len(again.folds) == 1


def test_plans_can_be_given(planned, toy_raw, tmp_path) -> None:
    given = tmp_path / "given.json"
    content = {**planned.plans.content, "plans_name": "mine"}
    given.write_text(json.dumps(content))
    made = make(RawSet.open(toy_raw), tmp_path / "second", plans=given)
    assert made.plans.name == "mine"
    assert not (made.folder / "dataset_fingerprint.json").exists()
    assert PlannedSet.open(made.folder, plans="mine").plans.content == content
    given.write_text(json.dumps({**content, "transpose_forward": [1, 0, 2]}))
    with pytest.raises(ConfigError, match="differs from the plans that were asked for"):
        make(RawSet.open(toy_raw), tmp_path / "second", plans=given)


def test_the_folder_of_another_set_is_refused(planned, toy_raw) -> None:
    content = json.loads((toy_raw / "dataset.json").read_text())
    content["labels"]["far"] = 1
    content["labels"]["near"] = 2
    (toy_raw / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=r"has other labels than"):
        make(RawSet.open(toy_raw), planned.folder)


def test_folds_are_by_case_as_theirs_or_by_patient(planned, toy_raw, tmp_path) -> None:
    raw = RawSet.open(toy_raw, patient=r"(pat\d+)_.*")
    assert shared_patients(raw, planned.folds) > 0
    apart = make(raw, tmp_path / "apart", by_patient=True)
    assert shared_patients(raw, apart.folds) == 0
    assert len(apart.folds) == 3
    with pytest.raises(ConfigError, match="has folds with a patient in both parts"):
        make(raw, planned.folder, by_patient=True)


def test_folds_beside_the_images_are_taken(toy_raw, tmp_path) -> None:
    text = json.dumps([{"train": list(TOYS[:4]), "val": [TOYS[4]]}])
    (toy_raw / "splits_final.json").write_text(text)
    made = make(RawSet.open(toy_raw), tmp_path / "planned")
    assert [f.val for f in made.folds] == [(TOYS[4],)]


def test_a_task_folder_of_version_1_is_planned_alike(toy_raw, planned, tmp_path) -> None:
    content = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "near", "2": "far"},
        "numTraining": 5,
        "training": [
            {"image": f"./imagesTr/{t}.nii.gz", "label": f"./labelsTr/{t}.nii.gz"} for t in TOYS
        ],
        "test": [],
    }
    (toy_raw / "dataset.json").write_text(json.dumps(content))
    made = make(RawSet.open(toy_raw), tmp_path / "old", spacing=(4.0, 1.2, 1.1))
    assert made.plans.content["configurations"] == planned.plans.content["configurations"]
    assert made.labels == planned.labels


def test_channels_that_do_not_match_are_told(toy_raw) -> None:
    content = json.loads((toy_raw / "dataset.json").read_text())
    content["channel_names"] = {"0": "T1", "1": "T2"}
    (toy_raw / "dataset.json").write_text(json.dumps(content))
    raw = RawSet.open(toy_raw)
    with pytest.raises(FileError, match=rf"case {TOYS[0]!r}"):
        raw.read(raw.cases.cases[0])


def test_a_folder_that_is_none_is_told(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"needs dataset\.json with labels"):
        RawSet.open(tmp_path)
    with pytest.raises(FileError, match="samaritan prepare plan"):
        PlannedSet.open(tmp_path)
